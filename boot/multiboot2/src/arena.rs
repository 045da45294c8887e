//! One piece of free memory that everything the loader places is taken from.

use dragonfly_handoff::{MemoryMap, PAGE_SIZE, PhysAddr, PhysRange};

/// Below this, 1 MiB, the loader leaves nothing: the kernel needs a page there to start the other processors from.
pub const LOWEST: PhysAddr = PhysAddr(1 << 20);

/// The loader's own page tables end here.
const HIGHEST: PhysAddr = PhysAddr(4 << 30);

/// The largest usable range between 1 MiB and 4 GiB, if there is any.
pub fn choose(map: &MemoryMap) -> Option<PhysRange> {
    let reachable = map.usable().filter_map(|range| {
        let base = range.base().max(LOWEST);
        PhysRange::new(base, range.end().min(HIGHEST).0.checked_sub(base.0)?)
    });
    reachable.filter(|range| !range.is_empty()).max_by_key(|range| range.size())
}

/// Free memory, taken page-wise from its end downward, so that what is left for the kernel stays in one piece.
pub struct Arena<'m> {
    base: PhysAddr,
    memory: &'m mut [u8],
    /// How many bytes from the beginning are free.
    free: usize,
}

impl<'m> Arena<'m> {
    /// The memory at physical address `base`, which begins at a page and whose odd bytes at the end are not used.
    pub fn new(base: PhysAddr, memory: &'m mut [u8]) -> Self {
        let free = memory.len() - memory.len() % PAGE_SIZE as usize;
        Self { base, memory, free }
    }

    /// All of the memory.
    pub fn range(&self) -> PhysRange {
        PhysRange::new(self.base, self.memory.len() as u64).unwrap_or_default()
    }

    /// What has been taken so far.
    pub fn taken(&self) -> PhysRange {
        let free = self.free as u64;
        let size = (self.memory.len() as u64).saturating_sub(free);
        PhysRange::new(PhysAddr(self.base.0.saturating_add(free)), size).unwrap_or_default()
    }

    /// Takes `size` bytes, rounded up to whole pages and filled with zeros; none if there are not as many.
    pub fn take(&mut self, size: u64) -> Option<PhysRange> {
        let size = size.checked_next_multiple_of(PAGE_SIZE)?;
        let start = self.free.checked_sub(usize::try_from(size).ok()?)?;
        self.memory.get_mut(start..self.free)?.fill(0);
        self.free = start;
        PhysRange::new(PhysAddr(self.base.0.checked_add(start as u64)?), size)
    }

    /// The bytes at `address`; none if they are not all in the arena.
    pub fn bytes(&self, address: PhysAddr, size: usize) -> Option<&[u8]> {
        let start = self.offset(address)?;
        self.memory.get(start..start.checked_add(size)?)
    }

    /// Copies `bytes` to `address`; none if they would not all be in the arena.
    pub fn write(&mut self, address: PhysAddr, bytes: &[u8]) -> Option<()> {
        let start = self.offset(address)?;
        self.memory.get_mut(start..start.checked_add(bytes.len())?)?.copy_from_slice(bytes);
        Some(())
    }

    fn offset(&self, address: PhysAddr) -> Option<usize> {
        usize::try_from(address.0.checked_sub(self.base.0)?).ok()
    }
}
