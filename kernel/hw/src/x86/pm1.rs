//! Registers by which a platform goes to sleep (ACPI 6.5, 4.8.3.2.1 and 4.8.3.7). Their addresses stand in the FADT.

flags! {
    /// Bits of the PM1 control registers, beside the sleep type.
    Pm1Control: u16 {
        SCI_EN      0   "The platform is in ACPI mode, not in legacy mode."
        BM_RLD      1   "Bus master requests leave C3."
        GBL_RLS     2   "Interrupt to firmware, write-only."
        SLP_EN      13  "Enter the state of the sleep type, write-only."
    }

    /// Bits of the sleep control register of hardware-reduced platforms, beside the sleep type.
    SleepControl: u8 {
        SLP_EN      5   "Enter the state of the sleep type, write-only."
    }
}

/// Sleep type in the PM1 control registers.
pub const PM1_SLP_TYP: u16 = 0b111 << 10;

/// What a PM1 control register is to hold to enter the state of `sleep_type`, the other bits as in `control`.
#[must_use]
pub const fn pm1_sleep(control: u16, sleep_type: u8) -> u16 {
    control & !PM1_SLP_TYP | (sleep_type as u16 & 7) << 10 | Pm1Control::SLP_EN.bits()
}

/// The same for the sleep control register of hardware-reduced platforms.
#[must_use]
pub const fn sleep_control(sleep_type: u8) -> u8 {
    (sleep_type & 7) << 2 | SleepControl::SLP_EN.bits()
}

const _: () = assert!(pm1_sleep(0x1c01, 5) == 0x3401 && sleep_control(5) == 0x34);
