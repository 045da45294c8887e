//! What many measured values come to.

use alloc::vec::Vec;
use core::fmt;

/// Measured values.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<u64>);

impl Samples {
    /// Adds a value.
    pub fn add(&mut self, value: u64) {
        self.0.push(value);
    }

    /// How many values there are.
    #[must_use]
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// The value that `percent` of all values do not exceed (nearest rank); 0 without values.
    #[must_use]
    pub fn percentile(&self, percent: usize) -> u64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let rank = (sorted.len() * percent).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(0)
    }

    /// How many values fall between each power of two and the next: `(2^n, values from 2^n to 2^(n+1) - 1)`, those that
    /// have some. 0 counts as 1.
    pub fn powers(&self) -> impl Iterator<Item = (u64, usize)> {
        let mut counts = [0_usize; 64];
        for value in &self.0 {
            counts[value.max(&1).ilog2() as usize] += 1;
        }
        counts.into_iter().enumerate().filter(|(_, count)| *count > 0).map(|(power, count)| (1 << power, count))
    }
}

/// As `n=3 p50=5 p99=9 max=9 histogram 4+:2 8+:1`.
impl fmt::Display for Samples {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [p50, p99, max] = [50, 99, 100].map(|percent| self.percentile(percent));
        write!(formatter, "n={} p50={p50} p99={p99} max={max} histogram", self.count())?;
        for (power, count) in self.powers() {
            write!(formatter, " {power}+:{count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Samples;

    fn samples(values: impl IntoIterator<Item = u64>) -> Samples {
        Samples(values.into_iter().collect())
    }

    #[test]
    fn a_percentile_is_a_value_that_so_many_do_not_exceed() {
        let hundred = samples((1..=100).rev());
        assert_eq!([1, 50, 99, 100].map(|percent| hundred.percentile(percent)), [1, 50, 99, 100]);
        let three = samples([9, 4, 5]);
        assert_eq!([1, 50, 99, 100].map(|percent| three.percentile(percent)), [4, 5, 9, 9]);
        assert_eq!(Samples::default().percentile(99), 0);
    }

    #[test]
    fn the_text_shows_the_powers_that_have_values() {
        assert_eq!(samples([9, 4, 5, 0]).to_string(), "n=4 p50=4 p99=9 max=9 histogram 1+:1 4+:2 8+:1");
        assert!(samples([u64::MAX]).to_string().ends_with(&format!(" {}+:1", 1_u64 << 63)));
    }
}
