//! The page walk of each paging mode.

use dragonfly_emulate::{Access, Cpu, Fault, GuestPhys, Stop, translate};
use dragonfly_hw::x86::exception::Exception;

use crate::support::*;

const LINEAR: u64 = 0x20_1000;
const PAGE: u64 = 0x4_5000;

const PG: u64 = 1 << 31;
const WP: u64 = 1 << 16;
const PSE: u64 = 1 << 4;
const PAE: u64 = 1 << 5;
const LA57: u64 = 1 << 12;
const SMEP: u64 = 1 << 20;
const SMAP: u64 = 1 << 21;
const NXE: u64 = 1 << 11;
const AC: u64 = 1 << 18;

fn page_fault(linear: u64, error_code: u32) -> Stop {
    Stop::Fault(Fault { exception: Exception::PageFault, error_code: Some(error_code), cr2: Some(linear) })
}

/// PAE paging with one page.
fn pae(flags: u64) -> (Cpu, Bus) {
    let mut bus = Bus::new();
    bus.map(3, LINEAR, PAGE, flags);
    (Cpu { cr0: PG | WP | 1, cr3: ROOT, cr4: PAE, efer: NXE, ..protected_mode() }, bus)
}

/// 32-bit paging with one page.
fn legacy(flags: u64) -> (Cpu, Bus) {
    let mut bus = Bus::new();
    bus.put(ROOT, &(0x1_1000 | (P | RW | US) as u32).to_le_bytes());
    bus.put(0x1_1000 + 4 * (LINEAR >> 12), &((PAGE | flags) as u32).to_le_bytes());
    (Cpu { cr0: PG | WP | 1, cr3: ROOT, cr4: 0, ..protected_mode() }, bus)
}

/// 4-level or 5-level paging with one page.
fn long(levels: u32, flags: u64) -> (Cpu, Bus) {
    let mut bus = Bus::new();
    bus.map(levels, LINEAR, PAGE, flags);
    let mut cpu = long_mode();
    if levels == 5 {
        cpu.cr4 |= LA57;
    }
    (cpu, bus)
}

fn every_mode(flags: u64) -> [(Cpu, Bus); 4] {
    [legacy(flags), pae(flags), long(4, flags), long(5, flags)]
}

#[test]
fn without_paging_addresses_are_physical() {
    let (cpu, mut bus) = (protected_mode(), Bus::new());
    assert_eq!(translate(&cpu, &mut bus, 0xffff_fff0, Access::Write), Ok(GuestPhys(0xffff_fff0)));
}

#[test]
fn every_mode_finds_its_page() {
    for (cpu, mut bus) in every_mode(P | RW | US) {
        assert_eq!(translate(&cpu, &mut bus, LINEAR + 0x123, Access::Write), Ok(GuestPhys(PAGE + 0x123)));
    }
}

#[test]
fn a_page_that_is_not_present_faults_in_every_mode() {
    for (mut cpu, mut bus) in every_mode(RW | US) {
        assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Read), Err(page_fault(LINEAR, 0)));
        assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Write), Err(page_fault(LINEAR, 2)));
        cpu.cpl = 3;
        assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Write), Err(page_fault(LINEAR, 6)));
        // Elsewhere it is a table that is missing.
        assert_eq!(translate(&cpu, &mut bus, LINEAR + (1 << 29), Access::Read), Err(page_fault(LINEAR + (1 << 29), 4)));
    }
}

#[test]
fn entries_are_marked_accessed_and_the_last_one_dirty_by_writes_only() {
    for (cpu, mut bus) in every_mode(P | RW | US) {
        let untouched = bus.ram.clone();
        let marks = |bus: &Bus| {
            let changed = (0..RAM).filter(|at| bus.ram[*at] != untouched[*at]);
            changed.map(|at| bus.ram[at] ^ untouched[at]).collect::<Vec<_>>()
        };
        // The root of PAE paging has no such bit.
        let levels = marks_expected(&cpu);
        translate(&cpu, &mut bus, LINEAR, Access::Read).unwrap();
        assert_eq!(marks(&bus), vec![A as u8; levels]);
        translate(&cpu, &mut bus, LINEAR, Access::Write).unwrap();
        let mut expected = vec![A as u8; levels];
        expected[levels - 1] |= D as u8;
        assert_eq!(marks(&bus), expected);
    }
}

