//! What a disk is to the layers above it.

mod null;
mod ram;
mod read_only;

use alloc::boxed::Box;
use alloc::sync::Arc;

use thiserror::Error;

pub use null::NullDisk;
pub use ram::RamDisk;
pub use read_only::ReadOnlyDisk;
pub(crate) use read_only::refuse_changes;

/// Bytes of a sector: the unit of every position and count here, as in virtio 1.2 5.2.
pub const SECTOR_BYTES: usize = 512;

/// A position on a disk, in sectors of [`SECTOR_BYTES`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Sector(pub u64);

impl Sector {
    /// The position `count` sectors further on.
    ///
    /// # Errors
    /// [`BlockError::OutOfRange`] if there is no such position.
    pub fn plus(self, count: u64) -> Result<Self, BlockError> {
        self.0.checked_add(count).map(Self).ok_or(BlockError::OutOfRange)
    }
}

/// Consecutive sectors.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Extent {
    /// The first of them.
    pub first: Sector,
    /// How many, in sectors.
    pub count: u64,
}

impl Extent {
    /// The sectors that `bytes` bytes fill from `first` on.
    ///
    /// # Errors
    /// [`BlockError::Unaligned`] unless they fill whole sectors.
    pub fn of_bytes(first: Sector, bytes: usize) -> Result<Self, BlockError> {
        if !bytes.is_multiple_of(SECTOR_BYTES) {
            return Err(BlockError::Unaligned);
        }
        Ok(Self { first, count: (bytes / SECTOR_BYTES) as u64 })
    }

    /// The position after the last sector.
    ///
    /// # Errors
    /// [`BlockError::OutOfRange`] if there is no such position.
    pub fn end(self) -> Result<Sector, BlockError> {
        self.first.plus(self.count)
    }
}

/// A disk's shape. It does not change while the disk is in use.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Size, in sectors; a multiple of `block_bytes`.
    pub capacity_sectors: u64,
    /// Bytes of the smallest unit that can be read or written: a power of two from [`SECTOR_BYTES`] on.
    pub block_bytes: u32,
    /// Whether writes fail.
    pub is_read_only: bool,
}

impl Geometry {
    /// Checks that all of `extent` is on the disk and made of whole blocks.
    ///
    /// # Errors
    /// [`BlockError::Unaligned`], [`BlockError::OutOfRange`].
    pub fn check(&self, extent: Extent) -> Result<(), BlockError> {
        let block_sectors = (u64::from(self.block_bytes) / SECTOR_BYTES as u64).max(1);
        if !extent.first.0.is_multiple_of(block_sectors) || !extent.count.is_multiple_of(block_sectors) {
            return Err(BlockError::Unaligned);
        }
        if extent.end()?.0 > self.capacity_sectors { Err(BlockError::OutOfRange) } else { Ok(()) }
    }

    /// Checks that `extent` can be changed.
    ///
    /// # Errors
    /// [`BlockError::ReadOnly`], and those of [`check`](Self::check).
    pub fn check_change(&self, extent: Extent) -> Result<(), BlockError> {
        if self.is_read_only { Err(BlockError::ReadOnly) } else { self.check(extent) }
    }
}

/// Why a disk did not do what it was asked.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum BlockError {
    /// The caller's fault: a sector is beyond the end.
    #[error("a sector is beyond the end of the disk")]
    OutOfRange,
    /// The caller's fault: not made of whole blocks.
    #[error("the request is not made of whole blocks")]
    Unaligned,
    /// The caller's fault: the disk cannot be changed.
    #[error("the disk is read-only")]
    ReadOnly,
    /// Nobody's fault: a disk smaller than what it promises is full. Delete a snapshot or discard data.
    #[error("the disk has no space left")]
    NoSpace,
    /// The disk's fault: the medium or the way to it failed; what was being written may or may not be there.
    #[error("the medium failed")]
    Medium,
    /// The disk's fault: what it holds contradicts itself, so it was not believed.
    #[error("the metadata on the disk is corrupt")]
    Corrupt,
    /// The caller's fault: what it reads has been deleted.
    #[error("the snapshot has been deleted")]
    Deleted,
}

/// A disk. Reads see every write that returned before them; a write is safe from power loss once a later flush returned.
///
/// Sectors become safe one by one: a write of many that power loss cuts short may leave any of them old or new, none torn.
/// Implementations are shared by the queues of a device, so they lock what they must; each call ends with its work done.
/// A backend whose work ends later is driven through the steps of [`blk::Request`](crate::blk::Request) instead.
pub trait BlockBackend {
    /// The disk's shape.
    fn geometry(&self) -> Geometry;

    /// Reads the sectors from `first` on that fill `into`.
    ///
    /// # Errors
    /// Any [`BlockError`] but `ReadOnly` and `NoSpace`; `into` then holds nothing of worth.
    fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError>;

    /// Writes `from` to the sectors from `first` on.
    ///
    /// # Errors
    /// Any [`BlockError`]; after those that are the caller's fault nothing has changed.
    fn write(&self, first: Sector, from: &[u8]) -> Result<(), BlockError>;

    /// Makes every write that returned so far safe from power loss.
    ///
    /// # Errors
    /// Any [`BlockError`]; what was not safe before may be lost.
    fn flush(&self) -> Result<(), BlockError>;

    /// Tells that the content of `extent` is no longer needed; reading it gives anything until it is written again.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn discard(&self, extent: Extent) -> Result<(), BlockError>;

    /// Makes `extent` read as zeros. Its space may be given up only if `may_unmap`.
    ///
    /// # Errors
    /// As [`write`](Self::write).
    fn write_zeroes(&self, extent: Extent, may_unmap: bool) -> Result<(), BlockError>;
}

/// [`BlockBackend::write_zeroes`] for disks that have nothing better.
pub(crate) fn write_zeroes_by_writing<B: BlockBackend + ?Sized>(disk: &B, extent: Extent) -> Result<(), BlockError> {
    const ZEROES: [u8; 16 * SECTOR_BYTES] = [0; 16 * SECTOR_BYTES];
    disk.geometry().check_change(extent)?;
    // The largest block of a disk may be larger than the constant.
    let step = (disk.geometry().block_bytes as usize).max(ZEROES.len());
    let large;
    let zeroes = if step == ZEROES.len() {
        &ZEROES[..]
    } else {
        large = alloc::vec![0; step];
        &large[..]
    };
    let mut at = extent.first;
    let mut left = extent.count;
    while left > 0 {
        let now = left.min((step / SECTOR_BYTES) as u64);
        disk.write(at, &zeroes[..now as usize * SECTOR_BYTES])?;
        at = at.plus(now)?;
        left -= now;
    }
    Ok(())
}

/// A pointer to a disk is that disk.
macro_rules! forward {
    ($($pointer:ty),*) => {$(
        impl<B: BlockBackend + ?Sized> BlockBackend for $pointer {
            fn geometry(&self) -> Geometry {
                (**self).geometry()
            }

            fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
                (**self).read(first, into)
            }

            fn write(&self, first: Sector, from: &[u8]) -> Result<(), BlockError> {
                (**self).write(first, from)
            }

            fn flush(&self) -> Result<(), BlockError> {
                (**self).flush()
            }

            fn discard(&self, extent: Extent) -> Result<(), BlockError> {
                (**self).discard(extent)
            }

            fn write_zeroes(&self, extent: Extent, may_unmap: bool) -> Result<(), BlockError> {
                (**self).write_zeroes(extent, may_unmap)
            }
        }
    )*};
}

forward!(&B, Box<B>, Arc<B>);
