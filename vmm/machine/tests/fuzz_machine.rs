//! Accesses at random for `DRAGONFLY_FUZZ_SECONDS` (2 unless set), most of them where devices are, and saved states that
//! were damaged: none of it panics, and what the machine keeps stays bounded.

use std::time::Instant;

use dragonfly_machine::{Config, GuestPhys, Machine};
use dragonfly_random::{Random, fuzz_end};

const CONFIG: Config = Config { vcpus: 4, start_s: 1_700_000_000 };
/// Steps until a machine is saved, its state damaged, and a new one begun.
const STEPS: u64 = 5_000;
/// A pin sends one message for each access at most.
const MAX_MESSAGES: usize = 24;
/// Bytes of a saved state: the queues of the console and the registers.
const MAX_STATE: usize = 16 << 10;

/// First ports and first addresses of devices.
const PORTS: [u16; 8] = [0x64, 0x70, 0x92, 0x3f8, 0x402, 0x600, 0xcf8, 0xcfc];
const ADDRESSES: [u64; 4] = [0xe000_0000, 0xe000_0ff8, 0xfec0_0000, 0xfec0_0010];

#[test]
fn a_machine_survives_whatever_a_guest_does() {
    let end = fuzz_end();
    let mut random = Random::new(0x9e37_79b9_7f4a_7c15);
    let mut machines = 0u64;
    while Instant::now() < end || machines < 20 {
        let mut machine = Machine::new(&CONFIG);
        let mut now_ns = 0;
        (0..STEPS).for_each(|_| step(&mut machine, &mut random, &mut now_ns));
        let mut state = machine.save();
        assert!(state.len() <= MAX_STATE, "{} bytes of state", state.len());
        let index = random.below(state.len() as u64) as usize;
        state[index] = random.number() as u8;
        if let Ok(mut machine) = Machine::restore(&CONFIG, &state) {
            (0..STEPS / 10).for_each(|_| step(&mut machine, &mut random, &mut now_ns));
        }
        machines += 1;
    }
    println!("{machines} machines");
}

fn step(machine: &mut Machine, random: &mut Random, now_ns: &mut u64) {
    let port = match random.below(8) {
        0 => random.number() as u16,
        _ => PORTS[random.below(8) as usize] + random.below(12) as u16,
    };
    let address = match random.below(8) {
        0 => random.number(),
        _ => ADDRESSES[random.below(4) as usize] + random.below(32),
    };
    let width = 1 << random.below(3);
    let mut data = random.number().to_le_bytes();
    let length = random.below(9) as usize;
    match random.below(8) {
        0 => _ = machine.port_in(port, width, *now_ns),
        1 | 2 => machine.port_out(port, width, random.number() as u32, *now_ns),
        3 => _ = machine.mmio_read(GuestPhys(address), &mut data[..length], || *now_ns),
        4 => _ = machine.mmio_write(GuestPhys(address), &data[..length], || *now_ns),
        5 => machine.end_of_interrupt(random.number() as u8),
        6 => _ = machine.console_input(&data[..length], *now_ns),
        _ => {
            *now_ns = now_ns.saturating_add(random.number() >> random.below(64));
            machine.tick(*now_ns);
            machine.console_output_taken(random.below(100) as usize, *now_ns);
        }
    }
    let messages = std::iter::from_fn(|| machine.take_message()).take(MAX_MESSAGES + 1).count();
    assert!(messages <= MAX_MESSAGES, "{messages} messages");
    while let Some(line) = machine.take_debug_line() {
        assert!(line.len() <= 120);
    }
    machine.take_event();
}
