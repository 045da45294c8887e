//! `initramfs OUTPUT BUSYBOX MODULES_FOLDER KVM_PEER GUEST [QEMU_ROOT KERNEL INITRD]`: writes the file system, for
//! experiments by hand. The guest's first process is to print `[bench] init`.

use std::{env, fs, io, path::Path};

use dragonfly_peer_image::{Initramfs, LinuxGuest, MODULES, Qemu, QemuBuild};

fn main() -> io::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [output, busybox, modules, vmm, guest, linux @ ..] = &arguments[..] else {
        return Err(io::Error::other("OUTPUT BUSYBOX MODULES_FOLDER KVM_PEER GUEST [QEMU_ROOT KERNEL INITRD]"));
    };
    let [busybox, vmm, guest] = [fs::read(busybox)?, fs::read(vmm)?, fs::read(guest)?];
    let mut read = Vec::new();
    for module in MODULES {
        read.push(fs::read(Path::new(modules).join(module))?);
    }
    let modules = std::array::from_fn(|index| read.get(index).map_or(&[][..], Vec::as_slice));
    let mut parts = Initramfs { busybox: &busybox, modules, vmm: &vmm, guest: &guest, linux: None };
    let [qemu, kernel, initrd] = linux else { return fs::write(output, parts.archive()?) };
    let (qemu, kernel, initrd) =
        (Qemu::read(Path::new(qemu), QemuBuild::Microvm)?, fs::read(kernel)?, fs::read(initrd)?);
    parts.linux = Some(LinuxGuest {
        qemu: &qemu,
        kernel: &kernel,
        initrd: &initrd,
        command_line: "console=ttyS0 quiet nokaslr",
        marker: "[bench] init",
        vcpus: 1,
        memory_mib: 256,
    });
    fs::write(output, parts.archive()?)
}
