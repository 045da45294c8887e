//! The guest on its machine.

mod disk;
mod function;
mod network;
mod queue;

use core::hint::spin_loop;

use dragonfly_guest_kit::{apic, cpu, interrupts, number_argument, print};

use disk::Disk;
use network::Network;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Work {
    Read,
    Packet,
}

/// Kinds of requests: name, what, how many at a time, whether their ends are told by interrupts or looked for.
const CASES: [(&str, Work, u16, bool); 6] = [
    ("block_1", Work::Read, 1, false),
    ("block_32", Work::Read, 32, false),
    ("block_32_interrupts", Work::Read, 32, true),
    ("packet_1", Work::Packet, 1, false),
    ("packet_32", Work::Packet, 32, false),
    ("packet_32_interrupts", Work::Packet, 32, true),
];

/// Turns before those that count.
const WARM_UP: u64 = 16;

/// How long requests may take together before something is wrong.
const PATIENCE_TICKS: u64 = 60_000_000_000;

/// Looks until all is done: again and again, or once for each interrupt. It never sleeps.
#[inline(always)]
fn wait(vector: Option<u8>, mut is_done: impl FnMut() -> bool) {
    let start = cpu::tsc();
    let mut seen = vector.map(interrupts::count);
    while !is_done() {
        loop {
            spin_loop();
            let now = vector.map(interrupts::count);
            if vector.is_none() || now != seen {
                seen = now;
                break;
            }
            assert!(cpu::tsc().wrapping_sub(start) < PATIENCE_TICKS, "no interrupt has come");
        }
        assert!(cpu::tsc().wrapping_sub(start) < PATIENCE_TICKS, "a request was lost");
    }
}

#[expect(unsafe_code, reason = "the kit calls the program by its name")]
#[unsafe(no_mangle)]
fn guest_main() {
    let mut disk = Disk::find();
    let mut network = Network::find();
    assert!(apic::end_in_memory(), "interrupts cannot be ended in memory");
    cpu::allow_interrupts();
    let results = CASES.map(|(name, work, depth, by_interrupts)| {
        let mut turn = || match work {
            Work::Read => disk.turn(depth, by_interrupts),
            Work::Packet => network.turn(depth, by_interrupts),
        };
        for _ in 0..WARM_UP {
            turn();
        }
        let turns = number_argument(name, 0) / u64::from(depth);
        let start = cpu::tsc();
        let kicks: u64 = (0..turns).map(|_| turn()).sum();
        let requests = (turns * u64::from(depth)).max(1);
        (name, cpu::tsc().wrapping_sub(start) / requests, kicks * 1000 / requests)
    });
    cpu::forbid_interrupts();
    for (name, ticks, kicks) in results {
        print!("[bench] {name} {ticks} {kicks}\n");
    }
    print!("[bench] end\n");
}
