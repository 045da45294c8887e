//! The local APIC: what is posted to it, and what it delivers.

use core::sync::atomic::{
    AtomicU8, AtomicU32,
    Ordering::{Relaxed, SeqCst},
};

use dragonfly_hw::x86::apic::{ErrorStatus, Lvt, SpuriousVector};
use dragonfly_hw::x86::msr::ApicBase;

use crate::mode::{FORMAT_FLAT, initial_base};
use crate::owned::{Owned32, Owned64};
use crate::register::{LVT_COUNT, LVT_ERROR, SPURIOUS_AT_RESET};
use crate::timer::Timer;
use crate::vectors::{self, Vectors, word_of};
use crate::{Effect, Trigger};

/// Vectors below are exceptions: no interrupt has them.
pub(crate) const FIRST_VECTOR: u8 = 16;

/// Bits of `posted` and `seen` of which each stands for a word of 64 requested vectors.
const WORD_BITS: u32 = 0xf;
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

/// A guest's local APIC. Shared by the CPU that runs the vCPU (the owner) and those that send it interrupts.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct LocalApic {
    // What senders write, on cache lines of its own.
    /// IRR: requested, not yet delivered.
    pub(crate) requested: Vectors,
    /// TMR: which of them are level-triggered.
    pub(crate) level: Vectors,
    /// What was posted since the owner looked: [`WORD_BITS`], [`NMI`], [`INIT`], [`STARTUP`].
    posted: AtomicU32,
    /// Errors since the guest last wrote ESR.
    pub(crate) errors: AtomicU32,
    startup_vector: AtomicU8,

    // What the owner writes.
    /// What of `posted` the owner took over: word bits stay until the word is found empty, requests until taken.
    seen: OwnerLine,
    /// ISR: delivered, not yet ended.
    pub(crate) in_service: Vectors,
    /// The highest of them, 0 for none.
    highest_in_service: Owned32,
    /// Fixed interrupts are accepted: the APIC is on, by `IA32_APIC_BASE` and by SVR.
    is_accepting: Owned32,
    pub(crate) task_priority: Owned32,
    pub(crate) base: Owned64,
    pub(crate) command: Owned64,
    pub(crate) timer: Timer,
    pub(crate) id: u32,
    pub(crate) xapic_id: Owned32,
    pub(crate) logical_id: Owned32,
    pub(crate) format: Owned32,
    pub(crate) spurious: Owned32,
    /// ESR as the guest reads it.
    pub(crate) error_status: Owned32,
    pub(crate) lvt: [Owned32; LVT_COUNT],
}

/// Starts the owner's cache lines.
#[derive(Debug)]
#[repr(align(64))]
struct OwnerLine(Owned32);

impl LocalApic {
    /// The APIC with x2APIC ID `id` after power-up, but in x2APIC mode. ID 0 is the boot processor's.
    #[must_use]
    pub const fn new(id: u32) -> Self {
        Self {
            requested: Vectors::new(),
            level: Vectors::new(),
            posted: AtomicU32::new(0),
            errors: AtomicU32::new(0),
            startup_vector: AtomicU8::new(0),
            seen: OwnerLine(Owned32::new(0)),
            in_service: Vectors::new(),
            highest_in_service: Owned32::new(0),
            is_accepting: Owned32::new(0),
            task_priority: Owned32::new(0),
            base: Owned64::new(initial_base(id)),
            command: Owned64::new(0),
            timer: Timer::new(),
            id,
            xapic_id: Owned32::new(id & 0xff),
            logical_id: Owned32::new(0),
            format: Owned32::new(FORMAT_FLAT),
            spurious: Owned32::new(SPURIOUS_AT_RESET),
            error_status: Owned32::new(0),
            lvt: [const { Owned32::new(Lvt::MASKED.bits()) }; LVT_COUNT],
        }
    }

    /// The x2APIC ID.
    #[inline]
    pub const fn id(&self) -> u32 {
        self.id
    }

    // Any CPU. A sender posts, then looks whether the owner runs, and interrupts it if so; the owner says that it runs,
    // then looks whether something is posted. `posted` is therefore written and read in the one order of all SeqCst
    // operations, so that at least one of the two sees the other.

