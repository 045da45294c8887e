//! What is posted to a local APIC, by other CPUs and by itself.
//!
//! A sender posts, then looks whether the owner runs, and interrupts it if so; the owner says that it runs, then looks
//! whether something is posted. `posted` is therefore written and read in the one order of all SeqCst operations: at
//! least one of the two sees the other.

use core::sync::atomic::Ordering::{Relaxed, SeqCst};

use dragonfly_hw::x86::apic::{ErrorStatus, Lvt};

use crate::register::LVT_ERROR;
use crate::vectors::word_of;
use crate::{LocalApic, Trigger};

/// Vectors below are exceptions: no interrupt has them.
pub(crate) const FIRST_VECTOR: u8 = 16;

/// Bits of `posted` and `seen` of which each stands for a word of 64 requested vectors.
pub(crate) const WORD_BITS: u32 = 0xf;
const NMI: u32 = 1 << 4;
const INIT: u32 = 1 << 5;
const STARTUP: u32 = 1 << 6;

/// What other CPUs asked for beside interrupts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Requests {
    bits: u32,
    startup_vector: u8,
}

impl Requests {
    /// Nothing.
    #[inline]
    pub const fn is_empty(self) -> bool {
        self.bits == 0
    }

    /// A non-maskable interrupt.
    #[inline]
    pub const fn nmi(self) -> bool {
        self.bits & NMI != 0
    }

    /// INIT; comes before the start-up if there are both.
    #[inline]
    pub const fn init(self) -> bool {
        self.bits & INIT != 0
    }

    /// Start-up, with its vector: the page where the processor is to start.
    #[inline]
    pub const fn startup(self) -> Option<u8> {
        if self.bits & STARTUP != 0 { Some(self.startup_vector) } else { None }
    }
}

/// Any CPU.
impl LocalApic {
    /// Requests a fixed interrupt. Ignored while the guest has its APIC off; a vector below 16 is an error that the
    /// guest sees in ESR. True if the owner has to be told: it was not since it last looked.
    #[inline]
    pub fn post(&self, vector: u8, trigger: Trigger) -> bool {
        if self.is_accepting.get() == 0 {
            return false;
        }
        if vector < FIRST_VECTOR {
            return self.report(ErrorStatus::RECEIVE_VECTOR);
        }
        self.request(vector, trigger);
        self.announce(1 << word_of(vector))
    }

    /// Requests a non-maskable interrupt. True if the owner has to be told.
    pub fn post_nmi(&self) -> bool {
        self.announce(NMI)
    }

    /// Sends an INIT, which a start-up sent before does not survive. True if the owner has to be told.
    pub fn post_init(&self) -> bool {
        self.posted.fetch_and(!STARTUP, SeqCst);
        self.announce(INIT)
    }

    /// Sends a start-up. True if the owner has to be told.
    pub fn post_startup(&self, vector: u8) -> bool {
        self.startup_vector.store(vector, Relaxed);
        self.announce(STARTUP)
    }

    /// Whether other CPUs posted anything since the owner last called [`Self::take_requests`] or [`Self::pending`].
    #[inline]
    pub fn has_work(&self) -> bool {
        self.posted.load(SeqCst) != 0
    }

    #[inline]
    fn announce(&self, bit: u32) -> bool {
        self.posted.fetch_or(bit, SeqCst) & bit == 0
    }

    /// Enters an interrupt into IRR and TMR.
    #[inline]
    fn request(&self, vector: u8, trigger: Trigger) {
        // The trigger mode first: who sees the request sees it too.
        match trigger {
            Trigger::Level => self.level.insert(vector),
            Trigger::Edge if self.level.contains(vector) => self.level.remove(vector),
            Trigger::Edge => {}
        }
        self.requested.insert(vector);
    }

    /// Notes an error for ESR, and interrupts with the error entry of the vector table if it is new. True if the owner
    /// has to be told.
    pub(crate) fn report(&self, error: ErrorStatus) -> bool {
        let is_new = self.errors.fetch_or(error.bits(), Relaxed) & error.bits() == 0;
        let entry = self.lvt[LVT_ERROR].get();
        let vector = entry as u8;
        // An illegal vector here would be one more error of the same kind.
        let is_interrupt = is_new && entry & Lvt::MASKED.bits() == 0 && vector >= FIRST_VECTOR;
        is_interrupt && self.post(vector, Trigger::Edge)
    }
}

/// The owner.
impl LocalApic {
    /// Whether nothing at all was posted that the owner has not seen through.
    #[inline]
    pub fn is_idle(&self) -> bool {
        self.look() == 0
    }

    /// Whether other CPUs asked for something beside interrupts that was not taken.
    #[inline]
    pub fn has_requests(&self) -> bool {
        self.look() & !WORD_BITS != 0
    }

    /// What other CPUs asked for beside interrupts. Once taken it is the caller's to see through.
    #[inline]
    pub fn take_requests(&self) -> Requests {
        let seen = self.look();
        let bits = seen & !WORD_BITS;
        if bits != 0 {
            self.seen.0.set(seen & WORD_BITS);
        }
        Requests { bits, startup_vector: self.startup_vector.load(Relaxed) }
    }

    /// The guest interrupts itself: no other CPU has to know.
    #[inline]
    pub fn send_self(&self, vector: u8) {
        if vector < FIRST_VECTOR {
            self.report(ErrorStatus::SEND_VECTOR);
        } else {
            self.post_self(vector);
        }
    }

    /// As [`Self::post`], by the owner. True if it was accepted.
    #[inline]
    pub(crate) fn post_self(&self, vector: u8) -> bool {
        if self.is_accepting.get() == 0 {
            return false;
        }
        if vector < FIRST_VECTOR {
            self.report(ErrorStatus::RECEIVE_VECTOR);
            return false;
        }
        self.request(vector, Trigger::Edge);
        self.seen.0.set(self.seen.0.get() | 1 << word_of(vector));
        true
    }

    /// Takes over what was posted.
    #[inline]
    pub(crate) fn look(&self) -> u32 {
        let mut seen = self.seen.0.get();
        if self.has_work() {
            let posted = self.posted.swap(0, SeqCst);
            if posted & INIT != 0 {
                seen &= !STARTUP;
            }
            seen |= posted;
            self.seen.0.set(seen);
        }
        seen
    }
}