fn marks_expected(cpu: &Cpu) -> usize {
    match (cpu.is_long(), cpu.cr4 & LA57 != 0) {
        (false, _) => 2,
        (true, false) => 4,
        (true, true) => 5,
    }
}

trait IsLong {
    fn is_long(&self) -> bool;
}

impl IsLong for Cpu {
    fn is_long(&self) -> bool {
        self.efer & 1 << 10 != 0
    }
}

#[test]
fn a_refused_access_marks_nothing() {
    for (cpu, mut bus) in every_mode(P) {
        let untouched = bus.ram.clone();
        assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Write), Err(page_fault(LINEAR, 3)));
        assert!(bus.ram == untouched);
    }
}

#[test]
fn an_entry_that_changes_while_it_is_marked_is_walked_again() {
    for (cpu, mut bus) in every_mode(P | RW) {
        bus.lost_races = 1;
        assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Read), Err(Stop::Retry));
        assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Read), Ok(GuestPhys(PAGE)));
    }
}

/// Rights of the page, CPL, CR0.WP, CR4's and RFLAGS's bits, access, and the error code of the fault if there is one.
type RightsCase = (u64, u8, bool, u64, u64, Access, Option<u32>);

#[test]
fn rights_are_as_the_manual_s_table_has_them() {
    use Access::{Execute, Read, Write};
    let cases: [RightsCase; 19] = [
        (P, 0, true, 0, 0, Read, None),
        (P, 0, true, 0, 0, Write, Some(3)),
        (P, 0, false, 0, 0, Write, None),
        (P, 3, true, 0, 0, Read, Some(5)),
        (P | RW, 3, true, 0, 0, Write, Some(7)),
        (P | US, 3, true, 0, 0, Read, None),
        (P | US, 3, false, 0, 0, Write, Some(7)),
        (P | US | RW, 3, true, 0, 0, Write, None),
        (P | US | RW, 1, true, 0, 0, Write, None),
        (P | US | RW, 0, true, SMAP, 0, Write, Some(3)),
        (P | US | RW, 0, true, SMAP, 0, Read, Some(1)),
        (P | US | RW, 0, true, SMAP, AC, Write, None),
        (P | US | RW, 3, true, SMAP, 0, Write, None),
        (P | US, 0, true, SMAP, 0, Execute, None),
        (P | US, 0, true, SMEP, 0, Execute, Some(0x11)),
        (P | US, 3, true, SMEP, 0, Execute, None),
        (P, 3, true, SMEP, 0, Execute, Some(0x15)),
        (P | XD, 0, true, 0, 0, Execute, Some(0x11)),
        (P | XD, 0, true, 0, 0, Read, None),
    ];
    for (flags, cpl, wp, cr4, rflags, access, error) in cases {
        for (mut cpu, mut bus) in [long(4, flags), long(5, flags)] {
            cpu.cpl = cpl;
            cpu.cr0 = if wp { cpu.cr0 | WP } else { cpu.cr0 & !WP };
            (cpu.cr4, cpu.rflags) = (cpu.cr4 | cr4, rflags | 2);
            let expected = error.map_or(Ok(GuestPhys(PAGE)), |error| Err(page_fault(LINEAR, error)));
            assert_eq!(translate(&cpu, &mut bus, LINEAR, access), expected, "{flags:x} {cpl} {wp} {cr4:x} {access:?}");
        }
    }
}

#[test]
fn every_level_has_its_say_in_the_rights() {
    for right in [RW, US] {
        let (mut cpu, mut bus) = long(4, P | RW | US);
        let entry = ROOT;
        bus.put_word(entry, bus.word(entry) & !right);
        cpu.cpl = 3;
        assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Write), Err(page_fault(LINEAR, 7)));
    }
    let (cpu, mut bus) = long(4, P | RW | US);
    bus.put_word(ROOT, bus.word(ROOT) | XD);
    assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Execute), Err(page_fault(LINEAR, 0x11)));
}

