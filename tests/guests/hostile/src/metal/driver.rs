//! A driver that lies: attacks on virtio devices by their registers, their rings and what is in them.
//!
//! What a device is told to write to is RAM that nothing is in, or no RAM.

use dragonfly_guest_kit::cpu::{peek, poke};
use dragonfly_guest_kit::playground::FREE_RAM;
use dragonfly_guest_kit::virtio::{QUEUE_ADDRESSES, STATUS, VERSION_1};
use dragonfly_guest_kit::{Random, catch};

use super::attacks::drop_value;
use super::virtio::{Function, NEXT, WRITE};

/// Where rings are, mostly: so many, of so many bytes each.
const RINGS: u64 = 8;
const RING_BYTES: u64 = 0x1_0000;
/// Parts of a ring's memory: what the driver writes, what the device writes, what is sent.
const DRIVER_PART: u64 = 0x4000;
const DEVICE_PART: u64 = 0x8000;
const REQUEST_PART: u64 = 0xc000;
const END_OF_RAM: u64 = 64 << 20;
const MSIX_TABLE: u64 = 0x3000;
const MSIX_ENTRIES: u64 = 20;
/// Delivery mode of a message: those other than fixed would end this guest.
const MODE: u32 = 0x700;

/// Does one thing that no driver should.
pub fn one(function: &Function, random: &mut Random) {
    match random.below(18) {
        0 => register(function, random),
        1 => address(function, random),
        2 => configuration_space(function, random),
        3 => message(function, random),
        4 => own_configuration(function, random),
        5 | 6 => start(function, random),
        7..=9 => descriptors(random),
        10..=12 => request(function, random),
        13 | 14 => storm(function, random),
        15 => scribble(random),
        16 => poke(function.window() + STATUS, random.number() as u8),
        _ => function.common().begin_reset(),
    }
}

/// RAM that nothing is in, or no RAM.
fn harmless(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => END_OF_RAM + random.below(1 << 40),
        1 => random.awkward() | 1 << 63,
        2 => FREE_RAM + random.below(END_OF_RAM - FREE_RAM),
        _ => ring_memory(random) + random.below(RING_BYTES),
    }
}

fn ring_memory(random: &mut Random) -> u64 {
    FREE_RAM + random.below(RINGS) * RING_BYTES
}

/// A register of the common configuration, but for addresses.
fn register(function: &Function, random: &mut Random) {
    let (at, value) = (function.window() + random.below(0x20), random.awkward());
    match random.below(4) {
        0 => poke(at, value as u8),
        1 => poke(at, value as u16),
        2 => poke(at & !3, value as u32),
        _ => drop_value(peek::<u32>(at)),
    }
}

/// An address of the queue that is selected.
fn address(function: &Function, random: &mut Random) {
    let (at, value) = (function.window() + QUEUE_ADDRESSES + random.below(3) * 8, harmless(random));
    poke(at + 4, (value >> 32) as u32);
    poke(at, value as u32);
}

/// Commands, base addresses and capabilities: windows move, messages and the bus are switched off and on.
fn configuration_space(function: &Function, random: &mut Random) {
    let register = if random.below(2) == 0 { random.below(0x40) } else { 0x40 + random.below(0xc0) };
    let at = function.space() + (register & !3);
    poke(at, random.awkward() as u32);
    drop_value(peek::<u32>(at));
}

/// An entry of the table of messages.
fn message(function: &Function, random: &mut Random) {
    let at = function.window() + MSIX_TABLE + random.below(MSIX_ENTRIES) * 16;
    let address = if random.below(2) == 0 { 0xfee0_0000 | random.below(1 << 20) } else { random.awkward() };
    poke(at, address as u32);
    poke(at + 4, if random.below(8) == 0 { random.number() as u32 } else { 0 });
    // Vectors of exceptions would end this guest, too.
    poke(at + 8, (random.number() as u32 | 0x20) & !MODE);
    poke(at + 12, random.below(2) as u32);
}

fn own_configuration(function: &Function, random: &mut Random) {
    let at = function.configuration() + random.below(0x1000);
    match random.below(3) {
        0 => poke(at, random.number() as u8),
        1 => poke(at & !3, random.number() as u32),
        _ => drop_value(peek::<u32>(at & !3)),
    }
}

