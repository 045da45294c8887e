//! 8254 interval timer and the port that gates its channel 2 (Intel 8254 data sheet; ICH and PCH data sheets, "Timer"
//! and "NMI Status and Control").

/// Frequency of its clock: 14.318 18 MHz / 12.
pub const FREQUENCY_HZ: u64 = 1_193_182;

constants! { u16 {
    CHANNEL_0   0x40    "Count of channel 0, which is wired to interrupt 0."
    CHANNEL_1   0x41    "Count of channel 1."
    CHANNEL_2   0x42    "Count of channel 2, which is wired to the speaker and to [`GATE`]."
    COMMAND     0x43    "Command, write-only."
    GATE        0x61    "NMI status and control: [`Gate`]."
}}

constants! { u8 {
    SELECT_CHANNEL_0    0x00    "Command: channel 0."
    SELECT_CHANNEL_2    0x80    "Command: channel 2."
    ACCESS_LOW_HIGH     0x30    "Command: the count's low byte, then its high byte."
    LATCH               0x00    "Command: hold the count for reading."
    MODE_0              0x00    "Command: output goes high when the count ends."
    MODE_2              0x04    "Command: rate generator."
}}

flags! {
    /// Bits of [`GATE`]; the others must be written back as they were read, 7:4 as 0.
    Gate: u8 {
        TIMER_2_ENABLE      0   "Channel 2 counts."
        SPEAKER_ENABLE      1   "Channel 2's output goes to the speaker."
        TIMER_2_OUTPUT      5   "Channel 2's output, read-only."
    }
}
