//! Operations over ranges of a page table, in slices.
#![expect(unsafe_code, reason = "tables go back to where they came from")]

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::PageTable;
use super::format::{Mapping, PageFormat, span_mask};
use super::walk::{Action, FreedTables, Walk};
use crate::address::Address;
use crate::physical::{FrameSource, PhysicalMemory};

impl<F: PageFormat> PageTable<F> {
    /// Takes out the pages in a range until the budget is used up or the slice is full, and calls `visit` for each. A
    /// page that reaches beyond the range goes as a whole; see [`split`](Self::split). Cannot fail.
    ///
    /// The caller flushes the TLBs, then gives back what the result holds and what was mapped, then goes on where the
    /// slice ended.
    pub fn unmap_range<M: PhysicalMemory>(
        &mut self,
        memory: &M,
        range: Range<F::Input>,
        budget: &mut u32,
        visit: impl FnMut(Mapping<F::Input>),
    ) -> Unmapped<F::Input> {
        let mut tables = FreedTables::new();
        let next = match self.owned_bits(range) {
            Some((first, last)) => self.walk(memory, Action::Unmap, (first, last), budget, &mut tables, visit),
            None => None,
        };
        Unmapped { tables, next }
    }

    /// Calls `visit` for each page from an address on, shared ones included, within the budget. Gives where to go on,
    /// if not done.
    pub fn for_each_leaf<M: PhysicalMemory>(
        &self,
        memory: &M,
        from: F::Input,
        budget: &mut u32,
        visit: impl FnMut(Mapping<F::Input>),
    ) -> Option<F::Input> {
        let bits = (self.bits(from), span_mask(self.format.levels()));
        self.walk(memory, Action::Visit, bits, budget, &mut FreedTables::new(), visit)
    }

    /// Takes out all pages that are not shared, within the budget, calls `visit` for each and gives the tables back, at
    /// last the root. Whether it is done; if not, it goes on with the next call. No processor may use the page table
    /// any more. One that is shared stays.
    pub fn destroy<S: FrameSource>(
        &mut self,
        source: &S,
        budget: &mut u32,
        mut visit: impl FnMut(Mapping<F::Input>),
    ) -> bool {
        if self.is_shared {
            return true;
        }
        let mut next = Some(F::Input::new(self.format.extend(self.destroyed_up_to)));
        while let Some(from) = next {
            self.destroyed_up_to = self.bits(from);
            if *budget == 0 {
                return false;
            }
            let (range, mut tables) = ((self.destroyed_up_to, self.last_owned()), FreedTables::new());
            next = self.walk(source, Action::Unmap, range, budget, &mut tables, &mut visit);
            free_tables(source, &mut tables);
        }
        self.destroyed_up_to = 0;
        if let Some(root) = self.root_table() {
            self.top.store(0, Ordering::Relaxed);
            // SAFETY: It came from such a source, the tables below are gone, and no processor uses it.
            unsafe { source.give_frame(root) };
        }
        true
    }

    fn walk<M: PhysicalMemory>(
        &self,
        memory: &M,
        action: Action,
        (at, last): (u64, u64),
        budget: &mut u32,
        freed: &mut FreedTables,
        visit: impl FnMut(Mapping<F::Input>),
    ) -> Option<F::Input> {
        let mut walk = Walk {
            format: self.format,
            memory,
            action,
            visit,
            at,
            last,
            budget,
            freed,
            is_done: false,
            is_stopped: false,
            keeps_root: self.has_fixed_root,
        };
        walk.run(&self.top);
        (!walk.is_done).then(|| F::Input::new(self.format.extend(walk.at)))
    }

    /// The first and the last address bits of the part of a range that is not shared. The range's end may be the
    /// address after the last one, 0.
    pub(super) fn owned_bits(&self, range: Range<F::Input>) -> Option<(u64, u64)> {
        let last = range.end.as_u64().wrapping_sub(1);
        if range.start.as_u64() > last {
            return None;
        }
        let first = self.bits(range.start);
        let last = self.bits(F::Input::new(last)).min(self.last_owned());
        (first <= last).then_some((first, last))
    }
}

/// What a slice of [`PageTable::unmap_range`] did. Tables are lost if it is dropped before they are given back.
#[must_use = "the tables in it have to be given back"]
pub struct Unmapped<I> {
    tables: FreedTables,
    next: Option<I>,
}

impl<I: Copy> Unmapped<I> {
    /// Whether the range has been dealt with.
    #[inline]
    pub const fn is_done(&self) -> bool {
        self.next.is_none()
    }

    /// Where to go on.
    #[inline]
    pub const fn next(&self) -> Option<I> {
        self.next
    }

    /// Gives back the tables that became empty. No processor may still have them in its TLB: call it after the flush.
    pub fn free_tables<S: FrameSource>(&mut self, source: &S) {
        free_tables(source, &mut self.tables);
    }
}

impl<I> Drop for Unmapped<I> {
    fn drop(&mut self) {
        debug_assert!(self.tables.is_empty(), "tables were not given back");
    }
}

fn free_tables<S: FrameSource>(source: &S, tables: &mut FreedTables) {
    while let Some(table) = tables.pop() {
        // SAFETY: It came from a source over the same frames, has left its page table, and by what the callers say no
        // processor uses it.
        unsafe { source.give_frame(table) };
    }
}
