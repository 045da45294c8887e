//! Throws changed kernels of each protocol at the loaders for `DRAGONFLY_FUZZ_SECONDS` (2 if unset).
//!
//! They may refuse, but never panic, write outside of RAM or write twice (the memory sees to both), and what they accept
//! starts within RAM.

#[path = "guest_boot/support.rs"]
mod support;

use std::time::Instant;

use dragonfly_guest_boot::Protocol;
use dragonfly_random::{Random, fuzz_end};
use support::*;

/// Values at which arithmetic goes wrong, and any others.
fn word(random: &mut Random) -> u64 {
    let edge = [0, 0xfff, MIB, 16 * MIB, 64 * MIB, 1 << 32, u64::MAX, 1 << 63][random.index(8)];
    match random.index(3) {
        0 => random.number() >> random.index(64),
        1 => edge,
        _ => edge.wrapping_add(random.number() % 5).wrapping_sub(2),
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.index(4) {
        if bytes.is_empty() {
            return;
        }
        // Headers are small; most changes should meet them.
        let span = if random.index(4) == 0 { bytes.len() } else { bytes.len().min(0x280) };
        let at = random.index(span);
        match random.index(5) {
            0 => bytes[at] ^= 1 << random.index(8),
            1 => bytes[at] = random.number() as u8,
            2 if random.index(16) == 0 => bytes.truncate(at),
            size => {
                let word = word(random).to_le_bytes();
                let size = [4, 8, 2][size % 3];
                let at = at & !(size - 1);
                let end = bytes.len().min(at + size);
                bytes[at..end].copy_from_slice(&word[..end - at]);
            }
        }
    }
}

#[test]
fn whatever_the_file_the_loaders_neither_panic_nor_leave_ram() {
    let end = fuzz_end();
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let flat_header = [2 * MIB as u32; 5];
    let mut odd = multiboot_flat();
    multiboot_header(&mut odd, 0x60, &flat_header, 0x1_0003);
    let corpus = [bzimage(), pvh(), elf64(17), multiboot_elf(), multiboot_flat(), odd];
    let mut accepted = [0_u64; 3];
    while Instant::now() < end {
        for seed in &corpus {
            let mut kernel = seed.clone();
            mutate(&mut random, &mut kernel);
            let initrd = vec![7; random.index(0x3000)];
            let line = "x".repeat(random.index(5000));
            let ram = [64 * MIB, 17 * MIB, 0x10_1000, 0x8000, 3 << 30][random.index(5)];
            match load_into(ram, &kernel, random.index(2).eq(&0).then_some(&initrd), &line) {
                Ok((loaded, memory)) => {
                    let registers = loaded.state.registers;
                    let (protocol, told) = match loaded.protocol {
                        Protocol::Linux64 => (0, memory.u32(registers.rsi + 0x228).into()),
                        Protocol::Pvh => (1, memory.u64(registers.rbx + 24)),
                        Protocol::Multiboot1 => (2, memory.u32(registers.rbx + 16).into()),
                    };
                    accepted[protocol] += 1;
                    assert_eq!(memory.text(told), line);
                    assert!(loaded.state.rip < ram);
                    assert!(memory.zeroed.iter().all(|(start, size)| start + size <= ram));
                }
                Err(error) => assert!(error.to_string().len() < 200),
            }
        }
    }
    // If nothing got through, the mutations would be testing the first check only.
    assert!(accepted.iter().all(|count| *count > 0), "{accepted:?}");
}
