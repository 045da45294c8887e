//! The header: where everything starts.

use alloc::vec::Vec;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::node::Pointer;
use super::{BLOCK_BYTES, SnapshotError};
use crate::backend::{BlockError, SECTOR_BYTES, Sector};
use crate::name::{MAX_NAME_BYTES, Name, decode_name, encode_name};
use crate::slots::SlotFormat;

/// Most snapshots of a volume.
pub const MAX_SNAPSHOTS: usize = 128;

/// Blocks before those for nodes and chunks.
pub(super) const RESERVED_BLOCKS: u64 = 8;

/// Largest chunk, in blocks: 1 MiB.
const MAX_CHUNK_BLOCKS: u64 = 256;

/// Where the header is.
pub(super) const SLOTS: SlotFormat =
    SlotFormat { magic: *b"DFsnaps\0", version: 1, first: Sector(0), bytes: 3 * BLOCK_BYTES };

/// Names a snapshot of a volume, for ever: it is not used again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SnapshotId(pub u64);

/// A snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotInfo {
    /// By which it is opened and deleted.
    pub id: SnapshotId,
    /// What its maker called it.
    pub name: Name,
}

/// A snapshot, and its tree. Its id is the generation that its creation ended.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) info: SnapshotInfo,
    pub(super) root: Pointer,
}

impl Record {
    pub(super) fn generation(&self) -> u64 {
        self.info.id.0
    }
}

/// The header in memory.
#[derive(Clone, Debug)]
pub(super) struct Header {
    pub(super) capacity_sectors: u64,
    /// Blocks of the disk, when it was formatted.
    pub(super) blocks: u64,
    pub(super) chunk_blocks: u64,
    /// The live tree.
    pub(super) root: Pointer,
    /// Oldest first.
    pub(super) snapshots: Vec<Record>,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawHeader {
    capacity_sectors: U64,
    blocks: U64,
    chunk_blocks: U32,
    snapshots: U32,
    root: Pointer,
    reserved: [u8; 24],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawRecord {
    generation: U64,
    root: Pointer,
    reserved: U64,
    name: [u8; MAX_NAME_BYTES],
}

impl Header {
    /// Whether a volume can have this shape.
    pub(super) fn check_shape(&self) -> Result<(), SnapshotError> {
        let is_chunk = self.chunk_blocks.is_power_of_two() && self.chunk_blocks <= MAX_CHUNK_BLOCKS;
        let is_whole = self.capacity_sectors.is_multiple_of((BLOCK_BYTES / SECTOR_BYTES) as u64);
        if !is_chunk || !is_whole || self.capacity_sectors == 0 || self.capacity_sectors > u64::MAX / 1024 {
            return Err(SnapshotError::Shape);
        }
        if self.blocks < RESERVED_BLOCKS + 2 * self.chunk_blocks { Err(SnapshotError::TooSmall) } else { Ok(()) }
    }

    /// Bytes for a slot.
    pub(super) fn encode(&self) -> Vec<u8> {
        let raw = RawHeader {
            capacity_sectors: self.capacity_sectors.into(),
            blocks: self.blocks.into(),
            chunk_blocks: (self.chunk_blocks as u32).into(),
            snapshots: (self.snapshots.len() as u32).into(),
            root: self.root,
            reserved: [0; 24],
        };
        let mut bytes = raw.as_bytes().to_vec();
        for record in &self.snapshots {
            let raw = RawRecord {
                generation: record.generation().into(),
                root: record.root,
                reserved: 0.into(),
                name: encode_name(&record.info.name),
            };
            bytes.extend_from_slice(raw.as_bytes());
        }
        bytes
    }

    /// The header of generation `generation`, as far as it makes sense by itself.
    pub(super) fn decode(payload: &[u8], generation: u64) -> Result<Self, BlockError> {
        let (raw, rest) = RawHeader::ref_from_prefix(payload).map_err(|_| BlockError::Corrupt)?;
        let count = raw.snapshots.get() as usize;
        if count > MAX_SNAPSHOTS {
            return Err(BlockError::Corrupt);
        }
        let (records, _) = <[RawRecord]>::ref_from_prefix_with_elems(rest, count).map_err(|_| BlockError::Corrupt)?;
        let mut snapshots: Vec<Record> = Vec::with_capacity(count);
        for raw in records {
            let newest = snapshots.last().map_or(0, Record::generation);
            let is_in_order = (newest + 1..=generation).contains(&raw.generation.get());
            if !is_in_order || !raw.root.is_possible_in(raw.generation.get()) {
                return Err(BlockError::Corrupt);
            }
            let name = decode_name(&raw.name).ok_or(BlockError::Corrupt)?;
            let info = SnapshotInfo { id: SnapshotId(raw.generation.get()), name };
            snapshots.push(Record { info, root: raw.root });
        }
        let header = Self {
            capacity_sectors: raw.capacity_sectors.get(),
            blocks: raw.blocks.get(),
            chunk_blocks: raw.chunk_blocks.get().into(),
            root: raw.root,
            snapshots,
        };
        let is_valid = header.check_shape().is_ok() && header.root.is_possible_in(generation);
        if is_valid { Ok(header) } else { Err(BlockError::Corrupt) }
    }
}
