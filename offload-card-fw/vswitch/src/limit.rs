//! Limits in packets and bits per second, with burst.

pub use dragonfly_rate::Rate;
use dragonfly_rate::TokenBucket;

/// What a port may send or receive; absent is unlimited.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Packets, as they are on the wire: what the card is to cut counts as its parts.
    pub packets: Option<Rate>,
    /// Bits of frames.
    pub bits: Option<Rate>,
}

/// Enforces [`Limits`] on one direction of a port.
#[derive(Clone, Copy, Default, Debug)]
pub struct Policer {
    packets: Option<TokenBucket>,
    bits: Option<TokenBucket>,
}

impl Policer {
    /// Begins with full bursts.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let bucket = |rate: Option<Rate>| rate.map(|rate| TokenBucket::new(rate, 0));
        Self { packets: bucket(limits.packets), bits: bucket(limits.bits) }
    }

    /// Limits packets alone.
    #[must_use]
    pub fn of_packets(rate: Option<Rate>) -> Self {
        Self::new(&Limits { packets: rate, bits: None })
    }

    /// Adds the tokens that have come until `now_ns`; once for a batch of frames is enough.
    #[inline]
    pub fn refill(&mut self, now_ns: u64) {
        if !self.is_unlimited() {
            self.refill_buckets(now_ns);
        }
    }

    fn refill_buckets(&mut self, now_ns: u64) {
        for bucket in [&mut self.packets, &mut self.bits].into_iter().flatten() {
            bucket.refill(now_ns);
        }
    }

    /// Whether `packets` of `bytes` in all pass; takes their tokens if so.
    #[inline]
    #[must_use]
    pub fn admit(&mut self, packets: usize, bytes: usize) -> bool {
        self.is_unlimited() || self.take(packets, bytes)
    }

    #[inline]
    const fn is_unlimited(&self) -> bool {
        self.packets.is_none() & self.bits.is_none()
    }

    fn take(&mut self, packets: usize, bytes: usize) -> bool {
        let mut costs = [(&mut self.packets, packets as u64), (&mut self.bits, bytes as u64 * 8)];
        let admits = costs.iter().all(|(bucket, _)| bucket.as_ref().is_none_or(TokenBucket::has_tokens));
        if admits {
            for (bucket, cost) in &mut costs {
                if let Some(bucket) = bucket {
                    bucket.take(*cost);
                }
            }
        }
        admits
    }
}

#[cfg(test)]
mod tests {
    use core::num::NonZeroU64;

    use super::*;

    fn rate(per_second: u64, burst: u64) -> Option<Rate> {
        Some(Rate { per_second: NonZeroU64::new(per_second)?, burst: NonZeroU64::new(burst)? })
    }

    /// Offers 1,000 bytes every microsecond for a second; gives how many passed.
    fn passed(limits: Limits) -> usize {
        let mut policer = Policer::new(&limits);
        (0..1_000_000_u64)
            .filter(|us| {
                policer.refill(us * 1_000);
                policer.admit(1, 1_000)
            })
            .count()
    }

    #[test]
    fn over_a_second_the_rate_and_the_burst_pass() {
        let cases = [
            (Limits { packets: rate(10_000, 100), bits: None }, 10_100),
            (Limits { packets: None, bits: rate(80_000_000, 8_000) }, 10_001),
            (Limits { packets: rate(10_000, 1), bits: rate(8_000_000, 8_000) }, 1_001),
            (Limits::default(), 1_000_000),
        ];
        for (limits, expected) in cases {
            let passed = passed(limits);
            assert!(passed.abs_diff(expected) <= 2, "{limits:?}: {passed} passed, {expected} expected");
        }
    }

    #[test]
    fn a_frame_longer_than_the_burst_passes_and_delays_the_next() {
        let mut policer = Policer::new(&Limits { packets: None, bits: rate(8_000, 80) });
        assert!(policer.admit(1, 1_000));
        policer.refill(980_000_000);
        assert!(!policer.admit(1, 1), "the debt is nearly a second's worth");
        policer.refill(1_000_000_000);
        assert!(policer.admit(1, 1));
    }
}
