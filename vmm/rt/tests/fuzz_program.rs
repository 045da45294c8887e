//! Feeds damaged ELF files to the loader's parser for a bounded time: what it accepts must keep the loader's rules.

use std::time::Instant;

use dragonfly_random::{Random, fuzz_end};
use dragonfly_rt::abi::{PAGE_SIZE, Rights};
use dragonfly_rt::loader::{Program, layout};

/// A program of code, constants and data, with a section table of one entry.
fn seed_file() -> Vec<u8> {
    let headers: [(u32, u64, u64, u64); 3] =
        [(5, 0x20_0000, 0x80, 0x80), (4, 0x20_1000, 0x40, 0x40), (6, 0x20_2010, 0x20, 0x3000)];
    let mut bytes = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\x3e\0\x01\0\0\0".to_vec();
    for word in [0x20_0010_u64, 64, 232] {
        bytes.extend_from_slice(&word.to_le_bytes());
    }
    bytes.extend_from_slice(&[0; 4]);
    for half in [64_u16, 56, 3, 64, 1, 0] {
        bytes.extend_from_slice(&half.to_le_bytes());
    }
    for (flags, address, file_size, memory_size) in headers {
        bytes.extend_from_slice(&1_u32.to_le_bytes());
        bytes.extend_from_slice(&flags.to_le_bytes());
        for word in [296, address, address, file_size, memory_size, 0x1000] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
    }
    bytes.resize(296 + 0x100, 0);
    bytes
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.index(4) {
        let at = random.index(bytes.len().min(300));
        let word = [0, 1, 0x1000, 0x20_0000, 0x3fff_ffff, u64::MAX, 1 << 63, random.number()][random.index(8)];
        match random.index(4) {
            0 => bytes.truncate(random.index(bytes.len())),
            1 => bytes[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << (word % 8)),
            // Whole fields of the headers.
            _ => bytes[at / 8 * 8..].iter_mut().zip(word.to_le_bytes()).for_each(|(byte, new)| *byte = new),
        }
    }
}

#[test]
fn damaged_programs_are_refused_or_keep_the_rules() {
    let end = fuzz_end();
    let seed = seed_file();
    assert!(Program::parse(&seed).is_ok());
    let mut random = Random::new(0x5eed);
    let mut accepted = 0;
    while Instant::now() < end {
        let mut bytes = seed.clone();
        damage(&mut bytes, &mut random);
        let Ok(program) = Program::parse(&bytes) else { continue };
        accepted += 1;
        let mut lowest = layout::PROGRAM_START;
        for segment in &program.segments {
            assert!(segment.address >= lowest && segment.address.is_multiple_of(PAGE_SIZE));
            assert!(segment.size > 0 && segment.size.is_multiple_of(PAGE_SIZE));
            assert!(!segment.rights.contains(Rights::WRITE | Rights::EXECUTE));
            assert!(segment.offset + segment.data.len() as u64 <= segment.size);
            lowest = segment.address + segment.size;
        }
        assert!(lowest <= layout::PROGRAM_END);
    }
    assert!(accepted > 0, "no damaged program was accepted, so nothing was checked");
}
