//! Copy-on-write snapshots that survive power loss at any write.
//!
//! - `disk`: [`SnapshotDisk`], the live volume. `view`: [`Snapshot`], one of its snapshots.
//! - `state`: what changes when either does; `commit` makes it safe.
//! - `map`: trees from a volume's chunks to places on the disk. `node`: a node of them. `cache`: those in memory.
//! - `header`: where the trees' roots are. `space`: which blocks are in use.
//!
//! # Format, version 1
//! All numbers are little-endian. The disk below is divided into blocks of 4096 bytes; a volume into chunks of a power of
//! two of blocks, each of which lies in one piece, aligned to its size. A pointer is 16 bytes: the number of a block, and
//! the generation in which it was allocated, its birth. Block 0 is a hole, which reads as zeros.
//!
//! - Blocks 0 to 2 and 3 to 5: two slots with the header, written by turns, each with checksum and generation. Payload:
//!   capacity of the volume in sectors (8 bytes), blocks of the disk (8), blocks of a chunk (4), number of snapshots (4),
//!   pointer to the root of the live volume's tree (16), 24 zeros; then for each snapshot, oldest first, 64 bytes: generation
//!   (8), pointer to its root (16), 8 zeros, name in UTF-8 padded with zeros (32).
//! - Blocks 6 and 7: unused. The rest: nodes and chunks, wherever there was space.
//! - A node is one block: magic `"DFNd"`, CRC-32 of the block with this field as zeros (4), level (4), 4 zeros, position
//!   among the nodes of its level (8), birth (8), then 254 pointers: from level 0 to chunks, above to nodes.
//!
//! # Why it survives
//! What the header on the disk refers to is never overwritten but for chunks that belong to the live volume alone, which
//! may hold old or new sectors after power loss as any disk may. New nodes and chunks go to blocks that no header on the disk
//! refers to. A commit writes the changed nodes, flushes, writes the header to the slot that is not current, and flushes;
//! only then are blocks reused that the previous header referred to. So each header refers to a whole tree for ever, or
//! until the next header is safe. Which blocks are in use is not stored but found by walking the trees when the disk is opened.
//!
//! A chunk or node that was born after the latest snapshot belongs to the live volume alone; all others are shared and are
//! copied before they change.

mod cache;
mod disk;
mod header;
mod map;
mod node;
mod space;
mod state;
mod view;

use thiserror::Error;

use crate::backend::{BlockError, SECTOR_BYTES, Sector};
use crate::name::MAX_NAME_BYTES;
use crate::slots::SlotError;

pub use disk::{Format, SnapshotDisk};
pub use header::{MAX_SNAPSHOTS, SnapshotId, SnapshotInfo};
pub use view::Snapshot;

/// Bytes of a block.
const BLOCK_BYTES: usize = 4096;

const BLOCK_SECTORS: u64 = (BLOCK_BYTES / SECTOR_BYTES) as u64;

/// The first sector of a block.
fn sector_of(block: u64) -> Result<Sector, BlockError> {
    block.checked_mul(BLOCK_SECTORS).map(Sector).ok_or(BlockError::OutOfRange)
}

/// Why a disk with snapshots cannot be made, opened or changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum SnapshotError {
    /// The disk's fault, or as it says.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The disk was never formatted.
    #[error("the disk has no volume with snapshots")]
    NotFormatted,
    /// The disk was formatted by a newer program: use that.
    #[error("the volume has format version {0}, which is not known here")]
    Version(u32),
    /// The caller's fault: a chunk must be a power of two of 4096 bytes, up to 1 MiB, and the volume not empty.
    #[error("a volume cannot have this shape")]
    Shape,
    /// The disk is too small to hold anything.
    #[error("the disk is too small")]
    TooSmall,
    /// There are [`MAX_SNAPSHOTS`]: delete one.
    #[error("there are {MAX_SNAPSHOTS} snapshots already")]
    TooMany,
    /// The caller's fault: a name has 1 to [`MAX_NAME_BYTES`] bytes and no zeros.
    #[error("a snapshot's name has 1 to {MAX_NAME_BYTES} bytes")]
    Name,
    /// The caller's fault: it was deleted, or never made.
    #[error("there is no such snapshot")]
    NoSuchSnapshot,
}

impl From<SlotError> for SnapshotError {
    fn from(error: SlotError) -> Self {
        match error {
            SlotError::Block(error) => Self::Block(error),
            SlotError::Absent => Self::NotFormatted,
            SlotError::Version(version) => Self::Version(version),
        }
    }
}
