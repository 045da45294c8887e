//! `initramfs BUSYBOX MODULES_FOLDER KVM_PEER GUEST OUTPUT`: writes the file system, for experiments by hand.

use std::{env, fs, io, path::Path};

use dragonfly_peer_image::{Initramfs, MODULES};

fn main() -> io::Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    let [busybox, modules, vmm, guest, output] = &arguments[..] else {
        return Err(io::Error::other("usage: initramfs BUSYBOX MODULES_FOLDER KVM_PEER GUEST OUTPUT"));
    };
    let [busybox, vmm, guest] = [fs::read(busybox)?, fs::read(vmm)?, fs::read(guest)?];
    let mut read = Vec::new();
    for module in MODULES {
        read.push(fs::read(Path::new(modules).join(module))?);
    }
    let modules = std::array::from_fn(|index| read.get(index).map_or(&[][..], Vec::as_slice));
    let parts = Initramfs { busybox: &busybox, modules, vmm: &vmm, guest: &guest };
    fs::write(output, parts.archive()?)
}
