//! A snapshot as a disk.

use alloc::sync::Arc;

use super::disk::SnapshotDisk;
use super::header::SnapshotId;
use crate::backend::{BlockBackend, BlockError, Extent, Geometry, Sector, refuse_changes};

/// A volume as it was when the snapshot was made. Once that is deleted, reads fail with [`BlockError::Deleted`].
pub struct Snapshot<B> {
    volume: Arc<SnapshotDisk<B>>,
    id: SnapshotId,
}

impl<B> Snapshot<B> {
    pub(super) fn new(volume: Arc<SnapshotDisk<B>>, id: SnapshotId) -> Self {
        Self { volume, id }
    }
}

impl<B: BlockBackend> BlockBackend for Snapshot<B> {
    fn geometry(&self) -> Geometry {
        Geometry { is_read_only: true, ..self.volume.geometry() }
    }

    fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
        self.volume.read_snapshot(self.id, first, into)
    }

    refuse_changes!();
}
