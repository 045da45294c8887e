//! What valid tables mean.

use dragonfly_acpi::{
    ALL_PROCESSORS, Acpi, CpuAffinity, GenericAddress, InterruptOverride, InterruptSource, IoApic, LocalApicNmi,
    MemoryAffinity, Polarity, Processor, ProcessorState, RemappingUnit, Segment, SleepType, Trigger, UNREACHABLE,
};

use crate::builder::*;

/// What a platform with exactly these tables looks like, if nothing is wrong with it.
fn discovered(tables: &[Vec<u8>]) -> Box<Acpi> {
    let (acpi, result, problems) = Image::new(2, tables).discover();
    assert_eq!((result, problems), (Ok(()), vec![]));
    acpi
}

#[test]
fn both_kinds_of_local_apic_name_processors_and_unusable_ones_are_left_out() {
    let acpi = discovered(&[madt(&[
        local_apic(1, 0, 1),
        local_apic(2, 2, 2),
        local_apic(3, 4, 0),
        local_apic(4, 0xff, 1),
        local_x2apic(1000, 0x0001_0000, 1),
    ])]);
    let (enabled, online_capable) = (ProcessorState::Enabled, ProcessorState::OnlineCapable);
    assert_eq!(
        acpi.madt.processors.as_slice(),
        [
            Processor { apic_id: 0, uid: 1, state: enabled },
            Processor { apic_id: 2, uid: 2, state: online_capable },
            Processor { apic_id: 0x0001_0000, uid: 1000, state: enabled },
        ]
    );
    assert!(acpi.madt.has_8259);
}

#[test]
fn a_processor_listed_as_xapic_and_as_x2apic_counts_once() {
    let acpi = discovered(&[madt(&[local_apic(1, 7, 1), local_x2apic(1, 7, 1)])]);
    assert_eq!(acpi.madt.processors.len(), 1);
}

#[test]
fn the_64_bit_override_rules_over_the_local_apic_address() {
    assert_eq!(discovered(&[madt(&[])]).madt.local_apic_address, 0xfee0_0000);
    assert_eq!(discovered(&[madt(&[local_apic_address(0x12_fee0_0000)])]).madt.local_apic_address, 0x12_fee0_0000);
}

