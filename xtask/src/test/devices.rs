//! Disks for the tests of the card's drivers, and what must be on them afterwards.

use std::{fs, ops::Range};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::report::Outcome;
use crate::emulator::devices::{Devices, Drive};

const SECTOR: usize = 512;
const SECTORS_OF_MIB: usize = (1 << 20) / SECTOR;
/// Sizes of the disks that the domain writes to and that it reads.
const WRITTEN_MIB: usize = 8;
const READ_MIB: usize = 1;
/// What `tests/domains/src/bin/device-tests.rs` writes, and then makes zero.
const WRITTEN: [Range<usize>; 7] = [
    0..1,
    9..137,
    200..329,
    1000..5000,
    5500..5501,
    6000..8000,
    WRITTEN_MIB * SECTORS_OF_MIB - 1..WRITTEN_MIB * SECTORS_OF_MIB,
];
const ZEROED: [Range<usize>; 2] = [6100..6600, 6700..6764];
/// What it discards: what is there then is not said.
const DISCARDED: Range<usize> = 7900..8000;

/// The disks' images; they go with this.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// Makes a disk of zeros and one with contents.
    ///
    /// # Errors
    /// Fails when there is no room for them.
    pub fn new() -> Result<Self> {
        let scratch = Self(tempfile::tempdir()?);
        let contents: Vec<u8> = (0..READ_MIB * SECTORS_OF_MIB).flat_map(content).collect();
        for (name, bytes) in [("g0d0", vec![0; WRITTEN_MIB << 20]), ("g0d1", contents)] {
            let path = scratch.0.path().join(name);
            fs::write(&path, bytes).with_context(|| format!("cannot write {}", path.display()))?;
        }
        Ok(scratch)
    }

    /// The emulator's devices: both disks, known by their serial numbers, and a network.
    #[must_use]
    pub fn devices(&self) -> Devices {
        let drive = |serial: &str, is_kept| Drive { image: self.0.path().join(serial), serial: serial.into(), is_kept };
        Devices { disks: vec![drive("g0d0", true), drive("g0d1", false)], uplink: Some(Vec::new()) }
    }

    /// Whether each byte of the first disk is as it should be.
    ///
    /// # Errors
    /// Fails when the image cannot be read.
    pub fn judge(&self) -> Result<Outcome> {
        const NAME: &str = "devices/the host finds each byte where the domain wrote it";
        let image = fs::read(self.0.path().join("g0d0"))?;
        let wrong = image.chunks(SECTOR).enumerate().find(|(sector, bytes)| {
            let is_in = |ranges: &[Range<usize>]| ranges.iter().any(|range| range.contains(sector));
            let wanted = if is_in(&WRITTEN) && !is_in(&ZEROED) { content(*sector).collect() } else { vec![0; SECTOR] };
            !DISCARDED.contains(sector) && *bytes != wanted
        });
        Ok(match wrong {
            None => Outcome::passed(NAME),
            Some((sector, bytes)) => {
                Outcome::failed(NAME, &format!("sector {sector} is another: it begins with {:02x?}", &bytes[..16]))
            }
        })
    }
}

/// What is written to a sector.
fn content(sector: usize) -> impl Iterator<Item = u8> {
    (0..SECTOR).map(move |at| (sector * 7 + at * 13 + at / 256) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_wrong_byte_on_the_disk_is_found() {
        let scratch = Scratch::new().unwrap();
        let path = scratch.0.path().join("g0d0");
        assert!(scratch.judge().unwrap().failure.is_some(), "nobody wrote to it");
        let mut image: Vec<u8> = (0..WRITTEN_MIB * SECTORS_OF_MIB).flat_map(content).collect();
        let zero = |image: &mut Vec<u8>, range: Range<usize>| image[range.start * SECTOR..range.end * SECTOR].fill(0);
        for gap in [1..9, 137..200, 329..1000, 5000..5500, 5501..6000, 8000..16383].into_iter().chain(ZEROED) {
            zero(&mut image, gap);
        }
        fs::write(&path, &image).unwrap();
        assert!(scratch.judge().unwrap().failure.is_none());
        image[6150 * SECTOR] = 1;
        fs::write(&path, &image).unwrap();
        assert!(scratch.judge().unwrap().failure.is_some());
    }
}
