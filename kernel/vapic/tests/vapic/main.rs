//! A guest's local APIC, from the outside.

mod concurrency;
mod lending;
mod messages;
mod model;
mod modes;
mod page;
mod priority;
mod registers;
mod scaling;
mod state;
mod timer;

use dragonfly_abi::arch::guest::TscRatio;
use dragonfly_hw::x86::apic::{self, x2apic_msr};
use dragonfly_hw::x86::msr::ApicBase;
use dragonfly_vapic::{Clock, Effect, LocalApic, Ratio};
use proptest::prelude::ProptestConfig;

/// The time `now`, in a guest whose TSC and timer count as the host's TSC does.
fn at(now: u64) -> Clock {
    Clock { now, tsc_ratio: TscRatio::ONE, tsc_offset: 0, ticks_per_count: Ratio::ONE }
}

/// An APIC in x2APIC mode that the guest has enabled.
fn enabled(id: u32) -> LocalApic {
    let apic = LocalApic::new(id);
    assert_eq!(apic.write_msr(x2apic_msr(apic::SVR), 0x1ff, at(0)), Ok(Effect::None));
    apic
}

/// An APIC in xAPIC mode that the guest has enabled.
fn enabled_xapic(id: u32) -> LocalApic {
    let apic = LocalApic::new(id);
    let base = apic.apic_base();
    for mode in [ApicBase::empty(), ApicBase::EN] {
        let off = base & !(ApicBase::EN | ApicBase::EXTD).bits();
        apic.set_apic_base(off | mode.bits()).expect("it may be switched off, then on");
    }
    assert_eq!(apic.write_page(apic::SVR, 0x1ff, at(0)), Effect::None);
    apic
}

/// Reads the register at `offset` of the page, as an MSR.
fn read(apic: &LocalApic, offset: u32) -> u64 {
    apic.read_msr(x2apic_msr(offset), at(0)).expect("the register can be read")
}

/// Writes the register at `offset` of the page, as an MSR, at time 0.
fn write(apic: &LocalApic, offset: u32, value: u64) -> Effect {
    apic.write_msr(x2apic_msr(offset), value, at(0)).expect("the register can be written")
}

/// The guest takes an interrupt.
fn deliver(apic: &LocalApic, vector: u8) {
    apic.offer(vector);
    apic.accept(vector);
}

/// Delivers everything that can be delivered, ending each at once.
fn deliver_all(apic: &LocalApic) -> Vec<u8> {
    let mut delivered = Vec::new();
    while let Some(vector) = apic.pending() {
        deliver(apic, vector);
        apic.end_of_interrupt();
        delivered.push(vector);
    }
    delivered
}

/// A property's configuration. Failing cases are not stored: what they find becomes a test of its own.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}
