//! Executes random bytes in random states, for `DRAGONFLY_FUZZ_SECONDS` (2 if unset).
//!
//! Whatever a guest runs, the emulation neither panics nor works without bound, and what does not happen leaves no trace.

#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "emulate/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::Instant;

use dragonfly_emulate::{Cause, Cpu, EmulateError, Outcome, emulate, instruction_length};
use dragonfly_random::{Random, fuzz_end};
use support::*;

/// Addresses of memory and of what lies beside it, small counts, and any other values.
fn word(random: &mut Random) -> u64 {
    let places = [DATA_LINEAR, DATA_LINEAR + 0x1000, DEVICE_LINEAR, DEVICE, CODE, 0, 1 << 32, 1 << 47];
    match random.index(4) {
        0 => random.number() >> random.index(64),
        1 => random.index(64) as u64,
        _ => places[random.index(8)].wrapping_add(random.index(32) as u64).wrapping_sub(16),
    }
}

/// Mostly instructions that are emulated, as random bytes seldom are; the rest is random.
fn code(random: &mut Random) -> Vec<u8> {
    let mut code = Vec::new();
    for _ in 0..random.index(4) {
        code.push([0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x64, 0x48, 0x49, 0x4c][random.index(10)]);
    }
    match random.index(4) {
        0 => code.push(0x0f),
        1 => code.push([0xa4, 0xa6, 0xaa, 0xac, 0xae, 0x6c, 0x6e][random.index(7)] | random.index(2) as u8),
        _ => {}
    }
    while code.len() < 15 {
        code.push(random.number() as u8);
    }
    code
}

/// A vCPU in one of the modes that a guest may be in, or in a state of nonsense.
fn state(random: &mut Random) -> Cpu {
    let mut cpu = match random.index(4) {
        0 => real_mode(),
        1 => protected_mode(),
        _ => long_mode(),
    };
    cpu.general.iter_mut().for_each(|register| *register = word(random));
    cpu.rflags = random.number() & 0x3f_7fd7 & !(1 << 17) | 2;
    cpu.cpl = [0, 0, 3, 1][random.index(4)];
    if random.index(4) == 0 {
        let index = random.index(6);
        cpu.segments[index].attributes = random.number() as u32;
        cpu.segments[index].limit = random.number() as u32 >> random.index(32);
        cpu.segments[index].base = word(random);
    }
    if random.index(16) == 0 {
        (cpu.cr0, cpu.cr4, cpu.efer) = (random.number(), random.number(), random.number());
        (cpu.cr3, cpu.rip) = (word(random), word(random));
        (cpu.cpl, cpu.physical_address_bits) = (random.number() as u8, random.number() as u8);
    }
    cpu
}

fn cause(random: &mut Random, cpu: &Cpu) -> Cause {
    if random.index(4) > 0 {
        return Cause::Memory;
    }
    Cause::Port { port: cpu.general[2] as u16, bytes: [1, 2, 4][random.index(3)] }
}

#[test]
fn whatever_the_guest_runs_the_emulation_neither_panics_nor_leaves_traces_of_what_does_not_happen() {
    let end = fuzz_end();
    let mut random = Random::new(1);
    let (_, mut bus) = long_world(&[]);
    for page in [CODE, DATA_LINEAR] {
        let entry = bus.entry(4, page);
        bus.put_word(entry, bus.word(entry) | US);
    }
    let tables = bus.ram[ROOT as usize..DATA_PHYSICAL as usize].to_vec();
    let mut seen: BTreeMap<&str, u64> = BTreeMap::new();
    while Instant::now() < end {
        for _ in 0..100 {
            bus.put(ROOT, &tables);
            bus.put(CODE, &code(&mut random));
            bus.lost_races = usize::from(random.index(64) == 0);
            bus.events.clear();
            let before = state(&mut random);
            let (mut cpu, cause) = (before.clone(), cause(&mut random, &before));
            let limit = random.index(100) as u32;
            let outcome = emulate(&mut cpu, &mut bus, cause, limit);
            // Nothing accesses more than two operands of two pages per iteration.
            assert!(bus.events.len() <= 8 * limit.max(1) as usize);
            let name = match outcome {
                Ok(Outcome::Done) => "done",
                Ok(Outcome::Partial) => "partial",
                Ok(Outcome::Retry) => "retry",
                Ok(Outcome::Fault(_)) => "fault",
                Err(EmulateError::Miss(_)) => "miss",
                Err(EmulateError::Unsupported { .. }) => "unsupported",
            };
            *seen.entry(name).or_default() += 1;
            if outcome == Ok(Outcome::Done) {
                assert!((1..=15).contains(&(cpu.rip.wrapping_sub(before.rip) as u32)));
            } else {
                assert_eq!(cpu.rip, before.rip);
            }
            if outcome == Ok(Outcome::Retry) || matches!(outcome, Err(EmulateError::Unsupported { .. })) {
                // Code may be fetched from a device, and in a state of nonsense tables lie in one.
                let is_trace = |event: &Event| match event {
                    Event::Read(..) => false,
                    Event::Write(..) => before.cr3 == 0 || before.cr3 == ROOT,
                    Event::In(..) | Event::Out(..) => true,
                };
                assert_eq!((&cpu, bus.events.iter().find(|event| is_trace(event))), (&before, None), "{outcome:?}");
            }
            if let Err(error) = outcome {
                assert!(error.to_string().len() < 120);
            }
            let length = instruction_length(&before, &mut bus);
            assert!(length.is_err() || length.is_ok_and(|length| (1..=15).contains(&length)));
        }
    }
    assert_eq!(seen.len(), 6, "{seen:?}");
    assert!(seen.values().all(|count| *count > 10), "{seen:?}");
}
