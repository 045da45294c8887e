//! Registers of the 16550A (PC16550D, table II).

use bitflags::bitflags;

/// Offsets of the registers.
pub mod offset {
    /// Receiver buffer and transmitter holding register; low byte of the divisor with DLAB.
    pub const DATA: u8 = 0;
    /// Interrupt enable; high byte of the divisor with DLAB.
    pub const INTERRUPT_ENABLE: u8 = 1;
    /// Interrupt identification, read.
    pub const INTERRUPT_IDENTIFICATION: u8 = 2;
    /// FIFO control, write.
    pub const FIFO_CONTROL: u8 = 2;
    /// Line control.
    pub const LINE_CONTROL: u8 = 3;
    /// Modem control.
    pub const MODEM_CONTROL: u8 = 4;
    /// Line status.
    pub const LINE_STATUS: u8 = 5;
    /// Modem status.
    pub const MODEM_STATUS: u8 = 6;
    /// Scratch.
    pub const SCRATCH: u8 = 7;
}

/// Values of the interrupt identification register.
pub mod interrupt {
    /// No interrupt.
    pub const NONE: u8 = 0x01;
    /// An error of the line.
    pub const LINE_STATUS: u8 = 0x06;
    /// As many bytes as the trigger level says.
    pub const DATA_AVAILABLE: u8 = 0x04;
    /// Bytes, but fewer than that, and for a while.
    pub const CHARACTER_TIMEOUT: u8 = 0x0c;
    /// The transmitter takes more.
    pub const TRANSMITTER_EMPTY: u8 = 0x02;
    /// A modem input changed.
    pub const MODEM_STATUS: u8 = 0x00;
    /// Added to all of them.
    pub const FIFOS_ENABLED: u8 = 0xc0;
}

bitflags! {
    /// Interrupt enable register.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct InterruptEnable: u8 {
        const DATA_AVAILABLE = 1 << 0;
        const TRANSMITTER_EMPTY = 1 << 1;
        const LINE_STATUS = 1 << 2;
        const MODEM_STATUS = 1 << 3;
    }

    /// FIFO control register.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct FifoControl: u8 {
        const ENABLE = 1 << 0;
        const CLEAR_RECEIVER = 1 << 1;
        const CLEAR_TRANSMITTER = 1 << 2;
        const TRIGGER = 0b11 << 6;
        /// What is more than a command.
        const KEPT = Self::ENABLE.bits() | Self::TRIGGER.bits();
    }

    /// Line control register; word length, parity and break mean nothing here.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct LineControl: u8 {
        /// The first two registers are the divisor.
        const DLAB = 1 << 7;
        const _ = !0;
    }

    /// Modem control register.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct ModemControl: u8 {
        const DTR = 1 << 0;
        const RTS = 1 << 1;
        const OUT1 = 1 << 2;
        const OUT2 = 1 << 3;
        const LOOP = 1 << 4;
    }

    /// Line status register.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct LineStatus: u8 {
        const DATA_READY = 1 << 0;
        const OVERRUN = 1 << 1;
        const HOLDING_EMPTY = 1 << 5;
        const TRANSMITTER_EMPTY = 1 << 6;
    }

    /// Modem status register.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct ModemStatus: u8 {
        const CTS_CHANGED = 1 << 0;
        const DSR_CHANGED = 1 << 1;
        const RI_ENDED = 1 << 2;
        const DCD_CHANGED = 1 << 3;
        const CTS = 1 << 4;
        const DSR = 1 << 5;
        const RI = 1 << 6;
        const DCD = 1 << 7;
        const CHANGES = 0x0f;
        const LEVELS = 0xf0;
        /// What a terminal asserts that is there and ready.
        const CONNECTED = Self::CTS.bits() | Self::DSR.bits() | Self::DCD.bits();
    }
}

impl FifoControl {
    /// Bytes that cause an interrupt.
    pub fn trigger_level(self) -> usize {
        match self.bits() >> 6 {
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        }
    }
}

impl ModemControl {
    /// The modem inputs that these outputs are connected to in loop-back mode.
    pub fn looped_back(self) -> ModemStatus {
        [
            (Self::DTR, ModemStatus::DSR),
            (Self::RTS, ModemStatus::CTS),
            (Self::OUT1, ModemStatus::RI),
            (Self::OUT2, ModemStatus::DCD),
        ]
        .into_iter()
        .filter(|(output, _)| self.contains(*output))
        .fold(ModemStatus::empty(), |inputs, (_, input)| inputs | input)
    }
}

impl ModemStatus {
    /// The register when its inputs become `levels`. The ring indicator tells of its end only.
    pub fn moved_to(self, levels: Self) -> Self {
        let changed = self ^ levels;
        let mut status = levels | self & Self::CHANGES;
        status.set(Self::CTS_CHANGED, self.contains(Self::CTS_CHANGED) || changed.contains(Self::CTS));
        status.set(Self::DSR_CHANGED, self.contains(Self::DSR_CHANGED) || changed.contains(Self::DSR));
        status.set(Self::RI_ENDED, self.contains(Self::RI_ENDED) || (self - levels).contains(Self::RI));
        status.set(Self::DCD_CHANGED, self.contains(Self::DCD_CHANGED) || changed.contains(Self::DCD));
        status
    }
}