    /// Requests a fixed interrupt. Ignored while the guest has its APIC off; a vector below 16 is an error that the
    /// guest sees in ESR. True if the owner has to be told: it was not since it last looked.
    #[inline]
    pub fn post(&self, vector: u8, trigger: Trigger) -> bool {
        if !self.request(vector, trigger) {
            return false;
        }
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

    /// Enters an interrupt into IRR and TMR, if it is accepted.
    #[inline]
    fn request(&self, vector: u8, trigger: Trigger) -> bool {
        if self.is_accepting.get() == 0 {
            return false;
        }
        if vector < FIRST_VECTOR {
            self.report(ErrorStatus::RECEIVE_VECTOR);
            return false;
        }
        // The trigger mode first: who sees the request sees it too.
        match trigger {
            Trigger::Level => self.level.insert(vector),
            Trigger::Edge if self.level.contains(vector) => self.level.remove(vector),
            Trigger::Edge => {}
        }
        self.requested.insert(vector);
        true
    }

    /// Notes an error for ESR, and interrupts with the error entry of the vector table if it is new.
    pub(crate) fn report(&self, error: ErrorStatus) {
        let is_new = self.errors.fetch_or(error.bits(), Relaxed) & error.bits() == 0;
        let entry = self.lvt[LVT_ERROR].get();
        let vector = entry as u8;
        // An illegal vector here would be one more error of the same kind.
        if is_new && entry & Lvt::MASKED.bits() == 0 && vector >= FIRST_VECTOR {
            self.post(vector, Trigger::Edge);
        }
    }

    // The owner.

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

    /// The interrupt to deliver: the highest requested one, if its class is above that of the processor's priority
    /// (SDM 3A, "Task and Processor Priorities"). To look at before each entry into the guest: what the owner itself
    /// does (a write to a register, the timer) is not announced by [`Self::has_work`].
    #[inline]
    pub fn pending(&self) -> Option<u8> {
        let vector = self.highest_requested()?;
        // The class of the higher of two is the higher class, so PPR itself is not needed.
        let priority = self.task_priority.get().max(self.highest_in_service.get());
        (u32::from(vector) & 0xf0 > priority & 0xf0).then_some(vector)
    }

    /// `vector` is being delivered to the guest: from IRR to ISR.
    #[inline]
    pub fn accept(&self, vector: u8) {
        self.requested.remove(vector);
        self.in_service.insert_owned(vector);
        self.highest_in_service.set(self.highest_in_service.get().max(u32::from(vector)));
    }

    /// The class (0 to 15) below which TPR's has to fall before an interrupt can be delivered; none if TPR holds nothing
    /// back: nothing is requested, it can be delivered now, or an interrupt in service holds it back.
    pub fn priority_threshold(&self) -> Option<u8> {
        let class = u32::from(self.highest_requested()?) >> 4;
        let is_held_by_task = class <= self.task_priority.get() >> 4;
        let is_held_by_service = class <= self.highest_in_service.get() >> 4;
        (is_held_by_task && !is_held_by_service).then_some(class as u8)
    }

    /// TPR. Bits 7:4 are CR8.
    #[inline]
    pub fn task_priority(&self) -> u8 {
        self.task_priority.get() as u8
    }

    /// Sets TPR. A write to CR8 sets it to CR8 × 16.
    #[inline]
    pub fn set_task_priority(&self, priority: u8) {
        self.task_priority.set(u32::from(priority));
    }

    /// PPR: the higher of task and interrupt in service.
    pub fn processor_priority(&self) -> u8 {
        let (task, service) = (self.task_priority.get(), self.highest_in_service.get());
        (if task >> 4 >= service >> 4 { task } else { service & 0xf0 }) as u8
    }

    /// The guest writes 0 to EOI.
    #[inline]
    pub fn end_of_interrupt(&self) -> Effect {
        let vector = self.highest_in_service.get() as u8;
        if vector == 0 {
            return Effect::None;
        }
        let left = self.in_service.remove_owned(vector);
        let highest = if left != 0 { vectors::highest(word_of(vector), left) } else { self.highest_below(vector) };
        self.highest_in_service.set(u32::from(highest));
        Effect::Eoi { vector, is_level: self.level.contains(vector) }
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
        let is_accepted = self.request(vector, Trigger::Edge);
        if is_accepted {
            self.seen.0.set(self.seen.0.get() | 1 << word_of(vector));
        }
        is_accepted
    }

    /// INIT: all but the APIC ID and the mode is as after power-up (SDM 3A, "Local APIC State After It Receives an
    /// INIT-Deassert IPI"). Posted requests stay.
    pub fn reset(&self) {
        self.is_accepting.set(0);
        self.spurious.set(SPURIOUS_AT_RESET);
        for set in [&self.requested, &self.level, &self.in_service] {
            set.clear();
        }
        self.highest_in_service.set(0);
        self.task_priority.set(0);
        self.command.set(0);
        self.timer.reset();
        self.logical_id.set(0);
        self.format.set(FORMAT_FLAT);
        self.errors.store(0, Relaxed);
        self.error_status.set(0);
        for entry in &self.lvt {
            entry.set(Lvt::MASKED.bits());
        }
    }

    /// To call when the mode or SVR changed.
    pub(crate) fn update_acceptance(&self) {
        let is_on = self.base.get() & ApicBase::EN.bits() != 0;
        let is_enabled = self.spurious.get() & SpuriousVector::ENABLE.bits() != 0;
        self.is_accepting.set(u32::from(is_on && is_enabled));
    }

    /// To call when the sets of vectors were written as a whole.
    pub(crate) fn rescan(&self) {
        self.seen.0.set(self.seen.0.get() | WORD_BITS);
        let words = self.in_service.load();
        let highest = (0..vectors::WORDS).rev().find(|&word| words[word] != 0);
        self.highest_in_service.set(highest.map_or(0, |word| vectors::highest(word, words[word]).into()));
    }

    /// Takes over what was posted.
    #[inline]
    fn look(&self) -> u32 {
        let mut seen = self.seen.0.get();
        // Only a hint: what it misses, `has_work` says before the guest is entered. The exchange synchronizes.
        if self.posted.load(Relaxed) != 0 {
            let posted = self.posted.swap(0, SeqCst);
            if posted & INIT != 0 {
                seen &= !STARTUP;
            }
            seen |= posted;
            self.seen.0.set(seen);
        }
        seen
    }

    /// The highest vector in IRR.
    #[inline]
    fn highest_requested(&self) -> Option<u8> {
        let mut seen = self.look();
        loop {
            let words = seen & WORD_BITS;
            if words == 0 {
                return None;
            }
            let word = words.ilog2() as usize;
            let bits = self.requested.word(word);
            if bits != 0 {
                return Some(vectors::highest(word, bits));
            }
            // Who adds to the word from here on announces it after.
            seen &= !(1 << word);
            self.seen.0.set(seen);
        }
    }

    /// The highest vector in ISR, in words below that of `vector`; 0 for none.
    #[inline]
    fn highest_below(&self, vector: u8) -> u8 {
        let mut word = word_of(vector);
        while word > 0 {
            word -= 1;
            let bits = self.in_service.word(word);
            if bits != 0 {
                return vectors::highest(word, bits);
            }
        }
        0
    }
}
