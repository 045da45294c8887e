//! The measuring guest on Dragonfly.

use std::{collections::BTreeMap, fs, time::Duration};

use anyhow::{Context, Result, ensure};
use dragonfly_machine_file::MachineFile;
use dragonfly_peer_image::Figures;

use super::{ipc, start};
use crate::{
    build::{
        Project,
        cargo::{self, Profile, Program},
        iso,
    },
    cli::Emulator,
    emulator::{self, Boot, Limits, Machine, Watcher},
    guest::{
        bundle::Host,
        description::Guest,
        stream::{Decoder, Output},
    },
    tools::Tools,
};

/// The guest that measures.
pub const GUEST: Program<'_> = Program { package: "dragonfly-guest-bench", bin: "guest-bench", features: &[] };
/// The bundle with the domain that makes virtual machines.
const VM_BUNDLE: &str = "bench-vm";
/// When a machine that measures is given up.
pub const LIMITS: Limits = Limits { total: Some(Duration::from_secs(900)), silence: None };

/// Figures by name, the least of many measurements each.
pub type Minima = BTreeMap<String, u64>;

/// Measures in `emulator`.
///
/// # Errors
/// Fails when a build fails or the guest does not come to its end.
pub fn measure(tools: &Tools, project: &Project, emulator: Emulator) -> Result<Minima> {
    let kernel = cargo::build_bin(project, tools.is_offline(), &GUEST, Profile::Release)?;
    let kernel = fs::read(&kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    let mut figures = boot(tools, project, emulator, 1, &kernel)?;
    if emulator == Emulator::Qemu {
        // Only what needs a second CPU; in Bochs that would count the instructions of both.
        for (name, value) in boot(tools, project, emulator, 2, &kernel)? {
            figures.entry(name).or_insert(value);
        }
    }
    figures.extend(life(tools, project, emulator)?);
    figures.insert("guest_start".into(), start::measure(tools, project, emulator)?);
    Ok(figures)
}

/// What it takes to make a virtual machine and to take it away.
fn life(tools: &Tools, project: &Project, emulator: Emulator) -> Result<Minima> {
    let parts = project.build(tools, VM_BUNDLE, Profile::Release)?;
    let figures = ipc::measure(project, tools, &parts, emulator, 1)?;
    Ok(figures.into_iter().filter_map(|(name, value)| Some((name, value.as_u64()?))).collect())
}

fn boot(tools: &Tools, project: &Project, emulator: Emulator, cpus: u32, kernel: &[u8]) -> Result<Minima> {
    eprintln!("Measuring on Dragonfly in {} with {cpus} CPU(s)", emulator.word());
    let text = format!("name = \"bench\"\nvcpus = {cpus}\nmemory = \"64MiB\"\nkernel = \"guest-bench\"\n");
    let guest = bare_guest(text, "guest-bench", kernel)?;
    let machine = Machine { deterministic: true, guests: true, ..Machine::new(emulator, cpus) };
    let (boot, printed) = run_guest(tools, project, &machine, guest, 1.into())?;
    minima(printed.lines()).with_context(|| format!("{}: {}\n{printed}", boot.end, boot.log.join("\n")))
}

/// A guest without an operating system, whose machine file calls the program `name`.
///
/// # Errors
/// Fails when the machine file is wrong.
pub fn bare_guest(text: String, name: &str, kernel: &[u8]) -> Result<Guest> {
    let machine = MachineFile::parse("bench.toml", &text)?;
    let files = vec![(name.to_string(), kernel.to_vec())];
    Ok(Guest { machine, text, files, source: None, devices: Default::default() })
}

/// Boots a guest; gives what the machine said, and what the guest printed.
///
/// # Errors
/// Fails when a build fails or the emulator does not start.
pub fn run_guest(
    tools: &Tools,
    project: &Project,
    machine: &Machine,
    guest: Guest,
    host: Host,
) -> Result<(Boot, String)> {
    let parts = project.build_for_guests(tools, &[guest], host, Profile::Release)?;
    let options = format!("log=info exit={}", machine.emulator.word());
    let image = iso::make(project, &tools.iso()?, &parts, &options)?;
    let mut console = Console::default();
    let boot = emulator::boot(tools, machine, &image, LIMITS, &mut console)?;
    Ok((boot, String::from_utf8_lossy(&console.printed).into_owned()))
}

/// The least measurements in what a guest printed.
///
/// # Errors
/// Fails when it did not come to its end.
pub fn minima<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<Minima> {
    let figures = Figures::read(lines);
    ensure!(figures.is_complete(), "the measuring guest did not come to its end");
    Ok(figures.iter().map(|(name, figure)| (name.to_string(), figure.minimum)).collect())
}

/// What the guest prints.
#[derive(Debug, Default)]
struct Console {
    decoder: Decoder,
    printed: Vec<u8>,
}

impl Watcher for Console {
    fn guests(&mut self, bytes: &[u8]) {
        for output in self.decoder.push(bytes) {
            if let Output::Bytes { bytes, .. } = output {
                self.printed.extend(bytes);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_measurements_count_once_the_guest_has_ended() {
        let lines = ["[bench] cpuid 250 260", "[bench] end"];
        assert_eq!(minima(lines).unwrap(), Minima::from([("cpuid".into(), 250)]));
        assert!(minima(["[bench] cpuid 250 260"]).is_err());
    }
}
