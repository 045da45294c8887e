//! A card that serves within the test's process.

use std::{path::PathBuf, time::Duration};

use offload_card::{card::Card, machine::Machine, worker::StopSignal};

/// A card in a folder of its own.
pub struct Setup {
    pub folder: tempfile::TempDir,
    card: Card,
    pub stop: StopSignal,
}

impl Setup {
    /// With one disk of 4 MiB.
    pub fn new(more_keys: &str) -> Self {
        let disk = "[[disk]]\nname = 'disk'\nsocket = 'disk.sock'\nimage = 'disk.img'\nqueues = 2";
        Self::of(&format!("{disk}\n{more_keys}"))
    }

    /// With what this machine file describes.
    pub fn of(text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::File::create(folder.path().join("disk.img")).unwrap().set_len(4 << 20).unwrap();
        let stop = StopSignal::new().unwrap();
        let machine = Machine::parse(&folder.path().join("card.toml"), text).unwrap();
        let card = Card::start(&machine, Duration::ZERO, stop.clone()).unwrap();
        Self { folder, card, stop }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn socket(&self) -> PathBuf {
        self.path("disk.sock")
    }

    /// Ends the card, and gives the image's bytes.
    pub fn end(self) -> Vec<u8> {
        let socket = self.socket();
        self.stop.stop();
        self.card.wait().unwrap();
        assert!(!socket.exists(), "the socket is left behind");
        std::fs::read(self.folder.path().join("disk.img")).unwrap()
    }
}
