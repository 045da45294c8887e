//! Accesses to devices: their number, order, width and value.

use dragonfly_emulate::{EmulateError, GuestPhys, Outcome, instruction_length};

use crate::run;
use crate::support::*;

const RAX: usize = 0;
const RDI: usize = 7;

#[test]
fn each_move_is_one_access_of_its_width() {
    let cases: [(&[u8], Event); 9] = [
        (b"\x88\x07", Event::Write(DEVICE, vec![0x88])),
        (b"\x66\x89\x07", Event::Write(DEVICE, vec![0x88, 0x77])),
        (b"\x89\x07", Event::Write(DEVICE, vec![0x88, 0x77, 0x66, 0x55])),
        (b"\x48\x89\x07", Event::Write(DEVICE, vec![0x88, 0x77, 0x66, 0x55, 0x44, 0x33, 0x22, 0x11])),
        (b"\x88\x67\x03", Event::Write(DEVICE + 3, vec![0x77])),
        (b"\xc7\x47\x10\x01\x02\x03\x04", Event::Write(DEVICE + 0x10, vec![1, 2, 3, 4])),
        (b"\x48\xc7\x07\xff\xff\xff\xff", Event::Write(DEVICE, vec![0xff; 8])),
        (b"\x8a\x07", Event::Read(DEVICE, 1)),
        (b"\x48\x8b\x07", Event::Read(DEVICE, 8)),
    ];
    for (code, event) in cases {
        let (mut cpu, mut bus) = long_world(code);
        (cpu.general[RAX], cpu.general[RDI]) = (0x1122_3344_5566_7788, DEVICE_LINEAR);
        assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
        assert_eq!(bus.events, [event], "{code:x?}");
        assert_eq!(cpu.rip, CODE + code.len() as u64);
    }
}

#[test]
fn loads_change_as_much_of_the_register_as_the_manual_says() {
    let cases: [(&[u8], u64); 8] = [
        (b"\x8a\x07", 0x1122_3344_5566_7780),
        (b"\x8a\x27", 0x1122_3344_5566_8088),
        (b"\x66\x8b\x07", 0x1122_3344_5566_8180),
        (b"\x8b\x07", 0x8382_8180),
        (b"\x0f\xb6\x07", 0x80),
        (b"\x0f\xbe\x07", 0xffff_ff80),
        (b"\x48\x0f\xbf\x07", 0xffff_ffff_ffff_8180),
        (b"\x48\x63\x07", 0xffff_ffff_8382_8180),
    ];
    for (code, expected) in cases {
        let (mut cpu, mut bus) = long_world(code);
        bus.device[..8].copy_from_slice(&0x8786_8584_8382_8180_u64.to_le_bytes());
        (cpu.general[RAX], cpu.general[RDI]) = (0x1122_3344_5566_7788, DEVICE_LINEAR);
        assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
        assert_eq!(cpu.general[RAX], expected, "{code:x?}");
    }
}

#[test]
fn a_move_with_an_absolute_address_reaches_the_device() {
    let (mut cpu, mut bus) = long_world(b"\xa3\x08\0\0\0\0\x80\xff\xff");
    cpu.general[RAX] = 5;
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.events, [Event::Write(DEVICE + 8, vec![5, 0, 0, 0])]);
}

#[test]
fn arithmetic_reads_once_and_writes_once_with_lock_or_without() {
    for code in [&b"\x83\x0f\x04"[..], b"\xf0\x83\x0f\x04"] {
        let (mut cpu, mut bus) = long_world(code);
        bus.device[0] = 1;
        cpu.general[RDI] = DEVICE_LINEAR;
        assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
        assert_eq!(bus.events, [Event::Read(DEVICE, 4), Event::Write(DEVICE, vec![5, 0, 0, 0])]);
    }
}

#[test]
fn comparisons_only_read() {
    let (mut cpu, mut bus) = long_world(b"\xf6\x07\x01");
    cpu.general[RDI] = DEVICE_LINEAR;
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.events, [Event::Read(DEVICE, 1)]);
    assert_eq!(cpu.rflags, 0x46);
}

#[test]
fn an_access_across_a_page_is_two_accesses() {
    let (mut cpu, mut bus) = long_world(b"\x89\x07");
    (cpu.general[RAX], cpu.general[RDI]) = (0x0403_0201, DEVICE_LINEAR + 0xffd);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.events, [Event::Write(DEVICE + 0xffd, vec![1, 2, 3]), Event::Write(DEVICE + 0x1000, vec![4])]);
}

