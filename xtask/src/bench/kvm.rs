//! The measuring guest on KVM, in a Debian kernel on the same emulated machine.

use std::fs;

use anyhow::{Context, Result};
use dragonfly_peer_image::{COMMAND_LINE, Initramfs, LinuxGuest, MODULES, Qemu, QemuBuild};

use super::{
    Silent,
    dragonfly::{GUEST, LIMITS, Minima, minima},
    start::{self, Linux},
};
use crate::{
    build::{
        Project,
        cargo::{self, Profile, Program},
        iso,
    },
    cli::Emulator,
    emulator::{self, Machine},
    tools::{Tools, guests::GuestLinux, rust},
};

/// The smallest machine on KVM.
pub const VMM: Program<'_> = Program { package: "dragonfly-peer-kvm", bin: "kvm-peer", features: &[] };

/// Measures in `emulator`.
///
/// # Errors
/// Fails when something cannot be had or built, or the guest does not come to its end.
pub fn measure(tools: &Tools, project: &Project, emulator: Emulator) -> Result<Minima> {
    rust::ensure_bare_target(tools.is_offline())?;
    rust::ensure_target(rust::STATIC_TARGET, tools.is_offline())?;
    let read = |path: &std::path::Path| fs::read(path).with_context(|| format!("cannot read {}", path.display()));
    let linux = tools.guest_kernel(GuestLinux::Debian12Cloud)?;
    let mut modules = Vec::new();
    for name in MODULES {
        let path = linux.module(name.trim_end_matches(".ko"));
        modules.push(read(path.with_context(|| format!("Linux {} has no {name}", linux.release))?)?);
    }
    let modules = std::array::from_fn(|index| modules.get(index).map_or(&[][..], Vec::as_slice));
    let vmm = cargo::build_bin_for(project, tools.is_offline(), &VMM, Profile::Release, rust::STATIC_TARGET)?;
    let guest = cargo::build_bin(project, tools.is_offline(), &GUEST, Profile::Release)?;
    let (busybox, vmm, guest) = (read(&tools.busybox()?.program)?, read(&vmm)?, read(&guest)?);
    let qemu = Qemu::read(&tools.qemu_packages()?, QemuBuild::Microvm)?;
    let Linux { kernel, initrd } = Linux::read(tools, project)?;
    let to_start = LinuxGuest {
        qemu: &qemu,
        kernel: &kernel,
        initrd: &initrd,
        command_line: start::COMMAND_LINE,
        marker: start::MARKER,
        vcpus: 1,
        memory_mib: start::MEMORY_MIB,
    };
    let with_linux = Initramfs { busybox: &busybox, modules, vmm: &vmm, guest: &guest, linux: Some(to_start) };
    let mut figures = boot(tools, project, emulator, 1, &kernel, &with_linux.archive()?)?;
    if emulator == Emulator::Qemu {
        let alone = Initramfs { linux: None, ..with_linux };
        for (name, value) in boot(tools, project, emulator, 2, &kernel, &alone.archive()?)? {
            figures.entry(name).or_insert(value);
        }
    }
    Ok(figures)
}

fn boot(
    tools: &Tools,
    project: &Project,
    emulator: Emulator,
    cpus: u32,
    kernel: &[u8],
    initramfs: &[u8],
) -> Result<Minima> {
    eprintln!("Measuring on KVM in {} with {cpus} CPU(s)", emulator.word());
    let image = iso::make_linux(project, &tools.iso()?, kernel.to_vec(), initramfs.to_vec(), COMMAND_LINE)?;
    let machine = Machine { deterministic: true, kvm: true, ..Machine::new(emulator, cpus) };
    let boot = emulator::boot(tools, &machine, &image, LIMITS, &mut Silent)?;
    minima(boot.log.iter().map(String::as_str)).with_context(|| format!("{}: {}", boot.end, boot.log.join("\n")))
}
