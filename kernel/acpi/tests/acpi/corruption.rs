//! A corrupt table is reported by name and absent; all others are read.

use dragonfly_acpi::{AcpiError, MAX_TABLES, Problem, Signature, TableFault};

use crate::builder::*;

/// The fault for which the first of `tables` is ignored, while a HPET beside it is read.
fn fault_of(tables: &[Vec<u8>]) -> TableFault {
    let signature = Signature(tables[0][..4].try_into().unwrap());
    let image = Image::new(2, &[tables, &[hpet(0xfed0_0000)]].concat());
    fault_in(&image, signature)
}

fn fault_in(image: &Image, expected: Signature) -> TableFault {
    let (acpi, result, problems) = image.discover();
    assert_eq!(result, Ok(()));
    assert!(acpi.hpet.is_some(), "the table beside the corrupt one is read");
    assert!(acpi.madt.processors.is_empty() && acpi.madt.io_apics.is_empty() && acpi.madt.local_apic_address == 0);
    assert!(acpi.mcfg.segments.is_empty() && acpi.srat.memory.is_empty() && acpi.srat.domains.is_empty());
    assert!(acpi.slit.localities() == 0 && acpi.dmar.units.is_empty() && acpi.ivrs.units.is_empty());
    match problems.as_slice() {
        [Problem::Corrupt { signature, fault, .. }] if *signature == expected => *fault,
        other => panic!("expected one corrupt {expected}, got {other:?}"),
    }
}

/// Changes one byte, as bad memory would.
fn flip(image: &mut Image, address: u64) {
    image.bytes[(address - BASE) as usize] ^= 0x10;
}

#[test]
fn a_wrong_checksum_makes_a_table_absent() {
    let mut image = Image::new(2, &[madt(&[local_apic(0, 0, 1)]), hpet(0xfed0_0000)]);
    let address = image.addresses[0] + 47;
    flip(&mut image, address);
    assert_eq!(fault_in(&image, Signature::MADT), TableFault::Checksum);
}

#[test]
fn a_zero_length_entry_ends_the_table_instead_of_looping() {
    let fault = fault_of(&[madt(&[local_apic(0, 0, 1), vec![0, 0]])]);
    assert_eq!(fault, TableFault::EntryLength { offset: 52 });
}

#[test]
fn an_entry_over_the_end_of_its_table_is_a_fault() {
    let fault = fault_of(&[madt(&[vec![1, 12, 0, 0]])]);
    assert_eq!(fault, TableFault::EntryLength { offset: 44 });
}

#[test]
fn an_entry_too_short_for_its_type_is_a_fault() {
    for kind in [0, 1, 2, 3, 4, 5, 9, 10] {
        let fault = fault_of(&[madt(&[entry(kind, &[0; 2])])]);
        assert_eq!(fault, TableFault::EntryLength { offset: 44 }, "type {kind}");
    }
    for kind in [0, 1, 2] {
        let fault = fault_of(&[srat(3, &[entry(kind, &[0; 8])])]);
        assert_eq!(fault, TableFault::EntryLength { offset: 48 }, "type {kind}");
    }
}

#[test]
fn a_table_shorter_than_its_fixed_fields_is_a_fault() {
    for (signature, size) in
        [(b"APIC", 44), (b"FACP", 116), (b"MCFG", 44), (b"SRAT", 48), (b"SLIT", 45), (b"DMAR", 48), (b"IVRS", 48)]
    {
        let fault = fault_of(&[table(signature, 1, &vec![0; size - 1 - 36])]);
        let expected = if signature == b"SLIT" {
            TableFault::Value { field: "Number of System Localities" }
        } else {
            TableFault::Length { length: size as u32 - 1 }
        };
        assert_eq!(fault, expected, "{}", Signature(*signature));
    }
}

#[test]
fn a_length_below_the_header_or_above_the_bound_is_a_fault() {
    for length in [0u32, 35, (1 << 20) + 1, u32::MAX] {
        let mut image = Image::new(2, &[madt(&[]), hpet(0xfed0_0000)]);
        image.write(image.addresses[0] + 4, &length.to_le_bytes());
        assert_eq!(fault_in(&image, Signature::MADT), TableFault::Length { length });
    }
}

#[test]
fn a_table_that_reaches_out_of_memory_is_a_fault() {
    let mut image = Image::new(2, &[madt(&[]), hpet(0xfed0_0000)]);
    image.write(image.addresses[0] + 4, &0x10_0000u32.to_le_bytes());
    assert_eq!(fault_in(&image, Signature::MADT), TableFault::Unreachable);
}

#[test]
fn a_pointer_out_of_memory_is_reported_with_its_address() {
    for address in [8, u64::MAX, u64::MAX - 40] {
        let mut image = Image::new(2, &[hpet(0xfed0_0000)]);
        image.write(image.xsdt_address(), &table(b"XSDT", 1, &address.to_le_bytes()));
        let (acpi, result, problems) = image.discover();
        assert_eq!((result, problems), (Ok(()), vec![Problem::Unreachable { address }]));
        assert!(acpi.hpet.is_none());
    }
}

