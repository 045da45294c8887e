use dragonfly_hw::x86::apic;
use dragonfly_vapic::{BROADCAST, DeliveryMode, Effect, Message, Shorthand, Trigger};

use crate::{at, deliver, deliver_all, enabled, enabled_xapic};

const REGISTER_ADDRESS: u32 = 1 << 7;

#[test]
fn the_page_is_there_in_xapic_mode_only() {
    let apic = enabled(3);
    assert_eq!(apic.read_page(apic::VERSION, at(0)), 0);
    apic.write_page(apic::TPR, 0x40, at(0));
    assert_eq!(apic.task_priority(), 0);
    let apic = enabled_xapic(3);
    assert_eq!(apic.read_page(apic::VERSION, at(0)), 0x5_0014);
    apic.write_page(apic::TPR, 0x40, at(0));
    assert_eq!(apic.task_priority(), 0x40);
}

#[test]
fn identity_registers_hold_their_upper_bits() {
    let apic = enabled_xapic(3);
    assert_eq!(apic.read_page(apic::ID, at(0)), 0x0300_0000);
    for (offset, value) in [(apic::ID, 0xab00_0000), (apic::LDR, 0xab00_0000), (apic::DFR, 0xafff_ffff)] {
        apic.write_page(offset, 0xab12_3456, at(0));
        let value = if offset == apic::DFR { value & 0xf000_0000 | 0x0fff_ffff } else { value };
        assert_eq!(apic.read_page(offset, at(0)), value, "register {offset:#x}");
    }
}

#[test]
fn a_command_is_sent_by_its_low_half() {
    let apic = enabled_xapic(0);
    assert_eq!(apic.write_page(apic::ICR_HIGH, 0x05ff_ffff, at(0)), Effect::None);
    let message = Message {
        destination: 5,
        shorthand: Shorthand::None,
        is_logical: true,
        mode: DeliveryMode::Nmi,
        vector: 0,
        trigger: Trigger::Edge,
        is_assert: true,
    };
    let low = apic::ICR_NMI | apic::ICR_LOGICAL;
    assert_eq!(apic.write_page(apic::ICR_LOW, low | apic::ICR_PENDING, at(0)), Effect::Send(message));
    assert_eq!(apic.read_page(apic::ICR_LOW, at(0)), low);
    assert_eq!(apic.read_page(apic::ICR_HIGH, at(0)), 0x0500_0000);
}

#[test]
fn a_physical_destination_of_all_ones_is_for_all() {
    let apic = enabled_xapic(0);
    apic.write_page(apic::ICR_HIGH, 0xff00_0000, at(0));
    for (logical, destination) in [(0, BROADCAST), (apic::ICR_LOGICAL, 0xff)] {
        let effect = apic.write_page(apic::ICR_LOW, apic::icr_fixed(0x50) | logical, at(0));
        assert!(matches!(effect, Effect::Send(message) if message.destination == destination));
    }
}

#[test]
fn any_value_ends_the_interrupt() {
    let apic = enabled_xapic(0);
    apic.post(0x61, Trigger::Edge);
    deliver(&apic, 0x61);
    assert_eq!(apic.write_page(apic::EOI, 0xdead_beef, at(0)), Effect::Eoi { vector: 0x61, is_level: false });
}

#[test]
fn reserved_bits_are_not_stored() {
    let apic = enabled_xapic(0);
    let stored = [
        (apic::TPR, 0xff),
        (apic::SVR, 0x3ff),
        (apic::LVT_THERMAL, 0x1_07ff),
        (apic::LVT_PERFORMANCE, 0x1_07ff),
        (apic::LVT_LINT0, 0x1_a7ff),
        (apic::LVT_LINT1, 0x1_a7ff),
        (apic::LVT_ERROR, 0x1_00ff),
        (apic::TIMER_INITIAL_COUNT, 0xffff_ffff),
        (apic::TIMER_DIVIDE, 0b1011),
    ];
    for (offset, value) in stored {
        apic.write_page(offset, u32::MAX, at(0));
        assert_eq!(apic.read_page(offset, at(0)), value, "register {offset:#x}");
    }
}

#[test]
fn the_timer_mode_that_does_not_exist_is_not_stored() {
    let apic = enabled_xapic(0);
    apic.write_page(apic::LVT_TIMER, 0x6_0040, at(0));
    assert_eq!(apic.read_page(apic::LVT_TIMER, at(0)), 0x1_0000);
}

#[test]
fn read_only_registers_ignore_writes() {
    let apic = enabled_xapic(0);
    apic.post(0x45, Trigger::Edge);
    let before = apic.save(at(0));
    for offset in [apic::VERSION, apic::PPR, apic::ISR, apic::TMR, apic::IRR, apic::TIMER_CURRENT_COUNT] {
        apic.write_page(offset, u32::MAX, at(0));
    }
    assert_eq!(apic.save(at(0)), before);
}

#[test]
fn registers_that_have_no_use_read_as_zero_and_ignore_writes() {
    let apic = enabled_xapic(0);
    let before = apic.save(at(0));
    for offset in [apic::APR, apic::RRD, apic::EOI] {
        assert_eq!(apic.read_page(offset, at(0)), 0);
        apic.write_page(offset, 0, at(0));
    }
    assert_eq!(apic.save(at(0)), before);
}

#[test]
fn a_register_that_does_not_exist_is_an_error() {
    for offset in [0, 0x10, 0x40, 0x2f0, 0x3a0, 0x3f0, 0x84, 0xff0] {
        let apic = enabled_xapic(0);
        assert_eq!(apic.read_page(offset, at(0)), 0);
        apic.write_page(apic::ESR, 0, at(0));
        assert_eq!(apic.read_page(apic::ESR, at(0)), REGISTER_ADDRESS, "read of {offset:#x}");
        apic.write_page(apic::ESR, 0, at(0));
        assert_eq!(apic.write_page(offset, 1, at(0)), Effect::None);
        apic.write_page(apic::ESR, 0, at(0));
        assert_eq!(apic.read_page(apic::ESR, at(0)), REGISTER_ADDRESS, "write of {offset:#x}");
    }
}

#[test]
fn a_self_ipi_by_shorthand_is_pending_at_once() {
    let apic = enabled_xapic(0);
    let to_self = apic::icr_fixed(0xf5) | apic::ICR_SELF;
    assert_eq!(apic.write_page(apic::ICR_LOW, to_self, at(0)), Effect::None);
    assert_eq!(deliver_all(&apic), [0xf5]);
}
