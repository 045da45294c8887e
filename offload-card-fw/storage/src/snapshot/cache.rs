//! Nodes in memory: those that changed since the last commit, and some others.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;

use zerocopy::IntoBytes;

use super::node::{Node, Place, Pointer};
use super::sector_of;
use crate::backend::{BlockBackend, BlockError};

/// Nodes that are kept: 16 MiB of them, which map 64 GiB in chunks of 64 KiB.
const MAX_NODES: usize = 4096;

/// Changed nodes that are kept: then a commit is due.
const MAX_CHANGED: usize = 1024;

/// Nodes, by their blocks.
#[derive(Default)]
pub(super) struct NodeCache {
    nodes: BTreeMap<u64, CachedNode>,
    changed: usize,
}

struct CachedNode {
    node: Box<Node>,
    /// Differs from what is on the disk: stays until it is written.
    is_changed: bool,
    /// Was used since others had to go.
    is_recent: bool,
}

impl NodeCache {
    /// The node at `place` to which `pointer` points.
    pub(super) fn get<B: BlockBackend>(
        &mut self,
        disk: &B,
        pointer: Pointer,
        place: Place,
    ) -> Result<&mut Node, BlockError> {
        if !self.nodes.contains_key(&pointer.block()) {
            let mut node = Node::blank();
            disk.read(sector_of(pointer.block())?, node.as_mut_bytes())?;
            node.check(place, pointer.birth())?;
            self.make_room();
            self.nodes.insert(pointer.block(), CachedNode { node, is_changed: false, is_recent: true });
        }
        let cached = self.nodes.get_mut(&pointer.block()).ok_or(BlockError::Corrupt)?;
        cached.is_recent = true;
        Ok(&mut cached.node)
    }

    /// Keeps a node that is not on the disk yet.
    pub(super) fn insert_changed(&mut self, block: u64, node: Box<Node>) {
        self.make_room();
        self.nodes.insert(block, CachedNode { node, is_changed: true, is_recent: true });
        self.changed += 1;
    }

    /// Forgets the node in `block`, which is no longer part of the live volume.
    pub(super) fn forget(&mut self, block: u64) {
        if let Some(CachedNode { is_changed: true, .. }) = self.nodes.remove(&block) {
            self.changed -= 1;
        }
    }

    /// Whether so many nodes changed that it is time for a commit.
    pub(super) fn is_commit_due(&self) -> bool {
        self.changed >= MAX_CHANGED
    }

    /// Writes all that changed.
    pub(super) fn write_changed<B: BlockBackend>(&mut self, disk: &B) -> Result<(), BlockError> {
        for (block, cached) in self.nodes.iter_mut().filter(|(_, cached)| cached.is_changed) {
            cached.node.seal();
            disk.write(sector_of(*block)?, cached.node.as_bytes())?;
            cached.is_changed = false;
        }
        self.changed = 0;
        Ok(())
    }

    /// When there are too many, those that were not used since the last time go.
    fn make_room(&mut self) {
        if self.nodes.len() >= MAX_NODES {
            self.nodes.retain(|_, cached| cached.is_changed || core::mem::take(&mut cached.is_recent));
        }
    }
}
