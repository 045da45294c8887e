//! The tables as the kernel's own reader of ACPI sees them, and by the specification's offsets what it does not read.

use dragonfly_acpi::{Acpi, TableMemory};

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

/// The table with this signature, from there to the end of all.
fn table(signature: &[u8]) -> Vec<u8> {
    let bytes = tables(1, 256 << 20);
    let at = bytes.windows(4).position(|window| window == signature).unwrap();
    bytes[at..].to_vec()
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
        assert_eq!(acpi.madt.processors.as_slice(), (0..vcpus).collect::<Vec<_>>());
    }
}

#[test]
fn the_ioapic_has_all_interrupts() {
    let acpi = read(2, 256 << 20);
    let [ioapic] = acpi.madt.io_apics.as_slice() else { panic!("one I/O APIC") };
    assert_eq!((ioapic.address, ioapic.gsi_base), (0xfec0_0000, 0));
}

#[test]
fn the_interrupt_controllers_are_local_apics_and_an_ioapic_after_them_and_no_8259() {
    let madt = table(b"APIC");
    assert_eq!(madt[36..44], [0, 0, 0xe0, 0xfe, 0, 0, 0, 0], "address, flags");
    assert_eq!(madt[44..52], [0, 8, 0, 0, 1, 0, 0, 0], "processor 0 is enabled");
    assert_eq!(madt[52..55], [1, 12, 1], "an I/O APIC with the next ID");
}

#[test]
fn the_system_control_interrupt_is_level_and_active_high() {
    // Interrupt source override (5.2.12.5): bus, source, global system interrupt, flags.
    assert_eq!(table(b"APIC")[64..74], [2, 10, 0, 9, 9, 0, 0, 0, 0b1101, 0]);
}

#[test]
fn the_fadt_names_the_registers_that_the_devices_have() {
    assert_eq!(read(1, 256 << 20).pm_timer, Some(0x608));
    // Offsets of table 5.9; a register is space, width, offset, access size, address.
    for (field, offset, expected) in [
        ("SMI_CMD", 48, &[0, 0, 0, 0][..]),
        ("X_PM1a_CNT_BLK", 172, &[1, 16, 0, 2, 4, 6, 0, 0]),
        ("RESET_REG", 116, &[1, 8, 0, 1, 0xf9, 0xc, 0, 0]),
        ("RESET_VALUE", 128, &[6]),
        ("CENTURY", 108, &[0x32]),
        ("IAPC_BOOT_ARCH: a CMOS clock", 109, &[1 << 2, 0]),
        ("Flags: 32-bit timer, reset register, full ACPI", 113, &[0b101, 0, 0]),
    ] {
        assert_eq!(&table(b"FACP")[offset..offset + expected.len()], expected, "{field}");
    }
}

#[test]
fn soft_off_is_the_sleep_type_that_the_power_management_block_obeys() {
    // Name (_S5_, Package () {5, 5, 0, 0}) in AML (20.2.5.4).
    let name = [&b"\x08_S5_"[..], &[0x12, 8, 4, 0x0a, 5, 0x0a, 5, 0, 0]].concat();
    assert!(table(b"DSDT").windows(name.len()).any(|window| window == name));
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
