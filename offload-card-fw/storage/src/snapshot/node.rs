//! A node of a tree: one block of pointers.

use alloc::boxed::Box;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::BLOCK_BYTES;
use crate::backend::BlockError;

/// Pointers in a node.
pub(super) const FANOUT: usize = 254;

const MAGIC: [u8; 4] = *b"DFNd";

/// Where something is on the disk, and since when.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Pointer {
    block: U64,
    birth: U64,
}

impl Pointer {
    /// To nothing: reads as zeros.
    pub(super) const HOLE: Self = Self { block: U64::ZERO, birth: U64::ZERO };

    pub(super) fn new(block: u64, birth: u64) -> Self {
        Self { block: block.into(), birth: birth.into() }
    }

    pub(super) fn is_hole(self) -> bool {
        self.block == 0
    }

    /// Number of the block, or of the first block of the chunk.
    pub(super) fn block(self) -> u64 {
        self.block.get()
    }

    /// The generation in which it was allocated.
    pub(super) fn birth(self) -> u64 {
        self.birth.get()
    }

    /// Whether something that is part of generation `generation` can point there.
    pub(super) fn is_possible_in(self, generation: u64) -> bool {
        self == Self::HOLE || (!self.is_hole() && (1..=generation).contains(&self.birth()))
    }
}

/// Where a node belongs in a tree. A node says so itself, so one that is somewhere else is found out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Place {
    /// Height above the nodes that point to chunks.
    pub(super) level: u32,
    /// Number among the nodes of this level.
    pub(super) position: u64,
}

/// A node as it is on the disk.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub(super) struct Node {
    magic: [u8; 4],
    checksum: U32,
    level: U32,
    reserved: U32,
    position: U64,
    birth: U64,
    pub(super) pointers: [Pointer; FANOUT],
}

const _: () = assert!(size_of::<Node>() == BLOCK_BYTES);

impl Node {
    /// A node of holes.
    pub(super) fn new(place: Place, birth: u64) -> Box<Self> {
        Box::new(Self {
            magic: MAGIC,
            checksum: 0.into(),
            level: place.level.into(),
            reserved: 0.into(),
            position: place.position.into(),
            birth: birth.into(),
            pointers: [Pointer::HOLE; FANOUT],
        })
    }

    /// Room to read a node into.
    pub(super) fn blank() -> Box<Self> {
        Box::new(Self::new_zeroed())
    }

    /// A copy that is part of another generation.
    pub(super) fn reborn(&self, birth: u64) -> Box<Self> {
        Box::new(Self { birth: birth.into(), ..self.clone() })
    }

    /// Makes the checksum right, before the node is written.
    pub(super) fn seal(&mut self) {
        self.checksum = 0.into();
        self.checksum = crc32fast::hash(self.as_bytes()).into();
    }

    /// Checks that this is the node at `place` that was born at `birth`, and that its pointers can be.
    pub(super) fn check(&mut self, place: Place, birth: u64) -> Result<(), BlockError> {
        let checksum = self.checksum;
        self.seal();
        let is_valid = self.checksum == checksum
            && self.magic == MAGIC
            && self.level == place.level
            && self.position == place.position
            && self.birth == birth
            // What a node points to is never younger than the node: changing it changes the node.
            && self.pointers.iter().all(|pointer| pointer.is_possible_in(birth));
        if is_valid { Ok(()) } else { Err(BlockError::Corrupt) }
    }
}
