//! Text to COM1.

use core::fmt;

use super::cpu;

/// Transmit register and line status register of a 16550.
const DATA: u16 = 0x3f8;
const LINE_STATUS: u16 = 0x3fd;
/// The transmit register is empty.
const TRANSMIT_EMPTY: u8 = 1 << 5;

/// Registers of the interrupts, the line and the modem.
const INTERRUPT_ENABLE: u16 = 0x3f9;
const LINE_CONTROL: u16 = 0x3fb;
const MODEM_CONTROL: u16 = 0x3fc;

/// Makes the first serial port one that can be printed to, whatever was done to it: no divisor, no loop back.
pub fn put_serial_in_order() {
    cpu::write_port(LINE_CONTROL, 3_u8);
    cpu::write_port(INTERRUPT_ENABLE, 0_u8);
    cpu::write_port(MODEM_CONTROL, 3_u8);
}

/// The first serial port, as its firmware or hypervisor set it up.
#[derive(Clone, Copy, Debug)]
pub struct Com1;

impl fmt::Write for Com1 {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            while cpu::read_port::<u8>(LINE_STATUS) & TRANSMIT_EMPTY == 0 {
                core::hint::spin_loop();
            }
            cpu::write_port(DATA, byte);
        }
        Ok(())
    }
}

/// Prints to COM1.
#[macro_export]
macro_rules! print {
    ($($argument:tt)*) => {{
        use core::fmt::Write as _;
        // Writing to COM1 cannot fail.
        let _ = write!($crate::Com1, $($argument)*);
    }};
}
