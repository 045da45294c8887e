//! Which blocks are in use.

use alloc::vec;
use alloc::vec::Vec;

use super::node::Pointer;
use crate::backend::BlockError;

/// A bit for each block. Chunks are taken from the start of the disk and nodes from its end, so that nodes do not break up the
/// space for chunks.
#[derive(Debug)]
pub(super) struct Space {
    /// Set bits are used, or do not exist.
    words: Vec<u64>,
    blocks: u64,
    free: u64,
    chunk_blocks: u64,
    /// No free chunk is below.
    first_chunk: u64,
    /// No free block is from here on.
    end_of_free: u64,
    /// Runs that the header on the disk still refers to: first block, and how many.
    pending: Vec<(u64, u64)>,
}

impl Space {
    /// All of `blocks` blocks are free but the first `reserved`.
    pub(super) fn new(blocks: u64, reserved: u64, chunk_blocks: u64) -> Result<Self, BlockError> {
        let words = usize::try_from(blocks.div_ceil(64)).map_err(|_| BlockError::NoSpace)?;
        let mut space = Self {
            words: vec![0; words],
            blocks,
            free: blocks,
            chunk_blocks,
            first_chunk: 0,
            end_of_free: blocks,
            pending: Vec::new(),
        };
        space.take(0, reserved)?;
        Ok(space)
    }

    /// Blocks that can be taken.
    pub(super) fn free(&self) -> u64 {
        self.free
    }

    /// Whether a commit would make more blocks free.
    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Takes what a tree points to: a node, or a chunk.
    ///
    /// # Errors
    /// [`BlockError::Corrupt`]: it is not on the disk, is not aligned, or something else points there.
    pub(super) fn take_pointed(&mut self, pointer: Pointer, is_chunk: bool) -> Result<(), BlockError> {
        let count = if is_chunk { self.chunk_blocks } else { 1 };
        if !pointer.block().is_multiple_of(count) {
            return Err(BlockError::Corrupt);
        }
        self.take(pointer.block(), count)
    }

    /// Takes a free chunk.
    pub(super) fn take_chunk(&mut self) -> Option<u64> {
        if self.free < self.chunk_blocks {
            return None;
        }
        let chunks = self.blocks / self.chunk_blocks;
        while self.first_chunk < chunks {
            let block = self.first_chunk * self.chunk_blocks;
            self.first_chunk += 1;
            if self.take(block, self.chunk_blocks).is_ok() {
                return Some(block);
            }
        }
        None
    }

    /// Takes a free block.
    pub(super) fn take_block(&mut self) -> Option<u64> {
        while self.end_of_free > 0 {
            let word = self.words.get((self.end_of_free - 1) as usize / 64)?;
            // Goes down a whole word at a time where there is nothing.
            if *word == u64::MAX {
                self.end_of_free = (self.end_of_free - 1) / 64 * 64;
                continue;
            }
            self.end_of_free -= 1;
            if self.take(self.end_of_free, 1).is_ok() {
                return Some(self.end_of_free);
            }
        }
        None
    }

    /// Gives back a chunk that nothing ever pointed to.
    pub(super) fn give_back_chunk(&mut self, block: u64) {
        self.give_back(block, self.chunk_blocks);
    }

    /// Gives back what a pointer pointed to, after the next commit.
    pub(super) fn give_back_later(&mut self, pointer: Pointer, is_chunk: bool) {
        self.pending.push((pointer.block(), if is_chunk { self.chunk_blocks } else { 1 }));
    }

    /// The header on the disk refers to nothing any more that was given back.
    pub(super) fn committed(&mut self) {
        for (block, count) in core::mem::take(&mut self.pending) {
            self.give_back(block, count);
        }
    }

    fn give_back(&mut self, block: u64, count: u64) {
        for block in block..block + count {
            if let Some(word) = self.words.get_mut(block as usize / 64) {
                *word &= !(1 << (block % 64));
            }
        }
        self.free += count;
        self.first_chunk = self.first_chunk.min(block / self.chunk_blocks);
        self.end_of_free = self.end_of_free.max(block + count);
    }

    /// Takes a run, all of it or nothing.
    fn take(&mut self, block: u64, count: u64) -> Result<(), BlockError> {
        let end = block.checked_add(count).filter(|end| *end <= self.blocks).ok_or(BlockError::Corrupt)?;
        let is_used = |block: u64| self.words.get(block as usize / 64).is_none_or(|word| word >> (block % 64) & 1 != 0);
        if (block..end).any(is_used) {
            return Err(BlockError::Corrupt);
        }
        for block in block..end {
            if let Some(word) = self.words.get_mut(block as usize / 64) {
                *word |= 1 << (block % 64);
            }
        }
        self.free -= count;
        Ok(())
    }
}
