//! Configuration space by both ways, with a function that remembers what was written.

use proptest::prelude::*;

use super::*;

const BRIDGE_ID: u32 = 0x0008_1b36;

/// A function with one register file, all of it writable.
struct Ram([u32; 1024]);

impl PciFunction for Ram {
    fn read_config(&mut self, offset: u16) -> u32 {
        self.0[usize::from(offset / 4)]
    }

    fn write_config(&mut self, offset: u16, value: u32, mask: u32) {
        let register = &mut self.0[usize::from(offset / 4)];
        *register = *register & !mask | value & mask;
    }
}

/// With the function 00:02.1.
fn bus() -> PciBus {
    let mut bus = PciBus::new();
    bus.insert(DeviceFunction(2 << 3 | 1), Box::new(Ram([0; 1024])));
    bus
}

const RAM: u64 = (2 << 3 | 1) * 4096;

fn ecam(bus: &mut PciBus, offset: u64) -> u32 {
    let mut data = [0; 4];
    bus.read_ecam(offset, &mut data);
    u32::from_le_bytes(data)
}

fn data_port(bus: &mut PciBus, address: u32) -> u32 {
    bus.write_address(address);
    let mut data = [0; 4];
    bus.read_data(0, &mut data);
    u32::from_le_bytes(data)
}

#[test]
fn the_host_bridge_is_there_by_both_ways() {
    let mut bus = PciBus::new();
    assert_eq!(ecam(&mut bus, 0), BRIDGE_ID);
    assert_eq!(data_port(&mut bus, 0x8000_0000), BRIDGE_ID);
    // Linux looks for this class before it believes in the ports.
    assert_eq!(ecam(&mut bus, 8) >> 16, 0x0600);
}

#[test]
fn the_host_bridge_has_no_windows_and_keeps_nothing() {
    let mut bus = PciBus::new();
    for offset in (0x10..0x28).step_by(4) {
        bus.write_ecam(offset, &[0xff; 4]);
        assert_eq!(ecam(&mut bus, offset), 0);
    }
}

#[test]
fn functions_that_are_not_there_read_as_ones() {
    let mut bus = bus();
    for offset in [0x1000, 0x8000, RAM - 4, RAM + 4096, 0xf_fffc] {
        bus.write_ecam(offset, &[0; 4]);
        assert_eq!(ecam(&mut bus, offset), u32::MAX, "{offset:#x}");
    }
}

#[test]
fn the_ports_reach_bus_0_only_and_only_if_they_are_enabled() {
    let mut bus = PciBus::new();
    assert_eq!(data_port(&mut bus, 0), u32::MAX);
    assert_eq!(data_port(&mut bus, 0x8001_0000), u32::MAX);
}

#[test]
fn the_address_port_keeps_the_bits_that_exist() {
    let mut bus = PciBus::new();
    bus.write_address(u32::MAX);
    assert_eq!(bus.read_address(), 0x80ff_fffc);
}

#[test]
fn both_ways_reach_the_same_registers() {
    let mut bus = bus();
    bus.write_address(0x8000_1144);
    bus.write_data(0, &0x1234_5678u32.to_le_bytes());
    assert_eq!(ecam(&mut bus, RAM + 0x44), 0x1234_5678);
    bus.write_data(2, &[0xab]);
    assert_eq!(ecam(&mut bus, RAM + 0x44), 0x12ab_5678);
    let mut word = [0; 2];
    bus.read_data(1, &mut word);
    assert_eq!(word, [0x56, 0xab]);
}

#[test]
fn an_access_across_functions_reaches_both() {
    let mut bus = bus();
    let mut data = [0; 8];
    bus.write_ecam(RAM, &[1, 2, 3, 4]);
    bus.read_ecam(RAM - 4, &mut data);
    assert_eq!(data, [0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4]);
}

proptest! {
    #[test]
    fn configuration_space_is_memory_to_accesses_of_any_place_and_size(
        accesses in proptest::collection::vec((0usize..4088, proptest::collection::vec(any::<u8>(), 1..=8)), 1..50)
    ) {
        let mut bus = bus();
        let mut model = [0u8; 4096];
        for (offset, bytes) in accesses {
            bus.write_ecam(RAM + offset as u64, &bytes);
            model[offset..offset + bytes.len()].copy_from_slice(&bytes);
            let mut data = [0; 8];
            let start = offset.saturating_sub(3);
            bus.read_ecam(RAM + start as u64, &mut data);
            prop_assert_eq!(&data[..], &model[start..start + 8]);
        }
    }
}
