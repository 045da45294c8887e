//! A disk that can be written, for those who may not.

use super::{BlockBackend, BlockError, Extent, Geometry, Sector};

/// What a disk that cannot be changed does when it is asked to.
macro_rules! refuse_changes {
    () => {
        fn write(&self, _first: Sector, _from: &[u8]) -> Result<(), BlockError> {
            Err(BlockError::ReadOnly)
        }

        fn flush(&self) -> Result<(), BlockError> {
            Ok(())
        }

        fn discard(&self, _extent: Extent) -> Result<(), BlockError> {
            Err(BlockError::ReadOnly)
        }

        fn write_zeroes(&self, _extent: Extent, _may_unmap: bool) -> Result<(), BlockError> {
            Err(BlockError::ReadOnly)
        }
    };
}

pub(crate) use refuse_changes;

/// Reads from the disk below and refuses to change it.
#[derive(Clone, Copy, Debug)]
pub struct ReadOnlyDisk<B>(pub B);

impl<B: BlockBackend> BlockBackend for ReadOnlyDisk<B> {
    fn geometry(&self) -> Geometry {
        Geometry { is_read_only: true, ..self.0.geometry() }
    }

    fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
        self.0.read(first, into)
    }

    refuse_changes!();
}
