//! A domain's handle table: handles to capabilities.

use dragonfly_abi::{Handle, Status};
use dragonfly_memory::{Account, Charge, Unique};

use crate::Ref;
use crate::arch::Arch;
use crate::capability::Capability;

/// Slots in one page of the table.
const PAGE_SLOTS: usize = 64;
/// Pages of a table.
const PAGES: usize = 128;
/// The end of the list of free slots.
const NONE: u16 = u16::MAX;

struct Slot<A: Arch> {
    capability: Option<Ref<Capability<A>, A>>,
    /// How often the slot was emptied, so that a stale handle is told from the slot's next one (for 65,536 uses).
    generation: u16,
    next_free: u16,
}

struct Page<A: Arch> {
    slots: [Slot<A>; PAGE_SLOTS],
    _charge: Charge<A::Heap>,
}

/// Handles to capabilities. Slot 0 is never used.
pub struct HandleTable<A: Arch> {
    pages: [Option<Unique<Page<A>, A::Heap>>; PAGES],
    first_free: u16,
    next_unused: u16,
    count: u64,
    is_closed: bool,
    /// Once closed: all slots below are empty.
    emptied_up_to: u16,
}

impl<A: Arch> HandleTable<A> {
    /// An empty table.
    pub const EMPTY: Self = Self {
        pages: [const { None }; PAGES],
        first_free: NONE,
        next_unused: 1,
        count: 0,
        is_closed: false,
        emptied_up_to: 1,
    };

    /// How many handles are in use.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Refuses new handles from now on.
    pub fn close(&mut self) {
        self.is_closed = true;
    }

    /// The capability that a handle names.
    #[inline]
    pub fn get(&self, handle: Handle) -> Result<&Ref<Capability<A>, A>, Status> {
        let slot = self.slot(handle.slot()).ok_or(Status::BadHandle)?;
        match &slot.capability {
            Some(capability) if slot.generation == handle.generation() => Ok(capability),
            _ => Err(Status::BadHandle),
        }
    }

    /// Gets a slot ready, so that [`HandleTable::fill`] cannot fail. The page is charged to `account`.
    pub fn reserve(&mut self, arch: A, account: &Ref<Account<A::Heap>, A>) -> Result<u16, Status> {
        if self.is_closed {
            return Err(Status::BadHandle);
        }
        if self.first_free != NONE {
            return Ok(self.first_free);
        }
        let slot = self.next_unused;
        let index = usize::from(slot) / PAGE_SLOTS;
        let page = self.pages.get_mut(index).ok_or(Status::NoHandles)?;
        if page.is_none() {
            let charge = Account::charge(account, dragonfly_memory::footprint(core::alloc::Layout::new::<Page<A>>()))
                .map_err(|_| Status::QuotaExceeded)?;
            let slots = [const { Slot { capability: None, generation: 0, next_free: NONE } }; PAGE_SLOTS];
            let new = Unique::try_new(arch.heap(), Page { slots, _charge: charge });
            *page = Some(new.map_err(|_| Status::OutOfMemory)?);
        }
        Ok(slot)
    }

    /// Puts a capability into the slot that [`HandleTable::reserve`] gave last.
    pub fn fill(&mut self, slot: u16, capability: Ref<Capability<A>, A>) -> Handle {
        let was_unused = slot == self.next_unused;
        let Some(entry) = self.slot_mut(slot) else { return Handle::NULL };
        let handle = Handle::new(slot, entry.generation);
        entry.capability = Some(capability);
        let next_free = core::mem::replace(&mut entry.next_free, NONE);
        if was_unused {
            self.next_unused += 1;
        } else {
            self.first_free = next_free;
        }
        self.count += 1;
        handle
    }

    /// Empties a slot, if it holds this capability.
    pub fn empty(&mut self, slot: u16, capability: &Ref<Capability<A>, A>) -> Option<Ref<Capability<A>, A>> {
        let first_free = self.first_free;
        let entry = self.slot_mut(slot)?;
        if !entry.capability.as_ref().is_some_and(|held| Ref::<_, A>::ptr_eq(held, capability)) {
            return None;
        }
        let removed = entry.capability.take();
        entry.generation = entry.generation.wrapping_add(1);
        entry.next_free = first_free;
        self.first_free = slot;
        self.count -= 1;
        removed
    }

    /// The next capability of a closed table to take away, looking at no more than `budget` slots; nothing if there is
    /// none so far. See [`HandleTable::is_emptied`].
    pub fn next_to_empty(&mut self, budget: &mut u32) -> Option<Ref<Capability<A>, A>> {
        while !self.is_emptied() && *budget > 0 {
            *budget -= 1;
            if let Some(capability) = self.slot(self.emptied_up_to).and_then(|entry| entry.capability.clone()) {
                return Some(capability);
            }
            self.emptied_up_to += 1;
        }
        None
    }

    /// Whether a closed table holds nothing any more.
    pub fn is_emptied(&self) -> bool {
        self.emptied_up_to >= self.next_unused
    }

    #[inline]
    fn slot(&self, slot: u16) -> Option<&Slot<A>> {
        let slot = usize::from(slot);
        self.pages.get(slot / PAGE_SLOTS)?.as_ref()?.slots.get(slot % PAGE_SLOTS)
    }

    fn slot_mut(&mut self, slot: u16) -> Option<&mut Slot<A>> {
        let slot = usize::from(slot);
        self.pages.get_mut(slot / PAGE_SLOTS)?.as_mut()?.slots.get_mut(slot % PAGE_SLOTS)
    }
}

#[cfg(test)]
mod inspection {
    use super::{Arch, Capability, Handle, HandleTable, Ref};

    impl<A: Arch> HandleTable<A> {
        /// All handles and what they name.
        pub fn handles(&self) -> Vec<(Handle, Ref<Capability<A>, A>)> {
            let slots = (1..self.next_unused).filter_map(|slot| Some((slot, self.slot(slot)?)));
            slots.filter_map(|(at, slot)| Some((Handle::new(at, slot.generation), slot.capability.clone()?))).collect()
        }
    }
}
