//! Mutates valid tables, for `DRAGONFLY_FUZZ_SECONDS` (2 unless set), and checks that discovery always ends, within its
//! bounds on work and output, without a panic.

#[path = "acpi/builder.rs"]
mod builder;

use std::time::Instant;

use builder::*;
use dragonfly_acpi::{Acpi, MAX_TABLE_SIZE, MAX_TABLES};
use dragonfly_random::{Random, fuzz_end};

/// Tables that are read: two root tables, nine kinds, the DSDT. Each is mapped twice, header and whole.
const MAX_MAPPED_BYTES: usize = 12 * (MAX_TABLE_SIZE + 36) + MAX_TABLES * 36 + 4096 + 64;

/// One report for each pointer, one for each list, and the root tables and DSDT.
const MAX_REPORTS: usize = MAX_TABLES + 16;

#[test]
fn discovery_survives_whatever_firmware_writes() {
    let end = fuzz_end();
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let mut rounds = 0u64;
    while Instant::now() < end || rounds < 1000 {
        let mut image = seed(&mut random);
        mutate(&mut image, &mut random);
        let (acpi, result, problems) = image.discover();
        assert!(image.mapped_bytes.get() <= MAX_MAPPED_BYTES, "{} bytes read", image.mapped_bytes.get());
        assert!(problems.len() <= MAX_REPORTS, "{} reports", problems.len());
        for problem in &problems {
            assert!(problem.to_string().len() < 200);
        }
        check(&acpi);
        if result.is_err() {
            assert!(acpi.madt.processors.is_empty() && acpi.fadt.is_none() && acpi.sleep_s5.is_none());
        }
        rounds += 1;
    }
    println!("{rounds} images");
}

/// What every user of [`Acpi`] relies on, whatever the tables said.
fn check(acpi: &Acpi) {
    for (index, processor) in acpi.madt.processors.iter().enumerate() {
        assert!(acpi.madt.processors[..index].iter().all(|other| other.apic_id != processor.apic_id));
    }
    for segment in &acpi.mcfg.segments {
        assert!(segment.address != 0 && segment.first_bus <= segment.last_bus);
        segment.address.checked_add(256 << 20).expect("configuration space ends within the address space");
    }
    for range in &acpi.srat.memory {
        range.base.checked_add(range.size).expect("memory ends within the address space");
    }
    assert!(acpi.srat.domains.is_sorted());
    let localities = acpi.slit.localities() as u32;
    assert!(localities <= 64);
    for domain in 0..localities {
        assert_eq!(acpi.slit.distance(domain, domain), Some(10));
    }
    if let Some(sleep) = acpi.sleep_s5 {
        assert!(sleep.a <= 7 && sleep.b <= 7);
    }
    assert!(acpi.dmar.host_address_bits <= 64);
    assert!(acpi.dmar.units.iter().all(|unit| unit.address.is_multiple_of(4096)));
    assert!(acpi.ivrs.units.iter().all(|unit| unit.address.is_multiple_of(16384)));
    assert!(acpi.hpet.is_none_or(|hpet| hpet.address != 0));
}

/// A valid platform with every table, of random size.
fn seed(random: &mut Random) -> Image {
    let count = random.index(20) as u32;
    let madt = madt(
        &(0..count)
            .flat_map(|n| {
                let id = n as u8;
                [
                    local_apic(id, id, 1),
                    local_x2apic(n, n * 3, 1),
                    io_apic(id, 0xfec0_0000, n * 24),
                    interrupt_override(id, n, 0b1101),
                    nmi_source(n, 0),
                    local_apic_nmi(0xff, 1, 5),
                    local_x2apic_nmi(n, 1, 5),
                    local_apic_address(0xfee0_0000),
                ]
            })
            .collect::<Vec<_>>(),
    );
    let srat = srat(
        3,
        &(0..count)
            .flat_map(|n| {
                [
                    processor_affinity(n as u8, n, 1),
                    x2apic_affinity(n, n, 1),
                    memory_affinity(u64::from(n) << 30, 1 << 30, n, 1),
                ]
            })
            .collect::<Vec<_>>(),
    );
    let unit = drhd(1, 0, 0xfed9_0000, &[device_scope(0, 0, 0x1e, 0), device_scope(1, 0, 0x1f, 0)]);
    let registers = bytes(&[&port_register(8, 0xcf9), &[6]]);
    let mut tables = vec![
        madt,
        srat,
        fadt(276, &[(64, &[4, 6]), (91, &[4]), (116, &registers), (208, &port_register(32, 0x608))]),
        dsdt(&name_s5(4, &[0x0a, 5, 0x0a, 5, 0, 0])),
        mcfg(&[(0xb000_0000, 0, 0, 255), (0x40_0000_0000, 1, 0, 31)]),
        hpet(0xfed0_0000),
        slit(3, &[10, 20, 30, 20, 10, 20, 30, 20, 10]),
        dmar(38, 1, &[unit]),
        ivrs(0, &[ivhd(0x10, 2, 0xfeb8_0000, 0), ivhd(0x11, 2, 0xfeb8_0000, 0), ivhd(0x40, 2, 0xfeb8_0000, 0)]),
        spcr(&memory_register(8, 0xfe00_0000)),
    ];
    tables.extend((0..random.index(4)).map(|_| table(b"SSDT", 2, &[0; 8])));
    Image::new(if random.index(4) == 0 { 0 } else { 2 }, &tables)
}

/// Corrupts some bytes. Three times in four the checksums are then made right, so that the bytes are believed.
fn mutate(image: &mut Image, random: &mut Random) {
    let size = image.bytes.len();
    for _ in 0..=random.index(6) {
        // Either anywhere, or in a table, where most fields are.
        let (start, length) = match random.index(3) {
            0 => (0, size),
            _ => {
                let table = image.addresses[random.index(image.addresses.len())];
                ((table - BASE) as usize, 160)
            }
        };
        let position = (start + random.index(length)).min(size - 1);
        match random.index(4) {
            0 => image.bytes[position] ^= 1 << random.index(8),
            1 => image.bytes[position] = [0, 1, 0x7f, 0x80, 0xff][random.index(5)],
            2 => image.bytes[position] = random.number() as u8,
            _ => {
                let from = random.index(size);
                let length = random.index(32).min(size - from).min(size - position);
                image.bytes.copy_within(from..from + length, position);
            }
        }
    }
    if random.index(4) > 0 {
        let tables = [image.addresses.as_slice(), &[image.xsdt_address(), image.rsdt_address()]].concat();
        for address in tables {
            repair(image, address);
        }
    }
    if random.index(8) == 0 {
        let size = random.index(size);
        image.bytes.truncate(size);
    }
}

/// Makes the bytes of the table at `address` add up to zero, over the length that it now states.
fn repair(image: &mut Image, address: u64) {
    let Some(start) = address.checked_sub(BASE).and_then(|start| usize::try_from(start).ok()) else { return };
    let Some(bytes) = image.bytes.get_mut(start..) else { return };
    let Some(length) = bytes.get(4..).and_then(|rest| rest.first_chunk()).map(|length| u32::from_le_bytes(*length))
    else {
        return;
    };
    if let Some(table) = bytes.get_mut(..length as usize).filter(|table| table.len() > 9) {
        fix_checksum(table);
    }
}