/// A start with features, sizes and places of which many are right.
fn start(function: &Function, random: &mut Random) {
    let common = function.common();
    common.begin_reset();
    let features = common.offered() & (random.number() | random.number()) | VERSION_1;
    drop_value(common.accept(if random.below(8) == 0 { random.number() } else { features }));
    for queue in 0..common.queues().min(20) {
        let size = if random.below(8) == 0 { random.number() as u16 } else { 1 << random.below(9) };
        let memory = FREE_RAM + u64::from(queue) % RINGS * RING_BYTES;
        let mut addresses = [memory, memory + DRIVER_PART, memory + DEVICE_PART];
        if random.below(8) == 0 {
            addresses[random.below(3) as usize % 3] = harmless(random);
        }
        if random.below(8) != 0 {
            // Else it begins where the last attack left it, which is nowhere near.
            poke(memory + DRIVER_PART, 0_u32);
            poke(memory + DEVICE_PART, 0_u32);
        }
        common.select(queue);
        common.enable(size, addresses);
    }
    common.start();
}

/// Descriptors of any content, in a table that may be in use.
fn descriptors(random: &mut Random) {
    let memory = ring_memory(random);
    for _ in 0..random.below(64) {
        let at = memory + random.below(256) * 16;
        let length = match random.below(4) {
            0 => random.awkward() as u32,
            1 => 0,
            _ => random.below(0x1_0000) as u32,
        };
        poke(at, harmless(random));
        poke(at + 8, length);
        poke(at + 12, if random.below(4) == 0 { random.number() as u16 } else { random.below(8) as u16 });
        poke(at + 14, if random.below(4) == 0 { random.number() as u16 } else { random.below(256) as u16 });
    }
    available(memory, random);
}

/// Makes descriptors available, more than there are or fewer than there were.
fn available(memory: u64, random: &mut Random) {
    let driver = memory + DRIVER_PART;
    let index: u16 = peek(driver + 2);
    for slot in 0..random.below(16) {
        let number = if random.below(8) == 0 { random.number() } else { random.below(256) };
        poke(driver + 4 + (u64::from(index) + slot) % 256 * 2, number as u16);
    }
    let step = if random.below(8) == 0 { random.number() } else { random.below(16) };
    poke(driver + 2, index.wrapping_add(step as u16));
    poke(driver, random.below(2) as u16);
}

/// A chain that looks like a request or a frame, with one thing wrong or none.
fn request(function: &Function, random: &mut Random) {
    let queue = random.below(u64::from(function.common().queues().clamp(1, 20))) as u16;
    let memory = FREE_RAM + u64::from(queue) % RINGS * RING_BYTES;
    let header = memory + REQUEST_PART;
    poke(header, random.below(20) as u32);
    poke(header + 4, random.number() as u32);
    poke(header + 8, if random.below(2) == 0 { random.below(1 << 12) } else { random.awkward() });
    let length = if random.below(4) == 0 { random.awkward() as u32 } else { 512 * random.below(16) as u32 };
    let chain = [
        (header, 12 + random.below(8) as u32, NEXT),
        (harmless(random), length, NEXT | (random.below(2) as u16 * WRITE)),
        (memory + REQUEST_PART + 0x100, random.below(4) as u32, WRITE),
    ];
    let first = random.below(250) as u16;
    for (number, (address, length, flags)) in (first..).zip(chain) {
        let at = memory + u64::from(number) * 16;
        poke(at, address);
        poke(at + 8, length);
        poke(at + 12, flags);
        poke(at + 14, number + 1);
    }
    let driver = memory + DRIVER_PART;
    let index: u16 = peek(driver + 2);
    poke(driver + 4 + u64::from(index) % 256 * 2, first);
    poke(driver + 2, index.wrapping_add(1));
    function.ring(queue, random.number() as u32);
}

/// Rings for queues that run, that do not, and that are not there.
fn storm(function: &Function, random: &mut Random) {
    for _ in 0..random.below(64) {
        function.ring(random.below(64) as u16, random.number() as u32);
    }
}

/// Words anywhere in the rings, while the card reads them.
fn scribble(random: &mut Random) {
    let memory = ring_memory(random);
    for _ in 0..random.below(256) {
        poke(memory + random.below(RING_BYTES / 8) * 8, random.awkward());
    }
}

/// An attack on one of the functions; whether it ended in an exception.
pub fn step(functions: &[Function], random: &mut Random) -> bool {
    let function = functions[random.below(functions.len() as u64) as usize % functions.len()];
    catch(|| one(&function, random)).is_some()
}
