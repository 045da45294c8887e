//! The machine as its owner and a guest's kernel see it.

use proptest::prelude::*;

use super::*;
use crate::state::StateError;

const CONFIG: Config = Config { vcpus: 2, start_s: 1_709_214_359 };

fn machine() -> Machine {
    Machine::new(&CONFIG)
}

/// The guest has routed the pins that devices have: vectors 0x30 and up to vCPU 1, as the ACPI tables tell their triggers.
fn routed() -> Machine {
    let mut machine = machine();
    for (pin, entry) in [(COM1_PIN, 0x34u32), (SCI_PIN, 0x8039)] {
        for (register, value) in [(0x11 + 2 * pin, 1 << 24), (0x10 + 2 * pin, entry)] {
            machine.mmio_write(GuestPhys(0xfec0_0000), &u32::from(register).to_le_bytes(), || 0);
            machine.mmio_write(GuestPhys(0xfec0_0010), &value.to_le_bytes(), || 0);
        }
    }
    machine
}

fn messages(machine: &mut Machine) -> Vec<u32> {
    core::iter::from_fn(|| machine.take_message()).map(|message| message.data).collect()
}

#[test]
fn all_devices_have_their_place() {
    // Would panic if two overlapped.
    let machine = machine();
    let port = |port: u64| machine.ports.find(port, 1).map(|(device, _)| device);
    for (number, device) in [
        (0x64, Port::KeyboardCommand),
        (0x70, Port::Rtc),
        (0x71, Port::Rtc),
        (0x92, Port::SystemControl),
        (0x3f8, Port::Com1),
        (0x3ff, Port::Com1),
        (0x402, Port::Debug),
        (0x600, Port::Pm),
        (0x60b, Port::Pm),
        (0xcf8, Port::PciAddress),
        (0xcff, Port::PciData),
    ] {
        assert_eq!(port(number), Some(device), "{number:#x}");
    }
    assert_eq!(machine.memory.find(0xfec0_0000, 4), Some((Memory::IoApic, 0)));
    assert_eq!(machine.memory.find(0xe00f_fffc, 4), Some((Memory::Ecam, 0xf_fffc)));
}

#[test]
fn what_no_device_has_reads_as_ones_and_is_counted() {
    let mut machine = machine();
    assert_eq!(machine.port_in(0x80, 1, 0), 0xff);
    assert_eq!(machine.port_in(0x80, 2, 0), 0xffff);
    assert_eq!(machine.port_in(0xffff, 4, 0), 0xffff_ffff);
    machine.port_out(0x80, 1, 0, 0);
    let mut data = [0; 8];
    let timeless = || panic!("nothing happens, whatever the time is");
    assert!(!machine.mmio_read(GuestPhys(0xd000_0000), &mut data, timeless));
    assert_eq!(data, [0xff; 8]);
    assert!(!machine.mmio_write(GuestPhys(u64::MAX), &[0; 8], timeless));
    assert_eq!(machine.unclaimed(), (4, 2));
}

#[test]
fn there_is_no_8259_so_that_kernels_do_without() {
    let mut machine = machine();
    machine.port_out(0x21, 1, 0xfb, 0);
    assert_eq!(machine.port_in(0x21, 1, 0), 0xff);
}

#[test]
fn the_console_is_com1() {
    let mut machine = machine();
    for byte in *b"hello" {
        machine.port_out(0x3f8, 1, byte.into(), 0);
    }
    assert_eq!(machine.console_output(), b"hello");
    machine.console_output_taken(5, 0);
    assert_eq!(machine.console_output(), b"");
}

#[test]
fn input_interrupts_at_the_pin_that_the_acpi_tables_name() {
    let mut machine = routed();
    machine.port_out(0x3f9, 1, 1, 0);
    assert_eq!(machine.console_input(b"x", 0), 1);
    let message = machine.take_message().unwrap();
    assert_eq!((message.address, message.data), (0xfee0_1000, 0x4034));
    assert_eq!(machine.take_message(), None);
    assert_eq!(machine.port_in(0x3f8, 1, 0), u32::from(b'x'));
}

#[test]
fn each_new_input_is_a_new_edge_once_the_old_one_was_read() {
    let mut machine = routed();
    machine.port_out(0x3f9, 1, 1, 0);
    for _ in 0..3 {
        machine.console_input(b"x", 0);
        assert_eq!(messages(&mut machine), [0x4034]);
        machine.port_in(0x3f8, 1, 0);
        assert_eq!(messages(&mut machine), []);
    }
}

#[test]
fn a_wide_access_to_a_serial_port_is_one_of_each_byte() {
    let mut machine = machine();
    machine.port_out(0x3fe, 2, 0xa500, 0);
    assert_eq!(machine.port_in(0x3ff, 1, 0), 0xa5);
    assert_eq!(machine.port_in(0x3fc, 4, 0), 0xa5b0_6000);
}

