//! 16550A serial port (National Semiconductor PC16550D data sheet; register names are those of its table II).
//!
//! The line is infinitely fast: a byte that is written is sent at once, for as long as the owner takes the output away, and
//! the time-out that tells of bytes below the trigger level has always passed. So the device needs no clock, and a driver
//! sees nothing but a quick terminal.

mod registers;
mod state;
#[cfg(test)]
mod tests;

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use arrayvec::ArrayVec;

use registers::{FifoControl, InterruptEnable, LineControl, LineStatus, ModemControl, ModemStatus, interrupt, offset};

/// Bytes of each FIFO.
const FIFO_SIZE: usize = 16;
/// Bytes of output that wait for the owner. When there is no room for a FIFO more, the transmitter is not empty.
const OUTPUT_CAPACITY: usize = 4096;
/// Bytes of input that wait for the guest, beside those in the FIFO.
const INPUT_CAPACITY: usize = 4096;

/// A serial port.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Uart {
    interrupt_enable: InterruptEnable,
    fifo_control: FifoControl,
    line_control: LineControl,
    modem_control: ModemControl,
    /// The bits that stay set until they are read.
    line_errors: LineStatus,
    modem_status: ModemStatus,
    scratch: u8,
    divisor: u16,
    /// The transmitter got empty, and the guest has not been told yet.
    transmitter_interrupt: bool,
    received: ArrayVec<u8, FIFO_SIZE>,
    output: Vec<u8>,
    input: VecDeque<u8>,
}

impl Uart {
    /// A port after reset, with a terminal connected.
    #[must_use]
    pub fn new() -> Self {
        Self {
            interrupt_enable: InterruptEnable::empty(),
            fifo_control: FifoControl::empty(),
            line_control: LineControl::empty(),
            modem_control: ModemControl::empty(),
            line_errors: LineStatus::empty(),
            modem_status: ModemStatus::CONNECTED,
            scratch: 0,
            divisor: 0,
            transmitter_interrupt: false,
            received: ArrayVec::new(),
            output: Vec::new(),
            input: VecDeque::new(),
        }
    }

    /// Reads the register at `offset` of eight.
    pub fn read(&mut self, offset: u8) -> u8 {
        let [divisor_low, divisor_high] = self.divisor.to_le_bytes();
        match (offset, self.line_control.contains(LineControl::DLAB)) {
            (offset::DATA, true) => divisor_low,
            (offset::INTERRUPT_ENABLE, true) => divisor_high,
            (offset::DATA, false) => self.take_received(),
            (offset::INTERRUPT_ENABLE, false) => self.interrupt_enable.bits(),
            (offset::INTERRUPT_IDENTIFICATION, _) => self.identify_interrupt(),
            (offset::LINE_CONTROL, _) => self.line_control.bits(),
            (offset::MODEM_CONTROL, _) => self.modem_control.bits(),
            (offset::LINE_STATUS, _) => self.take_line_status().bits(),
            (offset::MODEM_STATUS, _) => self.take_modem_status().bits(),
            (offset::SCRATCH, _) => self.scratch,
            _ => u8::MAX,
        }
    }

    /// Writes the register at `offset` of eight.
    pub fn write(&mut self, offset: u8, value: u8) {
        let [divisor_low, divisor_high] = self.divisor.to_le_bytes();
        match (offset, self.line_control.contains(LineControl::DLAB)) {
            (offset::DATA, true) => self.divisor = u16::from_le_bytes([value, divisor_high]),
            (offset::INTERRUPT_ENABLE, true) => self.divisor = u16::from_le_bytes([divisor_low, value]),
            (offset::DATA, false) => self.transmit(value),
            (offset::INTERRUPT_ENABLE, false) => self.enable_interrupts(InterruptEnable::from_bits_truncate(value)),
            (offset::FIFO_CONTROL, _) => self.control_fifos(FifoControl::from_bits_truncate(value)),
            (offset::LINE_CONTROL, _) => self.line_control = LineControl::from_bits_retain(value),
            (offset::MODEM_CONTROL, _) => self.control_modem(ModemControl::from_bits_truncate(value)),
            (offset::SCRATCH, _) => self.scratch = value,
            // The status registers are for reading; their bits for the factory's tests are not there.
            _ => {}
        }
    }

    /// Whether the interrupt line is asserted.
    #[must_use]
    pub fn interrupt(&self) -> bool {
        self.pending_interrupt() != interrupt::NONE
    }

    /// Takes input as far as there is room; gives how many bytes were taken.
    pub fn offer_input(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(INPUT_CAPACITY.saturating_sub(self.input.len()));
        self.input.extend(bytes.iter().take(taken));
        self.receive_waiting();
        taken
    }

    /// What the guest has sent and the owner has not taken.
    #[must_use]
    pub fn output(&self) -> &[u8] {
        &self.output
    }

    /// The owner has taken the first `count` bytes of the output.
    pub fn output_taken(&mut self, count: usize) {
        let was_full = !self.transmitter_is_empty();
        self.output.drain(..count.min(self.output.len()));
        self.transmitter_interrupt |= was_full && self.transmitter_is_empty();
    }

