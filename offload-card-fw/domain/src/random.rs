//! Numbers that guests and others cannot easily guess.

use dragonfly_rt::time::time_stamp;

/// Numbers from the cycles at which they are asked for, mixed by Steele, Lea and Flood's SplitMix64.
///
/// Nobody else sees the cycle counter's value at that moment to the last bits; that is all that they are made of.
pub(crate) struct Random(u64);

impl Random {
    /// A sequence that begins with the present moment.
    pub(crate) fn new() -> Self {
        Self(time_stamp())
    }

    /// The next number.
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(time_stamp());
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}
