//! What valid tables mean.

use dragonfly_acpi::{Acpi, IoApic, Segment};

use crate::builder::*;

/// What a platform with exactly these tables looks like, if nothing is wrong with it.
fn discovered(tables: &[Vec<u8>]) -> Box<Acpi> {
    let (acpi, result, problems) = Image::new(2, tables).discover();
    assert_eq!((result, problems), (Ok(()), vec![]));
    acpi
}

#[test]
fn both_kinds_of_local_apic_name_processors_and_those_that_cannot_be_started_are_left_out() {
    let acpi = discovered(&[madt(&[
        local_apic(1, 0, 1),
        local_apic(2, 2, 2),
        local_apic(3, 4, 0),
        local_apic(4, 0xff, 1),
        local_x2apic(1000, 0x0001_0000, 1),
        local_x2apic(1001, 0xff, 1),
    ])]);
    assert_eq!(acpi.madt.processors.as_slice(), [0, 0x0001_0000, 0xff]);
}

#[test]
fn a_processor_listed_as_xapic_and_as_x2apic_counts_once() {
    let acpi = discovered(&[madt(&[local_apic(1, 7, 1), local_x2apic(1, 7, 1)])]);
    assert_eq!(acpi.madt.processors.as_slice(), [7]);
}

#[test]
fn io_apics_are_read_in_their_order() {
    let acpi = discovered(&[madt(&[io_apic(3, 0xfec0_0000, 24), io_apic(2, 0xfec0_1000, 0)])]);
    let expected = [IoApic { address: 0xfec0_0000, gsi_base: 24 }, IoApic { address: 0xfec0_1000, gsi_base: 0 }];
    assert_eq!(acpi.madt.io_apics.as_slice(), expected);
}

#[test]
fn entries_of_unknown_types_are_passed_over() {
    let acpi = discovered(&[madt(&[entry(0x7f, &[1; 9]), local_apic(0, 0, 1)])]);
    assert_eq!(acpi.madt.processors.len(), 1);
}

#[test]
fn mcfg_names_the_buses_of_each_segment() {
    let acpi = discovered(&[mcfg(&[(0xb000_0000, 0, 0, 255), (0x40_0000_0000, 1, 16, 31)])]);
    assert_eq!(
        acpi.mcfg.segments.as_slice(),
        [
            Segment { address: 0xb000_0000, group: 0, first_bus: 0, last_bus: 255 },
            Segment { address: 0x40_0000_0000, group: 1, first_bus: 16, last_bus: 31 },
        ]
    );
}

#[test]
fn the_power_management_timer_is_at_the_port_that_the_fadt_names() {
    let (port, length) = (0x608u32.to_le_bytes(), [4]);
    let of_acpi_1: [(usize, &[u8]); 2] = [(76, &port), (91, &length)];
    let with = |size, offset, field: &[u8]| discovered(&[fadt(size, &[&of_acpi_1[..], &[(offset, field)]].concat())]);
    assert_eq!(discovered(&[fadt(116, &of_acpi_1)]).pm_timer, Some(0x608), "the field of ACPI 1.0");
    assert_eq!(with(276, 208, &port_register(32, 0x808)).pm_timer, Some(0x808), "the extended field rules");
    assert_eq!(with(276, 208, &port_register(32, 0x12_0808)).pm_timer, Some(0x608), "the extended field is no port");
    assert_eq!(with(276, 208, &memory_register(32, 0xfed0_0000)).pm_timer, None, "it lies in memory");
    assert_eq!(with(276, 91, &[0]).pm_timer, None, "it is not supported");
    assert_eq!(with(276, 76, &[0; 4]).pm_timer, None, "it is nowhere");
    assert_eq!(with(276, 112, &(1u32 << 20).to_le_bytes()).pm_timer, None, "a hardware-reduced platform has none");
}

#[test]
fn the_hpet_is_found_by_its_address() {
    assert_eq!(discovered(&[hpet(0xfed0_0000)]).hpet, Some(0xfed0_0000));
}

#[test]
fn a_platform_of_acpi_1_is_read_through_its_rsdt() {
    let (acpi, result, problems) = Image::new(0, &[madt(&[local_apic(0, 0, 1)])]).discover();
    assert_eq!((result, problems), (Ok(()), vec![]));
    assert_eq!(acpi.madt.processors.len(), 1);
    assert_eq!(&acpi.oem, b"DRAGON");
}

#[test]
fn an_unused_pointer_in_the_root_table_is_passed_over() {
    let mut image = Image::new(2, &[hpet(0xfed0_0000), madt(&[local_apic(0, 0, 1)])]);
    let mut xsdt = table(b"XSDT", 1, &bytes(&[&0u64.to_le_bytes(), &image.addresses[1].to_le_bytes()]));
    fix_checksum(&mut xsdt);
    image.write(image.xsdt_address(), &xsdt);
    let (acpi, result, problems) = image.discover();
    assert_eq!((result, problems), (Ok(()), vec![]));
    assert_eq!((acpi.hpet, acpi.madt.processors.len()), (None, 1));
}

#[test]
fn discovering_again_forgets_what_was_there_before() {
    let full = Image::new(2, &[madt(&[local_apic(0, 0, 1)]), hpet(0xfed0_0000), mcfg(&[(0xb000_0000, 0, 0, 255)])]);
    let (mut acpi, ..) = full.discover();
    let empty = Image::new(2, &[]);
    acpi.discover(&empty, RSDP, &mut |_| ()).unwrap();
    assert!(acpi.madt.processors.is_empty() && acpi.mcfg.segments.is_empty() && acpi.hpet.is_none());
}
