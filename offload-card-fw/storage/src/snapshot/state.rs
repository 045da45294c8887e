//! What changes when a volume does, and how that becomes safe.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use super::cache::NodeCache;
use super::header::{Header, MAX_SNAPSHOTS, RESERVED_BLOCKS, Record, SLOTS, SnapshotId, SnapshotInfo};
use super::map::{Found, Generations, Shape};
use super::node::Pointer;
use super::space::Space;
use super::{BLOCK_BYTES, BLOCK_SECTORS, SnapshotError, sector_of};
use crate::backend::{BlockBackend, BlockError, SECTOR_BYTES, Sector};
use crate::name::checked_name;
use crate::slots::Slots;

/// Free blocks that writes leave, so that a full volume can still discard and delete.
const SPARE_BLOCKS: u64 = 32;

/// A volume but for its disk.
pub(super) struct State {
    pub(super) header: Header,
    pub(super) shape: Shape,
    slots: Slots,
    cache: NodeCache,
    space: Space,
    /// Whether the header on the disk is not what is in memory.
    is_changed: bool,
    /// Whether a commit failed: what is on the disk is then not known, and nothing more is written.
    has_failed: bool,
    /// A chunk on its way.
    buffer: Box<[u8]>,
}

/// Which bytes of a chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) chunk: u64,
    /// Where in the chunk, in bytes.
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

impl State {
    /// Makes an empty volume.
    pub(super) fn format<B: BlockBackend>(disk: &B, header: Header) -> Result<Self, SnapshotError> {
        header.check_shape()?;
        let slots = Slots::create(disk, SLOTS, &header.encode())?;
        Self::new(header, slots).map_err(Into::into)
    }

    /// Opens a volume, and walks through all its trees.
    pub(super) fn open<B: BlockBackend>(disk: &B) -> Result<Self, SnapshotError> {
        let (slots, payload) = Slots::open(disk, SLOTS)?;
        let header = Header::decode(&payload, slots.generation())?;
        if header.blocks > disk.geometry().capacity_sectors / BLOCK_SECTORS {
            return Err(BlockError::Corrupt.into());
        }
        let mut state = Self::new(header, slots)?;
        let mut newer = Pointer::HOLE;
        let live = state.header.root;
        let roots = state.header.snapshots.iter().rev().map(|record| record.root);
        for root in [live].into_iter().chain(roots) {
            let space = &mut state.space;
            // What is shared with any newer tree is shared with the next.
            state.shape.for_each_not_shared(&mut state.cache, disk, (root, newer), &mut |found| match found {
                Found::Node(pointer) => space.take_pointed(pointer, false),
                Found::Chunk(pointer) => space.take_pointed(pointer, true),
            })?;
            newer = root;
        }
        Ok(state)
    }

    fn new(header: Header, slots: Slots) -> Result<Self, BlockError> {
        let chunk_bytes = header.chunk_blocks as usize * BLOCK_BYTES;
        let chunk_sectors = header.chunk_blocks * BLOCK_SECTORS;
        Ok(Self {
            shape: Shape::new(header.capacity_sectors.div_ceil(chunk_sectors)),
            space: Space::new(header.blocks, RESERVED_BLOCKS, header.chunk_blocks)?,
            header,
            slots,
            cache: NodeCache::default(),
            is_changed: false,
            has_failed: false,
            buffer: vec![0; chunk_bytes].into_boxed_slice(),
        })
    }

    pub(super) fn chunk_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes that can still be written to where nothing is yet.
    pub(super) fn free_bytes(&self) -> u64 {
        self.space.free().saturating_sub(SPARE_BLOCKS) * BLOCK_BYTES as u64
    }

    /// The root of a snapshot.
    pub(super) fn snapshot_root(&self, id: SnapshotId) -> Option<Pointer> {
        self.header.snapshots.iter().find(|record| record.info.id == id).map(|record| record.root)
    }