#[test]
fn the_power_button_is_a_level_until_the_guest_clears_it() {
    let mut machine = routed();
    machine.port_out(0x602, 2, 0x100, 0);
    machine.press_power_button(0);
    assert_eq!(messages(&mut machine), [0xc039]);
    machine.end_of_interrupt(0x39);
    assert_eq!(messages(&mut machine), [0xc039]);
    machine.port_out(0x600, 2, 0x100, 0);
    machine.end_of_interrupt(0x39);
    assert_eq!(messages(&mut machine), []);
}

#[test]
fn the_timers_event_comes_when_it_was_told() {
    let mut machine = routed();
    assert_eq!(machine.deadline_ns(0), None);
    machine.port_out(0x602, 2, 1, 0);
    let deadline_ns = machine.deadline_ns(0).unwrap();
    machine.tick(deadline_ns - 1);
    assert_eq!(messages(&mut machine), []);
    machine.tick(deadline_ns);
    assert_eq!(messages(&mut machine), [0xc039]);
}

#[test]
fn soft_off_powers_the_machine_off() {
    let mut machine = machine();
    machine.port_out(0x604, 2, 0x3400, 0);
    assert_eq!(machine.take_event(), Some(Event::PowerOff));
    assert_eq!(machine.take_event(), None);
}

#[test]
fn each_way_to_reset_resets() {
    for (port, width, value) in [(0xcf9, 1, 6), (0x64, 1, 0xfe), (0x92, 1, 1)] {
        let mut machine = machine();
        machine.port_out(port, width, value, 0);
        assert_eq!(machine.take_event(), Some(Event::Reset), "{port:#x}");
    }
}

#[test]
fn the_reset_register_and_the_pci_address_are_told_apart_by_the_width() {
    let mut machine = machine();
    machine.port_out(0xcf8, 4, 0x8000_0600, 0);
    assert_eq!(machine.take_event(), None);
    assert_eq!(machine.port_in(0xcf8, 4, 0), 0x8000_0600);
    machine.port_out(0xcf9, 1, 2, 0);
    assert_eq!(machine.port_in(0xcf9, 1, 0), 2);
    assert_eq!(machine.port_in(0xcf8, 4, 0), 0x8000_0600);
}

#[test]
fn linux_finds_pci_by_its_ports() {
    // The steps of `pci_check_type1`.
    let mut machine = machine();
    machine.port_out(0xcfb, 1, 1, 0);
    machine.port_out(0xcf8, 4, 0x8000_0000, 0);
    assert_eq!(machine.port_in(0xcf8, 4, 0), 0x8000_0000);
    machine.port_out(0xcf8, 4, 0x8000_0008, 0);
    assert_eq!(machine.port_in(0xcfe, 2, 0), 0x0600);
}

#[test]
fn the_clock_shows_the_time_of_the_start_and_runs() {
    let mut machine = machine();
    machine.port_out(0x70, 1, 0, 0);
    assert_eq!(machine.port_in(0x71, 1, 0), 0x59);
    assert_eq!(machine.port_in(0x71, 1, 1_999_999_999), 0x00);
    assert_eq!(machine.port_in(0x71, 1, 2_000_000_000), 0x01);
}

#[test]
fn the_debug_port_gives_lines() {
    let mut machine = machine();
    assert_eq!(machine.port_in(0x402, 1, 0), 0xe9);
    for byte in *b"hi\n" {
        machine.port_out(0x402, 1, byte.into(), 0);
    }
    assert_eq!(machine.take_debug_line().as_deref(), Some("hi"));
}

#[derive(Clone, Debug)]
enum Step {
    In(u16, u8),
    Out(u16, u8, u32),
    Read(u64, usize),
    Write(u64, Vec<u8>),
    Eoi(u8),
    Input(Vec<u8>),
    Taken(usize),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let port = prop_oneof![any::<u16>(), 0x60u16..0x93, 0x3f0u16..0x404, 0x5feu16..0x610, 0xcf6u16..0xd02,];
    let address = prop_oneof![any::<u64>(), 0xdfff_fff0u64..0xe000_8010, 0xfebf_fff8u64..0xfec0_0050];
    // Widths that no instruction has come from a mistake of the owner's; they are harmless too.
    let width = prop_oneof![Just(1u8), Just(2), Just(4), any::<u8>()];
    prop_oneof![
        (port.clone(), width.clone()).prop_map(|(port, width)| Step::In(port, width)),
        (port, width, any::<u32>()).prop_map(|(port, width, value)| Step::Out(port, width, value)),
        (address.clone(), 0usize..=64).prop_map(|(address, length)| Step::Read(address, length)),
        (address, proptest::collection::vec(any::<u8>(), 0..=64))
            .prop_map(|(address, data)| Step::Write(address, data)),
        any::<u8>().prop_map(Step::Eoi),
        proptest::collection::vec(any::<u8>(), 0..100).prop_map(Step::Input),
        (0usize..200).prop_map(Step::Taken),
        (0u64..2_000_000_000_000).prop_map(Step::Pass),
    ]
}

