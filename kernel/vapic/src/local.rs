//! The local APIC: what is posted to it, and what it delivers.

use core::sync::atomic::{AtomicU8, AtomicU32, Ordering::Relaxed};

use dragonfly_hw::x86::apic::{Lvt, SpuriousVector};
use dragonfly_hw::x86::msr::ApicBase;

use crate::Effect;
use crate::mode::{FORMAT_FLAT, initial_base};
use crate::owned::{Owned32, Owned64};
use crate::posting::WORD_BITS;
use crate::register::{LVT_COUNT, SPURIOUS_AT_RESET};
use crate::timer::Timer;
use crate::vectors::{Vectors, word_of};

/// A guest's local APIC. Shared by the CPU that runs the vCPU (the owner) and those that send it interrupts.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct LocalApic {
    // What senders write, on cache lines of its own.
    /// IRR: requested, not yet delivered.
    pub(crate) requested: Vectors,
    /// TMR: which of them are level-triggered.
    pub(crate) level: Vectors,
    /// What was posted since the owner looked: words of `requested`, and [`Requests`](crate::Requests).
    pub(crate) posted: AtomicU32,
    /// Errors since the guest last wrote ESR.
    pub(crate) errors: AtomicU32,
    pub(crate) startup_vector: AtomicU8,

    // What the owner writes.
    /// What of `posted` the owner took over: word bits stay until the word is found empty, requests until taken.
    pub(crate) seen: OwnerLine,
    /// ISR: delivered, not yet ended.
    pub(crate) in_service: Vectors,
    /// The highest of them, 0 for none.
    highest_in_service: Owned32,
    /// Fixed interrupts are accepted: the APIC is on, by `IA32_APIC_BASE` and by SVR.
    pub(crate) is_accepting: Owned32,
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
pub(crate) struct OwnerLine(pub(crate) Owned32);

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

    /// The guest may take `vector`, which is [`Self::pending`], at any moment from now on: out of IRR, so that the same
    /// interrupt sent once more after the guest took it is another one. [`Self::accept`] or [`Self::withdraw`] follows.
    #[inline]
    pub fn offer(&self, vector: u8) {
        self.requested.remove(vector);
    }

    /// The guest has taken `vector`, which it was offered: into ISR.
    #[inline]
    pub fn accept(&self, vector: u8) {
        self.in_service.insert_owned(vector);
        self.highest_in_service.set(self.highest_in_service.get().max(u32::from(vector)));
    }

    /// The guest has not taken `vector`, which it was offered: back into IRR.
    #[inline]
    pub fn withdraw(&self, vector: u8) {
        self.requested.insert(vector);
        self.seen.0.set(self.seen.0.get() | 1 << word_of(vector));
    }

    /// Whether nobody needs to see the end of the one interrupt that is in service, or [offered](Self::offer): nothing else
    /// is requested that waits for it, and it is no level-triggered one.
    pub fn may_end_unseen(&self, offered: Option<u8>) -> bool {
        let vector = match (offered, self.highest_in_service.get() as u8) {
            (None, 0) | (Some(_), 1..) => return false,
            (Some(offered), 0) => offered,
            (None, in_service) => in_service,
        };
        self.highest_requested().is_none() && !self.level.contains(vector)
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
        self.in_service.remove_owned(vector);
        self.highest_in_service.set(self.in_service.highest().map_or(0, u32::from));
        Effect::Eoi { vector, is_level: self.level.contains(vector) }
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
        self.highest_in_service.set(self.in_service.highest().map_or(0, u32::from));
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
            if let Some(vector) = self.requested.highest_in(word) {
                return Some(vector);
            }
            // Who adds to the word from here on announces it after.
            seen &= !(1 << word);
            self.seen.0.set(seen);
        }
    }
}
