//! Repeated string instructions.

use dragonfly_emulate::{Cause, Fault, Outcome, emulate};
use dragonfly_hw::x86::exception::Exception;

use crate::run;
use crate::support::*;

const RAX: usize = 0;
const RCX: usize = 1;
const RSI: usize = 6;
const RDI: usize = 7;

#[test]
fn a_fill_writes_the_device_once_per_element() {
    let (mut cpu, mut bus) = long_world(b"\xf3\xab");
    (cpu.general[RAX], cpu.general[RCX], cpu.general[RDI]) = (7, 3, DEVICE_LINEAR);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    let write = |at| Event::Write(DEVICE + at, vec![7, 0, 0, 0]);
    assert_eq!(bus.events, [write(0), write(4), write(8)]);
    assert_eq!((cpu.general[RCX], cpu.general[RDI], cpu.rip), (0, DEVICE_LINEAR + 12, CODE + 2));
}

#[test]
fn a_bounded_call_stops_between_iterations_and_goes_on_later() {
    let (mut cpu, mut bus) = long_world(b"\xf3\xa4");
    bus.put(DATA_PHYSICAL, b"abcde");
    (cpu.general[RCX], cpu.general[RSI], cpu.general[RDI]) = (5, DATA_LINEAR, DEVICE_LINEAR);
    assert_eq!(emulate(&mut cpu, &mut bus, Cause::Memory, 2), Ok(Outcome::Partial));
    assert_eq!((cpu.general[RCX], cpu.general[RSI], cpu.rip), (3, DATA_LINEAR + 2, CODE));
    assert_eq!(emulate(&mut cpu, &mut bus, Cause::Memory, 3), Ok(Outcome::Done));
    assert_eq!((cpu.general[RCX], cpu.rip), (0, CODE + 2));
    assert_eq!(bus.device[..5], *b"abcde");
}

#[test]
fn a_counter_of_0_does_nothing() {
    let (mut cpu, mut bus) = long_world(b"\xf3\xa4");
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!((cpu.rip, bus.events.len()), (CODE + 2, 0));
}

#[test]
fn a_fault_keeps_the_iterations_before_it() {
    let (mut cpu, mut bus) = long_world(b"\xf3\xaa");
    (cpu.general[RCX], cpu.general[RDI]) = (10, DATA_LINEAR + 0x1ffd);
    let linear = DATA_LINEAR + 0x2000;
    let fault = Fault { exception: Exception::PageFault, error_code: Some(2), cr2: Some(linear) };
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Fault(fault)));
    assert_eq!((cpu.general[RCX], cpu.general[RDI], cpu.rip), (7, linear, CODE));
}

#[test]
fn a_comparison_stops_where_its_prefix_says() {
    for (code, text, left) in [(b"\xf3\xae", b"aab", 2), (b"\xf2\xae", b"bba", 2)] {
        let (mut cpu, mut bus) = long_world(code);
        bus.device[..3].copy_from_slice(text);
        (cpu.general[RAX], cpu.general[RCX], cpu.general[RDI]) = (b'a'.into(), 5, DEVICE_LINEAR);
        assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
        assert_eq!((cpu.general[RCX], cpu.general[RDI]), (left, DEVICE_LINEAR + 3));
    }
}

#[test]
fn the_direction_flag_goes_down() {
    let (mut cpu, mut bus) = long_world(b"\xf3\x66\xab");
    (cpu.general[RCX], cpu.general[RDI], cpu.rflags) = (2, DEVICE_LINEAR + 2, 0x402);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.events, [Event::Write(DEVICE + 2, vec![0, 0]), Event::Write(DEVICE, vec![0, 0])]);
    assert_eq!(cpu.general[RDI], DEVICE_LINEAR - 2);
}

#[test]
fn a_32_bit_address_size_uses_and_keeps_the_lower_halves_only() {
    let (mut cpu, mut bus) = long_world(b"\x67\xf3\xaa");
    (cpu.general[RCX], cpu.general[RDI]) = (0xffff_ffff_0000_0002, 0xffff_ffff_0000_0000 | DATA_LINEAR);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!((cpu.general[RCX], cpu.general[RDI]), (0, DATA_LINEAR + 2));
}

#[test]
fn single_stepping_does_one_iteration_at_a_time() {
    let (mut cpu, mut bus) = long_world(b"\xf3\xaa");
    (cpu.general[RCX], cpu.general[RDI], cpu.rflags) = (2, DEVICE_LINEAR, 0x102);
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Partial));
    assert_eq!((cpu.general[RCX], cpu.rip), (1, CODE));
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
}

#[test]
fn the_source_may_lie_in_another_segment_but_the_target_is_always_in_es() {
    let (mut cpu, mut bus) = long_world(b"\x64\xa4");
    bus.device[..1].copy_from_slice(b"x");
    cpu.segments[4].base = DEVICE_LINEAR;
    cpu.general[RDI] = DATA_LINEAR;
    assert_eq!(run(&mut cpu, &mut bus), Ok(Outcome::Done));
    assert_eq!(bus.word(DATA_PHYSICAL), b'x'.into());
}
