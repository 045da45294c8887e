//! Saved states, and whatever a guest does.

use proptest::prelude::*;

use super::*;
use crate::StateError;

/// A machine with the same disk and another back end.
fn restored(state: &[u8], model: &Model) -> Result<Machine, StateError> {
    let mut machine = Machine::new(&CONFIG);
    machine.add_virtio(VirtioPci::new(DISK, Box::new(model.clone()))).unwrap();
    machine.restore(state)
}

#[test]
fn a_restored_device_goes_on_where_the_saved_one_stood() {
    let mut guest = Guest::new();
    guest.drive();
    guest.set_config(0x10, 0xc000);
    guest.model.work(0, 5);
    guest.machine.pause();
    assert_eq!(guest.model.running(), []);
    let saved = guest.machine.save();

    let model = Model::default();
    let machine = restored(&saved, &model).unwrap();
    assert_eq!(machine.save(), saved);
    assert_eq!(model.take_calls(), [], "it is told when the machine goes on");
    let mut guest = Guest { machine, model, at: guest.at };
    guest.machine.resume();
    let calls = guest.model.take_calls();
    assert_eq!(calls.first(), Some(&Call::Negotiate(model::FEATURES)));
    let base = |queue| {
        calls.iter().find_map(|call| match call {
            Call::Start(started, setup) if *started == queue => Some(setup.base),
            _ => None,
        })
    };
    assert_eq!((base(0), base(1)), (Some(5), Some(0)));
    assert_eq!(guest.model.doorbells(), [Some(0xc000), Some(0xc004)]);
    assert_eq!(guest.model.interrupt(1), Some(0x4042));
    assert_eq!(guest.machine.port_in(0xc000, 4, 0), 0);
    guest.set8(STATUS, 0);
    assert_eq!(guest.model.take_calls().last(), Some(&Call::Reset));
}

#[test]
fn a_paused_device_goes_on_without_being_negotiated_again() {
    let mut guest = Guest::new();
    guest.drive();
    guest.machine.pause();
    guest.machine.resume();
    assert_eq!(guest.model.running(), [0, 1]);
    assert!(!guest.model.take_calls().iter().any(|call| matches!(call, Call::Negotiate(_))));
}

#[test]
fn a_back_end_that_does_not_take_what_was_negotiated_fails() {
    let mut guest = Guest::new();
    guest.drive();
    guest.machine.pause();
    let saved = guest.machine.save();
    let model = Model::default();
    model.state().is_failing = true;
    let mut guest = Guest { machine: restored(&saved, &model).unwrap(), model, at: guest.at };
    guest.machine.resume();
    assert_eq!(guest.get8(STATUS) & NEEDS_RESET, NEEDS_RESET);
    assert_eq!(guest.messages(), [0x4040]);
}

#[test]
fn a_state_of_a_machine_with_other_devices_is_refused() {
    let state_of = |descriptions: &[Description]| machine_of(descriptions).save();
    let machine_of_disk = [DISK];
    let none: [Description; 0] = [];
    for (saved, target, error) in [
        (state_of(&machine_of_disk), &none[..], StateError::Damaged),
        (state_of(&none), &machine_of_disk, StateError::CutOff),
        (state_of(&[Description { kind: DeviceKind::Network, ..DISK }]), &machine_of_disk, StateError::OtherFunctions),
        (state_of(&[Description { queues: 1, ..DISK }]), &machine_of_disk, StateError::OtherFunctions),
        (state_of(&[Description { queue_size_max: 1024, ..DISK }]), &machine_of_disk, StateError::OtherFunctions),
    ] {
        assert_eq!(machine_of(target).restore(&saved).err(), Some(error));
    }
}

fn machine_of(descriptions: &[Description]) -> Machine {
    let mut machine = Machine::new(&CONFIG);
    for description in descriptions {
        machine.add_virtio(VirtioPci::new(*description, Box::new(Model::default()))).unwrap();
    }
    machine
}

/// What release 0.1 saved of [`machine_of_0_1`].
const STATE_OF_0_1: &[u8] = include_bytes!("state-0.1.bin");

/// A disk whose driver works, with its ports moved, one interrupt waiting and 5 requests done.
fn machine_of_0_1() -> Machine {
    let mut guest = Guest::new();
    guest.drive();
    guest.set_config(0x10, 0xc000);
    guest.set_config(0x40, 0xc000_0000);
    guest.set_config(0x3c, 11);
    guest.set_config(0x94, 2);
    guest.set_config(0x9c, 4);
    guest.machine.virtio_config_changed(guest.at);
    guest.model.work(0, 5);
    guest.machine.pause();
    guest.machine
}

#[test]
fn the_state_that_release_0_1_saved_can_be_read() {
    let restored = restored(STATE_OF_0_1, &Model::default()).unwrap();
    assert_eq!(restored.save(), machine_of_0_1().save());
}

