//! The clock: the time-stamp counter, and how fast it counts.

use core::sync::atomic::{AtomicU64, Ordering};

use dragonfly_acpi::{Acpi, AddressSpace};
use dragonfly_hw::x86::{cpuid, pit, pmtimer};
use spin::Once;

use super::registers::{port_in, port_out, read_tsc};
use crate::tsc::{self, Sample, Source, TickScale};

/// How long a calibration counts, in nanoseconds.
const CALIBRATION_NS: u64 = 10_000_000;
/// How many reads of a reference counter are tried before it counts as stuck.
const PATIENCE: u32 = 10_000_000;
/// What is assumed without any source, so that the log still has times.
const FALLBACK_HZ: u64 = 1_000_000_000;

static SCALE: Once<TickScale> = Once::new();
static BOOT_TICKS: AtomicU64 = AtomicU64::new(0);
static FREQUENCY_HZ: AtomicU64 = AtomicU64::new(0);

/// Notes when the kernel started.
pub fn start() {
    BOOT_TICKS.store(read_tsc(), Ordering::Relaxed);
}

/// The counter's value when the kernel started.
pub fn boot_ticks() -> u64 {
    BOOT_TICKS.load(Ordering::Relaxed)
}

/// Nanoseconds since the kernel started, 0 until the frequency is known.
pub fn since_boot_ns() -> u64 {
    SCALE.get().map_or(0, |scale| scale.ns_from_ticks(read_tsc().wrapping_sub(boot_ticks())))
}

/// Ticks as nanoseconds.
#[inline]
pub fn ns_from_ticks(ticks: u64) -> u64 {
    SCALE.get().map_or(ticks, |scale| scale.ns_from_ticks(ticks))
}

/// Nanoseconds as ticks.
#[inline]
pub fn ticks_from_ns(ns: u64) -> u64 {
    SCALE.get().map_or(ns, |scale| scale.ticks_from_ns(ns))
}

/// The frequency in Hz.
pub fn frequency_hz() -> u64 {
    FREQUENCY_HZ.load(Ordering::Relaxed)
}

/// Finds out how fast the counter counts, from all the sources there are.
pub fn calibrate(acpi: &Acpi, hpet: Option<Hpet>) {
    let mut samples = [None; 6];
    let sources =
        [cpuid_15(), cpuid_16(), hypervisor_leaf(), hpet.and_then(against_hpet), against_pm_timer(acpi), against_pit()];
    let mut count = 0;
    for sample in sources.into_iter().flatten() {
        log::debug!("TSC frequency: {sample}");
        samples[count] = Some(sample);
        count += 1;
    }
    let fallback = Sample { source: Source::PitCalibration, hz: FALLBACK_HZ, tolerance_ppm: 0 };
    let samples = samples.map(|sample| sample.unwrap_or(fallback));
    let samples = &samples[..count];
    let hz = match tsc::decide(samples) {
        Ok(decided) => {
            log::info!(
                "TSC {}.{:03} MHz by {}, {} of {} sources agree",
                decided.hz / 1_000_000,
                decided.hz / 1000 % 1000,
                decided.source,
                decided.agreeing,
                decided.agreeing + decided.dissenting
            );
            if decided.is_unconfirmed() {
                log::warn!("the TSC's frequency has one source only");
            }
            decided.hz
        }
        Err(error) => {
            log::warn!("{error}");
            samples.first().map_or(FALLBACK_HZ, |sample| sample.hz)
        }
    };
    FREQUENCY_HZ.store(hz, Ordering::Relaxed);
    if let Some(scale) = TickScale::new(hz) {
        SCALE.call_once(|| scale);
    }
}

/// The HPET's main counter, mapped.
#[derive(Clone, Copy)]
pub struct Hpet {
    /// Reads the counter's low half.
    pub read: fn() -> u32,
    /// Its frequency in Hz.
    pub hz: u64,
}

fn cpuid_15() -> Option<Sample> {
    let leaf = leaf(cpuid::LEAF_TSC)?;
    let hz = u64::from(leaf.ecx).checked_mul(u64::from(leaf.ebx))?.checked_div(u64::from(leaf.eax))?;
    (hz != 0).then_some(Sample { source: Source::Cpuid15, hz, tolerance_ppm: 1000 })
}

fn cpuid_16() -> Option<Sample> {
    let mhz = u64::from(leaf(cpuid::LEAF_FREQUENCY)?.eax & 0xffff);
    (mhz != 0).then_some(Sample { source: Source::Cpuid16, hz: mhz * 1_000_000, tolerance_ppm: 10_000 })
}

fn hypervisor_leaf() -> Option<Sample> {
    let features = cpuid::Leaf1Ecx::from_bits_retain(core::arch::x86_64::__cpuid(cpuid::LEAF_FEATURES).ecx);
    if !features.contains(cpuid::Leaf1Ecx::HYPERVISOR) {
        return None;
    }
    let highest = core::arch::x86_64::__cpuid(cpuid::LEAF_HYPERVISOR).eax;
    if !(cpuid::LEAF_HYPERVISOR_TIMING..=cpuid::LEAF_HYPERVISOR + 0xffff).contains(&highest) {
        return None;
    }
    let khz = u64::from(core::arch::x86_64::__cpuid(cpuid::LEAF_HYPERVISOR_TIMING).eax);
    (khz != 0).then_some(Sample { source: Source::HypervisorLeaf, hz: khz * 1000, tolerance_ppm: 1000 })
}

