use dragonfly_hw::x86::apic;
use dragonfly_vapic::{BROADCAST, DeliveryMode, Effect, Message, Shorthand, Trigger};

use crate::{enabled, write};

const BASE: u64 = 0xfee0_0000;

fn msi(address: u64, data: u32) -> Message {
    Message::from_msi(address, data).expect("it is an interrupt")
}

/// What a command with these low bits sends.
fn sent(low: u32) -> Option<Message> {
    match write(&enabled(0), apic::ICR_LOW, low.into()) {
        Effect::Send(message) => Some(message),
        _ => None,
    }
}

#[test]
fn a_message_signalled_interrupt_names_destination_and_vector() {
    let expected = Message {
        destination: 5,
        shorthand: Shorthand::None,
        is_logical: false,
        mode: DeliveryMode::Fixed,
        vector: 0x41,
        trigger: Trigger::Edge,
        is_assert: true,
    };
    assert_eq!(msi(BASE | 5 << 12, 0x41), expected);
}

#[test]
fn seven_more_bits_of_the_destination_are_in_the_address() {
    assert_eq!(msi(BASE | 5 << 12 | 0x7f << 5, 0x41).destination, 0x7f05);
    assert_eq!(msi(BASE | 0xff << 12 | 1 << 5, 0x41).destination, 0x1ff);
}

#[test]
fn a_physical_destination_of_all_ones_is_for_all() {
    assert_eq!(msi(BASE | 0xff << 12, 0x41).destination, BROADCAST);
    assert_eq!(msi(BASE | 0xff << 12 | 1 << 2, 0x41).destination, 0xff);
}

#[test]
fn the_destination_mode_is_bit_2_whatever_the_redirection_hint() {
    assert!(msi(BASE | 1 << 2, 0x41).is_logical);
    assert!(msi(BASE | 1 << 2 | 1 << 3, 0x41).is_logical);
    assert!(!msi(BASE | 1 << 3, 0x41).is_logical);
}

#[test]
fn the_redirection_hint_asks_for_the_lowest_priority() {
    assert_eq!(msi(BASE | 1 << 3, 0x41).mode, DeliveryMode::LowestPriority);
    assert_eq!(msi(BASE | 1 << 3, 0x400).mode, DeliveryMode::Nmi);
}

#[test]
fn a_level_is_asserted_or_deasserted_and_an_edge_always_asserted() {
    let table = [
        (0x0041, Trigger::Edge, true),
        (0x4041, Trigger::Edge, true),
        (0x8041, Trigger::Level, false),
        (0xc041, Trigger::Level, true),
    ];
    for (data, trigger, is_assert) in table {
        let message = msi(BASE, data);
        assert_eq!((message.trigger, message.is_assert), (trigger, is_assert), "data {data:#x}");
    }
}

#[test]
fn delivery_modes_of_message_signalled_interrupts() {
    let modes = [
        Some(DeliveryMode::Fixed),
        Some(DeliveryMode::LowestPriority),
        Some(DeliveryMode::Smi),
        None,
        Some(DeliveryMode::Nmi),
        Some(DeliveryMode::Init),
        None,
        Some(DeliveryMode::ExtInt),
    ];
    for (bits, mode) in (0..).zip(modes) {
        assert_eq!(Message::from_msi(BASE, bits << 8 | 0x41).map(|message| message.mode), mode, "mode {bits}");
    }
}

#[test]
fn other_addresses_and_remappable_messages_are_no_interrupts() {
    for address in [0, 0xfed0_0000, 0xfef0_0000, 0x1_fee0_0000, BASE | 1 << 4] {
        assert_eq!(Message::from_msi(address, 0x41), None, "{address:#x}");
    }
}

#[test]
fn delivery_modes_of_commands() {
    let modes = [
        Some(DeliveryMode::Fixed),
        Some(DeliveryMode::LowestPriority),
        Some(DeliveryMode::Smi),
        None,
        Some(DeliveryMode::Nmi),
        Some(DeliveryMode::Init),
        Some(DeliveryMode::Startup),
        None,
    ];
    for (bits, mode) in (0..).zip(modes) {
        let message = sent(apic::ICR_ASSERT | bits << 8 | 0x41);
        assert_eq!(message.map(|message| message.mode), mode, "mode {bits}");
    }
}

#[test]
fn shorthands_of_commands() {
    let table = [
        (0, Shorthand::None),
        (apic::ICR_SELF, Shorthand::ToSelf),
        (apic::ICR_ALL, Shorthand::All),
        (apic::ICR_ALL_BUT_SELF, Shorthand::AllButSelf),
    ];
    for (bits, shorthand) in table {
        assert_eq!(sent(apic::ICR_NMI | bits).map(|message| message.shorthand), Some(shorthand));
    }
}

#[test]
fn commands_are_sent_as_edges() {
    for level in [apic::ICR_LEVEL | apic::ICR_ASSERT, apic::ICR_LEVEL, 0] {
        let message = sent(level | 0x41).map(|message| (message.trigger, message.is_assert));
        assert_eq!(message, Some((Trigger::Edge, true)));
    }
}

#[test]
fn an_init_level_deassert_is_ignored() {
    assert_eq!(sent(apic::DELIVERY_INIT | apic::ICR_LEVEL), None);
    assert!(sent(apic::ICR_INIT | apic::ICR_LEVEL).is_some());
}

#[test]
fn commands_to_one_processor_are_those_of_fixed_interrupts_and_nmis_without_shorthand() {
    let to_one = |low| Message::to_one(low, 5).map(|message| (message.mode, message.vector, message.destination));
    assert_eq!(to_one(0x41), Some((DeliveryMode::Fixed, 0x41, 5)));
    assert_eq!(to_one(apic::DELIVERY_NMI | 0x41), Some((DeliveryMode::Nmi, 0x41, 5)));
    for low in [
        apic::DELIVERY_LOWEST | 0x41,
        apic::DELIVERY_SMI,
        apic::DELIVERY_INIT | apic::ICR_ASSERT,
        apic::DELIVERY_STARTUP | 8,
        apic::DELIVERY_EXTINT,
        apic::ICR_LOGICAL | 0x41,
        apic::ICR_ALL | 0x41,
        apic::ICR_ALL_BUT_SELF | 0x41,
    ] {
        assert_eq!(to_one(low), None, "{low:#x}");
    }
}