#[test]
fn interrupt_wiring_is_read_with_polarity_and_trigger() {
    let acpi = discovered(&[madt(&[
        io_apic(3, 0xfec0_0000, 24),
        interrupt_override(0, 2, 0b0000),
        interrupt_override(9, 9, 0b1101),
        interrupt_override(10, 10, 0b0111),
        nmi_source(5, 0b1111),
        local_apic_nmi(0xff, 1, 0b0101),
        local_x2apic_nmi(300, 0, 0),
        local_x2apic_nmi(u32::MAX, 1, 0),
    ])]);
    let madt = &acpi.madt;
    assert_eq!(madt.io_apics.as_slice(), [IoApic { id: 3, address: 0xfec0_0000, gsi_base: 24 }]);
    assert_eq!(
        madt.overrides.as_slice(),
        [
            InterruptOverride { isa_interrupt: 0, gsi: 2, polarity: Polarity::Bus, trigger: Trigger::Bus },
            InterruptOverride { isa_interrupt: 9, gsi: 9, polarity: Polarity::ActiveHigh, trigger: Trigger::Level },
            InterruptOverride { isa_interrupt: 10, gsi: 10, polarity: Polarity::ActiveLow, trigger: Trigger::Edge },
        ]
    );
    let source = InterruptSource { gsi: 5, polarity: Polarity::ActiveLow, trigger: Trigger::Level };
    assert_eq!(madt.nmi_sources.as_slice(), [source]);
    let (polarity, trigger) = (Polarity::Bus, Trigger::Bus);
    assert_eq!(
        madt.local_nmis.as_slice(),
        [
            LocalApicNmi { uid: ALL_PROCESSORS, lint: 1, polarity: Polarity::ActiveHigh, trigger: Trigger::Edge },
            LocalApicNmi { uid: 300, lint: 0, polarity, trigger },
            LocalApicNmi { uid: ALL_PROCESSORS, lint: 1, polarity, trigger },
        ]
    );
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
fn fadt_of_acpi_1_gives_ports() {
    let fields: [(usize, &[u8]); 7] = [
        (48, &0xb2u32.to_le_bytes()),
        (52, &[0xf1]),
        (64, &0x604u32.to_le_bytes()),
        (76, &0x608u32.to_le_bytes()),
        (91, &[4]),
        (108, &[0x32]),
        (112, &(1u32 << 8).to_le_bytes()),
    ];
    let fadt = discovered(&[fadt(116, &fields)]).fadt.unwrap();
    assert_eq!(fadt.smi_command, Some(0xb2));
    assert_eq!(fadt.acpi_enable, 0xf1);
    assert_eq!(fadt.pm1a_control.and_then(GenericAddress::port), Some(0x604));
    assert_eq!(fadt.pm1b_control, None);
    let timer = fadt.pm_timer.unwrap();
    assert_eq!((timer.register.port(), timer.is_32_bit), (Some(0x608), true));
    assert_eq!(fadt.reset, None);
    assert_eq!(fadt.century, 0x32);
    assert!(fadt.has_cmos_rtc);
    assert!(!fadt.hardware_reduced);
}

#[test]
fn extended_fields_rule_over_those_of_acpi_1_where_they_are_usable() {
    let fields: [(usize, &[u8]); 8] = [
        (64, &0x604u32.to_le_bytes()),
        (68, &0x704u32.to_le_bytes()),
        (76, &0x608u32.to_le_bytes()),
        (91, &[4]),
        (112, &(1u32 << 10).to_le_bytes()),
        (116, &bytes(&[&port_register(8, 0xcf9), &[0x0e]])),
        (172, &port_register(16, 0x804)),
        (184, &port_register(16, 0x12_0804)),
    ];
    let fadt = discovered(&[fadt(276, &fields)]).fadt.unwrap();
    assert_eq!(fadt.pm1a_control.and_then(GenericAddress::port), Some(0x804), "extended");
    assert_eq!(fadt.pm1b_control.and_then(GenericAddress::port), Some(0x704), "the extended one is no port");
    assert_eq!(fadt.pm_timer.map(|timer| timer.is_32_bit), Some(false));
    let reset = fadt.reset.unwrap();
    assert_eq!((reset.register.port(), reset.value), (Some(0xcf9), 0x0e));
}

#[test]
fn a_hardware_reduced_platform_has_a_sleep_control_register_and_no_pm1_blocks() {
    let fields: [(usize, &[u8]); 5] = [
        (64, &0x604u32.to_le_bytes()),
        (76, &0x608u32.to_le_bytes()),
        (91, &[4]),
        (112, &(1u32 << 20).to_le_bytes()),
        (244, &memory_register(8, 0xfed0_0000)),
    ];
    let fadt = discovered(&[fadt(276, &fields)]).fadt.unwrap();
    assert!(fadt.hardware_reduced);
    assert_eq!((fadt.pm1a_control, fadt.pm_timer), (None, None));
    assert_eq!(fadt.sleep_control.and_then(GenericAddress::memory), Some(0xfed0_0000));
}

#[test]
fn power_off_values_come_from_the_dsdt_that_the_fadt_names() {
    let acpi = discovered(&[fadt(116, &[]), dsdt(&name_s5(4, &[0x0a, 5, 0x01, 0x00, 0x00]))]);
    assert_eq!(acpi.sleep_s5, Some(SleepType { a: 5, b: 1 }));
}

#[test]
fn hpet_and_serial_console_are_read() {
    let acpi = discovered(&[hpet(0xfed0_0000), spcr(&port_register(8, 0x2f8))]);
    let hpet = acpi.hpet.unwrap();
    assert_eq!((hpet.address, hpet.number, hpet.minimum_tick), (0xfed0_0000, 0, 0x80));
    assert_eq!(acpi.serial_console.and_then(|console| console.base.port()), Some(0x2f8));
}

#[test]
fn a_console_that_is_switched_off_is_none() {
    assert_eq!(discovered(&[spcr(&port_register(8, 0))]).serial_console, None);
}

#[test]
fn srat_numbers_nodes_by_ascending_proximity_domain() {
    let acpi = discovered(&[srat(
        3,
        &[
            processor_affinity(0, 0x0100_0007, 1),
            x2apic_affinity(0x1_0000, 2, 1),
            x2apic_affinity(0x1_0001, 3, 0),
            memory_affinity(0, 0xa_0000, 2, 1),
            memory_affinity(1 << 32, 1 << 30, 0x0100_0007, 0b111),
            memory_affinity(1 << 40, 0, 9, 1),
        ],
    )]);
    let srat = &acpi.srat;
    assert_eq!(srat.domains.as_slice(), [2, 0x0100_0007]);
    assert_eq!((srat.node(2), srat.node(0x0100_0007), srat.node(3)), (Some(0), Some(1), None));
    assert_eq!(
        srat.processors.as_slice(),
        [CpuAffinity { apic_id: 0, domain: 0x0100_0007 }, CpuAffinity { apic_id: 0x1_0000, domain: 2 }]
    );
    assert_eq!(
        srat.memory.as_slice(),
        [
            MemoryAffinity { base: 0, size: 0xa_0000, domain: 2, hot_pluggable: false, non_volatile: false },
            MemoryAffinity {
                base: 1 << 32,
                size: 1 << 30,
                domain: 0x0100_0007,
                hot_pluggable: true,
                non_volatile: true
            },
        ]
    );
}

#[test]
fn srat_of_acpi_2_has_8_bit_domains() {
    let acpi = discovered(&[srat(1, &[processor_affinity(0, 0xabcd_ef05, 1), memory_affinity(0, 1, 0xffff_ff05, 1)])]);
    assert_eq!(acpi.srat.domains.as_slice(), [5]);
}

#[test]
fn slit_gives_distances_by_proximity_domain() {
    let slit = &discovered(&[slit(2, &[10, 21, UNREACHABLE, 10])]).slit;
    assert_eq!(slit.localities(), 2);
    assert_eq!((slit.distance(0, 1), slit.distance(1, 0), slit.distance(1, 1)), (Some(21), Some(255), Some(10)));
    assert_eq!((slit.distance(0, 2), slit.distance(2, 0)), (None, None));
}

#[test]
fn dmar_names_remapping_units() {
    let scopes = [device_scope(2, 0, 0x1e, 0), device_scope(3, 0, 0x1f, 0)];
    let unknown = [&5u16.to_le_bytes()[..], &6u16.to_le_bytes(), &[0; 2]].concat();
    let acpi =
        discovered(&[dmar(45, 0b001, &[drhd(0, 1, 0xfed9_0000, &scopes), unknown, drhd(1, 0, 0xfed9_1000, &[])])]);
    assert_eq!(acpi.dmar.host_address_bits, 46);
    assert!(acpi.dmar.interrupt_remapping);
    assert!(!acpi.dmar.x2apic_opt_out);
    assert_eq!(
        acpi.dmar.units.as_slice(),
        [
            RemappingUnit { address: 0xfed9_0000, segment: 1, include_pci_all: false, device_scopes: 2 },
            RemappingUnit { address: 0xfed9_1000, segment: 0, include_pci_all: true, device_scopes: 0 },
        ]
    );
}

#[test]
fn ivrs_names_each_iommu_once_by_its_richest_block() {
    let acpi = discovered(&[ivrs(
        0x0040_3040,
        &[
            ivhd(0x10, 2, 0xfeb8_0000, 0),
            ivhd(0x40, 2, 0xfeb8_0000, 0),
            ivhd(0x11, 2, 0xfeb8_0000, 0),
            ivhd(0x11, 2, 0xfec8_0000, 1),
        ],
    )]);
    assert_eq!(acpi.ivrs.info, 0x0040_3040);
    let units: Vec<_> =
        acpi.ivrs.units.iter().map(|unit| (unit.kind, unit.device_id, unit.address, unit.segment)).collect();
    assert_eq!(units, [(0x40, 2, 0xfeb8_0000, 0), (0x11, 2, 0xfec8_0000, 1)]);
}

#[test]
fn a_platform_of_acpi_1_is_read_through_its_rsdt() {
    let (acpi, result, problems) = Image::new(0, &[madt(&[local_apic(0, 0, 1)])]).discover();
    assert_eq!((result, problems), (Ok(()), vec![]));
    assert_eq!((acpi.revision, acpi.madt.processors.len()), (0, 1));
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
    assert_eq!(acpi.madt.local_apic_address, 0);
}
