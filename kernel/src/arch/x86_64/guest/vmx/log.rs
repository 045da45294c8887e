//! The processor's log of pages to which a guest writes (SDM 3C, "Page-Modification Logging").
//!
//! It only says below which tables there are dirty pages: the dirty flags say which.
#![expect(unsafe_code, reason = "the log is a page that the processor writes")]

use dragonfly_hw::x86::vmx::control::SecondaryControls;
use dragonfly_hw::x86::vmx::field::Field;
use dragonfly_hw::x86::vmx::region::PML_ENTRIES;
use dragonfly_memory::GuestPhys;

use super::VmxVcpu;
use super::vmcs::{read, write};
use crate::arch::x86_64::X86;
use crate::frames::OwnedFrame;
use crate::space::GuestSpace;

/// The index with an empty log: entries are written from the last one down.
const EMPTY: u64 = PML_ENTRIES as u64 - 1;

/// A virtual CPU's log.
pub struct Log {
    page: Option<OwnedFrame<X86>>,
    /// Whether the VMCS has it on.
    pub is_on: bool,
}

impl Log {
    /// A log that is off; nothing if the processor has none.
    pub fn new(page: Option<OwnedFrame<X86>>) -> Self {
        Self { page, is_on: false }
    }

    /// Tells what is in it, and empties it. The VMCS is current.
    #[cold]
    #[inline(never)]
    pub fn empty(&self, space: &GuestSpace<X86>) {
        let index = read(Field::PML_INDEX);
        let Some(page) = self.page.as_ref().filter(|_| index != EMPTY) else { return };
        // With a full log the index has gone below 0.
        let first = if index > EMPTY { 0 } else { index as usize + 1 };
        for entry in first..usize::from(PML_ENTRIES) {
            // SAFETY: The page is this virtual CPU's and holds this many words, and the guest does not run: the processor
            // leaves it alone.
            let address = unsafe { page.pointer().cast::<u64>().add(entry).read_volatile() };
            space.note_dirty(GuestPhys::new(address));
        }
        write(Field::PML_INDEX, EMPTY);
    }
}

impl VmxVcpu {
    /// Switches the log on or off. The VMCS is current, and the log empty.
    pub(super) fn set_log(&mut self, is_on: bool) {
        let Some(page) = &self.log.page else { return };
        if self.log.is_on == is_on {
            return;
        }
        self.log.is_on = is_on;
        write(Field::PML_ADDRESS, page.address().as_u64());
        write(Field::PML_INDEX, EMPTY);
        let others = read(Field::SECONDARY_PROCESSOR_BASED_CONTROLS) & !u64::from(SecondaryControls::ENABLE_PML.bits());
        let log = if is_on { SecondaryControls::ENABLE_PML } else { SecondaryControls::empty() };
        write(Field::SECONDARY_PROCESSOR_BASED_CONTROLS, others | u64::from(log.bits()));
    }
}
