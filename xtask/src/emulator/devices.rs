//! What QEMU adds to the machine for the offload card: disks, and a way out of it.

use std::{ffi::OsString, fs, net::Ipv4Addr, os::unix::fs::FileTypeExt, path::PathBuf};

/// The devices of a machine beside the usual.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Devices {
    /// virtio-blk devices.
    pub disks: Vec<Drive>,
    /// A virtio-net device in QEMU's user-mode network, with these ports of this machine leading into it.
    pub uplink: Option<Vec<Forward>>,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drive {
    /// The file that is its contents, or the socket of an NBD server that has them.
    pub image: PathBuf,
    /// Its serial number.
    pub serial: String,
    /// Whether what is written goes to the file; else it goes with the machine.
    pub is_kept: bool,
}

/// A TCP port of this machine, for its own programs only, that leads to one in the machine's network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Port of this machine.
    pub host: u16,
    /// Address behind the uplink.
    pub address: Ipv4Addr,
    /// Port there.
    pub guest: u16,
}

impl Devices {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.disks.is_empty() && self.uplink.is_none()
    }

    /// QEMU's options for them.
    pub(super) fn arguments(&self) -> Vec<OsString> {
        let mut line: Vec<OsString> = Vec::new();
        for (number, Drive { image, serial, is_kept }) in self.disks.iter().enumerate() {
            let snapshot = if *is_kept { "off" } else { "on" };
            // QEMU parts options at commas, and takes two of them for one that is meant.
            let (file, serial) = (image.to_string_lossy().replace(',', ",,"), serial.replace(',', ",,"));
            let is_server = fs::metadata(image).is_ok_and(|metadata| metadata.file_type().is_socket());
            let protocol = if is_server { "nbd:unix:" } else { "" };
            line.extend([
                "-drive".into(),
                format!("if=none,id=disk{number},format=raw,snapshot={snapshot},file={protocol}{file}").into(),
            ]);
            let device = format!("virtio-blk-pci,drive=disk{number},serial={serial},disable-legacy=on");
            line.extend(["-device".into(), device.into()]);
        }
        if let Some(forwards) = &self.uplink {
            let mut network = String::from("user,id=uplink");
            for Forward { host, address, guest } in forwards {
                network.push_str(&format!(",hostfwd=tcp:127.0.0.1:{host}-{address}:{guest}"));
            }
            line.extend(["-netdev".into(), network.into()]);
            // Without firmware of its own: nothing boots from it.
            line.extend(["-device".into(), "virtio-net-pci,netdev=uplink,disable-legacy=on,romfile=".into()]);
        }
        if !self.is_empty() {
            // Nor from the disks, which are the guests'.
            line.extend(["-boot".into(), "order=d".into()]);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(devices: &Devices) -> String {
        devices.arguments().iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_machine_without_devices_is_as_it_was() {
        assert_eq!(words(&Devices::default()), "");
    }

    #[test]
    fn an_image_that_is_not_to_be_changed_is_not() {
        let drive = Drive { image: "/a,b.img".into(), serial: "g0d1".into(), is_kept: false };
        let line = words(&Devices { disks: vec![drive.clone()], uplink: None });
        assert!(line.contains("snapshot=on,file=/a,,b.img -device virtio-blk-pci,drive=disk0,serial=g0d1"), "{line}");
        let line = words(&Devices { disks: vec![Drive { is_kept: true, ..drive }], uplink: None });
        assert!(line.contains("snapshot=off"), "{line}");
    }

    #[test]
    fn a_socket_is_taken_for_an_nbd_server() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let drive = Drive { image: socket.clone(), serial: "g0d1".into(), is_kept: true };
        let line = words(&Devices { disks: vec![drive], uplink: None });
        assert!(line.contains(&format!("file=nbd:unix:{} ", socket.display())), "{line}");
    }

    #[test]
    fn forwarded_ports_are_this_machines_own() {
        let forward = Forward { host: 2200, address: Ipv4Addr::new(10, 0, 2, 15), guest: 22 };
        let line = words(&Devices { disks: Vec::new(), uplink: Some(vec![forward]) });
        assert!(line.contains("-netdev user,id=uplink,hostfwd=tcp:127.0.0.1:2200-10.0.2.15:22 "), "{line}");
    }
}
