//! Limits on operations and bytes per second, with burst.

pub use dragonfly_rate::{Rate, TokenBucket};

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
