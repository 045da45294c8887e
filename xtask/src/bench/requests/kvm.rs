//! The guest that makes requests, on KVM with vhost-net and QEMU's disk, in a Debian kernel on the same emulated machine.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};
use dragonfly_peer_image::{COMMAND_LINE, Figures, Qemu, QemuBuild, REQUESTS_MODULES, REQUESTS_OPTION, RequestsImage};

use super::{CASES, Costs, GUEST, Totals, costs, request_counts};
use crate::{
    bench::{Silent, dragonfly::LIMITS, kvm::VMM},
    build::{
        Project,
        cargo::{self, Profile},
        iso,
    },
    cli::Emulator,
    emulator::{self, Machine},
    tools::{Tools, rust},
};

/// Measures in QEMU: one boot of Linux, in which the guest is run as often as on Dragonfly.
///
/// # Errors
/// Fails when something cannot be had or built, or a guest does not come to its end.
pub fn measure(tools: &Tools, project: &Project) -> Result<Costs> {
    rust::ensure_target(rust::STATIC_TARGET, tools.is_offline())?;
    let read = |path: &Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let linux = tools.vhost_kernel()?;
    let modules = REQUESTS_MODULES
        .iter()
        .map(|name| read(linux.module(name).with_context(|| format!("Linux {} has no {name}", linux.release))?));
    let modules = modules.collect::<Result<Vec<_>>>()?;
    let vmm = cargo::build_bin_for(project, tools.is_offline(), &VMM, Profile::Release, rust::STATIC_TARGET)?;
    let guest = cargo::build_bin(project, tools.is_offline(), &GUEST, Profile::Release)?;
    let (busybox, vmm, guest) = (read(&tools.busybox()?.program)?, read(&vmm)?, read(&guest)?);
    let qemu = Qemu::read(&tools.qemu_packages()?, QemuBuild::Whole)?;
    let runs: Vec<_> = [None].into_iter().chain(CASES.map(|case| Some(case.name))).map(request_counts).collect();
    let parts =
        RequestsImage { busybox: &busybox, modules: &modules, vmm: &vmm, guest: &guest, qemu: &qemu, runs: &runs };
    eprintln!("Measuring requests on KVM in QEMU");
    let options = format!("{COMMAND_LINE} {REQUESTS_OPTION}");
    let image = iso::make_linux(project, &tools.iso()?, read(&linux.image)?, parts.archive()?, &options)?;
    let machine = Machine { deterministic: true, kvm: true, ..Machine::new(Emulator::Qemu, 2) };
    let boot = emulator::boot(tools, &machine, &image, LIMITS, &mut Silent)?;
    read_runs(&boot.log, runs.len()).with_context(|| format!("{}: {}", boot.end, boot.log.join("\n")))
}

/// Costs from what all runs printed, one after the other.
fn read_runs(log: &[String], runs: usize) -> Result<Costs> {
    let totals = log.split_inclusive(|line| line.contains("[bench] end")).filter_map(|lines| {
        let lines = lines.iter().map(String::as_str);
        let exits = Figures::read(lines.clone()).get("exits")?.minimum;
        Some(Totals::new(lines, exits, None))
    });
    let totals = totals.collect::<Result<Vec<_>>>()?;
    ensure!(totals.len() == runs, "{} of {runs} runs came to their end", totals.len());
    let [base, more @ ..] = &totals[..] else { return Ok(Costs::new()) };
    costs(base, more)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_follow_each_other_in_the_log() {
        let mut log = vec!["Linux".to_string()];
        for exits in (0..).step_by(32_000).take(1 + CASES.len()) {
            log.extend(CASES.iter().map(|case| format!("[bench] {} 9000 1000", case.name)));
            log.extend([format!("[bench] exits {exits} 0"), "[bench] end".into()]);
        }
        let costs = read_runs(&log, 1 + CASES.len()).unwrap();
        assert_eq!((costs["block_32"].exits, costs["block_32"].kicks, costs["packet_32"].exits), (2.0, 1.0, 5.0));
        assert!(read_runs(&log[..log.len() - 1], 1 + CASES.len()).is_err());
    }
}
