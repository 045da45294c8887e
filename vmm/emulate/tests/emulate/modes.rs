//! 16-bit and 32-bit code: operand sizes, address sizes, segments, the stack.

use dragonfly_emulate::Outcome;

use crate::run;
use crate::support::*;

const RAX: usize = 0;
const RBX: usize = 3;
const RSP: usize = 4;
const RSI: usize = 6;
const RDI: usize = 7;
const DS: usize = 3;

#[test]
fn real_mode_adds_the_segment_s_base_and_wraps_offsets_at_64_kib() {
    let (mut cpu, mut bus) = (real_mode(), Bus::new());
    // MOV [BX+SI], AX
    bus.put(CODE, b"\x89\x00");
    cpu.segments[DS].base = 0x2_0000;
    (cpu.general[RAX], cpu.general[RBX], cpu.general[RSI]) = (0xdead_1234, 0xf000, 0x2000);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.word(0x2_1000), 0x1234);
    assert_eq!(cpu.rip, CODE + 2);
}

#[test]
fn real_mode_may_write_through_cs() {
    let (mut cpu, mut bus) = (real_mode(), Bus::new());
    bus.put(CODE, b"\x2e\xa2\x00\x90");
    cpu.segments[1].attributes = 0x9b;
    cpu.general[RAX] = 7;
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.word(0x9000), 7);
}

#[test]
fn prefixes_reach_a_device_from_real_mode_with_a_large_limit() {
    let (mut cpu, mut bus) = (real_mode(), Bus::new());
    // MOV [EDI], EAX
    bus.put(CODE, b"\x67\x66\x89\x07");
    cpu.segments[DS].limit = u32::MAX;
    (cpu.general[RAX], cpu.general[RDI]) = (0x1234_5678, DEVICE);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.events, [Event::Write(DEVICE, vec![0x78, 0x56, 0x34, 0x12])]);
}

#[test]
fn real_mode_strings_use_the_lower_halves_of_their_registers() {
    let (mut cpu, mut bus) = (real_mode(), Bus::new());
    bus.put(CODE, b"\xf3\xaa");
    (cpu.general[RAX], cpu.general[1], cpu.general[RDI]) = (7, 0x5_0001, 0x5_9000);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!((cpu.general[1], cpu.general[RDI]), (0x5_0000, 0x5_9001));
    assert_eq!(bus.word(0x9000), 7);
}

#[test]
fn protected_mode_adds_the_segment_s_base_and_wraps_at_4_gib() {
    let (mut cpu, mut bus) = (protected_mode(), Bus::new());
    bus.put(CODE, b"\x89\x07");
    cpu.segments[DS].base = 0x2_0000;
    (cpu.general[RAX], cpu.general[RDI]) = (7, 0xffff_0000);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.word(0x1_0000), 7);
}

#[test]
fn the_stack_pointer_is_as_wide_as_the_stack_segment_says() {
    for (attributes, top, moved) in [(0xc093, 0x5_9000, 0x5_8ffc), (0x8093, 0x5_9000, 0x5_8ffc)] {
        let (mut cpu, mut bus) = (protected_mode(), Bus::new());
        bus.put(CODE, b"\xff\x37");
        bus.put_word(0x4000, 0x1234_5678);
        cpu.segments[2].attributes = attributes;
        (cpu.general[RSP], cpu.general[RDI]) = (top, 0x4000);
        assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
        assert_eq!(cpu.general[RSP], moved);
        let linear = if attributes & 1 << 14 == 0 { moved & 0xffff } else { moved };
        assert_eq!(bus.word(linear), 0x1234_5678);
    }
}

#[test]
fn a_segment_register_is_stored_as_its_selector() {
    let (mut cpu, mut bus) = (protected_mode(), Bus::new());
    bus.put(CODE, b"\x8c\x1f");
    bus.put_word(0x4000, u64::MAX);
    cpu.segments[DS].selector = 0x23;
    cpu.general[RDI] = 0x4000;
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.word(0x4000), 0xffff_ffff_ffff_0023);
}

#[test]
fn compatibility_mode_is_32_bit_code_under_long_mode_s_tables() {
    let (mut cpu, mut bus) = long_world(b"\x40\x89\x07");
    // INC EAX, which is a prefix in 64-bit mode.
    cpu.segments[1].attributes = 0xc09b;
    (cpu.general[RAX], cpu.general[RDI]) = (6, 0xffff_ffff_0000_0000 | DATA_LINEAR);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!((cpu.rip, cpu.general[RAX]), (CODE + 1, 7));
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.word(DATA_PHYSICAL), 7);
}

#[test]
fn the_rip_relative_operand_counts_from_the_next_instruction() {
    let (mut cpu, mut bus) = long_world(&[]);
    let displacement = (DATA_LINEAR - (CODE + 10)) as u32;
    let code = [b"\xc7\x05", &displacement.to_le_bytes()[..], b"\x07\0\0\0"].concat();
    bus.put(CODE, &code);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.word(DATA_PHYSICAL), 7);
}

#[test]
fn only_fs_and_gs_have_bases_in_64_bit_mode() {
    for (code, base) in [(&b"\x65\x89\x07"[..], DATA_LINEAR), (b"\x3e\x89\x07", 0)] {
        let (mut cpu, mut bus) = long_world(code);
        cpu.segments[5].base = DATA_LINEAR;
        cpu.segments[DS].base = 0x1000;
        (cpu.general[RAX], cpu.general[RDI]) = (7, DATA_LINEAR - base);
        assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
        assert_eq!(bus.word(DATA_PHYSICAL), 7);
    }
}
