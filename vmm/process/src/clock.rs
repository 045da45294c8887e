//! The guest's time: its time-stamp counter, the clock that KVM guests read from memory, and the time of day.
//!
//! The guest's counter is zero when the machine starts, on every vCPU, and runs at one rate: the host's, or the machine
//! file's where the processor scales it. So what KVM's clock
//! tells (Linux, `Documentation/virt/kvm/x86/msr.rst`) is the same for all vCPUs and never changes: nanosecond 0 was at
//! counter 0, and a factor says the rest.

use dragonfly_abi::arch::guest::TscRatio;
use dragonfly_rt::sys::clock_now_ns;
use dragonfly_rt::{start_info, time};

const NS_PER_SECOND: u64 = 1_000_000_000;

/// Time of day when a machine is started that cannot find it out: 2026-01-01 00:00 UTC.
const DEFAULT_SECONDS: u64 = 1_767_225_600;

/// Of a time structure: the counters of all vCPUs agree.
const STABLE: u8 = 1 << 0;

/// Even: the structure is complete; not 0, which is a structure never written.
const VERSION: u32 = 2;

/// Bytes of KVM's structure of the time since the start.
pub(crate) const SYSTEM_TIME_SIZE: usize = 32;

/// Bytes of KVM's structure of the time of day at the start.
pub(crate) const WALL_CLOCK_SIZE: usize = 12;

/// The time of day at a time of the kernel's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimeOfDay {
    /// Seconds since 1970-01-01 00:00 UTC.
    pub(crate) seconds: u64,
    /// Nanoseconds of the kernel's clock.
    pub(crate) at_ns: u64,
}

impl Default for TimeOfDay {
    fn default() -> Self {
        Self { seconds: DEFAULT_SECONDS, at_ns: 0 }
    }
}

/// When the machine started, and how its counter runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Clock {
    /// The host's counter at the start.
    start_tsc: u64,
    /// How the host's counter becomes nanoseconds.
    host_scale: Scale,
    /// How the guest's does.
    guest_scale: Scale,
    /// The kernel's clock at the start.
    start_ns: u64,
    /// Nanoseconds since 1970 at the start.
    start_of_day_ns: u64,
}

impl Clock {
    /// A clock that starts now, of a guest whose counter has a frequency of its own or the host's.
    pub(crate) fn start(time_of_day: TimeOfDay, guest_hz: Option<u64>) -> Self {
        let host_hz = start_info().map_or(NS_PER_SECOND, |info| info.tsc_hz);
        Self::new(time::time_stamp(), clock_now_ns(), time_of_day, (host_hz, guest_hz.unwrap_or(host_hz)))
    }

    fn new(start_tsc: u64, start_ns: u64, time_of_day: TimeOfDay, (host_hz, guest_hz): (u64, u64)) -> Self {
        let since = start_ns.saturating_sub(time_of_day.at_ns);
        let start_of_day_ns = time_of_day.seconds.saturating_mul(NS_PER_SECOND).saturating_add(since);
        let (host_scale, guest_scale) = (Scale::new(host_hz), Scale::new(guest_hz));
        Self { start_tsc, host_scale, guest_scale, start_ns, start_of_day_ns }
    }

    /// What is added to the host's counter, at the guest's rate, to give the guest's.
    pub(crate) const fn tsc_offset(&self, ratio: TscRatio) -> u64 {
        ratio.times(self.start_tsc).wrapping_neg()
    }

    /// Nanoseconds since the start: what the guest makes of its counter, too, so that all its clocks agree. Asking the kernel
    /// would cost as much as all else that is done for an access to a device.
    #[inline]
    pub(crate) fn now_ns(&self) -> u64 {
        self.host_scale.to_ns(time::time_stamp().wrapping_sub(self.start_tsc))
    }

    /// The time of the kernel's clock at so many nanoseconds since the start.
    pub(crate) const fn host_ns(&self, guest_ns: u64) -> u64 {
        self.start_ns.saturating_add(guest_ns)
    }

    /// The time of day at the start, in seconds since 1970-01-01 00:00 UTC.
    pub(crate) const fn start_s(&self) -> u64 {
        self.start_of_day_ns / NS_PER_SECOND
    }

    /// KVM's `pvclock_vcpu_time_info`.
    pub(crate) fn system_time(&self) -> [u8; SYSTEM_TIME_SIZE] {
        let mut bytes = [0; SYSTEM_TIME_SIZE];
        let [version, _, _, _, _, _, multiplier, rest] = bytes.as_chunks_mut::<4>().0 else { return bytes };
        // The counter and the time at which the others were taken stay 0.
        *version = VERSION.to_le_bytes();
        *multiplier = self.guest_scale.multiplier.to_le_bytes();
        *rest = [self.guest_scale.shift.cast_unsigned(), STABLE, 0, 0];
        bytes
    }