    /// Reads a part of the volume whose root is `root`.
    pub(super) fn read<B: BlockBackend>(
        &mut self,
        disk: &B,
        root: Pointer,
        part: Part,
        into: &mut [u8],
    ) -> Result<(), BlockError> {
        let pointer = self.shape.lookup(&mut self.cache, disk, root, part.chunk)?;
        if pointer.is_hole() {
            into.fill(0);
            return Ok(());
        }
        disk.read(position(pointer, part)?, into)
    }

    /// Writes a part of the live volume.
    pub(super) fn write<B: BlockBackend>(&mut self, disk: &B, part: Part, from: &[u8]) -> Result<(), BlockError> {
        self.check()?;
        let old = self.shape.lookup(&mut self.cache, disk, self.header.root, part.chunk)?;
        if old.birth() > self.shared() {
            return disk.write(position(old, part)?, from);
        }
        let block = self.reserve_chunk(disk)?;
        // A commit may have come between, so the generation is looked up only now.
        let new = Pointer::new(block, self.open_generation());
        let written = self.fill_chunk(disk, (old, new), part, from).and_then(|()| self.set(disk, part.chunk, new));
        if written.is_err() {
            self.space.give_back_chunk(block);
        }
        written
    }

    /// Makes a chunk of the live volume a hole.
    pub(super) fn unmap<B: BlockBackend>(&mut self, disk: &B, chunk: u64) -> Result<(), BlockError> {
        self.check()?;
        let old = self.shape.lookup(&mut self.cache, disk, self.header.root, chunk)?;
        if old.is_hole() {
            return Ok(());
        }
        self.reserve_nodes(disk, 0)?;
        self.set(disk, chunk, Pointer::HOLE)?;
        if old.birth() > self.shared() {
            self.space.give_back_later(old, true);
        }
        Ok(())
    }

    /// Whether a chunk of the live volume reads as zeros because nothing is there.
    pub(super) fn is_hole<B: BlockBackend>(&mut self, disk: &B, chunk: u64) -> Result<bool, BlockError> {
        Ok(self.shape.lookup(&mut self.cache, disk, self.header.root, chunk)?.is_hole())
    }

    /// Makes all that was written safe.
    pub(super) fn flush<B: BlockBackend>(&mut self, disk: &B) -> Result<(), BlockError> {
        self.check()?;
        if self.is_changed {
            return self.commit(disk);
        }
        self.has_failed = true;
        disk.flush()?;
        self.has_failed = false;
        Ok(())
    }

    /// Keeps the live volume as it is now.
    pub(super) fn create_snapshot<B: BlockBackend>(
        &mut self,
        disk: &B,
        name: &str,
    ) -> Result<SnapshotId, SnapshotError> {
        self.check()?;
        let name = checked_name(name).ok_or(SnapshotError::Name)?;
        if self.header.snapshots.len() >= MAX_SNAPSHOTS {
            return Err(SnapshotError::TooMany);
        }
        let id = SnapshotId(self.open_generation());
        self.header.snapshots.push(Record { info: SnapshotInfo { id, name }, root: self.header.root });
        self.commit(disk)?;
        Ok(id)
    }

    /// Deletes a snapshot, and gives back what only it had.
    pub(super) fn delete_snapshot<B: BlockBackend>(&mut self, disk: &B, id: SnapshotId) -> Result<(), SnapshotError> {
        self.check()?;
        let snapshots = &self.header.snapshots;
        let is_it = |record: &Record| record.info.id == id;
        let index = snapshots.iter().position(is_it).ok_or(SnapshotError::NoSuchSnapshot)?;
        let older = index.checked_sub(1).and_then(|older| snapshots.get(older)).map_or(0, Record::generation);
        let newer = snapshots.get(index + 1).map_or(self.header.root, |newer| newer.root);
        let mine = self.snapshot_root(id).unwrap_or_default();
        let mut only_its = Vec::new();
        // What an older snapshot has too was born before that was made.
        self.shape.for_each_not_shared(&mut self.cache, disk, (mine, newer), &mut |found| {
            let (Found::Node(pointer) | Found::Chunk(pointer)) = found;
            if pointer.birth() > older {
                only_its.push(found);
            }
            Ok(())
        })?;
        self.header.snapshots.remove(index);
        for found in only_its {
            match found {
                Found::Node(pointer) => {
                    self.cache.forget(pointer.block());
                    self.space.give_back_later(pointer, false);
                }
                Found::Chunk(pointer) => self.space.give_back_later(pointer, true),
            }
        }
        self.commit(disk)?;
        Ok(())
    }

