//! Exceptions, and that nothing happens beside them.

use dragonfly_emulate::{Cpu, Fault, Outcome};
use dragonfly_hw::x86::exception::Exception;

use crate::run;
use crate::support::*;

const RDI: usize = 7;
const RSP: usize = 4;

fn page_fault(linear: u64, error_code: u32) -> Outcome {
    Outcome::Fault(Fault { exception: Exception::PageFault, error_code: Some(error_code), cr2: Some(linear) })
}

fn with_zero(exception: Exception) -> Outcome {
    Outcome::Fault(Fault { exception, error_code: Some(0), cr2: None })
}

/// Runs, and checks that registers and devices are as before.
fn assert_faults(mut cpu: Cpu, bus: &mut Bus, expected: Outcome) {
    let before = cpu.clone();
    let data = bus.ram[DATA_PHYSICAL as usize..][..0x2000].to_vec();
    assert_eq!(run(&mut cpu, bus), Ok(expected), "{:x?}", &bus.ram[CODE as usize..][..8]);
    assert_eq!(cpu, before);
    assert_eq!(bus.events, []);
    assert_eq!(bus.ram[DATA_PHYSICAL as usize..][..0x2000], data);
}

#[test]
fn a_page_fault_comes_before_any_part_of_the_access() {
    let beyond = DATA_LINEAR + 0x2000;
    for (code, error) in [(&b"\x48\x89\x07"[..], 2), (b"\x48\x8b\x07", 0), (b"\x48\x01\x07", 2), (b"\x48\x87\x07", 2)] {
        let (mut cpu, mut bus) = long_world(code);
        cpu.general[RDI] = beyond - 3;
        assert_faults(cpu, &mut bus, page_fault(beyond, error));
    }
}

#[test]
fn the_device_is_not_read_if_the_stack_cannot_be_written() {
    let (mut cpu, mut bus) = long_world(b"\xff\x37");
    (cpu.general[RDI], cpu.general[RSP]) = (DEVICE_LINEAR, DATA_LINEAR);
    assert_faults(cpu, &mut bus, page_fault(DATA_LINEAR - 8, 2));
}

#[test]
fn the_device_is_not_read_if_a_string_cannot_be_stored() {
    let (mut cpu, mut bus) = long_world(b"\xa5");
    (cpu.general[6], cpu.general[RDI]) = (DEVICE_LINEAR, DATA_LINEAR + 0x2000);
    assert_faults(cpu, &mut bus, page_fault(DATA_LINEAR + 0x2000, 2));
}

#[test]
fn pop_leaves_the_stack_pointer_if_its_target_cannot_be_written() {
    let (mut cpu, mut bus) = long_world(b"\x8f\x07");
    (cpu.general[RDI], cpu.general[RSP]) = (DATA_LINEAR + 0x2000, DATA_LINEAR);
    assert_faults(cpu, &mut bus, page_fault(DATA_LINEAR + 0x2000, 2));
}

#[test]
fn what_is_read_and_written_needs_the_right_to_write_even_if_nothing_would_change() {
    for code in [&b"\x83\x0f\x00"[..], b"\x0f\xb1\x0f", b"\xd1\x27"] {
        let (mut cpu, mut bus) = long_world(code);
        bus.map(4, DATA_LINEAR, DATA_PHYSICAL, P);
        cpu.general[RDI] = DATA_LINEAR;
        assert_faults(cpu, &mut bus, page_fault(DATA_LINEAR, 3));
    }
}

#[test]
fn addresses_that_are_not_canonical_are_protection_or_stack_faults() {
    let cases: [(&[u8], u64, Exception); 4] = [
        (b"\x89\x07", 1 << 47, Exception::GeneralProtection),
        (b"\x89\x07", (1 << 47) - 2, Exception::GeneralProtection),
        (b"\x89\x07", 0xffff_7fff_ffff_ffff, Exception::GeneralProtection),
        (b"\x89\x04\x24", 1 << 47, Exception::StackSegmentFault),
    ];
    for (code, address, exception) in cases {
        let (mut cpu, mut bus) = long_world(code);
        bus.map(4, (1 << 47) - 0x1000, DATA_PHYSICAL, P | RW);
        (cpu.general[RDI], cpu.general[RSP]) = (address, address);
        assert_faults(cpu, &mut bus, with_zero(exception));
    }
}

