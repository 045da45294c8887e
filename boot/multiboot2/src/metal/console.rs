//! The two places where an error can be shown: the first serial port and a PC's text screen.

use core::fmt;

use uart_16550::backend::PioBackend;
use uart_16550::spec::registers::LSR;
use uart_16550::{BaudRate, Config, Uart16550};

/// The first serial port, COM1.
pub struct Serial(Uart16550<PioBackend>);

impl Serial {
    /// How often a port that does not accept a byte is asked again; then the byte is lost rather than the boot.
    const PATIENCE: u32 = 1 << 20;

    /// None if there is no such port.
    pub fn new() -> Option<Self> {
        // SAFETY: COM1 has this address on every PC, and nothing else of this program uses it while the value lives.
        let mut port = unsafe { Uart16550::new_port(0x3f8) }.ok()?;
        port.init(Config { baud_rate: BaudRate::Baud115200, ..Config::DEFAULT }).ok()?;
        Some(Self(port))
    }

    fn send(&mut self, byte: u8) {
        for _ in 0..Self::PATIENCE {
            if self.0.try_send_byte(byte).is_ok() {
                return;
            }
        }
    }

    /// Waits until everything has left the port: an emulator that is stopped earlier loses the rest.
    pub fn flush(&mut self) {
        for _ in 0..Self::PATIENCE {
            if self.0.lsr().contains(LSR::TRANSMITTER_EMPTY) {
                return;
            }
        }
    }
}

impl fmt::Write for Serial {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            if byte == b'\n' {
                self.send(b'\r');
            }
            self.send(byte);
        }
        Ok(())
    }
}

/// The top of a PC's text screen; where there is none, what is written is lost.
pub struct Screen {
    /// Where the next character goes.
    position: usize,
}

impl Screen {
    /// Four lines of 80.
    const CHARACTERS: usize = 4 * 80;
    /// White on red.
    const COLOURS: u16 = 0x4f00;

    /// Begins at the first line.
    pub const fn new() -> Self {
        Self { position: 0 }
    }
}

impl fmt::Write for Screen {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes().filter(|byte| !byte.is_ascii_control()) {
            if self.position >= Self::CHARACTERS {
                break;
            }
            // SAFETY: the position is within the text buffer, which is at this address where there is one; where there is
            // none, the address belongs to the legacy video window and holds nothing of anyone's.
            unsafe { (0xb8000 as *mut u16).add(self.position).write_volatile(Self::COLOURS | u16::from(byte)) };
            self.position += 1;
        }
        Ok(())
    }
}
