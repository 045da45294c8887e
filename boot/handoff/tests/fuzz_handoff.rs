//! Throws changed handoffs, memory maps and command lines at the kernel's reader for `DRAGONFLY_FUZZ_SECONDS` (2 if unset).
//!
//! The reader may refuse, but never panic, and what it accepts has the properties that its documentation promises.

mod common;

use std::time::Instant;

use common::valid_handoff;
use dragonfly_handoff::{CommandLine, Handoff, KERNEL_BASE, MemoryKind, MemoryMap, MemoryRegion, PAGE_SIZE, PhysAddr};
use dragonfly_handoff::{PhysRange, SegmentFlags};
use dragonfly_random::{Random, fuzz_end};
use zerocopy::IntoBytes;

/// Values at which arithmetic goes wrong, and any others.
fn word(random: &mut Random) -> u64 {
    let edge = [0, 1, 0xfff, PAGE_SIZE, KERNEL_BASE.0, u64::MAX, u64::MAX - 0xfff, 1 << 63][random.index(8)];
    match random.index(4) {
        0 => random.number(),
        1 => random.number() >> random.index(64),
        2 => edge,
        _ => edge.wrapping_add(random.number() % 5).wrapping_sub(2),
    }
}

fn mutate(random: &mut Random, bytes: &mut Vec<u8>) {
    for _ in 0..=random.index(6) {
        if bytes.is_empty() {
            return;
        }
        let at = random.index(bytes.len());
        match random.index(5) {
            0 => bytes[at] ^= 1 << random.index(8),
            1 => bytes[at] = random.number() as u8,
            2 if random.index(8) == 0 => bytes.truncate(at),
            _ => {
                let word = word(random).to_ne_bytes();
                let at = at & !7;
                let end = bytes.len().min(at + 8);
                bytes[at..end].copy_from_slice(&word[..end - at]);
            }
        }
    }
}

fn check_handoff(bytes: &[u8]) -> bool {
    let Ok(handoff) = Handoff::parse(bytes) else { return false };
    let mapped = PhysRange::new(PhysAddr(0), handoff.direct_map.size).unwrap();
    for range in [handoff.memory_map, handoff.bundle, handoff.boot_memory] {
        assert!(mapped.contains(range) && !range.is_empty());
    }
    assert!(handoff.command_line.is_empty() || mapped.contains(handoff.command_line));
    let mut end = KERNEL_BASE.0;
    for segment in &handoff.kernel {
        assert!(mapped.contains(segment.frames));
        assert!(end <= segment.virtual_base.0);
        assert!(!segment.flags.contains(SegmentFlags::all()));
        end = segment.virtual_base.0.checked_add(segment.frames.size()).unwrap();
    }
    assert_eq!(Handoff::parse(&handoff.encode().unwrap()), Ok(handoff));
    true
}

fn check_memory_map(bytes: &[u8], limit: PhysAddr) -> bool {
    let Ok(map) = MemoryMap::parse(bytes, limit) else { return false };
    assert!(map.usable().next().is_some());
    let mut end_of_last = PhysAddr(0);
    for (range, kind) in map.iter() {
        assert!(range.base() >= end_of_last && !range.is_empty() && range.end() <= limit);
        assert!(range.base().is_page_aligned() && range.end().is_page_aligned());
        assert_eq!(map.kind_at(range.base()), Some(kind));
        end_of_last = range.end();
    }
    assert_eq!(MemoryMap::parse(map.as_bytes(), limit), Ok(map));
    true
}

fn seed_memory_map() -> Vec<u8> {
    let entry = |base, size, kind| MemoryRegion::new(PhysAddr(base), size, kind);
    [
        entry(0, 0x9_fc00, MemoryKind::USABLE),
        entry(0x9_fc00, 0x400, MemoryKind::RESERVED),
        entry(0xf_0000, 0x1_0000, MemoryKind::RESERVED),
        entry(0x10_0000, 0x3fed_0000, MemoryKind::USABLE),
        entry(0x20_0000, 0x8_0000, MemoryKind::BOOTLOADER),
        entry(0x3ffd_0000, 0x2_0000, MemoryKind::ACPI_RECLAIMABLE),
        entry(0xfeff_c000, 0x4000, MemoryKind::RESERVED),
        entry(0x1_0000_0000, 0x4000_0000, MemoryKind::USABLE),
    ]
    .as_bytes()
    .to_vec()
}

#[test]
fn whatever_the_bytes_the_reader_neither_panics_nor_breaks_its_promises() {
    let end = fuzz_end();
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let handoff = valid_handoff().encode().unwrap();
    let map = seed_memory_map();
    let (mut accepted_handoffs, mut accepted_maps) = (0_u64, 0_u64);
    while Instant::now() < end {
        for _ in 0..100 {
            let mut bytes = handoff.to_vec();
            mutate(&mut random, &mut bytes);
            accepted_handoffs += u64::from(check_handoff(&bytes));

            let mut bytes = map.clone();
            mutate(&mut random, &mut bytes);
            let limit = PhysAddr(word(&mut random));
            accepted_maps += u64::from(check_memory_map(&bytes, limit));

            let mut bytes = b"log=info exit=qemu test.filter=a,b".to_vec();
            mutate(&mut random, &mut bytes);
            if let Ok(line) = CommandLine::parse(&bytes) {
                assert!(line.value("log").is_none_or(|value| line.as_str().contains(value)));
            }
        }
    }
    // If nothing got through, the mutations would be testing the first check only.
    assert!(accepted_handoffs > 0 && accepted_maps > 0);
}
