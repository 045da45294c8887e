use dragonfly_hw::x86::apic;
use dragonfly_hw::x86::msr::ApicBase;
use dragonfly_vapic::{BROADCAST, Fault, LocalApic, Trigger};

use crate::{at, enabled, enabled_xapic, read};

const ADDRESS: u64 = 0xfee0_0000;
const OFF: u64 = ADDRESS;
const XAPIC: u64 = ADDRESS | ApicBase::EN.bits();
const X2APIC: u64 = XAPIC | ApicBase::EXTD.bits();
const INVALID: u64 = ADDRESS | ApicBase::EXTD.bits();

/// An APIC that was brought into mode `base`.
fn in_mode(base: u64) -> LocalApic {
    let apic = LocalApic::new(1);
    if base != X2APIC {
        apic.set_apic_base(OFF).expect("it may be switched off");
        apic.set_apic_base(base).expect("an APIC that is off may go there");
    }
    assert_eq!(apic.apic_base(), base);
    apic
}

#[test]
fn the_boot_processor_says_so() {
    assert_eq!(LocalApic::new(0).apic_base(), X2APIC | ApicBase::BSP.bits());
    assert_eq!(LocalApic::new(1).apic_base(), X2APIC);
}

#[test]
fn modes_change_as_the_manual_allows() {
    let table = [
        (OFF, [Some(OFF), Some(XAPIC), None, None]),
        (XAPIC, [Some(OFF), Some(XAPIC), Some(X2APIC), None]),
        (X2APIC, [Some(OFF), None, Some(X2APIC), None]),
    ];
    for (from, allowed) in table {
        for (to, allowed) in [OFF, XAPIC, X2APIC, INVALID].into_iter().zip(allowed) {
            let apic = in_mode(from);
            assert_eq!(apic.set_apic_base(to), allowed.map(|_| ()).ok_or(Fault), "{from:#x} to {to:#x}");
            assert_eq!(apic.apic_base(), allowed.unwrap_or(from));
        }
    }
}

#[test]
fn reserved_bits_of_the_base_fault() {
    let apic = LocalApic::new(1);
    for bit in (0..8).chain([9]).chain(52..64) {
        assert_eq!(apic.set_apic_base(X2APIC | 1 << bit), Err(Fault), "bit {bit}");
    }
}

#[test]
fn switching_it_off_loses_its_state_and_what_is_sent_to_it() {
    let apic = enabled(1);
    apic.post(0x45, Trigger::Edge);
    apic.set_task_priority(0x30);
    apic.set_apic_base(OFF).expect("it may be switched off");
    assert!(!apic.post(0x46, Trigger::Edge));
    assert_eq!((apic.pending(), apic.task_priority()), (None, 0));
    assert!(apic.post_init());
}

#[test]
fn switching_it_off_brings_back_the_id_in_xapic_mode() {
    let apic = enabled_xapic(0x25);
    apic.write_page(apic::ID, 0x0700_0000, at(0));
    apic.set_apic_base(OFF).expect("it may be switched off");
    apic.set_apic_base(XAPIC).expect("it may be switched on");
    assert_eq!(apic.read_page(apic::ID, at(0)), 0x2500_0000);
}

#[test]
fn going_to_x2apic_mode_keeps_what_is_requested_and_brings_back_the_identity() {
    let apic = enabled_xapic(0x25);
    apic.write_page(apic::ID, 0x0700_0000, at(0));
    apic.post(0x45, Trigger::Edge);
    apic.set_apic_base(X2APIC).expect("xAPIC mode leads to x2APIC mode");
    assert_eq!(apic.pending(), Some(0x45));
    assert_eq!(read(&apic, apic::ID), 0x25);
    assert_eq!(read(&apic, apic::LDR), 0x2_0020);
}

#[test]
fn a_physical_destination_is_an_id_or_all() {
    let apic = enabled(0x1_0002);
    for (destination, is_destined) in [(0x1_0002, true), (2, false), (0xff, false), (0, false), (BROADCAST, true)] {
        assert_eq!(apic.destined(destination, false), is_destined, "x2APIC {destination:#x}");
    }
    let apic = enabled_xapic(2);
    for (destination, is_destined) in [(2, true), (3, false), (0xff, true), (0x102, false), (BROADCAST, true)] {
        assert_eq!(apic.destined(destination, false), is_destined, "xAPIC {destination:#x}");
    }
}

#[test]
fn a_logical_destination_in_x2apic_mode_is_a_cluster_and_a_set_in_it() {
    let apic = enabled(0x25);
    let table = [
        (0x2_0020, true),
        (0x2_ffff, true),
        (0x2_ffdf, false),
        (0x3_0020, false),
        (0x0_0020, false),
        (0x2_0000, false),
        (BROADCAST, true),
    ];
    for (destination, is_destined) in table {
        assert_eq!(apic.destined(destination, true), is_destined, "{destination:#x}");
    }
}

#[test]
fn a_logical_destination_in_the_flat_model_is_a_set() {
    let apic = enabled_xapic(0);
    assert!(!apic.destined(0x04, true));
    apic.write_page(apic::LDR, 0x0400_0000, at(0));
    for (destination, is_destined) in [(0x04, true), (0x06, true), (0x03, false), (0xff, true), (0x104, false)] {
        assert_eq!(apic.destined(destination, true), is_destined, "{destination:#x}");
    }
}

#[test]
fn a_logical_destination_in_the_cluster_model_is_a_cluster_and_a_set_in_it() {
    let apic = enabled_xapic(0);
    apic.write_page(apic::DFR, 0, at(0));
    apic.write_page(apic::LDR, 0x2400_0000, at(0));
    let table = [(0x24, true), (0x2f, true), (0x2b, false), (0x34, false), (0x04, false), (0xff, true)];
    for (destination, is_destined) in table {
        assert_eq!(apic.destined(destination, true), is_destined, "{destination:#x}");
    }
}
