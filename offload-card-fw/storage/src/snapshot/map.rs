//! Trees from chunks of a volume to places on the disk.

use super::cache::NodeCache;
use super::node::{FANOUT, Node, Place, Pointer};
use super::space::Space;
use crate::backend::{BlockBackend, BlockError};

/// What all trees of a volume have in common.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    /// Chunks of the volume.
    pub(super) chunks: u64,
    /// Nodes from a root to a chunk, at least 1.
    pub(super) levels: u32,
}

/// What the walk through a tree finds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Found {
    Node(Pointer),
    Chunk(Pointer),
}

impl Shape {
    /// The lowest trees that have room for `chunks`.
    pub(super) fn new(chunks: u64) -> Self {
        let mut levels = 1;
        while chunks_below(levels) < chunks {
            levels += 1;
        }
        Self { chunks, levels }
    }

    /// The root's place.
    fn root(self) -> Place {
        Place { level: self.levels - 1, position: 0 }
    }

    /// The node of a level on the way to a chunk, and which of its pointers leads on.
    fn step(self, level: u32, chunk: u64) -> (Place, usize) {
        let place = Place { level, position: chunk / chunks_below(level + 1) };
        (place, (chunk / chunks_below(level) % FANOUT as u64) as usize)
    }

    /// Where `chunk` is in the tree at `root`.
    pub(super) fn lookup<B: BlockBackend>(
        self,
        cache: &mut NodeCache,
        disk: &B,
        root: Pointer,
        chunk: u64,
    ) -> Result<Pointer, BlockError> {
        let mut pointer = root;
        for level in (0..self.levels).rev() {
            if pointer.is_hole() {
                break;
            }
            let (place, slot) = self.step(level, chunk);
            pointer = cache.get(disk, pointer, place)?.pointers[slot];
        }
        Ok(pointer)
    }

    /// Walks through the part of the tree at `mine` that the tree at `other` does not share.
    ///
    /// The work is bounded by what `found` accepts: it must refuse a pointer that it has seen before.
    pub(super) fn for_each_not_shared<B: BlockBackend>(
        self,
        cache: &mut NodeCache,
        disk: &B,
        (mine, other): (Pointer, Pointer),
        found: &mut impl FnMut(Found) -> Result<(), BlockError>,
    ) -> Result<(), BlockError> {
        self.walk(cache, disk, self.root(), (mine, other), found)
    }

    /// Recursion is as deep as the tree is high: at most 8, for 2^63 chunks.
    fn walk<B: BlockBackend>(
        self,
        cache: &mut NodeCache,
        disk: &B,
        place: Place,
        (mine, other): (Pointer, Pointer),
        found: &mut impl FnMut(Found) -> Result<(), BlockError>,
    ) -> Result<(), BlockError> {
        if mine.is_hole() || mine == other {
            return Ok(());
        }
        found(Found::Node(mine))?;
        let my_pointers = cache.get(disk, mine, place)?.pointers;
        let other_pointers =
            if other.is_hole() { [Pointer::HOLE; FANOUT] } else { cache.get(disk, other, place)?.pointers };
        for (slot, (&mine, &other)) in my_pointers.iter().zip(&other_pointers).enumerate() {
            if mine.is_hole() || mine == other {
                continue;
            }
            let position = place.position.saturating_mul(FANOUT as u64).saturating_add(slot as u64);
            if position.saturating_mul(chunks_below(place.level)) >= self.chunks {
                return Err(BlockError::Corrupt);
            }
            match place.level.checked_sub(1) {
                Some(level) => self.walk(cache, disk, Place { level, position }, (mine, other), found)?,
                None => found(Found::Chunk(mine))?,
            }
        }
        Ok(())
    }
}

/// Chunks that a pointer of a node at `level` leads to.
fn chunks_below(level: u32) -> u64 {
    (FANOUT as u64).saturating_pow(level)
}

/// How the live tree changes between two commits.
pub(super) struct Generations {
    /// The generation that the next commit ends.
    pub(super) open: u64,
    /// What was born up to this one belongs to a snapshot too.
    pub(super) shared: u64,
}

impl Shape {
    /// Makes the live tree lead to `target` for `chunk`, copying the nodes on the way unless they were born in this
    /// generation. The caller has made sure of one free block for each level.
    ///
    /// Whatever fails, the tree at `root` stays whole.
    pub(super) fn set<B: BlockBackend>(
        self,
        (cache, space): (&mut NodeCache, &mut Space),
        disk: &B,
        generations: &Generations,
        root: &mut Pointer,
        (chunk, target): (u64, Pointer),
    ) -> Result<(), BlockError> {
        let mut pointer = *root;
        let mut parent: Option<(Pointer, Place, usize)> = None;
        for level in (0..self.levels).rev() {
            let (place, slot) = self.step(level, chunk);
            if pointer.birth() != generations.open {
                let node = match pointer.is_hole() {
                    true => Node::new(place, generations.open),
                    false => cache.get(disk, pointer, place)?.reborn(generations.open),
                };
                let copy = Pointer::new(space.take_block().ok_or(BlockError::NoSpace)?, generations.open);
                cache.insert_changed(copy.block(), node);
                match parent {
                    Some((above, place, slot)) => cache.get(disk, above, place)?.pointers[slot] = copy,
                    None => *root = copy,
                }
                if pointer.birth() > generations.shared {
                    cache.forget(pointer.block());
                    space.give_back_later(pointer, false);
                }
                pointer = copy;
            }
            parent = Some((pointer, place, slot));
            pointer = cache.get(disk, pointer, place)?.pointers[slot];
        }
        if let Some((leaf, place, slot)) = parent {
            cache.get(disk, leaf, place)?.pointers[slot] = target;
        }
        Ok(())
    }
}
