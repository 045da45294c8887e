//! QEMU's machine protocol, for the one question that a hung machine raises: what are its CPUs doing?

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    path::Path,
    thread,
    time::Duration,
};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// What the CPUs of a machine were doing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuStates {
    /// Their instruction pointers, in the order of the CPUs.
    pub instruction_pointers: Vec<u64>,
    /// The same [`LATER`]: one that works is elsewhere then.
    pub later: Vec<u64>,
    /// All that QEMU tells of them: registers and local APICs.
    pub text: String,
}

/// When it is looked again what CPUs do.
pub const LATER: Duration = Duration::from_secs(1);

/// Asks QEMU behind the socket what so many CPUs are doing.
///
/// # Errors
/// Fails when QEMU does not answer in a few seconds.
pub fn cpu_states(socket: &Path, cpus: u32) -> Result<CpuStates> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let stream = UnixStream::connect(socket).context("cannot reach QEMU")?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut ask = |command: Value| -> Result<Value> {
        (&stream).write_all(format!("{command}\n").as_bytes())?;
        for line in &mut lines {
            // Greetings and events come in between; only an answer has a result.
            if let Some(result) = serde_json::from_str::<Value>(&line?)?.get("return") {
                return Ok(result.clone());
            }
        }
        anyhow::bail!("QEMU closed the connection")
    };
    ask(json!({ "execute": "qmp_capabilities" }))?;
    let mut monitor = |line: &str| -> Result<String> {
        let arguments = json!({ "command-line": line });
        let shown = ask(json!({ "execute": "human-monitor-command", "arguments": arguments }))?;
        Ok(shown.as_str().unwrap_or_default().replace('\r', ""))
    };
    let mut text = monitor("info registers -a")?;
    let instruction_pointers = parse(&text);
    for cpu in 0..cpus {
        text.push_str(&monitor(&format!("info lapic {cpu}"))?);
    }
    thread::sleep(LATER);
    let later = parse(&monitor("info registers -a")?);
    Ok(CpuStates { instruction_pointers, later, text })
}

fn parse(registers: &str) -> Vec<u64> {
    // Outside of 64-bit mode it is EIP that is shown.
    let pointer = |cpu: &str| {
        let (_, value) = cpu.split_once("RIP=").or_else(|| cpu.split_once("EIP="))?;
        u64::from_str_radix(value.split_whitespace().next()?, 16).ok()
    };
    registers.split("CPU#").skip(1).filter_map(pointer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cpus_instruction_pointer_is_found() {
        let text = "\r\nCPU#0\r\nRAX=0 RBX=1\r\nRIP=ffffffff80001234 RFL=00000246 [---Z-P-] CPL=0\r\n\
                    CPU#1\r\nRAX=0\r\nEIP=000fd0a9 EFL=00000002\r\nCPU#2\r\nRIP=0000000000401000 RFL=00000202\r\n";
        assert_eq!(parse(text), [0xffff_ffff_8000_1234, 0xf_d0a9, 0x40_1000]);
    }

    #[test]
    fn a_machine_of_another_kind_has_none() {
        assert!(parse("PC=0000fff0 PSTATE=00000002").is_empty());
    }
}
