//! How many instructions pass from the start of a VMM to the first program of its Linux guest.

use std::fs;

use anyhow::{Context, Result};
use dragonfly_machine_file::MachineFile;

use super::{Silent, dragonfly::LIMITS};
use crate::{
    build::{Project, cargo::Profile, iso},
    cli::Emulator,
    emulator::{self, Machine},
    guest::{description::Guest, initramfs},
    run::host_memory,
    tools::{Tools, guests::GuestLinux},
};

/// The guest's command line, the same on Dragonfly and KVM.
pub const COMMAND_LINE: &str = "console=ttyS0 quiet nokaslr df.run=start";
/// What the guest's first program prints.
pub const MARKER: &str = "[bench] init";
/// The guest's memory in MiB.
pub const MEMORY_MIB: u32 = 256;
/// The guest's name.
const NAME: &str = "linux";

/// The bytes of the guest's kernel and initial RAM disk.
#[derive(Debug)]
pub struct Linux {
    /// Debian 12's bzImage for virtual machines.
    pub kernel: Vec<u8>,
    /// Our initial RAM disk.
    pub initrd: Vec<u8>,
}

impl Linux {
    /// Reads or fetches both.
    ///
    /// # Errors
    /// Fails when one cannot be had.
    pub fn read(tools: &Tools, project: &Project) -> Result<Self> {
        let kernel = tools.guest_kernel(GuestLinux::Debian12Cloud)?.image;
        let kernel = fs::read(&kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
        Ok(Self { kernel, initrd: initramfs::build(&tools.busybox()?, &project.root)? })
    }
}

/// Measures on Dragonfly in `emulator`, with one CPU and one vCPU.
///
/// # Errors
/// Fails when a build fails or the guest does not come as far as that.
pub fn measure(tools: &Tools, project: &Project, emulator: Emulator) -> Result<u64> {
    eprintln!("Starting Linux on Dragonfly in {}", emulator.word());
    let Linux { kernel, initrd } = Linux::read(tools, project)?;
    let text = format!(
        "name = \"{NAME}\"\nmemory = \"{MEMORY_MIB}MiB\"\nkernel = \"kernel\"\ninitrd = \"initrd\"\n\
         cmdline = \"{COMMAND_LINE}\"\non_reboot = \"power-off\"\n"
    );
    let machine = MachineFile::parse("start.toml", &text)?;
    let files = vec![("kernel".into(), kernel), ("initrd".into(), initrd)];
    let guests = [Guest { machine, text, files, source: None, devices: Default::default() }];
    let parts = project.build_for_guests(tools, &guests, 1, Profile::Release)?;
    let image = iso::make(project, &tools.iso()?, &parts, &format!("log=info exit={}", emulator.word()))?;
    let memory = host_memory(&guests, parts.bundle.len());
    let machine = Machine { deterministic: true, guests: true, memory, ..Machine::new(emulator, 1) };
    let boot = emulator::boot(tools, &machine, &image, LIMITS, &mut Silent)?;
    instructions(&boot.log).with_context(|| format!("{}: {}", boot.end, boot.log.join("\n")))
}

/// What passed between the two lines of the hypervisor's log. In an emulator that counts instructions each is a nanosecond.
fn instructions(log: &[String]) -> Option<u64> {
    let started = time_ns(log.iter().find(|line| line.contains(&format!("supervisor: started {NAME}")))?)?;
    let said = time_ns(log.iter().find(|line| line.contains(&format!("{NAME} has reset its machine")))?)?;
    said.checked_sub(started)
}

/// The time of a line `[SECONDS.MICROSECONDS] …`.
fn time_ns(line: &str) -> Option<u64> {
    let (time, _) = line.strip_prefix('[')?.split_once(']')?;
    let (seconds, fraction) = time.trim().split_once('.')?;
    let microseconds: u64 = fraction.parse().ok().filter(|_| fraction.len() == 6)?;
    Some((seconds.parse::<u64>().ok()? * 1_000_000 + microseconds) * 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_tells_the_time_between_two_of_its_lines() {
        let log = [
            "[    0.412333] info  supervisor: started console",
            "[    0.500000] info  supervisor: started linux",
            "[    0.850110] info  linux: linux runs: 1 vCPUs, 256 MiB",
            "[   12.000001] info  linux: linux has reset its machine",
        ];
        let log = log.map(String::from);
        assert_eq!(instructions(&log), Some(11_500_001_000));
        assert_eq!(instructions(&log[..3]), None);
    }

    #[test]
    fn only_a_time_in_microseconds_is_a_time() {
        assert_eq!(time_ns("[    1.000002] info"), Some(1_000_002_000));
        for line in ["", "info", "[x]", "[1.5] x", "[ 1,000000] x"] {
            assert_eq!(time_ns(line), None, "{line}");
        }
    }
}
