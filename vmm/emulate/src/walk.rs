//! Translations that are kept, and held against the tables whenever they are used.

use arrayvec::ArrayVec;

use crate::memory::{GuestPhys, Memory};
use crate::tables::{ADDRESS, MAX_LEVELS};

/// An entry on the way to a page, as it was left.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub address: GuestPhys,
    pub value: u64,
}

/// The way to a page.
#[derive(Clone, Debug)]
pub struct Walk {
    /// First linear address of the page.
    linear: u64,
    /// Bits of an address that are the offset in the page.
    offset: u64,
    /// Where the page is.
    physical: u64,
    /// The entries, from the root on; none if paging is off.
    pub steps: ArrayVec<Step, MAX_LEVELS>,
}

impl Walk {
    /// Every linear address is the physical one.
    pub const fn without_paging() -> Self {
        Self { linear: 0, offset: u64::MAX, physical: 0, steps: ArrayVec::new_const() }
    }

    /// The page that a linear address lies in begins at this physical address but for the bits of the offset.
    pub const fn set_page(&mut self, linear: u64, physical: u64, offset: u64) {
        (self.linear, self.physical, self.offset) = (linear & !offset, physical & !offset, offset);
    }

    /// The physical address of a linear address in the page.
    #[inline]
    pub const fn address(&self, linear: u64) -> GuestPhys {
        GuestPhys(self.physical | linear & self.offset)
    }

    /// Whether another walk to the page would be this one again, with nothing to mark: the tables of 4-level or 5-level
    /// paging that CR3 names have the same entries. Rights are not looked at: they follow from the entries, the rules and
    /// the kind of access, of which the last two are the caller's to compare.
    #[inline]
    pub fn is_still(&self, cr3: u64, memory: &impl Memory) -> bool {
        let [first, rest @ ..] = self.steps.as_slice() else { return false };
        // Tables that differ at the root may be the same below: kernels have one set of tables for all programs.
        let root = GuestPhys(cr3 & ADDRESS | first.address.0 & !ADDRESS);
        memory.ram_word(root) == Some(first.value)
            && rest.iter().all(|step| memory.ram_word(step.address) == Some(step.value))
    }
}
