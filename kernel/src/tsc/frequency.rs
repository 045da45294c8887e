//! Decides how fast the time stamp counter counts.

use core::fmt;

use super::{PLAUSIBLE_HZ, saturated};

/// Where a frequency comes from. Each counts once, however many samples it gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Source {
    /// CPUID leaf 0x15: ratio to the core crystal clock, and that clock.
    Cpuid15,
    /// CPUID leaf 0x16: the processor's base frequency, which the counter has on most processors.
    Cpuid16,
    /// CPUID leaf 0x4000_0010: what a hypervisor says.
    HypervisorLeaf,
    /// Counted against the 8254.
    PitCalibration,
    /// Counted against the HPET.
    HpetCalibration,
    /// Counted against the ACPI power management timer.
    PmTimerCalibration,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Cpuid15 => "CPUID 0x15",
            Self::Cpuid16 => "CPUID 0x16",
            Self::HypervisorLeaf => "CPUID 0x40000010",
            Self::PitCalibration => "8254",
            Self::HpetCalibration => "HPET",
            Self::PmTimerCalibration => "PM timer",
        })
    }
}

/// What one source says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sample {
    /// Who says it.
    pub source: Source,
    /// Frequency in Hz.
    pub hz: u64,
    /// How far the truth may be from `hz` if the source works, in millionths of `hz`.
    pub tolerance_ppm: u32,
}

impl Sample {
    fn lowest_hz(&self) -> u64 {
        self.hz.saturating_sub(self.tolerance_hz())
    }

    fn allows(&self, hz: u64) -> bool {
        self.hz.abs_diff(hz) <= self.tolerance_hz()
    }

    fn tolerance_hz(&self) -> u64 {
        saturated(u128::from(self.hz) * u128::from(self.tolerance_ppm) / 1_000_000)
    }

    fn is_plausible(&self) -> bool {
        PLAUSIBLE_HZ.contains(&self.hz)
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} says {} Hz ± {} ppm", self.source, self.hz, self.tolerance_ppm)
    }
}

/// What was decided.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TscFrequency {
    /// Frequency in Hz.
    pub hz: u64,
    /// Whose value it is: the most precise of those that agree.
    pub source: Source,
    /// How many sources agree, this one included.
    pub agreeing: u32,
    /// How many other sources gave a plausible value.
    pub dissenting: u32,
}

impl TscFrequency {
    /// There is only one source, so a wrong one would not be noticed: worth a warning.
    #[must_use]
    pub fn is_unconfirmed(&self) -> bool {
        self.agreeing < 2
    }
}

/// Why no frequency could be decided on. The platform's fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TscError<'a> {
    /// No source gave a plausible value.
    NoSource(&'a [Sample]),
    /// No two sources agree, or as many say one thing as say another.
    Disagreement(&'a [Sample]),
}

impl fmt::Display for TscError<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (reason, samples) = match self {
            Self::NoSource(samples) => ("no plausible source of the TSC's frequency", samples),
            Self::Disagreement(samples) => ("the sources of the TSC's frequency disagree", samples),
        };
        formatter.write_str(reason)?;
        for (index, sample) in samples.iter().enumerate() {
            write!(formatter, "{} {sample}", if index == 0 { ":" } else { "," })?;
        }
        Ok(())
    }
}

impl core::error::Error for TscError<'_> {}

/// Decides on a frequency: sources agree where there is one that all of them allow, the largest group that agrees wins,
/// and of its members the most precise one. The only source is believed if there is no other.
///
/// # Errors
/// If there is no plausible value, or no single group of two or more sources that wins.
pub fn decide(samples: &[Sample]) -> Result<TscFrequency, TscError<'_>> {
    let plausible = || samples.iter().filter(|sample| sample.is_plausible());
    let sources_at = |hz| sources(plausible().filter(|sample| sample.allows(hz)));

    // Where ranges overlap most, one of them begins: so their beginnings are all the points to look at.
    let agreeing = plausible().map(|sample| sources_at(sample.lowest_hz())).max().ok_or(TscError::NoSource(samples))?;
    let all = sources(plausible());
    if agreeing < 2 && all > 1 {
        return Err(TscError::Disagreement(samples));
    }
    // Of two groups of the same size neither wins, but a sample that belongs to both is right either way.
    let largest = plausible().map(Sample::lowest_hz).filter(|hz| sources_at(*hz) == agreeing);
    let winner = plausible()
        .filter(|sample| largest.clone().all(|hz| sample.allows(hz)))
        .min_by_key(|sample| sample.tolerance_ppm)
        .ok_or(TscError::Disagreement(samples))?;
    Ok(TscFrequency { hz: winner.hz, source: winner.source, agreeing, dissenting: all.saturating_sub(agreeing) })
}