    /// The order of these steps is what snapshots rely on: see the module's documentation.
    fn commit<B: BlockBackend>(&mut self, disk: &B) -> Result<(), BlockError> {
        self.has_failed = true;
        self.cache.write_changed(disk)?;
        disk.flush()?;
        self.slots.replace(disk, &self.header.encode())?;
        self.space.committed();
        self.is_changed = false;
        self.has_failed = false;
        Ok(())
    }

    fn check(&self) -> Result<(), BlockError> {
        if self.has_failed { Err(BlockError::Medium) } else { Ok(()) }
    }

    /// What was born up to this generation is shared with a snapshot.
    fn shared(&self) -> u64 {
        self.header.snapshots.last().map_or(0, Record::generation)
    }

    fn open_generation(&self) -> u64 {
        self.slots.generation() + 1
    }

    fn set<B: BlockBackend>(&mut self, disk: &B, chunk: u64, target: Pointer) -> Result<(), BlockError> {
        let generations = Generations { open: self.open_generation(), shared: self.shared() };
        self.is_changed = true;
        let memory = (&mut self.cache, &mut self.space);
        self.shape.set(memory, disk, &generations, &mut self.header.root, (chunk, target))
    }

    /// Takes a chunk, and makes sure of the blocks to enter it into the tree.
    fn reserve_chunk<B: BlockBackend>(&mut self, disk: &B) -> Result<u64, BlockError> {
        self.reserve_nodes(disk, self.header.chunk_blocks + SPARE_BLOCKS)?;
        if let Some(block) = self.space.take_chunk() {
            return Ok(block);
        }
        if self.space.has_pending() {
            self.commit(disk)?;
        }
        self.space.take_chunk().ok_or(BlockError::NoSpace)
    }

    /// Makes sure of a block for each level, and of `more`.
    fn reserve_nodes<B: BlockBackend>(&mut self, disk: &B, more: u64) -> Result<(), BlockError> {
        let needed = more + u64::from(self.shape.levels);
        if self.cache.is_commit_due() || (self.space.free() < needed && self.space.has_pending()) {
            self.commit(disk)?;
        }
        if self.space.free() < needed { Err(BlockError::NoSpace) } else { Ok(()) }
    }

    /// Writes a new chunk: the old one's content, and over it `from`.
    fn fill_chunk<B: BlockBackend>(
        &mut self,
        disk: &B,
        (old, new): (Pointer, Pointer),
        part: Part,
        from: &[u8],
    ) -> Result<(), BlockError> {
        let start = sector_of(new.block())?;
        if from.len() == self.buffer.len() {
            return disk.write(start, from);
        }
        if old.is_hole() {
            self.buffer.fill(0);
        } else {
            disk.read(sector_of(old.block())?, &mut self.buffer)?;
        }
        let target = self.buffer.get_mut(part.offset..part.offset + part.bytes).ok_or(BlockError::OutOfRange)?;
        target.copy_from_slice(from);
        disk.write(start, &self.buffer)
    }
}

fn position(pointer: Pointer, part: Part) -> Result<Sector, BlockError> {
    sector_of(pointer.block())?.plus((part.offset / SECTOR_BYTES) as u64)
}
