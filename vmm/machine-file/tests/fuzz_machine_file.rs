//! Feeds damaged machine files to the reader for a bounded time: each is refused with a message or keeps the limits.

use std::time::{Duration, Instant};

use dragonfly_machine_file::{MAX_VCPUS, MIN_MEMORY, MachineFile};

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

const FILE: &str = r#"
name = "debian"
vcpus = 2
memory = "256MiB"
kernel = "vmlinuz"
initrd = "initrd.img"
cmdline = "console=ttyS0"
cpus = [0, 1, 63]
priority = 0x10
budget_us = 5_000
period_us = 10000
on_reboot = "power-off"
"#;

/// Pieces that turn one kind of value or structure into another.
const PIECES: [&str; 14] =
    ["=", "\"", "[", "]", "{", "}", "\n", ".", "[x]\n", "\"\"\"", "'", "0x", "-", "9999999999999999999999"];

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..=random.below(3) {
        let at = random.below(bytes.len());
        let end = at + random.below((bytes.len() - at).min(12));
        match random.below(5) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => {
                let piece = bytes[at..end].to_vec();
                let to = random.below(bytes.len());
                bytes.splice(to..to, piece).for_each(drop);
            }
            3 => bytes.splice(at..at, PIECES[random.below(PIECES.len())].bytes()).for_each(drop),
            _ => bytes[at..].iter_mut().take(1).for_each(|byte| *byte = random.next() as u8),
        }
    }
}

#[test]
fn damaged_machine_files_are_refused_or_keep_the_limits() {
    let seconds = std::env::var("DRAGONFLY_FUZZ_SECONDS").map_or(2, |text| text.parse().expect("a number of seconds"));
    let end = Instant::now() + Duration::from_secs(seconds);
    assert!(MachineFile::parse("guest.toml", FILE).is_ok());
    let mut random = Random(0x5eed);
    let mut accepted = 0;
    while Instant::now() < end {
        let mut bytes = FILE.as_bytes().to_vec();
        damage(&mut bytes, &mut random);
        let Ok(text) = str::from_utf8(&bytes) else { continue };
        match MachineFile::parse("guest.toml", text) {
            Err(error) => assert!(error.to_string().starts_with("guest.toml:")),
            Ok(guest) => {
                accepted += 1;
                assert!((1..=MAX_VCPUS).contains(&guest.vcpus));
                assert!(guest.memory >= MIN_MEMORY && guest.memory.is_multiple_of(4096));
                assert!(!guest.name.is_empty() && !guest.kernel.is_empty());
                assert!(guest.cpus.iter().all(|cpu| *cpu < 64) && guest.priority < 64);
                assert!(guest.budget.is_none_or(|budget| budget.budget_ns <= budget.period_ns));
            }
        }
    }
    assert!(accepted > 0, "no damaged file was accepted, so nothing was checked");
}
