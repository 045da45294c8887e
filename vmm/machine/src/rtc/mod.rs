//! MC146818 real-time clock with its battery-backed memory (Motorola MC146818A data sheet).
//!
//! The time is the host's plus a difference that the guest changes by setting the clock. There is no interrupt: the ACPI
//! tables name none, and kernels have better timers. The update of the time takes no time, so "update in progress" never
//! shows.

mod calendar;
mod state;
#[cfg(test)]
mod tests;

use calendar::DateTime;

// Registers (MC146818A, figure 10).
const SECONDS: u8 = 0x00;
const MINUTES: u8 = 0x02;
const HOURS: u8 = 0x04;
const DAY_OF_WEEK: u8 = 0x06;
const DAY: u8 = 0x07;
const MONTH: u8 = 0x08;
const YEAR: u8 = 0x09;
const REGISTER_A: u8 = 0x0a;
const REGISTER_B: u8 = 0x0b;
const REGISTER_C: u8 = 0x0c;
const REGISTER_D: u8 = 0x0d;
/// Century, in the memory; the FADT says so.
pub const CENTURY: u8 = 0x32;

/// Registers and memory.
const SIZE: usize = 128;
/// The index register's top bit masks NMI on PCs.
const INDEX_MASK: u8 = 0x7f;

/// A: "update in progress" is read-only.
const A_UPDATE_IN_PROGRESS: u8 = 1 << 7;
/// A: divider for a crystal of 32768 Hz, and the customary rate.
const A_DEFAULT: u8 = 0x26;
const B_SET: u8 = 1 << 7;
const B_BINARY: u8 = 1 << 2;
const B_24_HOURS: u8 = 1 << 1;
/// C: the time was updated.
const C_UPDATE_ENDED: u8 = 1 << 4;
/// D: valid RAM and time.
const D_VALID: u8 = 1 << 7;
/// Hours: afternoon, in 12-hour mode.
const PM: u8 = 1 << 7;

/// A real-time clock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Rtc {
    index: u8,
    /// What the guest has set the clock to, less the host's time, in seconds.
    difference_s: i64,
    /// The time while the guest sets it (B_SET), else `None`.
    stopped: Option<DateTime>,
    /// When register C was last read.
    seen_s: u64,
    /// Registers A and B, alarms and memory.
    memory: [u8; SIZE],
}

impl Rtc {
    /// A clock that shows the host's time, in 24-hour mode and BCD as firmware leaves it.
    #[must_use]
    pub const fn new() -> Self {
        let mut memory = [0; SIZE];
        memory[REGISTER_A as usize] = A_DEFAULT;
        memory[REGISTER_B as usize] = B_24_HOURS;
        Self { index: 0, difference_s: 0, stopped: None, seen_s: 0, memory }
    }

    /// Writes the index port: chooses the register.
    pub const fn write_index(&mut self, value: u8) {
        self.index = value & INDEX_MASK;
    }

    /// Reads the chosen register at `host_s`, the host's time in seconds since 1970-01-01 UTC.
    pub fn read_data(&mut self, host_s: u64) -> u8 {
        let time = self.time(host_s);
        match self.index {
            SECONDS => self.encode(time.second),
            MINUTES => self.encode(time.minute),
            HOURS => self.encode_hour(time.hour),
            DAY_OF_WEEK => self.encode(time.day_of_week()),
            DAY => self.encode(time.day),
            MONTH => self.encode(time.month),
            YEAR => self.encode((time.year % 100) as u8),
            CENTURY => self.encode((time.year / 100) as u8),
            REGISTER_A => self.register(REGISTER_A) & !A_UPDATE_IN_PROGRESS,
            REGISTER_C => {
                let is_later = host_s != self.seen_s && self.stopped.is_none();
                self.seen_s = host_s;
                if is_later { C_UPDATE_ENDED } else { 0 }
            }
            REGISTER_D => D_VALID,
            index => self.register(index),
        }
    }

    /// Writes the chosen register at `host_s`.
    pub fn write_data(&mut self, value: u8, host_s: u64) {
        match self.index {
            SECONDS | MINUTES | HOURS | DAY_OF_WEEK | DAY | MONTH | YEAR | CENTURY => self.set_time(value, host_s),
            REGISTER_B => {
                if value & B_SET != 0 {
                    self.stopped = Some(self.time(host_s));
                } else if let Some(time) = self.stopped.take() {
                    self.run_from(time, host_s);
                }
                self.set_register(REGISTER_B, value);
            }
            REGISTER_C | REGISTER_D => {}
            index => self.set_register(index, value),
        }
    }

    fn time(&self, host_s: u64) -> DateTime {
        self.stopped.unwrap_or_else(|| DateTime::from_seconds(host_s.saturating_add_signed(self.difference_s)))
    }

    fn run_from(&mut self, time: DateTime, host_s: u64) {
        // Both are far below 2^63: the calendar ends with the year 9999.
        self.difference_s = time.seconds().cast_signed().saturating_sub(host_s.cast_signed());
    }

    /// Sets the part of the time that the index chooses. A value that is none on a clock changes nothing.
    fn set_time(&mut self, value: u8, host_s: u64) {
        let mut time = self.time(host_s);
        let number = if self.index == HOURS { self.decode_hour(value) } else { self.decode(value) };
        let Some(number) = number else { return };
        match self.index {
            SECONDS => time.second = number,
            MINUTES => time.minute = number,
            HOURS => time.hour = number,
            DAY => time.day = number,
            MONTH => time.month = number,
            YEAR => time.year = time.year / 100 * 100 + u16::from(number),
            CENTURY => time.year = u16::from(number) * 100 + time.year % 100,
            // The day of the week follows from the date.
            _ => return,
        }
        if !time.is_on_a_clock() {
            return;
        }
        if self.stopped.is_some() {
            self.stopped = Some(time);
        } else {
            self.run_from(time, host_s);
        }
    }

    fn encode(&self, number: u8) -> u8 {
        if self.is_binary() { number } else { (number / 10) * 16 + number % 10 }
    }

    fn decode(&self, value: u8) -> Option<u8> {
        if self.is_binary() {
            return Some(value);
        }
        let (tens, ones) = (value >> 4, value & 0xf);
        (tens < 10 && ones < 10).then_some(tens * 10 + ones)
    }

    fn encode_hour(&self, hour: u8) -> u8 {
        if self.register(REGISTER_B) & B_24_HOURS != 0 {
            return self.encode(hour);
        }
        let afternoon = if hour >= 12 { PM } else { 0 };
        self.encode((hour + 11) % 12 + 1) | afternoon
    }

    fn decode_hour(&self, value: u8) -> Option<u8> {
        if self.register(REGISTER_B) & B_24_HOURS != 0 {
            return self.decode(value);
        }
        let hour = self.decode(value & !PM).filter(|hour| (1..=12).contains(hour))?;
        Some(hour % 12 + if value & PM != 0 { 12 } else { 0 })
    }

    fn is_binary(&self) -> bool {
        self.register(REGISTER_B) & B_BINARY != 0
    }

    fn register(&self, index: u8) -> u8 {
        self.memory.get(usize::from(index)).copied().unwrap_or(0)
    }

    fn set_register(&mut self, index: u8, value: u8) {
        if let Some(register) = self.memory.get_mut(usize::from(index)) {
            *register = value;
        }
    }
}

impl Default for Rtc {
    fn default() -> Self {
        Self::new()
    }
}
