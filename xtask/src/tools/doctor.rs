//! `cargo xtask doctor`: what is there, in which version, and what is missing.

use std::path::Path;

use anyhow::Result;
use clap::ValueEnum;

use super::{
    Program, Tools, apt,
    guests::GuestLinux,
    on_path,
    rust::{self, BARE_TARGET},
    sets,
};

/// One line of the report.
struct Finding {
    what: &'static str,
    found: Result<String, String>,
    needed: bool,
}

/// Prints what was found; true if nothing that is needed is missing.
///
/// # Errors
/// Fails when `rustc` does not start.
pub fn report(tools: &Tools) -> Result<bool> {
    let findings = findings(tools)?;
    for finding in &findings {
        let (mark, text) = match &finding.found {
            Ok(text) => ("ok", text),
            Err(text) if finding.needed => ("MISSING", text),
            Err(text) => ("-", text),
        };
        println!("{mark:<8} {:<26} {text}", finding.what);
    }
    println!("\ncache    {}", tools.cache().root().display());
    let complete = findings.iter().all(|finding| finding.found.is_ok() || !finding.needed);
    if !complete {
        println!("\nSomething is missing: `cargo xtask setup` fetches what it can.");
    }
    Ok(complete)
}

fn findings(tools: &Tools) -> Result<Vec<Finding>> {
    let needed = |what, found| Finding { what, found, needed: true };
    let optional = |what, found| Finding { what, found, needed: false };
    let show = |program: &Program| format!("{} ({}: {})", program.version, program.origin, program.path.display());
    let missing = |set: &sets::PackageSet| format!("`cargo xtask setup` fetches it; or {}", set.elsewhere);

    let qemu = tools.find_qemu();
    let bochs = tools.find_bochs();
    let iso = tools.find_iso();
    let from_qemu = |text: Option<String>| text.ok_or_else(|| missing(&sets::QEMU));
    let from_iso = |text: Option<String>| text.ok_or_else(|| missing(&sets::ISO));
    let miri =
        if rust::has_miri() { rust::version_line("rustup", &["run", "nightly", "rustc", "--version"]) } else { None };
    let mut findings = vec![
        needed(
            "rustc",
            rust::version_line("rustc", &["--version"]).ok_or_else(|| "install rustup from rustup.rs".into()),
        ),
        needed(
            "target",
            if rust::has_bare_target()? {
                Ok(BARE_TARGET.into())
            } else {
                Err(format!("`rustup target add {BARE_TARGET}`"))
            },
        ),
        needed(
            "rustfmt",
            rust::version_line("cargo", &["fmt", "--version"]).ok_or_else(|| "`rustup component add rustfmt`".into()),
        ),
        needed(
            "clippy",
            rust::version_line("cargo", &["clippy", "--version"]).ok_or_else(|| "`rustup component add clippy`".into()),
        ),
        needed("miri", miri.ok_or_else(|| "`cargo xtask setup` adds it to the nightly toolchain".into())),
        optional(
            "cargo-nextest",
            rust::version_line("cargo-nextest", &["--version"]).ok_or_else(|| "absent; `cargo test` is used".into()),
        ),
        optional(
            "apt",
            if apt::is_available() {
                Ok(rust::version_line("apt-get", &["--version"]).unwrap_or_default())
            } else {
                Err("absent; private tools cannot be fetched".into())
            },
        ),
        needed("qemu-system-x86_64", from_qemu(qemu.as_ref().map(|qemu| show(&qemu.program)))),
        needed("OVMF", from_qemu(qemu.as_ref().map(|qemu| qemu.ovmf_code.display().to_string()))),
        needed("bochs", bochs.as_ref().map(|bochs| show(&bochs.program)).ok_or_else(|| missing(&sets::BOCHS))),
        needed("grub-mkimage", from_iso(iso.as_ref().map(|iso| show(&iso.mkimage)))),
        needed("xorriso", from_iso(iso.as_ref().map(|iso| show(&iso.xorriso)))),
        optional(
            "gdb",
            on_path("gdb")
                .map(|path| path.display().to_string())
                .ok_or_else(|| "absent; only `run --gdb` wants it".into()),
        ),
        optional(
            "KVM",
            if Path::new("/dev/kvm").exists() {
                Ok("/dev/kvm".into())
            } else {
                Err("absent; QEMU emulates the CPU".into())
            },
        ),
        optional(
            "guests: busybox",
            tools.find_busybox().map(|busybox| busybox.version).ok_or_else(|| "fetched when first needed".into()),
        ),
        optional(
            "guests: Debian's programs",
            tools
                .find_debian_system()
                .map(|system| system.root.display().to_string())
                .ok_or_else(|| "fetched when first needed".into()),
        ),
    ];
    findings.extend(GuestLinux::value_variants().iter().map(|linux| {
        let kernel = tools.find_guest_kernel(*linux);
        let text = kernel.map(|kernel| format!("{} ({})", kernel.release, kernel.version));
        optional(linux.about(), text.ok_or_else(|| "fetched when first needed".into()))
    }));
    Ok(findings)
}
