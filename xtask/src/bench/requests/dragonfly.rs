//! The guest that makes requests, on Dragonfly with the card awake.

use std::fs;

use anyhow::{Context, Result};

use super::{CASES, Costs, GUEST, Totals, costs, request_counts};
use crate::{
    bench::dragonfly::{bare_guest, run_guest},
    build::{
        Project,
        cargo::{self, Profile},
    },
    cli::Emulator,
    emulator::Machine,
    guest::bundle::Host,
    tools::Tools,
};

/// The card never sleeps.
const POLL_US: u32 = 1_000_000_000;
const DISK_BYTES: u64 = 8 << 20;

/// Measures in QEMU: one boot with some requests of each kind, then one for each kind with more of that.
///
/// # Errors
/// Fails when a build fails or a guest does not come to its end.
pub fn measure(tools: &Tools, project: &Project) -> Result<Costs> {
    let kernel = cargo::build_bin(project, tools.is_offline(), &GUEST, Profile::Release)?;
    let kernel = fs::read(&kernel).with_context(|| format!("cannot read {}", kernel.display()))?;
    eprintln!("Measuring requests on Dragonfly in QEMU");
    let base = boot(tools, project, &kernel, None)?;
    let more = CASES.map(|case| boot(tools, project, &kernel, Some(case.name)));
    let more = more.into_iter().collect::<Result<Vec<_>>>()?;
    costs(&base, &more)
}

/// Counts in a boot in which the kind `more`, if any, is made more often.
fn boot(tools: &Tools, project: &Project, kernel: &[u8], more: Option<&str>) -> Result<Totals> {
    let text = format!(
        "name = \"requests\"\nmemory = \"64MiB\"\nkernel = \"guest-requests\"\ncmdline = \"{}\"\n\
         [[disk]]\nname = \"disk\"\nsize = \"{}MiB\"\n[[net]]\nname = \"out\"\n[[net]]\nname = \"in\"\n",
        request_counts(more),
        DISK_BYTES >> 20,
    );
    let mut guest = bare_guest(text, "guest-requests", kernel)?;
    guest.devices.ram = DISK_BYTES;
    let machine = Machine { deterministic: true, guests: true, ..Machine::new(Emulator::Qemu, 2) };
    let host = Host { card_poll_us: POLL_US, ..2.into() };
    let (boot, printed) = run_guest(tools, project, &machine, guest, host)?;
    totals(&boot.log, &printed).with_context(|| format!("{}: {}\n{printed}", boot.end, boot.log.join("\n")))
}

/// The counters that the VMM tells at the guest's end, and what the guest printed.
fn totals(log: &[String], printed: &str) -> Result<Totals> {
    let line = log.iter().find_map(|line| Some(line.split_once("vCPU 0 exits: ")?.1));
    let words: Vec<_> = line.context("the VMM told no exits")?.split(' ').collect();
    let counter = |name| {
        let found = words.chunks(2).find(|pair| pair.first() == Some(&name)).and_then(|pair| pair.get(1));
        found.map_or(Ok(0), |count| count.parse::<u64>().with_context(|| format!("{name} {count} is no counter")))
    };
    Totals::new(printed.lines(), counter("all")?, Some(counter("to-vmm")?))
}

#[cfg(test)]
mod tests {
    use super::{super::Cost, *};

    #[test]
    fn counters_are_found_in_what_the_vmm_tells() {
        let log = ["x".to_string(), "[info] requests: vCPU 0 exits: all 70 port 3 wrmsr 9".to_string()];
        let printed = "[bench] block_1 900 1000\n[bench] end\n";
        let found = totals(&log, printed).unwrap();
        assert_eq!((found.exits, found.vmm_exits), (70, Some(0)));
        assert_eq!(found.costs["block_1"], Cost { instructions: 900, kicks: 1.0 });
        assert!(totals(&log[..1], printed).is_err() && totals(&log, "").is_err());
    }
}
