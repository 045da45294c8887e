//! The function on the bus: identification, capabilities, windows.

use proptest::prelude::*;

use super::*;

#[test]
fn it_is_a_virtio_device_that_is_not_a_legacy_one() {
    for (kind, id, class) in [
        (DeviceKind::Network, 0x1041_1af4, 0x0200_0001),
        (DeviceKind::Block, 0x1042_1af4, 0x0180_0001),
        (DeviceKind::Console, 0x1043_1af4, 0x0780_0001),
        (DeviceKind::Entropy, 0x1044_1af4, 0xff00_0001),
        (DeviceKind::Socket, 0x1053_1af4, 0x0780_0001),
    ] {
        let mut guest = Guest::with(Description { kind, ..DISK });
        assert_eq!(guest.config(0x00), id);
        assert_eq!(guest.config(0x08), class);
        assert_eq!(guest.config(0x0c), 0, "one function with a header of type 0");
        assert_eq!(guest.config(0x2c), 0x1100_1af4);
        assert_eq!(guest.config(0x3c) >> 8, 0, "no wired interrupt");
    }
}

/// The capabilities as `pci_find_next_capability` walks them: identifier and double words.
fn capabilities(guest: &mut Guest) -> Vec<(u8, Vec<u32>)> {
    assert_eq!(guest.config(4) >> 16, 0x10);
    let mut found = Vec::new();
    let mut at = u64::from(guest.config(0x34));
    while at != 0 {
        assert!(at >= 0x40 && at.is_multiple_of(4) && found.len() < 16);
        let words: Vec<u32> = (0..5).map(|word| guest.config(at + 4 * word)).collect();
        found.push((words[0] as u8, words.clone()));
        at = u64::from(words[0] >> 8 & 0xff);
    }
    found
}

#[test]
fn its_parts_are_found_by_capabilities_each_in_its_window() {
    let mut guest = Guest::new();
    let found = capabilities(&mut guest);
    assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [0x11, 9, 9, 9, 9, 9]);
    // 3 vectors; table and pending bits in window 2.
    assert_eq!((found[0].1[0] >> 16, found[0].1[1], found[0].1[2]), (2, 0x3002, 0x3802));
    // Type, bytes, window, offset, length.
    let parts: Vec<_> = found[1..]
        .iter()
        .map(|(_, words)| (words[0] >> 24, words[0] >> 16 & 0xff, words[1], words[2], words[3]))
        .collect();
    assert_eq!(
        parts,
        [(1, 16, 2, 0, 0x3c), (2, 20, 0, 0, 8), (3, 16, 2, 0x1000, 1), (4, 16, 2, 0x2000, 60), (5, 20, 0, 0, 0)]
    );
    assert_eq!(found[2].1[4], 4, "bytes from doorbell to doorbell");
}

#[test]
fn its_windows_are_placed_and_on_before_a_kernel_runs() {
    let mut guest = Guest::new();
    assert_eq!(guest.config(4) & 7, 3);
    let bars: Vec<_> = (0..6).map(|bar| guest.config(0x10 + 4 * bar)).collect();
    assert_eq!(bars, [0x1101, 0, 0xe800_4004, 0, 0, 0]);
    assert_eq!(guest.get16(0x12), 2, "number of queues");
}

#[test]
fn windows_of_all_devices_are_apart() {
    let mut machine = Machine::new(&CONFIG);
    let disk = || VirtioPci::new(DISK, Box::new(Model::default()));
    let places: Vec<_> = core::iter::from_fn(|| machine.add_virtio(disk())).collect();
    assert_eq!(places, (1..32).map(|device| DeviceFunction(device << 3)).collect::<Vec<_>>());
    for device in 1..32 {
        let mut queues = [0; 2];
        assert!(machine.mmio_read(GuestPhys(0xe800_0012 + device * 0x4000), &mut queues, || 0));
        assert_eq!(machine.port_in(0x1000 + 0x100 * device as u16, 4, 0), 0);
    }
    assert_eq!(machine.unclaimed(), (0, 0));
}

#[test]
fn linux_finds_the_sizes_of_the_windows() {
    // The steps of `pci_read_bases`.
    let mut guest = Guest::new();
    guest.set_command(0);
    for (bar, size) in [(0, 0xffff_ff01), (1, 0), (2, 0xffff_c004), (3, 0xffff_ffff), (4, 0), (5, 0), (8, 0)] {
        let offset = 0x10 + 4 * bar;
        let old = guest.config(offset);
        guest.set_config(offset, 0xffff_ffff);
        assert_eq!(guest.config(offset), size, "{bar}");
        guest.set_config(offset, old);
        assert_eq!(guest.config(offset), old, "{bar}");
    }
    guest.set_command(3);
    assert_eq!(guest.get16(0x12), 2);
}

#[test]
fn a_window_is_there_only_while_it_is_decoded() {
    let mut guest = Guest::new();
    for (command, expected) in [(0, (false, false)), (1, (true, false)), (2, (false, true)), (3, (true, true))] {
        guest.set_command(command);
        let has_memory = guest.machine.mmio_read(GuestPhys(MEMORY), &mut [0; 4], || 0);
        let has_ports = guest.machine.port_in(PORTS, 4, 0) == 0;
        assert_eq!((has_ports, has_memory), expected, "{command}");
    }
}

