//! Ends of interrupts that a guest tells in its memory instead of by an exit (Linux, `Documentation/virt/kvm/x86/msr.rst`,
//! `MSR_KVM_PV_EOI_EN`): with bit 0 of its word set it may clear that in place of a write to EOI.
//!
//! The bit is set for an entry into the guest only, and taken back before anybody looks at what is in service. What a guest
//! makes of its word is its own matter: at most it ends an interrupt of its own, or does not.

use core::sync::atomic::{AtomicU64, Ordering};

use dragonfly_abi::Status;
use dragonfly_abi::guest::{END_SIZE, RECORD_SIZE};
use dragonfly_vapic::LocalApic;

use crate::arch::x86_64::X86;
use crate::shared_page::{RecordPlace, with_record};

/// The next end of an interrupt may be told by clearing this.
const MAY_SKIP: u64 = 1 << 0;

/// A memory object, and a multiple of [`END_SIZE`] in it.
pub type Place = RecordPlace<X86>;

/// Where a guest tells ends of interrupts.
pub struct EndInMemory {
    place: Option<Place>,
    /// The guest may have cleared the bit since it was set.
    is_set: bool,
}

impl EndInMemory {
    /// Nowhere.
    pub const NONE: Self = Self { place: None, is_set: false };

    /// Says where, while the guest does not run. Gives back where it was before.
    pub fn set_place(&mut self, place: Option<Place>) -> Result<Option<Place>, Status> {
        if let Some((memory, offset)) = &place {
            if !offset.is_multiple_of(END_SIZE) {
                return Err(Status::BadArgument);
            }
            memory.with_frame(*offset, |_| ()).ok_or(Status::NotMapped)?;
        }
        Ok(core::mem::replace(&mut self.place, place))
    }

    /// Whether there is a place.
    #[inline]
    pub fn has_place(&self) -> bool {
        self.place.is_some()
    }

    /// Whether the guest may have told an end since it was permitted.
    #[inline]
    pub fn is_permitted(&self) -> bool {
        self.is_set
    }

    /// Lets the guest tell the next end there if nobody waits for it: of what is in service, or offered.
    // Not inlined, as the next one: most exits need few registers.
    #[inline(never)]
    pub fn permit_if(&mut self, apic: &LocalApic, offered: Option<u8>) {
        if apic.may_end_unseen(offered) {
            self.is_set = self.with_word(|word, bit| word.fetch_or(bit, Ordering::Relaxed)).is_some();
        }
    }

    /// Ends the interrupt if the guest has; from now on it may not.
    #[inline(never)]
    pub fn settle(&mut self, apic: &LocalApic) {
        self.is_set = false;
        // Without its frame the guest has lost more than an interrupt.
        if self.with_word(|word, bit| word.fetch_and(!bit, Ordering::Relaxed) & bit == 0) == Some(true) {
            // It was no level-triggered one when that was permitted. One of the same vector that has come since has an end
            // of its own.
            apic.end_of_interrupt();
        }
    }

    /// Does something with the bit in the aligned eight bytes that it is in. Other virtual CPUs may change what is beside
    /// it; this one does not run.
    fn with_word<R>(&self, work: impl FnOnce(&AtomicU64, u64) -> R) -> Option<R> {
        let (memory, offset) = self.place.as_ref()?;
        let inside = offset % RECORD_SIZE;
        let bit = MAY_SKIP << (inside % 8 * 8);
        with_record(memory, X86, offset - inside, |words| Some(work(words.get(inside as usize / 8)?, bit)))?
    }
}
