//! ACPI power management: the PM1a event and control registers and the timer (ACPI 6.5, 4.8.3).

mod state;
#[cfg(test)]
mod tests;

use bitflags::bitflags;
use dragonfly_hw::x86::pmtimer::FREQUENCY_HZ;

/// Sleep type of the state S5, soft off: what the DSDT's `\_S5` says.
pub const SLEEP_TYPE_S5: u16 = 5;

// Offsets of the registers in the block, whose place the FADT tells.
/// PM1a event block: status, then enable, 2 bytes each.
pub const EVENT_OFFSET: u16 = 0;
/// PM1a control block: 2 bytes.
pub const CONTROL_OFFSET: u16 = 4;
/// Timer: 4 bytes.
pub const TIMER_OFFSET: u16 = 8;

const SLP_TYP_SHIFT: u16 = 10;
const SLP_TYP: u16 = 0b111 << SLP_TYP_SHIFT;
const SLP_EN: u16 = 1 << 13;
const SCI_EN: u16 = 1 << 0;
const BM_RLD: u16 = 1 << 1;

/// The top bit of the timer, whose changes are events.
const TIMER_TOP_BIT: u32 = 31;
const NS_PER_S: u64 = 1_000_000_000;

bitflags! {
    /// PM1 events, in the status and the enable register (tables 4.12 and 4.13).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Events: u16 {
        const TIMER = 1 << 0;
        /// Firmware wants the global lock: never, as there is none.
        const GLOBAL_LOCK = 1 << 5;
        const POWER_BUTTON = 1 << 8;
        const SLEEP_BUTTON = 1 << 9;
        const RTC_ALARM = 1 << 10;
    }
}

/// The power management block.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Pm {
    status: Events,
    enable: Events,
    control: u16,
    /// How often the timer's top bit had changed when the guest was last told.
    seen_changes: u64,
}

impl Pm {
    /// A platform in ACPI mode: there is no other.
    #[must_use]
    pub const fn new() -> Self {
        Self { status: Events::empty(), enable: Events::empty(), control: 0, seen_changes: 0 }
    }

    /// Reads up to four bytes at `offset`, at `now_ns` nanoseconds since the machine's start.
    #[must_use]
    pub fn read(&self, offset: u16, now_ns: u64) -> u32 {
        match offset {
            // No access is wider than the distance from an offset to the end of its double word, but for those that are
            // not aligned: they see zeros behind it.
            0..4 => self.events(now_ns) >> (8 * offset),
            4..8 => u32::from(self.control | SCI_EN) >> (8 * (offset - 4)),
            8..12 => (timer_ticks(now_ns) as u32) >> (8 * (offset - 8)),
            _ => u32::MAX,
        }
    }

    /// Writes one byte at `offset`. True if it puts the platform off.
    #[must_use]
    pub fn write(&mut self, offset: u16, value: u8, now_ns: u64) -> bool {
        let (low, high) = (u16::from(value), u16::from(value) << 8);
        match offset {
            0 => self.clear_status(Events::from_bits_truncate(low), now_ns),
            1 => self.clear_status(Events::from_bits_truncate(high), now_ns),
            2 => self.enable = Events::from_bits_truncate(self.enable.bits() & 0xff00 | low),
            3 => self.enable = Events::from_bits_truncate(self.enable.bits() & 0x00ff | high),
            4 => self.control = self.control & !BM_RLD | low & BM_RLD,
            5 => {
                self.control = self.control & !SLP_TYP | high & SLP_TYP;
                return high & SLP_EN != 0 && high & SLP_TYP == SLEEP_TYPE_S5 << SLP_TYP_SHIFT;
            }
            _ => {}
        }
        false
    }

    /// The power button is pressed.
    pub fn press_power_button(&mut self) {
        self.status.insert(Events::POWER_BUTTON);
    }

    /// Whether the system control interrupt is asserted.
    #[must_use]
    pub fn interrupt(&self, now_ns: u64) -> bool {
        self.status.intersects(self.enable)
            || self.enable.contains(Events::TIMER) && timer_changes(now_ns) != self.seen_changes
    }

    /// When the interrupt will be asserted if nothing else happens, in nanoseconds since the machine's start.
    #[must_use]
    pub fn deadline_ns(&self, now_ns: u64) -> Option<u64> {
        if !self.enable.contains(Events::TIMER) || self.interrupt(now_ns) {
            return None;
        }
        let ticks = self.seen_changes.checked_add(1)?.checked_mul(1 << TIMER_TOP_BIT)?;
        let (seconds, rest) = (ticks / FREQUENCY_HZ, ticks % FREQUENCY_HZ);
        seconds.checked_mul(NS_PER_S)?.checked_add((rest * NS_PER_S).div_ceil(FREQUENCY_HZ))
    }

    fn events(&self, now_ns: u64) -> u32 {
        u32::from(self.current_status(now_ns).bits()) | u32::from(self.enable.bits()) << 16
    }

    fn current_status(&self, now_ns: u64) -> Events {
        let mut status = self.status;
        status.set(Events::TIMER, timer_changes(now_ns) != self.seen_changes);
        status
    }

    /// Status bits are cleared by writing ones.
    fn clear_status(&mut self, cleared: Events, now_ns: u64) {
        self.status.remove(cleared);
        if cleared.contains(Events::TIMER) {
            self.seen_changes = timer_changes(now_ns);
        }
    }
}

impl Default for Pm {
    fn default() -> Self {
        Self::new()
    }
}

/// What the timer has counted; it shows the low 32 bits.
fn timer_ticks(now_ns: u64) -> u64 {
    // Seconds of 64 bits of nanoseconds times the frequency stay below 2^56.
    now_ns / NS_PER_S * FREQUENCY_HZ + now_ns % NS_PER_S * FREQUENCY_HZ / NS_PER_S
}

/// How often the timer's top bit has changed.
fn timer_changes(now_ns: u64) -> u64 {
    timer_ticks(now_ns) >> TIMER_TOP_BIT
}
