//! Port instructions, and that only the one that left the guest is executed.

use dragonfly_emulate::{Cause, Outcome, emulate};

use crate::run;
use crate::support::*;

const RAX: usize = 0;
const RCX: usize = 1;
const RDX: usize = 2;
const RSI: usize = 6;
const RDI: usize = 7;
const PORT: u16 = 0x402;

fn port(bytes: u8) -> Cause {
    Cause::Port { port: PORT, bytes }
}

#[test]
fn repeated_output_writes_each_element_to_the_port() {
    let (mut cpu, mut bus) = long_world(b"\xf3\x66\x6f");
    bus.put(DATA_PHYSICAL, b"abcd");
    (cpu.general[RCX], cpu.general[RDX], cpu.general[RSI]) = (2, PORT.into(), DATA_LINEAR);
    assert_eq!(emulate(&mut cpu, &mut bus, port(2), 10), Ok(Outcome::Done));
    assert_eq!(bus.events, [Event::Out(PORT, b"ab".to_vec()), Event::Out(PORT, b"cd".to_vec())]);
    assert_eq!((cpu.general[RCX], cpu.general[RSI]), (0, DATA_LINEAR + 4));
}

#[test]
fn repeated_input_stores_each_element() {
    let (mut cpu, mut bus) = long_world(b"\xf3\x6d");
    (cpu.general[RCX], cpu.general[RDX], cpu.general[RDI]) = (2, PORT.into(), DATA_LINEAR);
    assert_eq!(emulate(&mut cpu, &mut bus, port(4), 10), Ok(Outcome::Done));
    assert_eq!(bus.events, [Event::In(PORT, 4), Event::In(PORT, 4)]);
    assert_eq!(bus.word(DATA_PHYSICAL), 0xa5a4_a3a2_a5a4_a3a2);
}

#[test]
fn a_port_is_not_read_if_its_value_cannot_be_stored() {
    let (mut cpu, mut bus) = long_world(b"\x6c");
    (cpu.general[RDX], cpu.general[RDI]) = (PORT.into(), DATA_LINEAR + 0x2000);
    assert!(matches!(emulate(&mut cpu, &mut bus, port(1), 10), Ok(Outcome::Fault(_))));
    assert_eq!(bus.events, []);
}

#[test]
fn plain_input_changes_as_much_of_the_accumulator_as_it_reads() {
    for (code, bytes, expected) in [(&b"\xec"[..], 1, 0xffff_ffff_ffff_ffa2), (b"\xed", 4, 0xa5a4_a3a2)] {
        let (mut cpu, mut bus) = long_world(code);
        (cpu.general[RAX], cpu.general[RDX]) = (u64::MAX, PORT.into());
        assert_eq!(emulate(&mut cpu, &mut bus, port(bytes), 1), Ok(Outcome::Done));
        assert_eq!(cpu.general[RAX], expected);
    }
}

#[test]
fn plain_output_to_an_immediate_port_writes_the_accumulator() {
    let (mut cpu, mut bus) = long_world(b"\xe7\x80");
    cpu.general[RAX] = 0x0403_0201;
    assert_eq!(emulate(&mut cpu, &mut bus, Cause::Port { port: 0x80, bytes: 4 }, 1), Ok(Outcome::Done));
    assert_eq!(bus.events, [Event::Out(0x80, vec![1, 2, 3, 4])]);
}

#[test]
fn an_instruction_other_than_the_one_that_left_the_guest_is_not_executed() {
    let other_port = Cause::Port { port: 0x70, bytes: 1 };
    let cases: [(&[u8], Cause); 5] = [
        (b"\x6e", Cause::Memory),
        (b"\xee", Cause::Memory),
        (b"\x88\x07", port(1)),
        (b"\x6f", port(1)),
        (b"\xee", other_port),
    ];
    for (code, cause) in cases {
        let (mut cpu, mut bus) = long_world(code);
        (cpu.general[RDX], cpu.general[RSI], cpu.general[RDI]) = (PORT.into(), DATA_LINEAR, DEVICE_LINEAR);
        let before = cpu.clone();
        assert_eq!(emulate(&mut cpu, &mut bus, cause, 1), Ok(Outcome::Retry), "{code:x?}");
        assert_eq!((cpu, bus.events.len()), (before, 0));
    }
}

#[test]
fn a_comparison_of_a_device_with_memory_is_no_port_access() {
    let (mut cpu, mut bus) = long_world(b"\xa6");
    (cpu.general[RSI], cpu.general[RDI]) = (DEVICE_LINEAR, DATA_LINEAR);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!((bus.events, cpu.rflags), (vec![Event::Read(DEVICE, 1)], 0x46));
}
