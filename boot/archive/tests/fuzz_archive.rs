//! Feeds damaged archives to the reader for a bounded time: it must end, and give only what lies in the archive.

use std::time::{Duration, Instant};

use dragonfly_archive::Archive;

/// xorshift64*: enough randomness to damage bytes, and a failure repeats.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}

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
    for _ in 0..=random.below(4) {
        let at = random.below(bytes.len());
        match random.below(5) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_within(at..),
            2 => bytes.rotate_left(at),
            // Hexadecimal digits change sizes without spoiling the header.
            3 => bytes[at..].iter_mut().take(1).for_each(|byte| *byte = b"0123456789abcdefF"[random.below(17)]),
            _ => bytes[at..].iter_mut().take(1).for_each(|byte| *byte = random.next() as u8),
        }
    }
}

#[test]
fn damaged_archives_are_read_to_an_end() {
    let seconds = std::env::var("DRAGONFLY_FUZZ_SECONDS").map_or(2, |text| text.parse().expect("a number of seconds"));
    let end = Instant::now() + Duration::from_secs(seconds);
    let seed = seed_archive();
    let mut random = Random(0x5eed);
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