    /// KVM's `pvclock_wall_clock`.
    pub(crate) fn wall_clock(&self) -> [u8; WALL_CLOCK_SIZE] {
        let mut bytes = [0; WALL_CLOCK_SIZE];
        let [version, seconds, nanoseconds] = bytes.as_chunks_mut::<4>().0 else { return bytes };
        *version = VERSION.to_le_bytes();
        // The structure ends in the year 2106.
        *seconds = ((self.start_of_day_ns / NS_PER_SECOND) as u32).to_le_bytes();
        *nanoseconds = ((self.start_of_day_ns % NS_PER_SECOND) as u32).to_le_bytes();
        bytes
    }
}

/// How ticks become nanoseconds: shifted left by `shift`, or right if it is negative, then multiplied by `multiplier`
/// / 2^32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scale {
    multiplier: u32,
    shift: i8,
}

impl Scale {
    /// Nanoseconds of so many ticks; Linux, `pvclock_scale_delta`.
    #[inline]
    const fn to_ns(self, ticks: u64) -> u64 {
        let shifted = if self.shift < 0 { ticks >> -self.shift } else { ticks << self.shift };
        ((shifted as u128 * self.multiplier as u128) >> 32) as u64
    }

    /// The scale of a counter of so many ticks a second. The multiplier has its highest bit set, so that it is as
    /// exact as can be.
    fn new(ticks_per_second: u64) -> Self {
        let one_ns = u128::from(NS_PER_SECOND) << 32;
        let ticks = u128::from(ticks_per_second.max(1));
        let mut shift = 0_i8;
        loop {
            let multiplier = if shift < 0 { (one_ns << -shift) / ticks } else { one_ns / (ticks << shift) };
            match u32::try_from(multiplier) {
                Err(_) => shift += 1,
                Ok(multiplier) if multiplier <= u32::MAX >> 1 => shift -= 1,
                Ok(multiplier) => return Self { multiplier, shift },
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{prop_assert, proptest};

    use super::{Clock, NS_PER_SECOND, Scale, TimeOfDay, TscRatio};

    #[test]
    fn known_frequencies_have_known_scales() {
        let cases = [(1_000_000_000, 1 << 31, 1), (2_000_000_000, 1 << 31, 0), (4_000_000_000, 1 << 31, -1)];
        for (frequency, multiplier, shift) in cases {
            assert_eq!(Scale::new(frequency), Scale { multiplier, shift }, "{frequency}");
        }
    }

    #[test]
    fn a_frequency_of_zero_is_no_reason_to_stop() {
        assert!(Scale::new(0).multiplier > 0);
    }

    #[test]
    fn the_guests_counter_starts_at_zero_and_its_day_goes_on_from_the_hosts() {
        let day = TimeOfDay { seconds: 1_000, at_ns: 5 * NS_PER_SECOND };
        let clock = Clock::new(700, 7 * NS_PER_SECOND + 9, day, (2_000_000_000, 2_000_000_000));
        assert_eq!(clock.tsc_offset(TscRatio::ONE).wrapping_add(700), 0);
        assert_eq!(clock.tsc_offset(TscRatio::new(3, 2).unwrap()).wrapping_add(1050), 0);
        assert_eq!(clock.host_ns(1), 7 * NS_PER_SECOND + 10);
        assert_eq!(clock.start_s(), 1_002);
        let wall: [u8; 12] = clock.wall_clock();
        assert_eq!(wall, *b"\x02\0\0\0\xea\x03\0\0\x09\0\0\0");
    }

    #[test]
    fn the_structure_of_the_time_says_that_all_counters_agree() {
        let clock = Clock::new(0, 0, TimeOfDay::default(), (1_000_000_000, 4_000_000_000));
        let mut wanted = [0; 32];
        wanted[0] = 2;
        wanted[27] = 0x80;
        wanted[28] = 0xff;
        wanted[29] = 1;
        assert_eq!(clock.system_time(), wanted);
    }

    proptest! {
        #[test]
        fn an_hour_is_an_hour_at_any_frequency(frequency in 1_000_000_u64..100_000_000_000) {
            let hour = 3600 * NS_PER_SECOND;
            let told = Scale::new(frequency).to_ns(3600 * frequency);
            // What the last bit of the multiplier is worth, and a tick of the shifted counter.
            let tolerance = (hour >> 30) + 200 * NS_PER_SECOND / frequency;
            prop_assert!(told.abs_diff(hour) <= tolerance, "{told}");
        }
    }
}