/// How many different sources there are among `samples`.
fn sources<'a>(samples: impl Iterator<Item = &'a Sample>) -> u32 {
    samples.fold(0u32, |seen, sample| seen | 1 << sample.source as u8).count_ones()
}

/// Frequency of the time stamp counter, in Hz, if it advanced by `tsc_ticks` while a clock of `reference_hz` advanced
/// by `reference_ticks`. `None` if the reference stood still or the result exceeds 64 bits.
#[must_use]
pub fn hz_from_interval(tsc_ticks: u64, reference_ticks: u64, reference_hz: u64) -> Option<u64> {
    let product = u128::from(tsc_ticks) * u128::from(reference_hz);
    let half = u128::from(reference_ticks / 2);
    u64::try_from((product + half).checked_div(u128::from(reference_ticks))?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sample(source: Source, hz: u64, tolerance_ppm: u32) -> Sample {
        Sample { source, hz, tolerance_ppm }
    }

    #[test]
    fn the_most_precise_of_those_that_agree_wins() {
        let samples = [
            sample(Source::Cpuid16, 2_400_000_000, 1000),
            sample(Source::HpetCalibration, 2_399_990_000, 50),
            sample(Source::PitCalibration, 2_400_300_000, 500),
        ];
        let decided = TscFrequency { hz: 2_399_990_000, source: Source::HpetCalibration, agreeing: 3, dissenting: 0 };
        assert_eq!(decide(&samples), Ok(decided));
        assert!(!decided.is_unconfirmed());
    }

    #[test]
    fn two_that_agree_outvote_a_more_precise_one() {
        let samples = [
            sample(Source::Cpuid15, 1_000_000_000, 1),
            sample(Source::PitCalibration, 2_000_000_000, 500),
            sample(Source::PmTimerCalibration, 2_000_100_000, 100),
        ];
        let decided =
            TscFrequency { hz: 2_000_100_000, source: Source::PmTimerCalibration, agreeing: 2, dissenting: 1 };
        assert_eq!(decide(&samples), Ok(decided));
    }

    #[test]
    fn a_source_cannot_confirm_itself() {
        let samples = [
            sample(Source::PitCalibration, 2_000_000_000, 500),
            sample(Source::PitCalibration, 2_000_000_001, 500),
            sample(Source::Cpuid16, 3_000_000_000, 500),
        ];
        assert_eq!(decide(&samples), Err(TscError::Disagreement(&samples)));
        let decided = decide(&samples[..2]).unwrap();
        assert!(decided.is_unconfirmed());
        assert_eq!(decided.dissenting, 0);
    }

    #[test]
    fn the_only_source_is_believed_with_a_warning() {
        let samples = [sample(Source::HypervisorLeaf, 1_000_000_000, 1), sample(Source::Cpuid15, 0, 1)];
        let decided = TscFrequency { hz: 1_000_000_000, source: Source::HypervisorLeaf, agreeing: 1, dissenting: 0 };
        assert_eq!(decide(&samples), Ok(decided));
        assert!(decided.is_unconfirmed());
    }

    #[test]
    fn two_pairs_that_contradict_each_other_are_a_disagreement() {
        let samples = [
            sample(Source::Cpuid15, 1_000_000_000, 100),
            sample(Source::Cpuid16, 1_000_000_000, 100),
            sample(Source::HpetCalibration, 2_000_000_000, 100),
            sample(Source::PitCalibration, 2_000_000_000, 100),
        ];
        assert_eq!(decide(&samples), Err(TscError::Disagreement(&samples)));
    }

    #[test]
    fn of_two_groups_of_one_size_the_source_in_both_is_taken() {
        let samples = [
            sample(Source::Cpuid15, 1_000_000_000, 10),
            sample(Source::PitCalibration, 1_000_300_000, 500),
            sample(Source::HpetCalibration, 1_000_600_000, 10),
        ];
        let decided = decide(&samples).unwrap();
        assert_eq!((decided.source, decided.agreeing, decided.dissenting), (Source::PitCalibration, 2, 1));
    }

    #[test]
    fn values_that_cannot_be_are_no_source() {
        let samples = [
            sample(Source::Cpuid15, 0, 100),
            sample(Source::PitCalibration, 999_999, u32::MAX),
            sample(Source::HpetCalibration, u64::MAX, u32::MAX),
        ];
        assert_eq!(decide(&samples), Err(TscError::NoSource(&samples)));
        assert_eq!(decide(&[]), Err(TscError::NoSource(&[])));
    }

    #[test]
    fn an_error_shows_every_value() {
        let samples = [sample(Source::Cpuid15, 1_000_000_000, 5), sample(Source::PitCalibration, 2_000_000_000, 500)];
        assert_eq!(
            TscError::Disagreement(&samples).to_string(),
            "the sources of the TSC's frequency disagree: CPUID 0x15 says 1000000000 Hz ± 5 ppm, \
             8254 says 2000000000 Hz ± 500 ppm"
        );
    }

    #[test]
    fn an_interval_gives_a_frequency_to_the_nearest_hertz() {
        assert_eq!(hz_from_interval(20_000_000, 11_932, 1_193_182), Some(1_999_969_829));
        assert_eq!(hz_from_interval(1, 3, 2), Some(1));
        assert_eq!(hz_from_interval(1, 0, 1_193_182), None);
        assert_eq!(hz_from_interval(u64::MAX, 1, 2), None);
        assert_eq!(hz_from_interval(u64::MAX, u64::MAX, u64::MAX), Some(u64::MAX));
    }

    fn any_source() -> impl Strategy<Value = Source> {
        prop::sample::select(vec![
            Source::Cpuid15,
            Source::Cpuid16,
            Source::HypervisorLeaf,
            Source::PitCalibration,
            Source::HpetCalibration,
            Source::PmTimerCalibration,
        ])
    }

    fn any_sample() -> impl Strategy<Value = Sample> {
        let hz = prop_oneof![1_990_000_000..2_010_000_000u64, any::<u64>()];
        let tolerance = prop_oneof![0..5000u32, any::<u32>()];
        (any_source(), hz, tolerance).prop_map(|(source, hz, tolerance_ppm)| Sample { source, hz, tolerance_ppm })
    }

    proptest! {
        #[test]
        fn what_is_decided_was_said_by_one_and_allowed_by_as_many_as_claimed(
            samples in prop::collection::vec(any_sample(), 0..8),
        ) {
            if let Ok(decided) = decide(&samples) {
                let winner = samples.iter().find(|sample| (sample.hz, sample.source) == (decided.hz, decided.source));
                let winner = winner.expect("the frequency is one of the samples");
                let agree = samples.iter().filter(|sample| {
                    let allowed = sample.tolerance_hz().saturating_add(winner.tolerance_hz());
                    sample.hz.abs_diff(winner.hz) <= allowed
                });
                prop_assert!(sources(agree) >= decided.agreeing);
                let plausible = sources(samples.iter().filter(|sample| sample.is_plausible()));
                prop_assert_eq!(decided.agreeing + decided.dissenting, plausible);
                prop_assert_eq!(decided.is_unconfirmed(), plausible == 1);
            }
        }

        #[test]
        fn the_order_of_the_samples_does_not_decide(samples in prop::collection::vec(any_sample(), 0..8)) {
            let reversed: Vec<_> = samples.iter().rev().copied().collect();
            let tolerance = |decided: TscFrequency| {
                let said = samples.iter().filter(|sample| (sample.hz, sample.source) == (decided.hz, decided.source));
                said.map(|sample| sample.tolerance_ppm).min()
            };
            match (decide(&samples), decide(&reversed)) {
                (Ok(one), Ok(other)) => {
                    prop_assert_eq!((one.agreeing, one.dissenting), (other.agreeing, other.dissenting));
                    prop_assert!(one == other || tolerance(one) == tolerance(other));
                }
                (one, other) => prop_assert_eq!(one.is_ok(), other.is_ok()),
            }
        }

        #[test]
        fn a_frequency_is_found_again_from_an_interval(
            hz in PLAUSIBLE_HZ,
            reference_hz in 1_000_000..100_000_000u64,
            ms in 10..100u64,
        ) {
            let reference_ticks = reference_hz * ms / 1000;
            let tsc_ticks = u128::from(hz) * u128::from(reference_ticks) / u128::from(reference_hz);
            let tsc_ticks = u64::try_from(tsc_ticks).unwrap();
            let found = hz_from_interval(tsc_ticks, reference_ticks, reference_hz).unwrap();
            // One tick of either clock, over the interval.
            prop_assert!(found.abs_diff(hz) <= 1000 / ms + 1, "{} for {}", found, hz);
        }
    }
}
