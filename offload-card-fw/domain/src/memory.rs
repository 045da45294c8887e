//! Guests' memory, mapped: the only module with `unsafe`.
//!
//! What is relied on: a [`ForeignMapping`] stays where it is until it is dropped; no reference to its bytes is ever made, they
//! are reached through [`GuestSlice`]s alone; and a [`MemoryMap`] is given a mapping while that is stored, and loses it before
//! that is dropped. The memory behind a mapping may vanish: the access then faults, and goes on in memory that [`Faults`] puts
//! there. So for whoever reads and writes, the bytes are always there, and change at any time.
#![expect(unsafe_code, reason = "guests' memory is mapped and reached by pointers")]

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::AtomicBool;

use dragonfly_abi::{PAGE_SIZE, Status};
use dragonfly_rt::ForeignMapping;
use dragonfly_rt::sys::Memory;
use dragonfly_vhost_user::{Region, wire::InflightArea};
use dragonfly_virtqueue::{GuestAddress, GuestMemory, GuestSlice, MemoryError, MemoryMap, RegionError};
use thiserror::Error;

use crate::faults::{Faults, Watch};

/// Why memory cannot be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub(crate) enum MapError {
    /// The region is not one that can be part of a guest's memory.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// The kernel refuses: the handle is not one of memory that may be read and written, the region is not made of whole
    /// pages or is longer than the memory, or the card has no room.
    #[error("the kernel refuses: {0}")]
    System(Status),
    /// Memory that is to outlive the card is asked of the card.
    #[error("memory for what is in flight must be the front end's: send SET_INFLIGHT_FD")]
    NotLasting,
}

/// A guest's memory.
pub(crate) struct GuestRam {
    map: MemoryMap,
    /// By guest-physical address.
    mappings: Vec<(u64, Watch)>,
    faults: Arc<Faults>,
    is_gone: Arc<AtomicBool>,
}

impl GuestRam {
    /// No memory. `is_gone` is set when some that was added is found to have vanished.
    pub(crate) fn new(faults: Arc<Faults>, is_gone: Arc<AtomicBool>) -> Self {
        Self { map: MemoryMap::new(), mappings: Vec::new(), faults, is_gone }
    }

    /// Maps a region.
    ///
    /// # Errors
    /// [`MapError`].
    pub(crate) fn add(&mut self, region: &Region, memory: Memory) -> Result<(), MapError> {
        let mapping = ForeignMapping::new(memory, region.mmap_offset, region.size).map_err(MapError::System)?;
        // SAFETY: The mapping is stored beside the map, and `remove` takes it out of the map before it drops it. The map is
        // never cloned, and nothing else in this program touches the mapping.
        unsafe { self.map.add(GuestAddress(region.guest_address), region.size, mapping.start())? };
        self.mappings.push((region.guest_address, self.faults.watch(mapping, &self.is_gone)));
        Ok(())
    }

    /// Takes a region away.
    pub(crate) fn remove(&mut self, guest_address: u64) {
        self.map.remove(GuestAddress(guest_address));
        self.mappings.retain(|(address, _)| *address != guest_address);
    }
}

impl GuestMemory for GuestRam {
    fn piece(&self, address: GuestAddress, limit: usize) -> Result<GuestSlice<'_>, MemoryError> {
        self.map.piece(address, limit)
    }
}

/// The area for what is in flight, of which each queue has an equal part.
pub(crate) struct InFlight {
    watch: Watch,
    /// Where the area begins in what is mapped, which begins with a page.
    offset: usize,
    queues: usize,
    queue_len: usize,
}

impl InFlight {
    /// Maps the area. `is_gone` is set when it is found to have vanished.
    ///
    /// # Errors
    /// [`MapError::System`].
    pub(crate) fn map(
        area: &InflightArea,
        memory: Memory,
        faults: &Arc<Faults>,
        is_gone: &Arc<AtomicBool>,
    ) -> Result<Self, MapError> {
        let end = area.mmap_offset.checked_add(area.mmap_size).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
        let end = end.ok_or(MapError::System(Status::BadArgument))?;
        let first = area.mmap_offset - area.mmap_offset % PAGE_SIZE;
        let mapping = ForeignMapping::new(memory, first, end - first).map_err(MapError::System)?;
        let queues = area.queues.max(1);
        Ok(Self {
            watch: faults.watch(mapping, is_gone),
            // Less than a page, and a part of what was just mapped.
            offset: (area.mmap_offset - first) as usize,
            queues: queues.into(),
            queue_len: (area.mmap_size / u64::from(queues)) as usize,
        })
    }

    /// A queue's part.
    pub(crate) fn of_queue(&self, index: u16) -> Option<GuestSlice<'_>> {
        let index = usize::from(index);
        // SAFETY: All queues' parts lie in the mapping, which lives as long as the slice.
        (index < self.queues).then(|| unsafe {
            GuestSlice::new(self.watch.mapping().start().add(self.offset + index * self.queue_len), self.queue_len)
        })
    }
}