/// What a guest does: at random, near what is there.
#[derive(Clone, Debug)]
enum Step {
    Config(u64, u32),
    Memory(u64, Vec<u8>),
    Read(u64, usize),
    Port(u16, u8),
    Status(u8),
    Drive,
    Changed,
    Interrupt(u16),
    Fail(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let place = || prop_oneof![0u64..0x3c, 0u64..0x4040, TABLE..TABLE + 48, Just(ISR), Just(PENDING)];
    let value = prop_oneof![any::<u32>(), 0u32..8, Just(u32::MAX), Just(0x8000_0000), Just(MEMORY as u32)];
    prop_oneof![
        ((0u64..64).prop_map(|word| 4 * word), value).prop_map(|(offset, value)| Step::Config(offset, value)),
        (place(), proptest::collection::vec(any::<u8>(), 0..=64)).prop_map(|(at, data)| Step::Memory(at, data)),
        (place(), 1u8..=4, 0u8..4).prop_map(|(at, length, value)| Step::Memory(at, vec![value; length.into()])),
        (place(), 0usize..=64).prop_map(|(at, length)| Step::Read(at, length)),
        (PORTS..PORTS + 16, 0u8..3).prop_map(|(port, width)| Step::Port(port, 1 << width)),
        any::<u8>().prop_map(Step::Status),
        Just(Step::Drive),
        Just(Step::Changed),
        (0u16..2).prop_map(Step::Interrupt),
        any::<bool>().prop_map(Step::Fail),
    ]
}

fn run(guest: &mut Guest, step: &Step) -> Vec<u8> {
    let mut data = Vec::new();
    match step {
        Step::Config(offset, value) => guest.set_config(*offset, *value),
        Step::Memory(at, data) => guest.write(MEMORY + at, data),
        Step::Read(at, length) => {
            data.resize(*length, 0);
            guest.machine.mmio_read(GuestPhys(MEMORY + at), &mut data, || 0);
        }
        Step::Port(port, width) => guest.machine.port_out(*port, *width, 0, 0),
        Step::Status(status) => guest.set8(STATUS, *status),
        Step::Drive => {
            guest.set_config(0x18, MEMORY as u32);
            guest.set_config(0x1c, 0);
            guest.negotiate(VERSION_1 | RING_RESET);
            guest.set_up_interrupts();
            guest.set_up_queue(0, 1);
            guest.set16(QUEUE_ENABLE, 1);
            guest.set8(STATUS, 15);
        }
        Step::Changed => guest.machine.virtio_config_changed(guest.at),
        Step::Interrupt(queue) => _ = guest.model.interrupt(*queue),
        Step::Fail(is_failing) => guest.model.state().is_failing = *is_failing,
    }
    data
}

proptest! {
    #[test]
    fn whatever_a_guest_does_the_back_end_is_told_what_it_was_promised(
        steps in proptest::collection::vec(step(), 0..100)
    ) {
        // The model holds the function to its promises.
        let mut guest = Guest::new();
        for step in &steps {
            run(&mut guest, step);
            prop_assert!(guest.messages().len() <= 3);
        }
        guest.model.state().is_failing = false;
        guest.set_config(0x18, MEMORY as u32);
        guest.set_config(0x1c, 0);
        guest.drive();
        prop_assert_eq!(guest.model.running(), vec![0, 1]);
    }

    #[test]
    fn a_restored_machine_goes_on_as_the_paused_one_does(
        before in proptest::collection::vec(step(), 0..60),
        after in proptest::collection::vec(step(), 0..60),
    ) {
        let mut guest = Guest::new();
        for step in &before {
            run(&mut guest, step);
        }
        guest.messages();
        guest.model.state().is_failing = false;
        guest.machine.pause();
        let saved = guest.machine.save();
        let model = Model::default();
        model.state().config = guest.model.state().config.clone();
        let mut other = Guest { machine: restored(&saved, &model).unwrap(), model, at: guest.at };
        prop_assert_eq!(other.machine.save(), saved);
        guest.machine.resume();
        other.machine.resume();
        // What waited in the back end is its own.
        for step in after.iter().filter(|step| !matches!(step, Step::Read(..))) {
            run(&mut guest, step);
            run(&mut other, step);
            prop_assert_eq!(guest.model.running(), other.model.running());
            prop_assert_eq!(guest.model.doorbells(), other.model.doorbells());
        }
        guest.machine.pause();
        other.machine.pause();
        prop_assert_eq!(guest.config(4), other.config(4));
        prop_assert_eq!(guest.get8(STATUS), other.get8(STATUS));
    }

    #[test]
    fn a_damaged_state_is_refused_or_gives_a_machine(
        change in (any::<prop::sample::Index>(), any::<u8>()),
        steps in proptest::collection::vec(step(), 0..20),
    ) {
        let mut guest = Guest::new();
        guest.drive();
        guest.machine.pause();
        let mut saved = guest.machine.save();
        let (index, value) = change;
        *index.get_mut(&mut saved) = value;
        let model = Model::default();
        if let Ok(machine) = restored(&saved, &model) {
            let mut guest = Guest { machine, model, at: guest.at };
            guest.machine.resume();
            for step in &steps {
                run(&mut guest, step);
            }
        }
    }
}
