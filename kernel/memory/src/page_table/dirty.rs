//! Pages to which somebody has written.
#![expect(unsafe_code, reason = "tables are reached by their physical addresses")]

use core::ops::Range;
use core::sync::atomic::Ordering;

use super::PageTable;
use super::format::{Entry, Mapping, PageFormat};
use super::walk::{Action, FreedTables, Walk, entry, index};
use crate::address::Address;
use crate::physical::PhysicalMemory;

impl<F: PageFormat> PageTable<F> {
    /// Notes that the page at an address was written: in the entries that lead there and, if the processor does not say
    /// so itself, in its own, which it may be written through from then on.
    pub fn note_dirty<M: PhysicalMemory>(&mut self, memory: &M, input: F::Input, sets_leaf: bool) {
        let bits = self.bits(input);
        if self.format.extend(bits) != input.as_u64() {
            return;
        }
        let mut level = self.format.levels();
        let mut slot = &self.top;
        loop {
            match self.format.decode(slot.load(Ordering::Acquire), level) {
                Entry::Table { frame, .. } if level > 0 => {
                    slot.fetch_or(self.format.dirty_below(), Ordering::AcqRel);
                    level -= 1;
                    // SAFETY: The frame comes from an entry of this page table.
                    slot = unsafe { entry(memory, frame, index(bits, level)) };
                }
                Entry::Leaf { .. } if sets_leaf => {
                    slot.fetch_or(self.format.dirty(), Ordering::AcqRel);
                    return;
                }
                _ => return,
            }
        }
    }

    /// Makes the dirty pages of a range clean and calls `visit` for each, within the budget; from the first one on it
    /// looks at `reach` bytes at most. Unless it is to be thorough, it leaves out pages of which nobody has noted that
    /// they are dirty, where the format has a place for that. Gives where to go on, if not done.
    ///
    /// The caller flushes the TLBs before it reads what is in the pages: what is written through older translations is
    /// not told again.
    pub fn clean_range<M: PhysicalMemory>(
        &mut self,
        memory: &M,
        range: Range<F::Input>,
        (reach, is_thorough): (u64, bool),
        budget: &mut u32,
        visit: impl FnMut(Mapping<F::Input>),
    ) -> Option<F::Input> {
        let (at, last) = self.owned_bits(range)?;
        let mut walk = Walk {
            format: self.format,
            memory,
            action: Action::Clean { reach: reach.max(1), is_thorough },
            visit,
            at,
            last,
            budget,
            freed: &mut FreedTables::new(),
            is_done: false,
            is_stopped: false,
            keeps_root: true,
        };
        walk.run(&self.top);
        // The walk's own end may have come nearer.
        let next = walk.at;
        (next > at && next <= last || walk.is_stopped).then(|| F::Input::new(self.format.extend(next)))
    }
}