#[test]
fn fetches_are_told_apart_only_where_the_mode_can() {
    for (mut cpu, mut bus) in [legacy(0), pae(0)] {
        cpu.efer = 0;
        assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Execute), Err(page_fault(LINEAR, 0)));
    }
    let (cpu, mut bus) = pae(0);
    assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Execute), Err(page_fault(LINEAR, 0x10)));
}

#[test]
fn reserved_bits_fault() {
    let beyond_width = 1 << 40;
    for ((mut cpu, mut bus), reserved) in [
        (long(4, P | XD), true),
        (long(4, P | beyond_width), true),
        (long(4, P | 1 << 52), false),
        (pae(P | XD), true),
        (pae(P | beyond_width), true),
        (pae(P | 1 << 52), true),
    ] {
        cpu.efer &= !NXE;
        let outcome = translate(&cpu, &mut bus, LINEAR, Access::Read);
        assert_eq!(outcome, if reserved { Err(page_fault(LINEAR, 9)) } else { Ok(GuestPhys(PAGE)) });
    }
    // PS in the root.
    for levels in [4, 5] {
        let (cpu, mut bus) = long(levels, P);
        bus.put_word(ROOT, bus.word(ROOT) | PS);
        assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Read), Err(page_fault(LINEAR, 9)));
    }
}

#[test]
fn the_root_of_pae_paging_was_checked_when_it_was_loaded() {
    for reserved in [RW, 1 << 5, PS] {
        let (cpu, mut bus) = pae(P);
        bus.put_word(ROOT, bus.word(ROOT) | reserved);
        assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Read), Ok(GuestPhys(PAGE)));
    }
}

#[test]
fn large_pages_are_found_with_their_offsets() {
    for levels in [4, 5] {
        let (cpu, mut bus) = long(levels, P);
        // The table above the lowest, found through the entries of the walk.
        let mut table = ROOT;
        for _ in 2..levels {
            table = bus.word(table) & !0xfff;
        }
        bus.put_word(table + 8, 0x1234_0000_0000 & 0xff_ffff_ffff | 0x60_0000 | P | PS);
        let physical = 0x34_0000_0000 + 0x60_0000 + 0x1234;
        assert_eq!(translate(&cpu, &mut bus, 0x20_1234, Access::Read), Ok(GuestPhys(physical)));
        bus.put_word(table + 8, 0x60_0000 | P | PS | 1 << 13);
        assert_eq!(translate(&cpu, &mut bus, 0x20_1234, Access::Read), Err(page_fault(0x20_1234, 9)));
    }
    let (cpu, mut bus) = long(4, P);
    let pointers = bus.word(ROOT) & !0xfff;
    bus.put_word(pointers, 0x40_0000_0000 | P | PS);
    assert_eq!(translate(&cpu, &mut bus, 0x2123_4567, Access::Read), Ok(GuestPhys(0x40_2123_4567)));
    bus.put_word(pointers, 0x40_0000_0000 | P | PS | 1 << 29);
    assert_eq!(translate(&cpu, &mut bus, 0x2123_4567, Access::Read), Err(page_fault(0x2123_4567, 9)));
}

#[test]
fn pages_of_4_mib_take_address_bits_39_to_32_from_bits_20_to_13() {
    let (mut cpu, mut bus) = legacy(P);
    cpu.cr4 = PSE;
    bus.put(ROOT, &(0x0080_0000_u32 | 0x12 << 13 | (P | PS) as u32).to_le_bytes());
    assert_eq!(translate(&cpu, &mut bus, 0x23_4567, Access::Read), Ok(GuestPhys(0x12_00a3_4567)));
    cpu.physical_address_bits = 36;
    assert_eq!(translate(&cpu, &mut bus, 0x23_4567, Access::Read), Err(page_fault(0x23_4567, 9)));
    // Without PSE the bit means nothing, and the entry names a table.
    cpu.cr4 = 0;
    bus.put(ROOT, &(0x1_1000 | (P | PS) as u32).to_le_bytes());
    assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Read), Ok(GuestPhys(PAGE)));
}

#[test]
fn a_table_where_nothing_is_is_missed() {
    let (mut cpu, mut bus) = long(4, P);
    cpu.cr3 = 0x9000_0000;
    assert_eq!(translate(&cpu, &mut bus, LINEAR, Access::Read), Err(Stop::Miss(GuestPhys(0x9000_0000))));
}
