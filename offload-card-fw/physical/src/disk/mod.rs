//! A virtio-blk device as a disk (virtio 1.2 5.2).

mod driver;
mod request;
#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dragonfly_rt::sync::Mutex;
use dragonfly_rt::time;
use dragonfly_storage::{BlockBackend, BlockError, Extent, Geometry, SECTOR_BYTES, Sector};
use log::{error, info};
use virtio_drivers::transport::{DeviceType, Transport};

use crate::Clock;
use crate::error::{Fault, OpenError};
use crate::transport::{OnBus, VirtioFunction};
use driver::{Data, Driver, Shape};
use request::{Kind, Piece};

/// A disk that is a virtio-blk device.
///
/// Each call waits for the device, with several requests under way where there is more than one to make. A device that
/// lies or does not answer in time is stopped with a line in the log; every call then is [`BlockError::Medium`].
pub struct PhysicalDisk<T: Transport + OnBus = VirtioFunction> {
    serial: String,
    shape: Shape,
    driver: Mutex<Driver<T>>,
}

/// Opens the disks that the domain was given under `PREFIX0`, `PREFIX1`, …: those that can be used. The log tells of each.
/// Who waits for one sleeps where the disk can interrupt: `cpu`, best the one of who waits.
#[must_use]
pub fn open_disks(prefix: &str, cpu: u32) -> Vec<PhysicalDisk> {
    let mut disks = Vec::new();
    for number in 0_u32.. {
        let name = format!("{prefix}{number}");
        let disk = match VirtioFunction::open(&name, DeviceType::Block) {
            Ok(None) => break,
            Ok(Some(function)) => PhysicalDisk::open(&name, function, Some(cpu), time::now),
            Err(error) => Err(error),
        };
        match disk {
            Ok(disk) => {
                let mib = disk.shape.geometry.capacity_sectors / (1 << 20) * SECTOR_BYTES as u64
                    + disk.shape.geometry.capacity_sectors % (1 << 20) * SECTOR_BYTES as u64 / (1 << 20);
                info!("{name}: a disk of {mib} MiB with serial number `{}`", disk.serial);
                disks.push(disk);
            }
            Err(error) => error!("{name} is not used: {error}"),
        }
    }
    disks
}

impl<T: Transport + OnBus> PhysicalDisk<T> {
    /// Sets a device up and asks for its serial number.
    pub(crate) fn open(name: &str, transport: T, cpu: Option<u32>, clock: Clock) -> Result<Self, OpenError> {
        let (mut driver, shape) = Driver::start(name, transport, cpu, clock)?;
        let serial = driver.serial().map_err(|_| OpenError::Silent(driver.fault().unwrap_or(Fault::Status)))?;
        Ok(Self { serial, shape, driver: Mutex::new(driver) })
    }

    /// The serial number: at most 20 bytes, empty if the device has none.
    pub fn serial(&self) -> &str {
        &self.serial
    }

    /// Why the disk was stopped, if it was.
    pub fn fault(&self) -> Option<Fault> {
        self.driver.lock().fault()
    }

    /// The requests for `extent`, each of `most` sectors at most.
    fn pieces(kind: Kind, extent: Extent, most: u64) -> impl Iterator<Item = Piece> {
        let end = extent.first.0.saturating_add(extent.count);
        let mut at = extent.first.0;
        core::iter::from_fn(move || {
            let sectors = end.saturating_sub(at).min(most);
            let piece = Piece { kind, first: Sector(at), sectors };
            at += sectors;
            (sectors > 0).then_some(piece)
        })
    }
}

impl<T: Transport + OnBus> BlockBackend for PhysicalDisk<T> {
    fn geometry(&self) -> Geometry {
        self.shape.geometry
    }

    fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
        let extent = Extent::of_bytes(first, into.len())?;
        self.geometry().check(extent)?;
        let pieces = Self::pieces(Kind::Read, extent, self.shape.data_sectors);
        self.driver.lock().perform(pieces, extent.first, Data::Into(into))
    }

    fn write(&self, first: Sector, from: &[u8]) -> Result<(), BlockError> {
        let extent = Extent::of_bytes(first, from.len())?;
        self.geometry().check_change(extent)?;
        let pieces = Self::pieces(Kind::Write, extent, self.shape.data_sectors);
        self.driver.lock().perform(pieces, extent.first, Data::From(from))
    }

    /// A device without the command has no cache that power loss empties (virtio 1.2 5.2.6.2).
    fn flush(&self) -> Result<(), BlockError> {
        if !self.shape.has_flush {
            return Ok(());
        }
        let flush = Piece { kind: Kind::Flush, first: Sector(0), sectors: 0 };
        self.driver.lock().perform(core::iter::once(flush), Sector(0), Data::None)
    }

    /// Where the device does not know the command the hint is lost.
    fn discard(&self, extent: Extent) -> Result<(), BlockError> {
        self.geometry().check_change(extent)?;
        let Some(most) = self.shape.discard_sectors else { return Ok(()) };
        let pieces = Self::pieces(Kind::Discard, extent, most);
        self.driver.lock().perform(pieces, extent.first, Data::None)
    }

    fn write_zeroes(&self, extent: Extent, may_unmap: bool) -> Result<(), BlockError> {
        self.geometry().check_change(extent)?;
        let (kind, most) = match self.shape.zeroes_sectors {
            Some(most) => (Kind::WriteZeroes { may_unmap }, most),
            None => (Kind::Write, self.shape.data_sectors),
        };
        self.driver.lock().perform(Self::pieces(kind, extent, most), extent.first, Data::None)
    }
}
