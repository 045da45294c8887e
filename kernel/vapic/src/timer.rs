//! The timer (SDM 3A, "APIC Timer").

use dragonfly_hw::x86::apic::{self, Lvt};

use crate::owned::{Owned32, Owned64};
use crate::register::LVT_TIMER;
use crate::{Clock, Effect, LocalApic};

/// `deadline` of a timer that is not armed.
const NEVER: u64 = u64::MAX;

/// Mode bits of the timer's entry in the local vector table.
pub(crate) const MODE_MASK: u32 = apic::TIMER_PERIODIC | apic::TIMER_TSC_DEADLINE;

/// Bits of the divide configuration.
pub(crate) const DIVIDE_MASK: u32 = 0b1011;

/// Registers of the timer beside its entry in the local vector table.
#[derive(Debug)]
pub(crate) struct Timer {
    /// Host ticks at which it expires next, or [`NEVER`].
    deadline: Owned64,
    /// `IA32_TSC_DEADLINE`, guest ticks; 0 if it is not armed.
    tsc_deadline: Owned64,
    pub(crate) initial_count: Owned32,
    pub(crate) divide: Owned32,
}

impl Timer {
    pub(crate) const fn new() -> Self {
        Self {
            deadline: Owned64::new(NEVER),
            tsc_deadline: Owned64::new(0),
            initial_count: Owned32::new(0),
            divide: Owned32::new(0),
        }
    }

    pub(crate) fn reset(&self) {
        self.disarm();
        self.initial_count.set(0);
        self.divide.set(0);
    }

    fn disarm(&self) {
        self.deadline.set(NEVER);
        self.tsc_deadline.set(0);
    }

    /// What the clock is divided by: 1 to 128.
    fn divisor(&self) -> u64 {
        let configuration = self.divide.get();
        // Bits 3, 1 and 0 are one number: 0 is by 2, 6 by 128, 7 by 1.
        let exponent = ((configuration & 3 | configuration >> 1 & 4) + 1) & 7;
        1 << exponent
    }

    /// Host ticks that `count` takes: at least 1.
    fn ticks(&self, count: u32, now: &Clock) -> u64 {
        now.ticks_per_count.times(u64::from(count) * self.divisor()).max(1)
    }

    /// Counts down from `count`; 0 stops.
    fn count_from(&self, count: u32, now: &Clock) {
        self.deadline.set(if count == 0 { NEVER } else { later(now, self.ticks(count, now)) });
    }
}

/// A deadline in `ticks` host ticks.
const fn later(now: &Clock, ticks: u64) -> u64 {
    let deadline = now.now.saturating_add(ticks);
    if deadline == NEVER { NEVER - 1 } else { deadline }
}

impl LocalApic {
    /// Host ticks at which [`Self::timer_expired`] is to be called; none if the timer is not armed.
    #[inline]
    pub fn timer_deadline(&self) -> Option<u64> {
        let deadline = self.timer.deadline.get();
        (deadline != NEVER).then_some(deadline)
    }

    /// Requests the timer's interrupt if it is due and not masked. A periodic timer goes on at its pace with the next
    /// expiry to come: those that were missed are not made up for. True if an interrupt was requested.
    pub fn timer_expired(&self, now: Clock) -> bool {
        let deadline = self.timer.deadline.get();
        if deadline == NEVER || now.now < deadline {
            return false;
        }
        if self.timer_mode() == apic::TIMER_PERIODIC {
            let period = self.timer.ticks(self.timer.initial_count.get(), &now);
            let into_period = (now.now - deadline) % period;
            self.timer.deadline.set(later(&now, period - into_period));
        } else {
            self.timer.disarm();
        }
        let entry = self.lvt[LVT_TIMER].get();
        entry & Lvt::MASKED.bits() == 0 && self.post_self(entry as u8)
    }

    /// `IA32_TSC_DEADLINE`, guest ticks; 0 if it is not armed.
    #[inline]
    pub fn tsc_deadline(&self) -> u64 {
        self.timer.tsc_deadline.get()
    }

    /// The guest writes `IA32_TSC_DEADLINE`: the timer expires when the guest's TSC reaches `deadline`, at once if it
    /// has; 0 disarms. Ignored in other timer modes.
    #[inline]
    pub fn set_tsc_deadline(&self, deadline: u64, now: Clock) {
        if self.timer_mode() != apic::TIMER_TSC_DEADLINE {
            return;
        }
        self.timer.tsc_deadline.set(deadline);
        let ticks = now.ticks_until(deadline);
        self.timer.deadline.set(if deadline == 0 { NEVER } else { later(&now, ticks) });
    }

    #[inline]
    fn timer_mode(&self) -> u32 {
        self.lvt[LVT_TIMER].get() & MODE_MASK
    }

    /// The guest writes the timer's entry, which is still the old one, in mode `mode`: changing to or from TSC-deadline
    /// mode disarms it.
    pub(crate) fn change_timer_mode(&self, mode: u32) -> Effect {
        let changed = self.timer_mode() ^ mode;
        if changed & apic::TIMER_TSC_DEADLINE == 0 {
            return Effect::None;
        }
        self.timer.disarm();
        Effect::TimerChanged
    }

    /// The guest writes the initial count: the timer starts, or stops with 0. Ignored in TSC-deadline mode.
    pub(crate) fn set_initial_count(&self, count: u32, now: Clock) -> Effect {
        if self.timer_mode() == apic::TIMER_TSC_DEADLINE {
            return Effect::None;
        }
        self.timer.initial_count.set(count);
        self.timer.count_from(count, &now);
        Effect::TimerChanged
    }

    /// What is left to count: 0 if the timer has expired, and in TSC-deadline mode.
    pub(crate) fn current_count(&self, now: Clock) -> u32 {
        let deadline = self.timer.deadline.get();
        if deadline == NEVER || self.timer_mode() == apic::TIMER_TSC_DEADLINE {
            return 0;
        }
        let initial_count = self.timer.initial_count.get();
        let left = if now.now < deadline {
            deadline - now.now
        } else if self.timer_mode() == apic::TIMER_PERIODIC {
            let period = self.timer.ticks(initial_count, &now);
            period - (now.now - deadline) % period
        } else {
            0
        };
        let count = now.ticks_per_count.divide(left).div_ceil(self.timer.divisor());
        count.min(u64::from(initial_count)) as u32
    }

    /// The guest writes the divide configuration: what is left to count is counted at the new pace.
    pub(crate) fn set_divide(&self, configuration: u32, now: Clock) -> Effect {
        let is_counting = self.timer.deadline.get() > now.now;
        let count = self.current_count(now);
        self.timer.divide.set(configuration);
        if count == 0 || !is_counting {
            return Effect::None;
        }
        self.timer.count_from(count, &now);
        Effect::TimerChanged
    }

    /// Restores what [`Self::current_count`] gave.
    pub(crate) fn resume_count(&self, count: u32, now: Clock) {
        self.timer.count_from(count, &now);
    }
}