#[test]
fn segments_that_do_not_allow_the_access_are_protection_or_stack_faults() {
    const DS: usize = 3;
    const SS: usize = 2;
    // Segment, attributes, limit, code, offset.
    let cases: [(usize, u32, u32, &[u8], u64); 8] = [
        (DS, 0xc091, u32::MAX, b"\x89\x07", 0x100),
        (DS, 0xc099, u32::MAX, b"\x8b\x07", 0x100),
        (DS, 0xc09b, u32::MAX, b"\x89\x07", 0x100),
        (DS, 0xc093, 0x102, b"\x89\x07", 0x100),
        (DS, 0xc097, 0x100, b"\x89\x07", 0x100),
        (DS, 0x8097, 0x100, b"\x89\x07", 0xfffd),
        (DS, 0x1_0000, u32::MAX, b"\x89\x07", 0x100),
        (SS, 0xc093, 0x102, b"\x89\x45\x00", 0x100),
    ];
    for (segment, attributes, limit, code, offset) in cases {
        let (mut cpu, mut bus) = (protected_mode(), Bus::new());
        bus.put(CODE, code);
        (cpu.segments[segment].attributes, cpu.segments[segment].limit) = (attributes, limit);
        (cpu.general[RDI], cpu.general[5]) = (offset, offset);
        let exception = if segment == SS { Exception::StackSegmentFault } else { Exception::GeneralProtection };
        assert_faults(cpu, &mut bus, with_zero(exception));
    }
}

#[test]
fn segments_allow_what_lies_within_them() {
    const DS: usize = 3;
    let cases: [(u32, u32, &[u8], u64); 4] = [
        (0xc09b, u32::MAX, b"\x8b\x07", 0x100),
        (0xc093, 0x103, b"\x89\x07", 0x100),
        (0xc097, 0x100, b"\x89\x07", 0x101),
        (0x8097, 0x100, b"\x89\x07", 0xfffc),
    ];
    for (attributes, limit, code, offset) in cases {
        let (mut cpu, mut bus) = (protected_mode(), Bus::new());
        bus.put(CODE, code);
        (cpu.segments[DS].attributes, cpu.segments[DS].limit) = (attributes, limit);
        cpu.general[RDI] = offset;
        assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done), "{attributes:x}");
    }
}

#[test]
fn unaligned_data_of_a_program_that_asks_for_the_check_is_an_alignment_fault() {
    for (cpl, offset, faults) in [(3, 1, true), (3, 4, false), (0, 1, false)] {
        let (mut cpu, mut bus) = long_world(b"\x89\x07");
        for page in [CODE, DATA_LINEAR] {
            let entry = bus.entry(4, page);
            bus.put_word(entry, bus.word(entry) | US);
        }
        (cpu.cpl, cpu.general[RDI], cpu.rflags) = (cpl, DATA_LINEAR + offset, 1 << 18 | 2);
        cpu.cr0 |= 1 << 18;
        if faults {
            assert_faults(cpu, &mut bus, with_zero(Exception::AlignmentCheck));
        } else {
            assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
        }
    }
}

#[test]
fn cmpxchg16b_wants_aligned_memory() {
    let (mut cpu, mut bus) = long_world(b"\x48\x0f\xc7\x0f");
    cpu.general[RDI] = DATA_LINEAR + 8;
    assert_faults(cpu, &mut bus, with_zero(Exception::GeneralProtection));
}

#[test]
fn an_instruction_goes_on_in_the_next_page_and_faults_there_if_it_must() {
    let (mut cpu, mut bus) = long_world(&[]);
    bus.put(CODE + 0xffe, b"\xc7\x07\x01\x02\x03\x04");
    (cpu.rip, cpu.general[RDI]) = (CODE + 0xffe, DATA_LINEAR);
    assert_faults(cpu.clone(), &mut bus, page_fault(CODE + 0x1000, 0x10));
    bus.map(4, CODE + 0x1000, CODE + 0x1000, P);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!((cpu.rip, bus.word(DATA_PHYSICAL)), (CODE + 0x1004, 0x0403_0201));
}

#[test]
fn the_next_page_is_not_touched_by_an_instruction_that_ends_before_it() {
    let (mut cpu, mut bus) = long_world(&[]);
    bus.put(CODE + 0xffe, b"\x89\x07");
    (cpu.rip, cpu.general[RDI]) = (CODE + 0xffe, DATA_LINEAR);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
}

#[test]
fn an_instruction_of_more_than_15_bytes_is_a_protection_fault() {
    let (mut cpu, mut bus) = long_world(&[0x26; 16]);
    cpu.general[RDI] = DATA_LINEAR;
    assert_faults(cpu, &mut bus, with_zero(Exception::GeneralProtection));
}

#[test]
fn an_instruction_that_leaves_its_segment_is_a_protection_fault() {
    let (mut cpu, mut bus) = (protected_mode(), Bus::new());
    bus.put(CODE, b"\xc7\x07\x01\x02\x03\x04");
    cpu.segments[1].limit = CODE as u32 + 4;
    assert_faults(cpu.clone(), &mut bus, with_zero(Exception::GeneralProtection));
    cpu.segments[1].limit += 1;
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
}
