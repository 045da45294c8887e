//! All of a local APIC as a plain structure.

use core::sync::atomic::Ordering::Relaxed;

use dragonfly_hw::x86::apic::{self, Lvt, SpuriousVector};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::mode::{FORMAT_FLAT, is_base_valid};
use crate::register::{LVT_COUNT, is_reserved_mode, writable_bits};
use crate::timer::{DIVIDE_MASK, MODE_MASK};
use crate::{Clock, LocalApic};

/// A local APIC's state, for snapshot, migration and live upgrade. The APIC ID is not part of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ApicState {
    /// [`ApicState::VERSION`].
    pub version: u32,
    /// The ID in xAPIC mode, 0 to 255.
    pub xapic_id: u32,
    /// `IA32_APIC_BASE`.
    pub base: u64,
    /// Interrupt command, both halves.
    pub command: u64,
    /// `IA32_TSC_DEADLINE`.
    pub tsc_deadline: u64,
    /// IRR: word 0 has vectors 0 to 63.
    pub requested: [u64; 4],
    /// ISR.
    pub in_service: [u64; 4],
    /// TMR.
    pub level: [u64; 4],
    /// TPR.
    pub task_priority: u32,
    /// SVR.
    pub spurious: u32,
    /// Logical ID in xAPIC mode, 0 to 255.
    pub logical_id: u32,
    /// DFR.
    pub format: u32,
    /// ESR as the guest reads it.
    pub error_status: u32,
    /// Errors since the guest wrote ESR.
    pub errors: u32,
    /// Local vector table: timer, thermal, performance, LINT0, LINT1, error.
    pub lvt: [u32; LVT_COUNT],
    /// Timer: initial count.
    pub initial_count: u32,
    /// Timer: what is left to count.
    pub current_count: u32,
    /// Timer: divide configuration.
    pub divide: u32,
    /// 0.
    pub reserved: u32,
}

impl ApicState {
    /// The version that [`LocalApic::save`] writes.
    pub const VERSION: u32 = 1;

    fn check(&self) -> Result<(), StateError> {
        if self.version != Self::VERSION {
            return Err(StateError::Version);
        }
        let is_entry_valid = |(index, &entry): (usize, &u32)| {
            let offset = apic::LVT_TIMER + ((index as u32) << 4);
            let is_off = self.spurious & SpuriousVector::ENABLE.bits() == 0;
            let is_unmasked_while_off = is_off && entry & Lvt::MASKED.bits() == 0;
            has_only(entry, writable_bits(offset)) && !is_reserved_mode(offset, entry) && !is_unmasked_while_off
        };
        // Exceptions are never requested.
        let has_exception = [self.requested, self.in_service, self.level].iter().any(|set| set[0] & 0xffff != 0);
        let is_deadline_mode = self.lvt[0] & MODE_MASK == apic::TIMER_TSC_DEADLINE;
        let is_valid = is_base_valid(self.base)
            && self.xapic_id <= 0xff
            && self.logical_id <= 0xff
            && self.format | 0xf000_0000 == FORMAT_FLAT
            && has_only(self.task_priority, writable_bits(apic::TPR))
            && has_only(self.spurious, writable_bits(apic::SVR))
            && self.error_status | self.errors <= 0xff
            && self.lvt.iter().enumerate().all(is_entry_valid)
            && !has_exception
            && self.divide & !DIVIDE_MASK == 0
            && self.current_count <= if is_deadline_mode { 0 } else { self.initial_count }
            && (is_deadline_mode || self.tsc_deadline == 0)
            && self.reserved == 0;
        if is_valid { Ok(()) } else { Err(StateError::Value) }
    }
}

fn has_only(value: u32, bits: Option<u32>) -> bool {
    bits.is_some_and(|bits| value & !bits == 0)
}

/// Why a state cannot be restored.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StateError {
    /// It is of a version that is not known: use a newer hypervisor.
    Version,
    /// A register has a value that it cannot have: the state was not saved by [`LocalApic::save`].
    Value,
}

impl LocalApic {
    /// The state at the time `now`, in which no other CPU posts. A timer that is due has expired first. Requests (NMI,
    /// INIT, start-up) are not part of it: take them before.
    pub fn save(&self, now: Clock) -> ApicState {
        self.timer_expired(now);
        ApicState {
            version: ApicState::VERSION,
            xapic_id: self.xapic_id.get(),
            base: self.base.get(),
            command: self.command.get(),
            tsc_deadline: self.tsc_deadline(),
            requested: self.requested.load(),
            in_service: self.in_service.load(),
            level: self.level.load(),
            task_priority: self.task_priority.get(),
            spurious: self.spurious.get(),
            logical_id: self.logical_id.get(),
            format: self.format.get(),
            error_status: self.error_status.get(),
            errors: self.errors.load(Relaxed),
            lvt: core::array::from_fn(|index| self.lvt[index].get()),
            initial_count: self.timer.initial_count.get(),
            current_count: self.current_count(now),
            divide: self.timer.divide.get(),
            reserved: 0,
        }
    }

    /// Takes on `state`, saved here or elsewhere; the timer goes on from `now`. No other CPU posts meanwhile.
    ///
    /// # Errors
    /// The state is of an unknown version or invalid; then nothing changed.
    pub fn restore(&self, state: &ApicState, now: Clock) -> Result<(), StateError> {
        state.check()?;
        self.xapic_id.set(state.xapic_id);
        self.base.set(state.base);
        self.command.set(state.command);
        self.requested.store(state.requested);
        self.in_service.store(state.in_service);
        self.level.store(state.level);
        self.rescan();
        self.task_priority.set(state.task_priority);
        self.spurious.set(state.spurious);
        self.update_acceptance();
        self.logical_id.set(state.logical_id);
        self.format.set(state.format);
        self.error_status.set(state.error_status);
        self.errors.store(state.errors, Relaxed);
        for (entry, &value) in self.lvt.iter().zip(&state.lvt) {
            entry.set(value);
        }
        self.timer.reset();
        self.timer.initial_count.set(state.initial_count);
        self.timer.divide.set(state.divide);
        self.resume_count(state.current_count, now);
        self.set_tsc_deadline(state.tsc_deadline, now);
        Ok(())
    }
}
