//! Limits on operations and bytes per second, with burst, in exact integers.

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
#[derive(Clone, Debug)]
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

    /// Spends `cost` tokens, into debt if need be.
    pub fn take(&mut self, cost: u64) {
        self.level = self.level.saturating_sub(i128::from(cost) * NS_PER_SECOND);
    }

    /// Time that runs backwards stands still.
    fn refill(&mut self, now_ns: u64) {
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

/// What a volume may do; absent is unlimited.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Limits {
    /// Requests.
    pub operations: Option<Rate>,
    /// Bytes read, written, or written as zeros.
    pub bytes: Option<Rate>,
}

/// Holds a volume to its [`Limits`].
#[derive(Clone, Debug)]
pub struct Limiter {
    operations: Option<TokenBucket>,
    bytes: Option<TokenBucket>,
}

impl Limiter {
    /// Starts with full buckets at the time `now_ns`.
    #[must_use]
    pub fn new(limits: Limits, now_ns: u64) -> Self {
        let bucket = |rate: Option<Rate>| rate.map(|rate| TokenBucket::new(rate, now_ns));
        Self { operations: bucket(limits.operations), bytes: bucket(limits.bytes) }
    }

    /// Goes on with other limits; debts and savings stay.
    pub fn set_limits(&mut self, limits: Limits, now_ns: u64) {
        for (bucket, rate) in [(&mut self.operations, limits.operations), (&mut self.bytes, limits.bytes)] {
            match (bucket.as_mut(), rate) {
                (Some(bucket), Some(rate)) => bucket.set_rate(rate, now_ns),
                (None, Some(rate)) => *bucket = Some(TokenBucket::new(rate, now_ns)),
                (_, None) => *bucket = None,
            }
        }
    }

    /// Lets a request of `bytes` bytes pass, or says when to ask again.
    ///
    /// # Errors
    /// The time in nanoseconds before which it cannot pass; nothing has been spent.
    pub fn admit(&mut self, bytes: u64, now_ns: u64) -> Result<(), WaitUntil> {
        // What moves no bytes does not wait for those that do.
        let bytes_bucket = self.bytes.as_mut().filter(|_| bytes > 0);
        let mut buckets = [(self.operations.as_mut(), 1), (bytes_bucket, bytes)];
        let mut until_ns = now_ns;
        for bucket in buckets.iter_mut().filter_map(|(bucket, _)| bucket.as_mut()) {
            until_ns = until_ns.max(bucket.ready_at_ns(now_ns));
        }
        if until_ns > now_ns {
            return Err(WaitUntil { ns: until_ns });
        }
        for (bucket, cost) in buckets {
            if let Some(bucket) = bucket {
                bucket.take(cost);
            }
        }
        Ok(())
    }
}

/// A request is above its limits until then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct WaitUntil {
    /// When it may pass, in nanoseconds of the clock that [`Limiter::admit`] was given.
    pub ns: u64,
}
