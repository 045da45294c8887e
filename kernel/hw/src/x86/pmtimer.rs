//! Power management timer (ACPI 6.5, 4.8.3.3). Its register and its width stand in the FADT.

/// Frequency: 14.318 18 MHz / 4.
pub const FREQUENCY_HZ: u64 = 3_579_545;
/// Bits that count where the FADT's flag `TMR_VAL_EXT` is clear.
pub const MASK_24_BIT: u32 = 0x00ff_ffff;
/// Bits that count where it is set.
pub const MASK_32_BIT: u32 = u32::MAX;
