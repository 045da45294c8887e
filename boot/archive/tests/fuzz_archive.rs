//! Feeds damaged archives to the reader for a bounded time: it must end, and give only what lies in the archive.

use std::time::Instant;

use dragonfly_archive::Archive;
use dragonfly_random::{Random, fuzz_end};

fn seed_archive() -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, data) in [("bundle.toml", &b"[system]\n"[..]), ("supervisor", &[7; 301]), ("TRAILER!!!", &[])] {
        let fields = [9, 0o100_644, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        bytes.extend_from_slice(b"070701");
        for value in fields {
            bytes.extend_from_slice(format!("{value:08x}").as_bytes());
        }
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.index(4) {
        let at = random.index(bytes.len());
        match random.index(5) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_within(at..),
            2 => bytes.rotate_left(at),
            // Hexadecimal digits change sizes without spoiling the header.
            3 => bytes[at..].iter_mut().take(1).for_each(|byte| *byte = b"0123456789abcdefF"[random.index(17)]),
            _ => bytes[at..].iter_mut().take(1).for_each(|byte| *byte = random.number() as u8),
        }
    }
}

#[test]
fn damaged_archives_are_read_to_an_end() {
    let end = fuzz_end();
    let seed = seed_archive();
    let mut random = Random::new(0x5eed);
    while Instant::now() < end {
        let mut bytes = seed.clone();
        damage(&mut bytes, &mut random);
        let range = bytes.as_ptr_range();
        let mut stored = 0;
        for entry in Archive::new(&bytes).entries().flatten() {
            assert!(range.start <= entry.data.as_ptr() && entry.data.as_ptr_range().end <= range.end);
            stored += entry.name.len() + entry.data.len();
        }
        assert!(stored <= bytes.len());
    }
}