fn run(machine: &mut Machine, now_ns: &mut u64, step: &Step) -> Vec<u8> {
    let mut data = Vec::new();
    match step {
        Step::In(port, width) => data.extend(machine.port_in(*port, *width, *now_ns).to_le_bytes()),
        Step::Out(port, width, value) => machine.port_out(*port, *width, *value, *now_ns),
        Step::Read(address, length) => {
            data.resize(*length, 0);
            machine.mmio_read(GuestPhys(*address), &mut data, || *now_ns);
        }
        Step::Write(address, data) => _ = machine.mmio_write(GuestPhys(*address), data, || *now_ns),
        Step::Eoi(vector) => machine.end_of_interrupt(*vector),
        Step::Input(bytes) => data.push(machine.console_input(bytes, *now_ns) as u8),
        Step::Taken(count) => machine.console_output_taken(*count, *now_ns),
        Step::Pass(ns) => {
            *now_ns += ns;
            machine.tick(*now_ns);
        }
    }
    data
}

/// Steps are one after another, each with its messages and event.
fn observe(machine: &mut Machine, now_ns: &mut u64, step: &Step) -> (Vec<u8>, Vec<u32>, Option<Event>) {
    let data = run(machine, now_ns, step);
    let messages: Vec<u32> =
        core::iter::from_fn(|| machine.take_message()).take(100).map(|message| message.data).collect();
    (data, messages, machine.take_event())
}

proptest! {
    #[test]
    fn whatever_a_guest_does_costs_bounded_messages(steps in proptest::collection::vec(step(), 0..200)) {
        let (mut machine, mut now_ns) = (routed(), 0);
        for step in &steps {
            let (_, messages, _) = observe(&mut machine, &mut now_ns, step);
            prop_assert!(messages.len() <= usize::from(crate::ioapic::PINS));
        }
    }

    #[test]
    fn a_restored_machine_goes_on_as_the_saved_one_would(
        before in proptest::collection::vec(step(), 0..100),
        after in proptest::collection::vec(step(), 0..100),
    ) {
        let (mut machine, mut now_ns) = (routed(), 0);
        for step in &before {
            observe(&mut machine, &mut now_ns, step);
        }
        let saved = machine.save();
        let mut restored = Machine::new(&CONFIG).restore(&saved).unwrap();
        prop_assert_eq!(restored.save(), saved);
        let mut restored_ns = now_ns;
        for step in &after {
            let expected = observe(&mut machine, &mut now_ns, step);
            prop_assert_eq!(observe(&mut restored, &mut restored_ns, step), expected);
        }
    }

    #[test]
    fn a_damaged_state_is_refused_or_gives_a_machine(
        change in (any::<prop::sample::Index>(), any::<u8>()),
        steps in proptest::collection::vec(step(), 0..20),
    ) {
        let mut saved = routed().save();
        let (index, value) = change;
        *index.get_mut(&mut saved) = value;
        if let Ok(mut machine) = Machine::new(&CONFIG).restore(&saved) {
            let mut now_ns = 0;
            for step in &steps {
                observe(&mut machine, &mut now_ns, step);
            }
        }
    }
}

#[test]
fn a_state_that_is_cut_off_is_refused() {
    let saved = routed().save();
    for length in 0..saved.len() {
        assert!(Machine::new(&CONFIG).restore(&saved[..length]).is_err(), "{length}");
    }
}

#[test]
fn a_state_with_more_behind_it_is_refused() {
    let mut saved = routed().save();
    saved.push(0);
    assert_eq!(Machine::new(&CONFIG).restore(&saved).err(), Some(StateError::Damaged));
}

#[test]
fn a_section_of_a_later_release_is_refused_by_name() {
    let mut saved = routed().save();
    saved[4] = 2;
    let error = Machine::new(&CONFIG).restore(&saved).err().unwrap();
    assert_eq!(error, StateError::TooNew { name: *b"COM1", version: 2 });
    assert_eq!(
        error.to_string(),
        "section COM1 of the saved state has version 2, which is too new: use a later release"
    );
}

/// What release 0.1 saved of [`machine_of_0_1`].
const STATE_OF_0_1: &[u8] = include_bytes!("state-0.1.bin");

/// A machine whose guest has routed its interrupts, written to the console and not read all keys.
fn machine_of_0_1() -> Machine {
    let mut machine = routed();
    for (port, value) in [(0x3f8, 0x6f), (0x3f8, 0x6b), (0x3fa, 0xc1), (0x3f9, 0x05), (0x3ff, 0x5a), (0x70, 0x0b)] {
        machine.port_out(port, 1, value, 0);
    }
    machine.port_out(0x602, 2, 0x0101, 0);
    machine.port_out(0xcf9, 1, 0x0a, 0);
    machine.port_out(0xcf8, 4, 0x8000_1234, 0);
    machine.console_input(b"keys", 0);
    while machine.take_message().is_some() {}
    machine
}

#[test]
fn the_state_that_release_0_1_saved_can_be_read() {
    let restored = Machine::new(&CONFIG).restore(STATE_OF_0_1).unwrap();
    assert_eq!(restored.save(), machine_of_0_1().save());
}
