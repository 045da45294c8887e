//! Many measurements of one thing, and the two numbers that speak for them.

use core::fmt;

/// Measurements of each kind that count.
pub const SAMPLES: usize = 256;
/// Measurements before those: caches, translations and the hypervisor's own adaptation settle meanwhile.
const WARM_UP: usize = 32;

/// What is left of many measurements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The smallest, in ticks: the cost itself, with nothing in between.
    pub minimum: u64,
    /// The one in the middle, in ticks: what a guest sees.
    pub median: u64,
}

impl Summary {
    /// Summarises `samples`, of which there is at least one; it leaves them sorted.
    fn of(samples: &mut [u64]) -> Self {
        samples.sort_unstable();
        let at = |index: usize| samples.get(index).copied().unwrap_or(0);
        Self { minimum: at(0), median: at(samples.len() / 2) }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.minimum, self.median)
    }
}

/// Takes [`SAMPLES`] measurements by `measure`, after some that do not count.
pub fn summary(mut measure: impl FnMut() -> u64) -> Summary {
    for _ in 0..WARM_UP {
        measure();
    }
    let mut samples = [0; SAMPLES];
    samples.fill_with(measure);
    Summary::of(&mut samples)
}

/// Summarises measurements that cannot be repeated at will: each of them counts.
pub fn summary_of_few<const N: usize>(measure: impl FnMut() -> u64) -> Summary {
    let mut samples = [0; N];
    samples.fill_with(measure);
    Summary::of(&mut samples)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_measurements_do_not_count() {
        let mut taken = 0;
        let summary = summary(|| {
            taken += 1;
            taken
        });
        assert_eq!(taken, (WARM_UP + SAMPLES) as u64);
        assert_eq!(summary.minimum, WARM_UP as u64 + 1);
    }

    #[test]
    fn the_median_ignores_what_rarely_happens() {
        let mut taken = 0;
        let summary = summary(|| {
            taken += 1;
            if taken % 10 == 0 { 1_000_000 } else { 7 }
        });
        assert_eq!(summary, Summary { minimum: 7, median: 7 });
    }

    #[test]
    fn few_measurements_count_from_the_first_on() {
        let mut next = [5, 3, 9].into_iter();
        assert_eq!(summary_of_few::<3>(|| next.next().unwrap_or(0)), Summary { minimum: 3, median: 5 });
    }

    #[test]
    fn a_summary_is_two_numbers() {
        assert_eq!(Summary { minimum: 3, median: 5 }.to_string(), "3 5");
    }
}
