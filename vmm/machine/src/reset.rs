//! The three ways to reset a PC that kernels try: the reset control register, the keyboard controller's output line and
//! the fast reset of system control port A (Intel 300 Series PCH data sheet, "Reset Control Register", "Port 92").

/// Reset of the CPU: with or without the other bits, which choose how much of the platform goes with it.
const RST_CPU: u8 = 1 << 2;
const SYS_RST: u8 = 1 << 1;
const FULL_RST: u8 = 1 << 3;

/// Keyboard controller: pulse those output lines low whose bits are clear. Line 0 is the CPU's reset.
const PULSE_OUTPUT: core::ops::RangeInclusive<u8> = 0xf0..=0xff;
const LINE_RESET: u8 = 1 << 0;

const FAST_RESET: u8 = 1 << 0;
const A20: u8 = 1 << 1;

/// The value that resets the machine through the reset control register; for the FADT.
pub const RESET_VALUE: u8 = RST_CPU | SYS_RST;

/// The reset registers.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
pub struct Reset {
    /// What the reset control register reads as.
    pub(crate) control: u8,
}

impl Reset {
    /// Reads the reset control register.
    #[must_use]
    pub const fn read_control(&self) -> u8 {
        self.control
    }

    /// Writes the reset control register. True if it resets the machine.
    #[must_use]
    pub const fn write_control(&mut self, value: u8) -> bool {
        self.control = value & (SYS_RST | FULL_RST);
        value & RST_CPU != 0
    }

    /// The keyboard controller's status: its input buffer is empty, so that a kernel which waits for that before it sends
    /// the reset command waits for nothing. There is no keyboard, as the FADT says.
    #[must_use]
    pub const fn read_keyboard_status(&self) -> u8 {
        0
    }

    /// Writes the keyboard controller's command. True if it resets the machine.
    #[must_use]
    pub fn write_keyboard_command(&self, command: u8) -> bool {
        PULSE_OUTPUT.contains(&command) && command & LINE_RESET == 0
    }

    /// Reads system control port A: address line 20 is not masked.
    #[must_use]
    pub const fn read_system_control(&self) -> u8 {
        A20
    }

    /// Writes system control port A. True if it resets the machine.
    #[must_use]
    pub const fn write_system_control(&self, value: u8) -> bool {
        value & FAST_RESET != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_value_in_the_fadt_resets() {
        assert!(Reset::default().write_control(RESET_VALUE));
    }

    #[test]
    fn choosing_the_kind_of_reset_does_not_reset_and_reads_back() {
        let mut reset = Reset::default();
        assert!(!reset.write_control(0x0a));
        assert_eq!(reset.read_control(), 0x0a);
    }

    #[test]
    fn the_keyboard_controller_resets_when_line_0_is_pulsed() {
        for (command, resets) in
            [(0xfe, true), (0xf0, true), (0xff, false), (0xaa, false), (0xd1, false), (0xee, false)]
        {
            assert_eq!(Reset::default().write_keyboard_command(command), resets, "{command:#x}");
        }
    }

    #[test]
    fn system_control_port_a_resets_by_bit_0_and_not_by_address_line_20() {
        let reset = Reset::default();
        assert!(reset.write_system_control(0x03));
        assert!(!reset.write_system_control(0x02));
        assert_eq!(reset.read_system_control(), 0x02);
    }
}
