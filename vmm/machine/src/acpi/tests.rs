//! The tables as the kernel's own reader of ACPI sees them.

use dragonfly_acpi::{Acpi, AddressSpace, Polarity, ProcessorState, SleepType, TableMemory, Trigger};

use super::*;

/// Guest memory that holds the tables.
struct Memory(Vec<u8>);

impl TableMemory for Memory {
    fn map(&self, address: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(address.checked_sub(ACPI_TABLES.start)?).ok()?;
        self.0.get(start..start.checked_add(length)?)
    }
}

fn read(vcpus: u32, memory_bytes: u64) -> Box<Acpi> {
    let mut acpi = Box::new(Acpi::absent());
    let mut problems = Vec::new();
    let memory = Memory(tables(vcpus, memory_bytes));
    acpi.discover(&memory, ACPI_TABLES.start, &mut |problem| problems.push(problem)).unwrap();
    assert!(problems.is_empty(), "{problems:?}");
    acpi
}

#[test]
fn the_tables_fit_their_place_with_the_most_vcpus() {
    let bytes = tables(crate::platform::MAX_VCPUS, 1 << 40);
    assert!((bytes.len() as u64) <= ACPI_TABLES.end - ACPI_TABLES.start);
}

#[test]
fn each_vcpu_has_a_local_apic_with_its_number() {
    for vcpus in [1, 2, 32, 64] {
        let acpi = read(vcpus, 256 << 20);
        let ids: Vec<_> = acpi.madt.processors.iter().map(|cpu| (cpu.apic_id, cpu.uid, cpu.state)).collect();
        let expected: Vec<_> = (0..vcpus).map(|id| (id, id, ProcessorState::Enabled)).collect();
        assert_eq!(ids, expected);
    }
}

#[test]
fn the_ioapic_comes_after_the_vcpus_and_has_all_interrupts() {
    let acpi = read(2, 256 << 20);
    let [ioapic] = acpi.madt.io_apics.as_slice() else { panic!("one I/O APIC") };
    assert_eq!((ioapic.id, ioapic.address, ioapic.gsi_base), (2, 0xfec0_0000, 0));
    assert_eq!(acpi.madt.local_apic_address, 0xfee0_0000);
    assert!(!acpi.madt.has_8259);
}

#[test]
fn the_system_control_interrupt_is_level_and_active_high() {
    let acpi = read(1, 256 << 20);
    let [sci] = acpi.madt.overrides.as_slice() else { panic!("one override") };
    assert_eq!((sci.isa_interrupt, sci.gsi, sci.polarity, sci.trigger), (9, 9, Polarity::ActiveHigh, Trigger::Level));
}

#[test]
fn the_fadt_names_the_registers_that_the_devices_have() {
    let fadt = read(1, 256 << 20).fadt.unwrap();
    let timer = fadt.pm_timer.unwrap();
    let reset = fadt.reset.unwrap();
    assert!(!fadt.hardware_reduced && fadt.smi_command.is_none());
    assert_eq!(fadt.pm1a_control.unwrap().port(), Some(0x604));
    assert_eq!((timer.register.port(), timer.is_32_bit), (Some(0x608), true));
    assert_eq!((reset.register.port(), reset.value), (Some(0xcf9), 6));
    assert_eq!((fadt.has_cmos_rtc, fadt.century), (true, 0x32));
    assert_eq!(reset.register.space, AddressSpace::SYSTEM_IO);
}

#[test]
fn soft_off_is_the_sleep_type_that_the_power_management_block_obeys() {
    assert_eq!(read(1, 256 << 20).sleep_s5, Some(SleepType { a: 5, b: 5 }));
}

#[test]
fn pci_configuration_space_is_mapped_for_one_bus() {
    let acpi = read(1, 256 << 20);
    let [segment] = acpi.mcfg.segments.as_slice() else { panic!("one segment") };
    assert_eq!((segment.address, segment.group, segment.first_bus, segment.last_bus), (0xe000_0000, 0, 0, 0));
}

#[test]
fn the_root_pointer_is_where_kernels_look_for_it() {
    let bytes = tables(1, 256 << 20);
    assert!(bytes.starts_with(b"RSD PTR "));
    assert!((0xe_0000..0x10_0000).contains(&ACPI_TABLES.start) && ACPI_TABLES.start.is_multiple_of(16));
}

#[test]
fn the_firmware_control_structure_is_aligned() {
    let bytes = tables(1, 256 << 20);
    let at = bytes.windows(4).position(|window| window == b"FACS").unwrap();
    assert_eq!(at % 64, 0);
}
