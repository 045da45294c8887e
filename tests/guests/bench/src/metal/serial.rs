//! Text to COM1.
#![expect(unsafe_code, reason = "the port is written to")]

use core::{fmt, hint::spin_loop};

use x86_64::instructions::port::Port;

/// Transmit register and line status register of a 16550.
const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = 0x3fd;
/// The transmit register is empty.
const TRANSMIT_EMPTY: u8 = 1 << 5;

/// The first serial port, as its firmware or hypervisor set it up.
#[derive(Clone, Copy, Debug)]
pub struct Com1;

impl fmt::Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            // SAFETY: these registers are a serial port's, or nothing's.
            unsafe {
                while Port::<u8>::new(LINE_STATUS).read() & TRANSMIT_EMPTY == 0 {
                    spin_loop();
                }
                Port::new(DATA).write(byte);
            }
        }
        Ok(())
    }
}
