//! The walk over the entries of a range, on which all operations but the mapping of single pages are built.
#![expect(unsafe_code, reason = "tables are reached by their physical addresses")]

use core::sync::atomic::{AtomicU64, Ordering};

use super::format::{Entry, MAX_LEVELS, Mapping, PageFormat, span_mask, span_shift};
use crate::address::{Address, HostPhys, PageSize};
use crate::physical::PhysicalMemory;

/// Entries of a table.
pub(super) const ENTRIES: u64 = 512;
/// Tables that one slice of an operation takes out at most.
const MAX_FREED: usize = 32;

/// Entry `index` of a table.
///
/// # Safety
/// `table` is a frame that is a table, and stays one as long as the reference is used. `memory` reaches it.
#[inline]
pub(super) unsafe fn entry<M: PhysicalMemory>(memory: &M, table: HostPhys, index: u64) -> &AtomicU64 {
    // SAFETY: By the contract; the index is within the table. Processors read and write entries atomically, too.
    unsafe { memory.pointer(table).cast::<AtomicU64>().add((index % ENTRIES) as usize).as_ref() }
}

/// The index of the entry of this level that translates these address bits.
#[inline]
pub(super) const fn index(bits: u64, level: u32) -> u64 {
    (bits >> span_shift(level)) % ENTRIES
}

/// Changes the number of used entries of the table to which an entry leads.
#[inline]
pub(super) fn set_count<F: PageFormat>(format: F, slot: &AtomicU64, frame: HostPhys, count: u32) {
    let noted = slot.load(Ordering::Relaxed) & format.dirty_below();
    // Release: a processor that sees the entry sees what it leads to.
    slot.store(format.table(frame, count) | noted, Ordering::Release);
}

/// Tables that are no longer part of their page table.
pub(super) struct FreedTables {
    frames: [HostPhys; MAX_FREED],
    count: usize,
}

impl FreedTables {
    pub(super) const fn new() -> Self {
        Self { frames: [HostPhys::new(0); MAX_FREED], count: 0 }
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(super) fn pop(&mut self) -> Option<HostPhys> {
        self.count = self.count.checked_sub(1)?;
        self.frames.get(self.count).copied()
    }

    /// Whether all tables on the way to one entry fit.
    const fn has_room(&self) -> bool {
        self.count + MAX_LEVELS as usize <= MAX_FREED
    }

    fn push(&mut self, frame: HostPhys) {
        debug_assert!(self.count < MAX_FREED);
        if let Some(place) = self.frames.get_mut(self.count) {
            *place = frame;
            self.count += 1;
        }
    }
}

/// What to do with the pages in the range.
#[derive(Clone, Copy)]
pub(super) enum Action {
    /// Look at them.
    Visit,
    /// Take them out, and the tables that become empty.
    Unmap,
    /// Make those clean that are dirty, and visit them. From the first one on the walk goes on for so many bytes.
    Clean {
        /// Bytes.
        reach: u64,
        /// Looks below all tables, not only below those that have been noted.
        is_thorough: bool,
    },
}

/// A walk from one input address to another.
pub(super) struct Walk<'a, F, M, V> {
    pub(super) format: F,
    pub(super) memory: &'a M,
    pub(super) action: Action,
    /// Called for each page to which something is done, afterwards.
    pub(super) visit: V,
    /// Address bits of the entry to look at next, and of the last byte of the range.
    pub(super) at: u64,
    pub(super) last: u64,
    /// How many more pages and empty entries may be looked at.
    pub(super) budget: &'a mut u32,
    pub(super) freed: &'a mut FreedTables,
    /// Whether the walk is over the range.
    pub(super) is_done: bool,
    /// Whether it stopped before.
    pub(super) is_stopped: bool,
    /// Whether the topmost table stays even if it is empty.
    pub(super) keeps_root: bool,
}

