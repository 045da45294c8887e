//! Tokens that come at a constant rate: what all limits of the card are made of, in exact integers.
//!
//! Disks count operations and bytes with them, the switch packets and bits. Time is given by the caller, in nanoseconds
//! from any moment on.
#![no_std]
#![forbid(unsafe_code)]

use core::num::NonZeroU64;

const NS_PER_SECOND: i128 = 1_000_000_000;

/// How fast tokens come, and how many can be saved up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// Tokens per second.
    pub per_second: NonZeroU64,
    /// Tokens that may be spent at once after a rest.
    pub burst: NonZeroU64,
}

/// Tokens that come at a constant rate, up to a limit, and are spent by requests.
///
/// A request passes whenever there is a token left, and takes all that it costs, into debt if need be, which those after
/// it wait for. So no request is too large ever to pass, and a large one is not overtaken for ever by small ones. In any
/// time t, what passes is at most `burst + per_second * t` and one token less than the last request.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    rate: Rate,
    /// Tokens times [`NS_PER_SECOND`], so that nothing is ever rounded; negative in debt.
    level: i128,
    /// When `level` was right, in nanoseconds.
    as_of_ns: u64,
}

impl TokenBucket {
    /// A full bucket at the time `now_ns`.
    #[must_use]
    pub fn new(rate: Rate, now_ns: u64) -> Self {
        Self { rate, level: full(rate), as_of_ns: now_ns }
    }

    /// Goes on with another rate. What was saved up stays, as far as the new burst allows.
    pub fn set_rate(&mut self, rate: Rate, now_ns: u64) {
        self.refill(now_ns);
        self.rate = rate;
        self.level = self.level.min(full(rate));
    }

    /// When a request can pass, in nanoseconds: not after `now_ns` if now.
    pub fn ready_at_ns(&mut self, now_ns: u64) -> u64 {
        self.refill(now_ns);
        let missing = NS_PER_SECOND - self.level;
        if missing <= 0 {
            return now_ns;
        }
        let wait_ns = (missing - 1) / i128::from(self.rate.per_second.get()) + 1;
        self.as_of_ns.saturating_add(u64::try_from(wait_ns).unwrap_or(u64::MAX))
    }

    /// Whether a token is left, so that a request can pass, as of the last [`Self::refill`].
    #[inline]
    #[must_use]
    pub const fn has_tokens(&self) -> bool {
        self.level >= NS_PER_SECOND
    }

    /// Spends `cost` tokens, into debt if need be.
    pub fn take(&mut self, cost: u64) {
        self.level = self.level.saturating_sub(i128::from(cost) * NS_PER_SECOND);
    }

    /// Adds what has come until `now_ns`. Time that runs backwards stands still.
    pub fn refill(&mut self, now_ns: u64) {
        let elapsed_ns = now_ns.saturating_sub(self.as_of_ns);
        self.as_of_ns = self.as_of_ns.max(now_ns);
        // Below 2^128, but perhaps not below 2^127.
        let gained = i128::from(elapsed_ns).saturating_mul(i128::from(self.rate.per_second.get()));
        self.level = self.level.saturating_add(gained).min(full(self.rate));
    }
}

/// At most 2^94.
fn full(rate: Rate) -> i128 {
    i128::from(rate.burst.get()) * NS_PER_SECOND
}
