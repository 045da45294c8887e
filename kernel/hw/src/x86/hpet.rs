//! High Precision Event Timer (IA-PC HPET Specification 1.0a, 2.3).

// Offsets from the address that the ACPI table gives. Registers are 64 bits wide.
constants! { u64 {
    GCAP_ID         0x000   "General capabilities and ID, read-only."
    GEN_CONF        0x010   "General configuration: [`GeneralConfiguration`]."
    GINTR_STA       0x020   "General interrupt status."
    MAIN_CNT        0x0f0   "Main counter."
    TIM0_CONF       0x100   "Timer 0: configuration and capabilities; timer n at + 0x20 n."
    TIM0_COMP       0x108   "Timer 0: comparator; timer n at + 0x20 n."
    TIM0_FSB_ROUT   0x110   "Timer 0: message address and data; timer n at + 0x20 n."
}}

/// One second in the unit of [`period_fs`].
pub const FEMTOSECONDS_PER_SECOND: u64 = 1_000_000_000_000_000;
/// Longest period that the specification allows: 100 ns. A longer one, or 0, is a broken device.
pub const MAX_PERIOD_FS: u32 = 0x05f5_e100;

flags! {
    /// Bits of [`GEN_CONF`].
    GeneralConfiguration: u64 {
        ENABLE_CNF      0   "The main counter runs and timers may interrupt."
        LEG_RT_CNF      1   "Timers 0 and 1 replace the 8254's and the RTC's interrupts."
    }
}

/// Period of the main counter in femtoseconds, from [`GCAP_ID`].
#[must_use]
pub const fn period_fs(gcap_id: u64) -> u32 {
    (gcap_id >> 32) as u32
}

/// The main counter counts 64 bits, not 32, from [`GCAP_ID`].
#[must_use]
pub const fn is_64_bit(gcap_id: u64) -> bool {
    gcap_id & 1 << 13 != 0
}
