//! A disk with nothing behind it, to measure everything before it.

use super::{BlockBackend, BlockError, Extent, Geometry, Sector};

/// Reads as zeros and forgets what is written.
#[derive(Clone, Copy, Debug)]
pub struct NullDisk {
    capacity_sectors: u64,
}

impl NullDisk {
    /// A disk of `capacity_sectors` sectors.
    #[must_use]
    pub fn new(capacity_sectors: u64) -> Self {
        Self { capacity_sectors }
    }
}

impl BlockBackend for NullDisk {
    fn geometry(&self) -> Geometry {
        Geometry { capacity_sectors: self.capacity_sectors, block_bytes: 512, is_read_only: false }
    }

    fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
        self.geometry().check(Extent::of_bytes(first, into.len())?)?;
        into.fill(0);
        Ok(())
    }

    fn write(&self, first: Sector, from: &[u8]) -> Result<(), BlockError> {
        self.geometry().check(Extent::of_bytes(first, from.len())?)
    }

    fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }

    fn discard(&self, extent: Extent) -> Result<(), BlockError> {
        self.geometry().check(extent)
    }

    fn write_zeroes(&self, extent: Extent, _may_unmap: bool) -> Result<(), BlockError> {
        self.geometry().check(extent)
    }
}