#[test]
fn the_first_of_two_tables_counts() {
    let image = Image::new(2, &[hpet(0x1000), hpet(0x2000)]);
    let (acpi, _, problems) = image.discover();
    assert_eq!(acpi.hpet.unwrap().address, 0x1000);
    assert_eq!(problems, [Problem::Duplicate { signature: Signature::HPET, address: image.addresses[1] }]);
}

#[test]
fn mcfg_ranges_that_cannot_be_are_faults() {
    let value = |offset, field| TableFault::EntryValue { offset, field };
    for (segments, fault) in [
        (vec![(0, 0, 0, 255)], value(44, "Base Address")),
        (vec![(0xb000_1000, 0, 0, 255)], value(44, "Base Address")),
        (vec![(0xffff_ffff_fff0_0000, 0, 0, 0)], value(44, "Base Address")),
        (vec![(0xb000_0000, 0, 9, 8)], value(44, "Start Bus Number")),
        (vec![(0xb000_0000, 0, 0, 8), (0xc000_0000, 0, 8, 9)], value(60, "PCI Segment Group Number")),
    ] {
        assert_eq!(fault_of(&[mcfg(&segments)]), fault);
    }
    let mut cut = mcfg(&[(0xb000_0000, 0, 0, 255)]);
    cut.pop();
    assert_eq!(fault_of(&[table(b"MCFG", 1, &cut[36..])]), TableFault::EntryLength { offset: 44 });
}

#[test]
fn memory_affinity_that_wraps_or_contradicts_itself_is_a_fault() {
    let wraps = srat(3, &[memory_affinity(u64::MAX, 2, 0, 1)]);
    assert_eq!(fault_of(&[wraps]), TableFault::EntryValue { offset: 48, field: "Length" });
    let overlaps = srat(3, &[memory_affinity(0, 0x2000, 0, 1), memory_affinity(0x1000, 0x2000, 1, 1)]);
    assert_eq!(fault_of(&[overlaps]), TableFault::EntryValue { offset: 88, field: "Proximity Domain" });
}

#[test]
fn distances_that_cannot_be_are_faults() {
    let distance = |offset| TableFault::EntryValue { offset, field: "distance" };
    assert_eq!(fault_of(&[slit(2, &[10, 20, 20, 11])]), distance(47), "a node that is not near itself");
    assert_eq!(fault_of(&[slit(2, &[10, 10, 20, 10])]), distance(45), "another node as near as itself");
    let count = TableFault::Value { field: "Number of System Localities" };
    for localities in [0, 3, 1 << 32, u64::MAX] {
        assert_eq!(fault_of(&[slit(localities, &[10, 20, 20, 10])]), count);
    }
}

#[test]
fn iommu_registers_that_are_null_or_unaligned_are_faults() {
    for address in [0, 0xfed9_0800] {
        let fault = fault_of(&[dmar(38, 0, &[drhd(0, 0, address, &[])])]);
        assert_eq!(fault, TableFault::EntryValue { offset: 48, field: "Register Base Address" });
        let fault = fault_of(&[ivrs(0, &[ivhd(0x11, 2, address, 0)])]);
        assert_eq!(fault, TableFault::EntryValue { offset: 48, field: "IOMMU base address" });
    }
}

#[test]
fn a_device_scope_over_the_end_of_its_unit_is_a_fault() {
    for scope in [vec![1, 0], vec![1, 9, 0, 0, 0, 0], vec![1, 4, 0, 0]] {
        let fault = fault_of(&[dmar(38, 0, &[drhd(0, 0, 0xfed9_0000, &[scope])])]);
        assert_eq!(fault, TableFault::EntryValue { offset: 48, field: "Device Scope" });
    }
}

#[test]
fn a_host_address_width_above_64_bits_is_a_fault() {
    assert_eq!(fault_of(&[dmar(64, 0, &[])]), TableFault::Value { field: "Host Address Width" });
}

#[test]
fn a_hpet_that_is_not_in_memory_is_a_fault() {
    let (acpi, _, problems) = Image::new(2, &[hpet(0)]).discover();
    assert_eq!(acpi.hpet, None);
    assert!(matches!(
        problems.as_slice(),
        [Problem::Corrupt { signature: Signature::HPET, fault: TableFault::Value { field: "BASE_ADDRESS" }, .. }]
    ));
}

#[test]
fn a_corrupt_dsdt_costs_power_off_only() {
    let mut image = Image::new(2, &[fadt(116, &[]), dsdt(&name_s5(2, &[0x0a, 5, 0x0a, 5])), hpet(0xfed0_0000)]);
    let address = image.addresses[1] + 36;
    flip(&mut image, address);
    assert_eq!(fault_in(&image, Signature::DSDT), TableFault::Checksum);
    let (acpi, ..) = image.discover();
    assert!(acpi.fadt.is_some() && acpi.sleep_s5.is_none());
}