impl<F: PageFormat, M: PhysicalMemory, V: FnMut(Mapping<F::Input>)> Walk<'_, F, M, V> {
    /// Handles the part of the range that the topmost entry covers: all of it.
    pub(super) fn run(&mut self, top: &AtomicU64) {
        self.entry(top, self.format.levels());
    }

    /// Handles the part of the range that an entry covers. Whether the entry became empty.
    fn entry(&mut self, slot: &AtomicU64, level: u32) -> bool {
        if *self.budget == 0 {
            self.is_stopped = true;
            return false;
        }
        match self.format.decode(slot.load(Ordering::Acquire), level) {
            Entry::Empty => {
                self.pass(level);
                false
            }
            Entry::Leaf { frame, access } => PageSize::of_level(level).is_some_and(|size| {
                self.leaf(slot, level, Mapping { base: self.base(level), phys: frame, size, access })
            }),
            Entry::Table { .. } if self.is_clean_below(slot) => {
                self.pass(level);
                false
            }
            Entry::Table { frame, count } => self.table(slot, level, frame, count),
        }
    }

    /// Whether the walk is after dirty pages, and there are none below an entry.
    fn is_clean_below(&self, slot: &AtomicU64) -> bool {
        let noted = self.format.dirty_below();
        matches!(self.action, Action::Clean { is_thorough: false, .. })
            && noted != 0
            && slot.load(Ordering::Relaxed) & noted == 0
    }

    fn leaf(&mut self, slot: &AtomicU64, level: u32, mapping: Mapping<F::Input>) -> bool {
        let first = self.at & !span_mask(level);
        let removed = match self.action {
            Action::Visit => false,
            Action::Clean { reach, .. } => {
                let dirty = self.format.dirty();
                // The processor sets it at any time, so it is taken in one step.
                if slot.load(Ordering::Relaxed) & dirty == 0 || slot.fetch_and(!dirty, Ordering::AcqRel) & dirty == 0 {
                    self.pass(level);
                    return false;
                }
                self.last = self.last.min(first.saturating_add(reach - 1));
                false
            }
            Action::Unmap => {
                if !self.freed.has_room() {
                    self.is_stopped = true;
                    return false;
                }
                // Release, as for all changes: a processor that sees one sees those before it.
                slot.store(0, Ordering::Release);
                true
            }
        };
        (self.visit)(mapping);
        self.pass(level);
        removed
    }

    fn table(&mut self, slot: &AtomicU64, level: u32, frame: HostPhys, count: u32) -> bool {
        let Some(below) = level.checked_sub(1) else { return false };
        let (start, last, mut removed) = (self.at, self.at | span_mask(level), 0);
        while !self.is_done && !self.is_stopped && self.at <= last {
            if matches!(self.action, Action::Unmap) && removed == count {
                // The rest of the table is empty.
                self.pass_to(last);
                break;
            }
            // SAFETY: The frame comes from an entry of this page table, which keeps it until it is empty.
            let next = unsafe { entry(self.memory, frame, index(self.at, below)) };
            removed += u32::from(self.entry(next, below));
        }
        if matches!(self.action, Action::Clean { .. }) && start & span_mask(level) == 0 && self.at > last {
            slot.fetch_and(!self.format.dirty_below(), Ordering::AcqRel);
        }
        if removed == 0 {
            return false;
        }
        let left = count.saturating_sub(removed);
        if left == 0 && !(self.keeps_root && level == self.format.levels()) {
            slot.store(0, Ordering::Release);
            self.freed.push(frame);
            return true;
        }
        set_count(self.format, slot, frame, left);
        false
    }

    /// Goes on behind the entry of this level.
    fn pass(&mut self, level: u32) {
        *self.budget -= 1;
        self.pass_to(self.at | span_mask(level));
    }

    fn pass_to(&mut self, last: u64) {
        self.is_done = last >= self.last;
        self.at = last.wrapping_add(1);
    }

    /// The first input address of the entry of this level.
    fn base(&self, level: u32) -> F::Input {
        F::Input::new(self.format.extend(self.at & !span_mask(level)))
    }
}