#[test]
fn push_and_pop_move_between_stack_and_device() {
    let (mut cpu, mut bus) = long_world(b"\xff\x37");
    bus.device[..8].copy_from_slice(&0x1234_5678_9abc_def0_u64.to_le_bytes());
    (cpu.general[4], cpu.general[RDI]) = (DATA_LINEAR + 0x100, DEVICE_LINEAR);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(cpu.general[4], DATA_LINEAR + 0xf8);
    assert_eq!(bus.word(DATA_PHYSICAL + 0xf8), 0x1234_5678_9abc_def0);

    bus.put(CODE, b"\x8f\x47\x08");
    cpu.rip = CODE;
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(cpu.general[4], DATA_LINEAR + 0x100);
    assert_eq!(bus.device[8..16], bus.device[..8]);
}

#[test]
fn pop_addresses_its_target_by_the_new_stack_pointer() {
    let (mut cpu, mut bus) = long_world(b"\x8f\x04\x24");
    bus.put_word(DATA_PHYSICAL + 0x100, 77);
    cpu.general[4] = DATA_LINEAR + 0x100;
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.word(DATA_PHYSICAL + 0x108), 77);
}

#[test]
fn a_lost_race_for_a_locked_operand_leaves_everything_for_another_try() {
    let (mut cpu, mut bus) = long_world(b"\xf0\x48\x01\x07");
    (cpu.general[RAX], cpu.general[RDI]) = (5, DATA_LINEAR);
    // The translation marks its entries.
    assert_eq!(run(&mut cpu.clone(), &mut bus), Ok(Outcome::Done));
    let before = cpu.clone();
    bus.lost_races = 1;
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Retry));
    assert_eq!((&cpu, bus.word(DATA_PHYSICAL)), (&before, 5));
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.word(DATA_PHYSICAL), 10);
}

#[test]
fn an_address_where_nothing_is_ends_the_emulation() {
    let (mut cpu, mut bus) = long_world(b"\x89\x07");
    bus.map(4, DATA_LINEAR, 0x8_0000_0000, P | RW);
    cpu.general[RDI] = DATA_LINEAR;
    assert_eq!(run(&mut cpu, &mut bus), Err(EmulateError::Miss(GuestPhys(0x8_0000_0000))));
}

#[test]
fn instructions_without_emulation_are_reported_with_their_bytes() {
    let cases: [&[u8]; 7] = [
        b"\x0f\x28\x07",     // MOVAPS
        b"\xc5\xf8\x28\x07", // VMOVAPS
        b"\xf2\x0f\x10\x07", // MOVSD of SSE
        b"\x8e\x07",         // MOV to ES
        b"\xff\x17",         // CALL
        b"\xd9\x07",         // FLD
        b"\x0f\x22\xc0",     // MOV to CR0
    ];
    for code in cases {
        let (mut cpu, mut bus) = long_world(code);
        cpu.general[RDI] = DEVICE_LINEAR;
        let before = cpu.clone();
        let Err(EmulateError::Unsupported { bytes, length }) = run(&mut cpu, &mut bus) else { panic!("{code:x?}") };
        assert_eq!((&bytes[..code.len()], length), (code, 15));
        assert_eq!((cpu, bus.events.len()), (before, 0));
    }
}

#[test]
fn the_text_of_an_error_shows_bytes_and_address() {
    let mut bytes = [0; 15];
    bytes[..2].copy_from_slice(b"\xd9\x07");
    let error = EmulateError::Unsupported { bytes, length: 3 };
    assert_eq!(error.to_string(), "an instruction that cannot be emulated: d9 07 00");
    let error = EmulateError::Miss(GuestPhys(0x1000));
    assert_eq!(error.to_string(), "an access to guest-physical 0x1000, where there is nothing");
}

#[test]
fn the_resume_flag_is_cleared_by_what_is_done() {
    let (mut cpu, mut bus) = long_world(b"\x89\x07");
    (cpu.general[RDI], cpu.rflags) = (DEVICE_LINEAR, 0x1_0002);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(cpu.rflags, 2);
}

#[test]
fn the_length_of_any_instruction_can_be_asked_for() {
    for (code, length) in [(&b"\x0f\xa2"[..], 2), (b"\xf4", 1), (b"\x0f\x01\xd9", 3), (b"\x66\x0f\x38\x82\x07", 5)] {
        let (cpu, mut bus) = long_world(code);
        assert_eq!(instruction_length(&cpu, &mut bus), Ok(length));
    }
}
