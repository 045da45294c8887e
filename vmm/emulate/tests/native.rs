//! Executes every supported instruction on the host's processor and by emulation, with the same random operands, and
//! compares registers, flags and memory.
#![cfg(all(target_arch = "x86_64", target_os = "linux"))]
#![expect(unsafe_code, reason = "only machine code can ask the processor what it does")]

#[path = "native/forms.rs"]
mod forms;
#[path = "native/processor.rs"]
mod processor;

#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "emulate/support.rs"]
mod support;

use dragonfly_emulate::{Cause, Cpu, Outcome, emulate};
use dragonfly_random::Random;
use forms::{Form, forms};
use processor::{PAGE, Processor, Registers};
use support::*;

/// Values at which carries and signs change, and any others.
fn word(random: &mut Random) -> u64 {
    let edges = [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0x8000, 0x7fff_ffff, 0x8000_0000, u64::MAX >> 1, 1 << 63, u64::MAX];
    match random.below(3) {
        0 => edges[random.index(12)],
        1 => edges[random.index(12)].wrapping_add(random.below(5)).wrapping_sub(2),
        _ => random.number() >> random.below(64),
    }
}

const TRIES: usize = 60;

#[test]
fn the_emulation_agrees_with_the_hosts_processor() {
    let mut random = Random::new(1);
    let forms = forms();
    let mut processor = Processor::new(&forms);
    // Page tables and code stay; each comparison changes one page of data.
    let (cpu, mut bus) = long_world(&[]);
    let data = processor.data_address();
    bus.map(4, data, DATA_PHYSICAL, P | RW);
    for (index, form) in forms.iter().enumerate() {
        bus.put(CODE, &form.code);
        for _ in 0..TRIES {
            let before = registers(&mut random, form, data);
            let memory = page(&mut random, &before, data);
            let native = processor.run(index, before, &memory);
            bus.put(DATA_PHYSICAL, &memory);
            let mut emulated = Cpu { rip: CODE, ..cpu.clone() };
            before.give_to(&mut emulated);
            let outcome = emulate(&mut emulated, &mut bus, Cause::Memory, 1000);
            assert_eq!(outcome, Ok(Outcome::Done), "{form:x?}");
            assert_eq!(emulated.rip, CODE + form.code.len() as u64, "{form:x?}");

            let defined = form.defined_flags(before.rcx);
            let mut expected = emulated.clone();
            native.registers.give_to(&mut expected);
            expected.rflags = (expected.rflags & defined) | (emulated.rflags & !defined);
            let about = || format!("{form:x?}\nbefore  {before:x?}\nnative  {:x?}", native.registers);
            if form.has_defined_result(before.rcx) {
                assert_eq!(emulated.general, expected.general, "{}", about());
                assert_eq!(emulated.rflags, expected.rflags, "{}", about());
                let start = DATA_PHYSICAL as usize;
                let differing = (0..PAGE).find(|at| bus.ram[start + at] != native.memory[*at]);
                assert_eq!(differing, None, "{}", about());
            }
        }
    }
}

/// Random registers, with those that address memory pointing at the middle of the page.
fn registers(random: &mut Random, form: &Form, data: u64) -> Registers {
    let mut word = || word(random);
    let (rax, mut rcx, mut rdx, rbx, mut rsi, r8, r9) = (word(), word(), word(), word(), word(), word(), word());
    let middle = data + PAGE as u64 / 2;
    if form.is_string {
        rsi = middle + random.below(256) - 128;
        rcx = random.below(20);
    }
    if form.is_far_bit_test {
        // The operand's register addresses memory.
        let position = random.below(2000).wrapping_sub(1000);
        (rdx, rsi) = (position, position);
    }
    if form.counts_by_cl && random.below(2) == 0 {
        rcx &= 0x1f;
    }
    let status = random.number() & (1 | 1 << 2 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 11);
    // Interrupts are on in a process.
    Registers { rax, rcx, rdx, rbx, rsi, rdi: middle, r8, r9, flags: status | 2 | 1 << 9 }
}

/// Random memory, sometimes with what the comparisons of CMPXCHG and of string instructions look for.
fn page(random: &mut Random, registers: &Registers, data: u64) -> [u8; PAGE] {
    let mut page = [0; PAGE];
    page.as_chunks_mut::<8>().0.iter_mut().for_each(|chunk| *chunk = word(random).to_le_bytes());
    match random.below(3) {
        0 => page.as_chunks_mut::<16>().0.iter_mut().for_each(|chunk| {
            chunk[..8].copy_from_slice(&registers.rax.to_le_bytes());
            chunk[8..].copy_from_slice(&registers.rdx.to_le_bytes());
        }),
        1 => page.fill(registers.rax as u8),
        _ => {}
    }
    if random.below(2) == 0 {
        let at = (registers.rdi - data) as usize;
        page[at..at + 4].copy_from_slice(&(registers.rax as u32).to_le_bytes());
        page[at + 4..at + 8].copy_from_slice(&(registers.rdx as u32).to_le_bytes());
    }
    page
}
