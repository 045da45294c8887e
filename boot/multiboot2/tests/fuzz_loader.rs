//! Throws changed kernel files and changed boot loader's information at the loader for `DRAGONFLY_FUZZ_SECONDS` (2 if unset).
//!
//! The loader may refuse, but never panic, and what it starts keeps the contract where that can be seen from outside.

mod common;

use std::time::Instant;

use common::*;
use dragonfly_handoff::{DIRECT_MAP_BASE, HANDOFF_SIZE, Handoff, KERNEL_BASE};
use dragonfly_multiboot2::kernel_image::KernelImage;
use dragonfly_random::{Random, fuzz_end};

/// Changes a few bytes or words among the first `reach`, some of them to values at which arithmetic goes wrong.
fn mutate(random: &mut Random, bytes: &mut Vec<u8>, reach: usize) {
    for _ in 0..=random.index(4) {
        let reach = reach.min(bytes.len());
        if reach == 0 {
            return;
        }
        let at = random.index(reach);
        match random.index(8) {
            0 => bytes.truncate(at),
            1..=3 => bytes[at] ^= 1 << random.index(8),
            _ => {
                let edges = [
                    0,
                    1,
                    0x1000,
                    0xfff,
                    KERNEL_BASE.0,
                    u64::MAX,
                    u64::MAX - 0xfff,
                    random.number() >> random.index(64),
                ];
                let word = edges[random.index(edges.len())].to_le_bytes();
                let end = bytes.len().min((at & !3) + [4, 8][random.index(2)]);
                bytes[at & !3..end].copy_from_slice(&word[..end - (at & !3)]);
            }
        }
    }
}

fn check_load(list: &[Tag], kernel: &[u8]) -> bool {
    let (ram, Ok(launch)) = run(list, kernel, CPU) else { return false };
    let handoff = Handoff::parse(ram.bytes(launch.handoff.0 - DIRECT_MAP_BASE.0, HANDOFF_SIZE as u64)).unwrap();
    assert!(handoff.boot_memory.base().0 >= MIB && handoff.bundle.base().0 >= MIB);
    let entry = ram.pages(launch.page_tables.0).into_iter().find(|page| page.virt == launch.entry.0 & !0xfff);
    assert!(entry.is_some_and(|page| page.executable && !page.writable));
    true
}

#[test]
fn whatever_the_input_the_loader_neither_panics_nor_breaks_the_contract() {
    let end = fuzz_end();
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let file = ElfFile::valid().bytes();
    let list = boot_tags(file.len(), (0x50_0000, 0x50_1234));
    let (mut accepted_files, mut accepted_loads) = (0_u64, 0_u64);
    while Instant::now() < end {
        for _ in 0..100 {
            // The headers are at the beginning; the rest is only copied.
            let mut bytes = file.clone();
            mutate(&mut random, &mut bytes, 64 + 3 * 56);
            if let Ok(image) = KernelImage::parse(&bytes) {
                check_image(&image);
                accepted_files += 1;
            }
        }
        let mut list = list.clone();
        for _ in 0..=random.index(2) {
            let tag = random.index(list.len());
            mutate(&mut random, &mut list[tag].1, usize::MAX);
        }
        accepted_loads += u64::from(check_load(&list, &file));
    }
    // If nothing got through, the mutations would be testing the first check only.
    assert!(accepted_files > 0 && accepted_loads > 0);
}