fn leaf(number: u32) -> Option<core::arch::x86_64::CpuidResult> {
    let highest = core::arch::x86_64::__cpuid(cpuid::LEAF_MAXIMUM_AND_VENDOR).eax;
    (number <= highest).then(|| core::arch::x86_64::__cpuid(number))
}

/// What a counter said, and when.
pub struct Reading {
    /// What it said.
    pub value: u32,
    /// The TSC then.
    pub tsc: u64,
    /// By how many of its ticks that may be wrong.
    pub error: u64,
}

/// Reads a counter together with the TSC. Between the two reads a hypervisor or the firmware may take the CPU away for
/// long: the quickest of a few attempts counts.
pub fn read_together(read: impl Fn() -> u32) -> Reading {
    const ATTEMPTS: u32 = 8;
    let attempt = || {
        let before = read_tsc();
        let value = read();
        let error = read_tsc().wrapping_sub(before);
        Reading { value, tsc: before.wrapping_add(error / 2), error }
    };
    let mut best = attempt();
    for _ in 1..ATTEMPTS {
        let other = attempt();
        if other.error < best.error {
            best = other;
        }
    }
    best
}

/// Counts the TSC while a reference counter runs for [`CALIBRATION_NS`].
fn against(source: Source, reference_hz: u64, mask: u32, read: impl Fn() -> u32) -> Option<Sample> {
    /// How far the reference itself may be off.
    const TOLERANCE_PPM: u64 = 10_000;
    let wanted = u32::try_from(CALIBRATION_NS * reference_hz / 1_000_000_000).ok()?;
    let start = read_together(&read);
    for _ in 0..PATIENCE {
        let passed = read().wrapping_sub(start.value) & mask;
        if passed >= wanted {
            let end = read_together(&read);
            let passed = end.value.wrapping_sub(start.value) & mask;
            let ticks = end.tsc.wrapping_sub(start.tsc);
            let hz = tsc::hz_from_interval(ticks, u64::from(passed), reference_hz)?;
            let reading_ppm = u128::from(start.error + end.error) * 1_000_000 / u128::from(ticks.max(1));
            let counting_ppm = 1_000_000 / u128::from(passed.max(1));
            let tolerance_ppm = u128::from(TOLERANCE_PPM).saturating_add(reading_ppm + counting_ppm);
            let tolerance_ppm = u32::try_from(tolerance_ppm).unwrap_or(u32::MAX);
            return Some(Sample { source, hz, tolerance_ppm });
        }
        // A counter that does not count is given up early.
        if passed == 0 && read_tsc().wrapping_sub(start.tsc) > FALLBACK_HZ {
            return None;
        }
    }
    None
}

fn against_hpet(hpet: Hpet) -> Option<Sample> {
    against(Source::HpetCalibration, hpet.hz, u32::MAX, hpet.read)
}

fn against_pm_timer(acpi: &Acpi) -> Option<Sample> {
    let timer = acpi.fadt.as_ref()?.pm_timer?;
    if timer.register.space != AddressSpace::SYSTEM_IO {
        return None;
    }
    let port = timer.register.port()?;
    // The upper byte counts on some chips only; 24 bits last for 4.6 s.
    against(Source::PmTimerCalibration, pmtimer::FREQUENCY_HZ, pmtimer::MASK_24_BIT, || port_in(port, 4))
}

/// The 8254's channel 2 counts down from 65,535 and its count is read as it goes.
fn against_pit() -> Option<Sample> {
    let gate = port_in(pit::GATE, 1) as u8 & 0x0f;
    let gate_on = (gate | pit::Gate::TIMER_2_ENABLE.bits()) & !pit::Gate::SPEAKER_ENABLE.bits();
    port_out(pit::GATE, 1, u32::from(gate_on & !pit::Gate::TIMER_2_ENABLE.bits()));
    let command = pit::SELECT_CHANNEL_2 | pit::ACCESS_LOW_HIGH | pit::MODE_0;
    port_out(pit::COMMAND, 1, u32::from(command));
    port_out(pit::CHANNEL_2, 1, 0xff);
    port_out(pit::CHANNEL_2, 1, 0xff);
    port_out(pit::GATE, 1, u32::from(gate_on));
    let sample = against(Source::PitCalibration, pit::FREQUENCY_HZ, 0xffff, || {
        port_out(pit::COMMAND, 1, u32::from(pit::SELECT_CHANNEL_2 | pit::LATCH));
        let low = port_in(pit::CHANNEL_2, 1);
        let high = port_in(pit::CHANNEL_2, 1);
        // It counts down; the others count up.
        0xffff - (high << 8 | low)
    });
    port_out(pit::GATE, 1, u32::from(gate));
    sample
}

/// Waits by the counter, for delays at boot.
pub fn wait_ns(ns: u64) {
    let (start, ticks) = (read_tsc(), ticks_from_ns(ns));
    while read_tsc().wrapping_sub(start) < ticks {
        core::hint::spin_loop();
    }
}
