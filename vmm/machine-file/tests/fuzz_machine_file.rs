//! Feeds damaged machine files to the reader for a bounded time: each is refused with a message or keeps the limits.

use std::time::Instant;

use dragonfly_machine_file::{MAX_VCPUS, MIN_MEMORY, MachineFile};
use dragonfly_random::{Random, damage_text, fuzz_end};

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

#[test]
fn damaged_machine_files_are_refused_or_keep_the_limits() {
    let end = fuzz_end();
    assert!(MachineFile::parse("guest.toml", FILE).is_ok());
    let mut random = Random::new(0x5eed);
    let mut accepted = 0;
    while Instant::now() < end {
        let mut bytes = FILE.as_bytes().to_vec();
        damage_text(&mut bytes, &PIECES, &mut random);
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