#[test]
fn windows_go_where_the_guest_moves_them() {
    let mut guest = Guest::new();
    guest.set_config(0x10, 0xc000);
    guest.set_config(0x18, 0x0002_0000);
    guest.set_config(0x1c, 0x10);
    assert!(!guest.machine.mmio_read(GuestPhys(MEMORY), &mut [0; 4], || 0));
    assert_eq!(guest.machine.port_in(PORTS, 4, 0), u32::MAX);
    assert_eq!(guest.read(0x10_0002_0000 + 0x10) >> 16, 2);
    assert_eq!(guest.machine.port_in(0xc000, 4, 0), 0);
}

#[test]
fn devices_elsewhere_keep_their_addresses_when_a_window_comes_over_them() {
    let mut guest = Guest::new();
    guest.set_config(0x10, 0x300);
    guest.set_config(0x18, 0xfec0_0000);
    guest.machine.port_out(0x3ff, 1, 0x5a, 0);
    assert_eq!(guest.machine.port_in(0x3ff, 1, 0), 0x5a);
    assert_eq!(guest.machine.port_in(0x300, 1, 0), 0xff);
    guest.write(0xfec0_0000, &1u32.to_le_bytes());
    assert_eq!(guest.read(0xfec0_0010), 0x0017_0020);
}

#[test]
fn of_windows_over_one_another_the_first_devices_is_there() {
    let mut guest = Guest::new();
    let second = Model::default();
    let network = Description { kind: DeviceKind::Network, queues: 3, ..DISK };
    guest.machine.add_virtio(VirtioPci::new(network, Box::new(second))).unwrap();
    guest.write(0xe001_0018, &(MEMORY as u32).to_le_bytes());
    assert_eq!(guest.get16(0x12), 2);
    guest.set_config(0x18, 0xe900_0000);
    assert_eq!(guest.get16(0x12), 3);
}

#[test]
fn ports_that_a_device_could_get_are_not_said_to_be_nobodys() {
    let guest = Guest::new();
    assert!(guest.machine.has_port(0xfff0) && guest.machine.has_port(PORTS));
    assert!(!guest.machine.has_port(0x80));
    assert!(!Machine::new(&CONFIG).has_port(0xfff0));
}

#[test]
fn windows_are_reached_through_configuration_space_too() {
    let mut guest = Guest::new();
    // Window, offset, length; what a read gives.
    for (bar, offset, length, expected) in [
        (2, 0x12, 2, 2),
        (2, 0x10, 4, 0x0002_ffff),
        (2, 0x12, 1, 2),
        (2, 0x11, 2, 0),
        (2, 0x10, 3, 0),
        (2, 0x10, 8, 0),
        (2, 0x2004, 4, 0x0706_0504),
        (2, 0x4000, 4, 0),
        (2, 0xffff_fffc, 4, 0),
        (0, 0, 4, 0),
        (1, 0x10, 4, 0),
        (255, 0, 0, 0),
    ] {
        for (register, value) in [(0x94, bar), (0x98, offset), (0x9c, length)] {
            guest.set_config(register, value);
        }
        assert_eq!(guest.config(0xa0), expected, "{bar} {offset:#x} {length}");
    }
    guest.set_config(0x94, 2);
    guest.set_config(0x98, QUEUE_SELECT as u32);
    guest.set_config(0x9c, 2);
    guest.set_config(0xa0, 0xffff_0001);
    assert_eq!(guest.get16(QUEUE_SELECT), 1);
    assert_eq!(guest.get16(QUEUE_SIZE), 256, "two bytes and no more were written");
}

#[test]
fn the_devices_own_configuration_is_read_and_written_by_accesses_of_any_width() {
    let mut guest = Guest::new();
    for length in [1, 2, 3, 4, 8, 60, 64] {
        let mut data = vec![0xaa; length];
        guest.machine.mmio_read(GuestPhys(MEMORY + DEVICE), &mut data, || 0);
        let expected: Vec<u8> = (0..length as u8).map(|at| if at < 60 { at } else { 0 }).collect();
        assert_eq!(data, expected);
    }
    guest.write(MEMORY + DEVICE + 56, &[9; 8]);
    assert_eq!(guest.model.state().config[56..], [9; 4]);
    guest.write(MEMORY + DEVICE + 60, &[9; 8]);
    assert_eq!(guest.model.state().config.len(), 60);
}

proptest! {
    #[test]
    fn a_register_of_the_common_configuration_is_the_same_by_accesses_of_any_width(
        values in proptest::collection::vec(any::<u8>(), 0x18..=0x18),
        cuts in proptest::collection::vec(1usize..9, 1..24),
    ) {
        // The addresses of a queue are memory while it is not enabled.
        let mut guest = Guest::new();
        let mut at = 0;
        for cut in cuts.into_iter().cycle() {
            let end = (at + cut).min(values.len());
            guest.write(MEMORY + 0x20 + at as u64, &values[at..end]);
            at = end;
            if at == values.len() {
                break;
            }
        }
        for (offset, expected) in values.iter().enumerate() {
            prop_assert_eq!(guest.get8(0x20 + offset as u64), *expected);
        }
        let mut data = [0; 0x18];
        guest.machine.mmio_read(GuestPhys(MEMORY + 0x20), &mut data, || 0);
        prop_assert_eq!(&data[..], &values[..]);
    }
}