#[test]
fn a_dsdt_pointer_to_another_table_is_a_fault() {
    let mut image = Image::new(2, &[fadt(116, &[]), dsdt(&[]), hpet(0xfed0_0000)]);
    let mut fadt = fadt(116, &[]);
    fadt[40..44].copy_from_slice(&(image.addresses[2] as u32).to_le_bytes());
    fix_checksum(&mut fadt);
    image.write(image.addresses[0], &fadt);
    assert_eq!(fault_in(&image, Signature::DSDT), TableFault::Signature { found: Signature::HPET });
}

#[test]
fn a_corrupt_xsdt_is_replaced_by_the_rsdt() {
    let mut image = Image::new(2, &[hpet(0xfed0_0000)]);
    let address = image.xsdt_address() + 36;
    flip(&mut image, address);
    assert_eq!(fault_in(&image, Signature::XSDT), TableFault::Checksum);
}

#[test]
fn without_any_root_table_there_is_no_acpi() {
    let mut image = Image::new(2, &[hpet(0xfed0_0000)]);
    let address = image.xsdt_address() + 36;
    flip(&mut image, address);
    let address = image.rsdt_address() + 36;
    flip(&mut image, address);
    let (acpi, result, problems) = image.discover();
    assert_eq!((result, problems.len()), (Err(AcpiError::NoRootTable), 2));
    assert!(acpi.hpet.is_none());
}

#[test]
fn a_corrupt_rsdp_is_an_error() {
    let tables = [hpet(0xfed0_0000)];
    let mut image = Image::new(2, &tables);
    flip(&mut image, RSDP);
    assert_eq!(image.discover().1, Err(AcpiError::RsdpSignature));

    for (revision, offset) in [(0, 10), (2, 10), (2, 33)] {
        let mut image = Image::new(revision, &tables);
        flip(&mut image, RSDP + offset);
        assert_eq!(image.discover().1, Err(AcpiError::RsdpChecksum), "revision {revision}, byte {offset}");
    }

    for length in [0, 35, 4097, u32::MAX] {
        let mut image = Image::new(2, &tables);
        image.write(RSDP + 20, &length.to_le_bytes());
        assert_eq!(image.discover().1, Err(AcpiError::RsdpLength { length }));
    }
}

#[test]
fn an_rsdp_address_out_of_memory_is_an_error() {
    let image = Image::new(2, &[]);
    for address in [0, BASE - 1, BASE + image.bytes.len() as u64 - 8, u64::MAX] {
        let mut acpi = Box::new(dragonfly_acpi::Acpi::absent());
        assert_eq!(acpi.discover(&image, address, &mut |_| ()), Err(AcpiError::RsdpUnreachable));
    }
}

#[test]
fn what_exceeds_a_list_is_dropped_and_said_once() {
    let processors: Vec<_> = (0..300).map(|id| local_x2apic(id, id, 1)).collect();
    let (acpi, _, problems) = Image::new(2, &[madt(&processors)]).discover();
    assert_eq!(acpi.madt.processors.len(), 256);
    let signature = Signature::MADT;
    assert_eq!(problems, [Problem::Truncated { signature, list: "processors", capacity: 256, dropped: 44 }]);
}

#[test]
fn a_distance_matrix_that_is_too_big_keeps_its_corner() {
    let matrix: Vec<u8> = (0..70).flat_map(|from| (0..70).map(move |to| if from == to { 10 } else { 20 })).collect();
    let (acpi, _, problems) = Image::new(2, &[slit(70, &matrix)]).discover();
    assert_eq!((acpi.slit.localities(), acpi.slit.distance(63, 62), acpi.slit.distance(0, 64)), (64, Some(20), None));
    let signature = Signature::SLIT;
    assert_eq!(problems, [Problem::Truncated { signature, list: "localities", capacity: 64, dropped: 6 }]);
}

#[test]
fn a_root_table_that_is_too_long_is_read_up_to_the_bound() {
    let mut tables = vec![table(b"SSDT", 2, &[]); MAX_TABLES + 3];
    tables[MAX_TABLES - 1] = hpet(0xfed0_0000);
    tables[MAX_TABLES] = madt(&[local_apic(0, 0, 1)]);
    let (acpi, _, problems) = Image::new(2, &tables).discover();
    assert!(acpi.hpet.is_some() && acpi.madt.processors.is_empty());
    let signature = Signature::XSDT;
    assert_eq!(problems, [Problem::Truncated { signature, list: "tables", capacity: MAX_TABLES, dropped: 3 }]);
}

#[test]
fn a_report_names_table_address_fault_and_loss() {
    let problem = Problem::Corrupt { signature: Signature::MADT, address: 0x7fe_1234, fault: TableFault::Checksum };
    assert_eq!(
        problem.to_string(),
        "APIC at 0x7fe1234 is ignored: its checksum is wrong (lost: other processors and I/O APICs)"
    );
    assert_eq!(Signature([0, 0x41, b'"', 0xff]).to_string(), r#"\x00A\"\xff"#);
}
