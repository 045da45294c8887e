//! Executes random bytes in random states, for `DRAGONFLY_FUZZ_SECONDS` (2 if unset).
//!
//! Whatever a guest runs, the emulation neither panics nor works without bound, and what does not happen leaves no trace.

#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "emulate/support.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use dragonfly_emulate::{Cause, Cpu, EmulateError, Outcome, emulate, instruction_length};
use support::*;

/// Marsaglia's xorshift64: the same inputs in every run, as far as the time allows.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    /// Addresses of memory and of what lies beside it, small counts, and any other values.
    fn word(&mut self) -> u64 {
        let places = [DATA_LINEAR, DATA_LINEAR + 0x1000, DEVICE_LINEAR, DEVICE, CODE, 0, 1 << 32, 1 << 47];
        match self.below(4) {
            0 => self.next() >> self.below(64),
            1 => self.below(64) as u64,
            _ => places[self.below(8)].wrapping_add(self.below(32) as u64).wrapping_sub(16),
        }
    }

    /// Mostly instructions that are emulated, as random bytes seldom are; the rest is random.
    fn code(&mut self) -> Vec<u8> {
        let mut code = Vec::new();
        for _ in 0..self.below(4) {
            code.push([0x66, 0x67, 0xf0, 0xf2, 0xf3, 0x2e, 0x64, 0x48, 0x49, 0x4c][self.below(10)]);
        }
        match self.below(4) {
            0 => code.push(0x0f),
            1 => code.push([0xa4, 0xa6, 0xaa, 0xac, 0xae, 0x6c, 0x6e][self.below(7)] | self.below(2) as u8),
            _ => {}
        }
        while code.len() < 15 {
            code.push(self.next() as u8);
        }
        code
    }
}

/// A vCPU in one of the modes that a guest may be in, or in a state of nonsense.
fn state(random: &mut Random) -> Cpu {
    let mut cpu = match random.below(4) {
        0 => real_mode(),
        1 => protected_mode(),
        _ => long_mode(),
    };
    cpu.general.iter_mut().for_each(|register| *register = random.word());
    cpu.rflags = random.next() & 0x3f_7fd7 & !(1 << 17) | 2;
    cpu.cpl = [0, 0, 3, 1][random.below(4)];
    if random.below(4) == 0 {
        let index = random.below(6);
        cpu.segments[index].attributes = random.next() as u32;
        cpu.segments[index].limit = random.next() as u32 >> random.below(32);
        cpu.segments[index].base = random.word();
    }
    if random.below(16) == 0 {
        (cpu.cr0, cpu.cr4, cpu.efer) = (random.next(), random.next(), random.next());
        (cpu.cr3, cpu.rip) = (random.word(), random.word());
        (cpu.cpl, cpu.physical_address_bits) = (random.next() as u8, random.next() as u8);
    }
    cpu
}

fn cause(random: &mut Random, cpu: &Cpu) -> Cause {
    if random.below(4) > 0 {
        return Cause::Memory;
    }
    Cause::Port { port: cpu.general[2] as u16, bytes: [1, 2, 4][random.below(3)] }
}

#[test]
fn whatever_the_guest_runs_the_emulation_neither_panics_nor_leaves_traces_of_what_does_not_happen() {
    let seconds = std::env::var("DRAGONFLY_FUZZ_SECONDS").map_or(2, |text| text.parse().expect("whole seconds"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
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
            bus.put(CODE, &random.code());
            bus.lost_races = usize::from(random.below(64) == 0);
            bus.events.clear();
            let before = state(&mut random);
            let (mut cpu, cause) = (before.clone(), cause(&mut random, &before));
            let limit = random.below(100) as u32;
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
