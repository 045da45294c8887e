//! Feeds damaged bundles to the reader for a bounded time: each is refused with a message or keeps the plan's rules.

use std::time::Instant;

use dragonfly_bundle::{Bundle, MAX_DOMAINS};
use dragonfly_random::{Random, damage_text, fuzz_end};

const PLAN: &str = r#"
[system]
on_finish = "wait"

[[domain]]
name = "driver"
program = "demo"
arguments = "role=driver"
memory = "64KiB"
priority = 20
max_priority = 0x1e
budget_us = 500
period_us = 1_000
cpu = 2
cpus = [1, 2, 63]
grants = ["log", "figures"]
provide = ["disk"]
ports = [{ name = "com2", first = 0x2f8, count = 8 }]
interrupts = [{ name = "irq3", number = 3, trigger = "level", polarity = "low" }]
pci = [{ name = "ssd", vendor = 0x1af4, device = 0x1042 }]
essential = false

[[domain]]
name = "user"
program = "demo"
use = ["disk"]
restarts = 3
"#;

/// Pieces that turn one kind of value or structure into another.
const PIECES: [&str; 16] = [
    "=",
    "\"",
    "[",
    "]",
    "{",
    "}",
    "\n",
    ".",
    "[[domain]]\n",
    "\"\"\"",
    "'",
    "0x",
    "-",
    "9999999999999999999999",
    "\u{fffd}",
    "use = [\"disk\"]\n",
];

fn archive(plan: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, data) in [("bundle.toml", plan), ("demo", &b"\x7fELF"[..]), ("TRAILER!!!", &[])] {
        let fields = [1, 0o100_644, 0, 0, 1, 0, data.len(), 0, 0, 0, 0, name.len() + 1, 0];
        bytes.extend_from_slice(b"070701");
        fields.iter().for_each(|value| bytes.extend_from_slice(format!("{value:08x}").as_bytes()));
        bytes.extend_from_slice(name.as_bytes());
        bytes.push(0);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        bytes.extend_from_slice(data);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
    }
    bytes
}

#[test]
fn damaged_bundles_are_refused_or_keep_the_rules() {
    let end = fuzz_end();
    assert!(Bundle::open(&archive(PLAN.as_bytes())).is_ok());
    let mut random = Random::new(0x5eed);
    let mut accepted = 0;
    while Instant::now() < end {
        let mut plan = PLAN.as_bytes().to_vec();
        damage_text(&mut plan, &PIECES, &mut random);
        let mut bytes = archive(&plan);
        if random.index(4) == 0 {
            damage_text(&mut bytes, &PIECES, &mut random);
        }
        match Bundle::open(&bytes) {
            Err(error) => assert!(!error.to_string().is_empty()),
            Ok(bundle) => {
                accepted += 1;
                let domains = &bundle.plan().domains;
                assert!(domains.len() <= MAX_DOMAINS && domains.iter().any(|domain| domain.essential));
                for domain in domains {
                    assert!(bundle.file(&domain.program).is_some());
                    assert!(domain.cpus & 1 << domain.cpu != 0 && domain.priority <= domain.max_priority);
                    assert!(domain.memory > 0 && domain.memory % 4096 == 0);
                    assert!(domain.use_gates.iter().all(|name| bundle.plan().gates().any(|gate| gate == name)));
                }
            }
        }
    }
    assert!(accepted > 0, "no damaged bundle was accepted, so nothing was checked");
}