    fn transmitter_is_empty(&self) -> bool {
        self.output.len() + FIFO_SIZE <= OUTPUT_CAPACITY
    }

    fn transmit(&mut self, byte: u8) {
        if self.modem_control.contains(ModemControl::LOOP) {
            self.receive(byte);
        } else if self.output.len() < OUTPUT_CAPACITY {
            self.output.push(byte);
        }
        self.transmitter_interrupt = self.transmitter_is_empty();
    }

    /// Puts a byte into the receiver's FIFO, or into its one register if the FIFOs are off.
    fn receive(&mut self, byte: u8) {
        if self.received.len() < self.receiver_size() {
            self.received.push(byte);
        } else {
            self.line_errors.insert(LineStatus::OVERRUN);
        }
    }

    /// Lets input in that did not fit before. None comes in while the port is connected to itself.
    fn receive_waiting(&mut self) {
        while !self.modem_control.contains(ModemControl::LOOP)
            && self.received.len() < self.receiver_size()
            && let Some(byte) = self.input.pop_front()
        {
            self.received.push(byte);
        }
    }

    fn receiver_size(&self) -> usize {
        if self.fifo_control.contains(FifoControl::ENABLE) { FIFO_SIZE } else { 1 }
    }

    fn take_received(&mut self) -> u8 {
        let byte = if self.received.is_empty() { 0 } else { self.received.remove(0) };
        self.receive_waiting();
        byte
    }

    /// A driver that begins to wait for the transmitter is told at once if it is empty already (PC16550D, 8.6).
    fn enable_interrupts(&mut self, enable: InterruptEnable) {
        if (enable - self.interrupt_enable).contains(InterruptEnable::TRANSMITTER_EMPTY) {
            self.transmitter_interrupt = self.transmitter_is_empty();
        }
        self.interrupt_enable = enable;
    }

    /// Switching the FIFOs on or off empties them (PC16550D, 8.5). Clear bits of a write without ENABLE do not count.
    fn control_fifos(&mut self, control: FifoControl) {
        let toggled = (control ^ self.fifo_control).contains(FifoControl::ENABLE);
        if toggled || control.contains(FifoControl::ENABLE | FifoControl::CLEAR_RECEIVER) {
            self.received.clear();
        }
        self.fifo_control =
            if control.contains(FifoControl::ENABLE) { control & FifoControl::KEPT } else { FifoControl::empty() };
        self.receive_waiting();
    }

    /// While the port is connected to itself, its modem inputs are its modem outputs (PC16550D, 8.7).
    fn control_modem(&mut self, control: ModemControl) {
        self.modem_control = control;
        let levels = if control.contains(ModemControl::LOOP) { control.looped_back() } else { ModemStatus::CONNECTED };
        self.modem_status = self.modem_status.moved_to(levels);
        self.receive_waiting();
    }

    fn line_status(&self) -> LineStatus {
        let mut status = self.line_errors;
        status.set(LineStatus::DATA_READY, !self.received.is_empty());
        status.set(LineStatus::HOLDING_EMPTY | LineStatus::TRANSMITTER_EMPTY, self.transmitter_is_empty());
        status
    }

    fn take_line_status(&mut self) -> LineStatus {
        let status = self.line_status();
        self.line_errors = LineStatus::empty();
        status
    }

    fn take_modem_status(&mut self) -> ModemStatus {
        let status = self.modem_status;
        self.modem_status = status & ModemStatus::LEVELS;
        status
    }

    /// Reading the identification of the transmitter's interrupt ends that interrupt (PC16550D, table IV).
    fn identify_interrupt(&mut self) -> u8 {
        let pending = self.pending_interrupt();
        if pending == interrupt::TRANSMITTER_EMPTY {
            self.transmitter_interrupt = false;
        }
        let fifos = if self.fifo_control.contains(FifoControl::ENABLE) { interrupt::FIFOS_ENABLED } else { 0 };
        pending | fifos
    }

    /// The interrupt of highest priority (PC16550D, table IV).
    fn pending_interrupt(&self) -> u8 {
        let enabled = |source| self.interrupt_enable.contains(source);
        if enabled(InterruptEnable::LINE_STATUS) && !self.line_errors.is_empty() {
            interrupt::LINE_STATUS
        } else if enabled(InterruptEnable::DATA_AVAILABLE) && !self.received.is_empty() {
            let reached = self.received.len() >= self.fifo_control.trigger_level();
            if reached { interrupt::DATA_AVAILABLE } else { interrupt::CHARACTER_TIMEOUT }
        } else if enabled(InterruptEnable::TRANSMITTER_EMPTY) && self.transmitter_interrupt {
            interrupt::TRANSMITTER_EMPTY
        } else if enabled(InterruptEnable::MODEM_STATUS) && self.modem_status.intersects(ModemStatus::CHANGES) {
            interrupt::MODEM_STATUS
        } else {
            interrupt::NONE
        }
    }
}

impl Default for Uart {
    fn default() -> Self {
        Self::new()
    }
}
