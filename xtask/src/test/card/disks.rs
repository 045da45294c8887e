//! A guest reads and writes a disk of the card, or of a server that the card is a client of.

use super::{Guest, SERVER_SOCKET};

const CHECKS: [&str; 5] = [
    "the disk is found",
    "it is as described",
    "what is written is read",
    "each round is whole",
    "what is discarded is gone",
];
/// A disk of 131,072 sectors, but for where it is.
const MACHINE_FILE: &str = "[[disk]]\nname = \"disk\"\nsocket = \"disk.sock\"\nserial = \"card-test\"\nqueues = 2\n";

struct Case {
    name: &'static str,
    /// Options of QEMU's device.
    device: &'static str,
    /// Whether the disk is at a server and not in a file of the card's.
    is_remote: bool,
    deaths: usize,
}

const CASES: [Case; 4] = [
    Case { name: "split rings", device: "num-queues=2", is_remote: false, deaths: 0 },
    Case { name: "packed rings", device: "num-queues=2,packed=on", is_remote: false, deaths: 0 },
    Case { name: "a card that dies", device: "num-queues=2", is_remote: false, deaths: 5 },
    Case { name: "a server that dies", device: "num-queues=2,packed=on", is_remote: true, deaths: 5 },
];

/// The guests of the stage.
pub fn guests() -> Vec<Guest> {
    CASES.iter().map(Case::guest).collect()
}

impl Case {
    fn guest(&self) -> Guest {
        let medium = if self.is_remote {
            format!("nbd = \"nbd+unix:///?socket={SERVER_SOCKET}\"\n")
        } else {
            "image = \"disk.img\"\n".into()
        };
        Guest {
            name: self.name,
            checks: &CHECKS,
            machine_file: format!("{MACHINE_FILE}{medium}"),
            options: vec![
                "-chardev".into(),
                "socket,id=disk,path=disk.sock,reconnect-ms=100".into(),
                "-device".into(),
                format!("vhost-user-blk-pci,chardev=disk,{}", self.device),
            ],
            cpus: 2,
            words: "df.run=card".into(),
            has_server: self.is_remote,
            deaths: self.deaths,
        }
    }
}
