//! The root file system of the machine that measures requests to vhost-net and QEMU's disk.

use std::io;

use cpio::newc;

use crate::{
    Qemu,
    initramfs::{add_file, add_folder, add_program, base},
};

/// Added to [`crate::COMMAND_LINE`]: nobody speaks on the network unasked.
pub const REQUESTS_OPTION: &str = "ipv6.disable=1";

/// Kernel modules that are loaded, each after those that it needs, as their files are called without `.ko`.
pub const REQUESTS_MODULES: [&str; 11] =
    ["irqbypass", "kvm", "kvm-amd", "tun", "tap", "llc", "stp", "bridge", "vhost_iotlb", "vhost", "vhost_net"];

/// The first process: runs the guest once for each command line, and counts exits.
const INIT: &str = include_str!("requests.sh");
/// What QEMU starts to connect an interface.
const CONNECT: &str =
    "#!/bin/busybox sh\n/bin/busybox brctl addif bridge0 \"$1\"\n/bin/busybox ip link set \"$1\" up\n";

/// The bytes that go into the file system.
#[derive(Clone, Copy, Debug)]
pub struct RequestsImage<'a> {
    /// busybox, linked statically.
    pub busybox: &'a [u8],
    /// The files of [`REQUESTS_MODULES`], in that order, not compressed.
    pub modules: &'a [Vec<u8>],
    /// `kvm-peer`, linked statically.
    pub vmm: &'a [u8],
    /// `guest-requests`.
    pub guest: &'a [u8],
    /// What runs it.
    pub qemu: &'a Qemu,
    /// Command lines of the guest, each for a run.
    pub runs: &'a [String],
}

impl RequestsImage<'_> {
    /// The file system as a cpio archive.
    ///
    /// # Errors
    /// Fails when a file has 4 GiB or more.
    pub fn archive(&self) -> io::Result<Vec<u8>> {
        let mut archive = base(INIT, self.busybox, self.vmm)?;
        for folder in ["debug", "qemu", "sys"] {
            archive = add_folder(archive, folder)?;
        }
        archive = add_program(archive, "connect", CONNECT.as_bytes())?;
        for (name, contents) in REQUESTS_MODULES.into_iter().zip(self.modules) {
            archive = add_file(archive, &format!("modules/{name}.ko"), contents)?;
        }
        let order = REQUESTS_MODULES.map(|name| format!("{name}.ko\n")).concat();
        archive = add_file(archive, "modules/order", order.as_bytes())?;
        archive = add_file(archive, "guest", self.guest)?;
        archive = add_file(archive, "runs", (self.runs.join("\n") + "\n").as_bytes())?;
        for (name, contents) in self.qemu.files() {
            archive = add_program(archive, &format!("qemu/{name}"), contents)?;
        }
        newc::trailer(archive)
    }
}
