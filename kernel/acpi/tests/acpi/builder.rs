//! Makes valid tables and puts them into a simulated physical memory.

use std::cell::Cell;

use dragonfly_acpi::{Acpi, AcpiError, Problem, TableMemory};

/// Where the simulated memory starts.
pub const BASE: u64 = 0x000e_0000;
/// Where [`Image::new`] puts the RSDP.
pub const RSDP: u64 = BASE;

/// A table: header, `body`, right length and checksum.
pub fn table(signature: &[u8; 4], revision: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from(signature);
    bytes.extend((36 + body.len() as u32).to_le_bytes());
    bytes.extend([revision, 0]);
    bytes.extend(b"DRAGONFLY TABLE\x01\0\0\0");
    bytes.resize(36, 0);
    bytes.extend(body);
    fix_checksum(&mut bytes);
    bytes
}

/// Makes the bytes of a table add up to zero.
pub fn fix_checksum(table: &mut [u8]) {
    table[9] = 0;
    table[9] = sum(table).wrapping_neg();
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
}

/// An entry with an 8-bit type and an 8-bit length before `content`.
pub fn entry(kind: u8, content: &[u8]) -> Vec<u8> {
    [&[kind, content.len() as u8 + 2], content].concat()
}

/// Joins byte strings, so that tables read like the specification's columns.
pub fn bytes(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

pub fn madt(entries: &[Vec<u8>]) -> Vec<u8> {
    let fixed = bytes(&[&0xfee0_0000u32.to_le_bytes(), &1u32.to_le_bytes()]);
    table(b"APIC", 5, &[fixed, entries.concat()].concat())
}

pub fn local_apic(uid: u8, apic_id: u8, flags: u32) -> Vec<u8> {
    entry(0, &bytes(&[&[uid, apic_id], &flags.to_le_bytes()]))
}

pub fn local_x2apic(uid: u32, apic_id: u32, flags: u32) -> Vec<u8> {
    entry(9, &bytes(&[&[0, 0], &apic_id.to_le_bytes(), &flags.to_le_bytes(), &uid.to_le_bytes()]))
}

pub fn io_apic(id: u8, address: u32, gsi_base: u32) -> Vec<u8> {
    entry(1, &bytes(&[&[id, 0], &address.to_le_bytes(), &gsi_base.to_le_bytes()]))
}

pub fn interrupt_override(isa_interrupt: u8, gsi: u32, flags: u16) -> Vec<u8> {
    entry(2, &bytes(&[&[0, isa_interrupt], &gsi.to_le_bytes(), &flags.to_le_bytes()]))
}

pub fn nmi_source(gsi: u32, flags: u16) -> Vec<u8> {
    entry(3, &bytes(&[&flags.to_le_bytes(), &gsi.to_le_bytes()]))
}

pub fn local_apic_nmi(uid: u8, lint: u8, flags: u16) -> Vec<u8> {
    entry(4, &bytes(&[&[uid], &flags.to_le_bytes(), &[lint]]))
}

pub fn local_x2apic_nmi(uid: u32, lint: u8, flags: u16) -> Vec<u8> {
    entry(10, &bytes(&[&flags.to_le_bytes(), &uid.to_le_bytes(), &[lint, 0, 0, 0]]))
}

pub fn local_apic_address(address: u64) -> Vec<u8> {
    entry(5, &bytes(&[&[0, 0], &address.to_le_bytes()]))
}

/// Ranges of buses: address, group, first and last bus.
pub fn mcfg(segments: &[(u64, u16, u8, u8)]) -> Vec<u8> {
    let entries = segments.iter().flat_map(|(address, group, first_bus, last_bus)| {
        bytes(&[&address.to_le_bytes(), &group.to_le_bytes(), &[*first_bus, *last_bus], &[0; 4]])
    });
    table(b"MCFG", 1, &[0; 8].into_iter().chain(entries).collect::<Vec<_>>())
}

pub fn hpet(address: u64) -> Vec<u8> {
    table(b"HPET", 1, &bytes(&[&0x8086_a201u32.to_le_bytes(), &memory_register(64, address), &[0, 0x80, 0x00, 0]]))
}

/// A generic address in memory.
pub fn memory_register(bit_width: u8, address: u64) -> Vec<u8> {
    bytes(&[&[0, bit_width, 0, 0], &address.to_le_bytes()])
}

/// A generic address of an I/O port.
pub fn port_register(bit_width: u8, port: u64) -> Vec<u8> {
    bytes(&[&[1, bit_width, 0, 0], &port.to_le_bytes()])
}

pub fn srat(revision: u8, entries: &[Vec<u8>]) -> Vec<u8> {
    let fixed = bytes(&[&1u32.to_le_bytes(), &[0; 8]]);
    table(b"SRAT", revision, &[fixed, entries.concat()].concat())
}

pub fn processor_affinity(apic_id: u8, domain: u32, flags: u32) -> Vec<u8> {
    let domain = domain.to_le_bytes();
    entry(0, &bytes(&[&domain[..1], &[apic_id], &flags.to_le_bytes(), &[0], &domain[1..], &[0; 4]]))
}

pub fn x2apic_affinity(apic_id: u32, domain: u32, flags: u32) -> Vec<u8> {
    entry(2, &bytes(&[&[0; 2], &domain.to_le_bytes(), &apic_id.to_le_bytes(), &flags.to_le_bytes(), &[0; 8]]))
}

pub fn memory_affinity(base: u64, size: u64, domain: u32, flags: u32) -> Vec<u8> {
    let range = bytes(&[&base.to_le_bytes(), &size.to_le_bytes(), &[0; 4]]);
    entry(1, &bytes(&[&domain.to_le_bytes(), &[0; 2], &range, &flags.to_le_bytes(), &[0; 8]]))
}

pub fn slit(localities: u64, distances: &[u8]) -> Vec<u8> {
    table(b"SLIT", 1, &bytes(&[&localities.to_le_bytes(), distances]))
}

pub fn dmar(width: u8, flags: u8, structures: &[Vec<u8>]) -> Vec<u8> {
    table(b"DMAR", 1, &[vec![width, flags], vec![0; 10], structures.concat()].concat())
}

pub fn drhd(flags: u8, segment: u16, address: u64, scopes: &[Vec<u8>]) -> Vec<u8> {
    let scopes = scopes.concat();
    let length = 16 + scopes.len() as u16;
    let fixed = [0u16.to_le_bytes(), length.to_le_bytes(), [flags, 0], segment.to_le_bytes()].concat();
    bytes(&[&fixed, &address.to_le_bytes(), &scopes])
}

/// A device scope of one path element: an I/O APIC (type 3).
pub fn device_scope(io_apic_id: u8, bus: u8, device: u8, function: u8) -> Vec<u8> {
    entry(3, &[0, 0, io_apic_id, bus, device, function])
}

pub fn ivrs(info: u32, blocks: &[Vec<u8>]) -> Vec<u8> {
    table(b"IVRS", 2, &bytes(&[&info.to_le_bytes(), &[0; 8], &blocks.concat()]))
}

pub fn ivhd(kind: u8, device_id: u16, address: u64, segment: u16) -> Vec<u8> {
    let features = if kind == 0x10 { vec![0; 4] } else { vec![0; 20] };
    let device_entries = [2u8, 0, 0, 0];
    let length = (20 + features.len() + device_entries.len()) as u16;
    let start = [[kind, 0x80], length.to_le_bytes(), device_id.to_le_bytes(), 0x40u16.to_le_bytes()].concat();
    let rest = [segment.to_le_bytes(), [0; 2]].concat();
    bytes(&[&start, &address.to_le_bytes(), &rest, &features, &device_entries])
}

pub fn spcr(base: &[u8]) -> Vec<u8> {
    table(b"SPCR", 2, &bytes(&[&[0, 0, 0, 0], base, &[0; 28]]))
}

/// A FADT whose fields are set by the specification's offsets, from the start of the table. [`Image::new`] sets the
/// address of the DSDT.
pub fn fadt(size: usize, fields: &[(usize, &[u8])]) -> Vec<u8> {
    let mut bytes = table(b"FACP", 6, &vec![0; size - 36]);
    for (offset, value) in fields {
        bytes[*offset..offset + value.len()].copy_from_slice(value);
    }
    fix_checksum(&mut bytes);
    bytes
}

/// A DSDT with some definition before and after `aml`.
pub fn dsdt(aml: &[u8]) -> Vec<u8> {
    // Name (ONE_, One)
    let other = [0x08, b'O', b'N', b'E', b'_', 0x01];
    table(b"DSDT", 2, &bytes(&[&other, aml, &other]))
}

/// `Name (_S5_, Package () {…})` with `elements` in their AML encoding.
pub fn name_s5(element_count: u8, elements: &[u8]) -> Vec<u8> {
    bytes(&[&[0x08], b"_S5_", &[0x12, elements.len() as u8 + 2, element_count], elements])
}

/// Physical memory from [`BASE`] on that counts how much of it is read.
pub struct Image {
    pub bytes: Vec<u8>,
    /// Where each table given to [`Image::new`] lies.
    pub addresses: Vec<u64>,
    /// How many bytes of memory discovery has asked for, over all its reads.
    pub mapped_bytes: Cell<usize>,
}

impl Image {
    /// RSDP, XSDT and RSDT for `tables`. A DSDT is not listed in them: the FADT points to it.
    pub fn new(revision: u8, tables: &[Vec<u8>]) -> Self {
        let place = |address: u64, size: usize| (address + size as u64).next_multiple_of(16);
        let listed = tables.iter().filter(|table| !table.starts_with(b"DSDT")).count();
        let xsdt_address = place(BASE, 36);
        let rsdt_address = place(xsdt_address, 36 + 8 * listed);
        let mut next = place(rsdt_address, 36 + 4 * listed);
        let mut addresses = Vec::new();
        for table in tables {
            addresses.push(next);
            next = place(next, table.len());
        }

        let mut tables = tables.to_vec();
        if let Some(dsdt) = tables.iter().position(|table| table.starts_with(b"DSDT")) {
            for fadt in tables.iter_mut().filter(|table| table.starts_with(b"FACP")) {
                fadt[40..44].copy_from_slice(&(addresses[dsdt] as u32).to_le_bytes());
                fix_checksum(fadt);
            }
        }
        let pointers: Vec<u64> = addresses
            .iter()
            .zip(&tables)
            .filter(|(_, table)| !table.starts_with(b"DSDT"))
            .map(|(address, _)| *address)
            .collect();
        let xsdt: Vec<u8> = pointers.iter().flat_map(|address| address.to_le_bytes()).collect();
        let rsdt: Vec<u8> = pointers.iter().flat_map(|address| (*address as u32).to_le_bytes()).collect();

        let mut image =
            Self { bytes: vec![0; (next - BASE) as usize], addresses: addresses.clone(), mapped_bytes: Cell::new(0) };
        image.write(RSDP, &rsdp(revision, rsdt_address, xsdt_address));
        image.write(xsdt_address, &table(b"XSDT", 1, &xsdt));
        image.write(rsdt_address, &table(b"RSDT", 1, &rsdt));
        for (address, table) in addresses.iter().zip(&tables) {
            image.write(*address, table);
        }
        image
    }

    pub fn write(&mut self, address: u64, value: &[u8]) {
        let offset = (address - BASE) as usize;
        self.bytes[offset..offset + value.len()].copy_from_slice(value);
    }

    pub fn xsdt_address(&self) -> u64 {
        self.u64(RSDP + 24)
    }

    pub fn rsdt_address(&self) -> u64 {
        self.u64(RSDP + 16) & 0xffff_ffff
    }

    fn u64(&self, address: u64) -> u64 {
        let offset = (address - BASE) as usize;
        u64::from_le_bytes(self.bytes[offset..offset + 8].try_into().unwrap())
    }

    /// Discovers everything, and gives what was reported on the way.
    pub fn discover(&self) -> (Box<Acpi>, Result<(), AcpiError>, Vec<Problem>) {
        let mut acpi = Box::new(Acpi::absent());
        let mut problems = Vec::new();
        let result = acpi.discover(self, RSDP, &mut |problem| problems.push(problem));
        (acpi, result, problems)
    }
}

impl TableMemory for Image {
    fn map(&self, address: u64, length: usize) -> Option<&[u8]> {
        let start = usize::try_from(address.checked_sub(BASE)?).ok()?;
        let bytes = self.bytes.get(start..start.checked_add(length)?)?;
        self.mapped_bytes.set(self.mapped_bytes.get() + length);
        Some(bytes)
    }
}

/// An RSDP with both checksums right.
pub fn rsdp(revision: u8, rsdt_address: u64, xsdt_address: u64) -> Vec<u8> {
    let mut rsdp = b"RSD PTR \0DRAGON".to_vec();
    rsdp.push(revision);
    rsdp.extend((rsdt_address as u32).to_le_bytes());
    rsdp[8] = sum(&rsdp).wrapping_neg();
    if revision >= 2 {
        rsdp.extend(36u32.to_le_bytes());
        rsdp.extend(xsdt_address.to_le_bytes());
        rsdp.extend([0; 4]);
        rsdp[32] = sum(&rsdp).wrapping_neg();
    } else {
        // Garbage that a reader of the old structure must not look at.
        rsdp.extend([0xff; 16]);
    }
    rsdp
}
