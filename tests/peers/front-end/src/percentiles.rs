//! What many measured times come to.

/// Times that a half, 99 and 99.9 of a hundred do not exceed, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Percentiles {
    /// The median.
    pub p50_ns: u64,
    /// One in a hundred is longer.
    pub p99_ns: u64,
    /// One in a thousand is longer.
    pub p999_ns: u64,
}

impl Percentiles {
    /// Of these times; `None` if there are none.
    #[must_use]
    pub fn of(mut times_ns: Vec<u64>) -> Option<Self> {
        times_ns.sort_unstable();
        let at = |per_mille: usize| times_ns.get((times_ns.len() * per_mille / 1000).min(times_ns.len() - 1)).copied();
        if times_ns.is_empty() {
            return None;
        }
        Some(Self { p50_ns: at(500)?, p99_ns: at(990)?, p999_ns: at(999)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_time_in_a_hundred_is_longer_than_the_99th_percentile() {
        let found = Percentiles::of((1..=1000).rev().collect());
        assert_eq!(found, Some(Percentiles { p50_ns: 501, p99_ns: 991, p999_ns: 1000 }));
        assert_eq!(Percentiles::of(Vec::new()), None);
    }
}
