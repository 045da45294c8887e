//! A hostile driver writes anything into rings, tables and event suppression for `DRAGONFLY_FUZZ_SECONDS` (2 if unset).
//!
//! The device may stop the queue, but never panic, take more than there can be, write outside of the ring and the buffers
//! that it was given, or go on after it has stopped.

use std::time::Instant;

use dragonfly_random::{Random, fuzz_end};
use dragonfly_virtqueue::host::{Buffer, HostMemory, config_at, driver};
use dragonfly_virtqueue::{
    Access, Burst, Chain, ChainId, GuestAddress, GuestMemory, MAX_BURST, MAX_SEGMENTS, Queue, QueueConfig,
    RingFeatures, Single, WithInFlight, in_flight_region_size,
};

const SIZE: u16 = 8;
/// The ring and, right behind it, tables.
const RING: u64 = 0x1000;
const RING_BYTES: usize = 0x200;
const TABLES: u64 = 0x2000;
/// Buffers.
const DATA: u64 = 0x4000;
/// What no descriptor may name, but every wild write would reach.
const CANARY: u64 = 0x8000;
const CANARY_BYTES: usize = 0x1000;

/// Addresses at which arithmetic goes wrong, and others; never near the canary.
fn address(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => u64::MAX - random.below(32),
        1 => TABLES + random.below(256),
        2 => RING + random.below(RING_BYTES as u64),
        3 => CANARY + CANARY_BYTES as u64 + random.below(16),
        _ => DATA + random.below(0x400),
    }
}

/// A descriptor whose buffer, if it is mapped, ends before the canary.
fn descriptor(random: &mut Random, is_packed: bool) -> [u8; 16] {
    let address = address(random);
    let len = match random.below(8) {
        0 => 0,
        1 if address >= CANARY => u32::MAX,
        2 => 16 * (random.below(20) as u32),
        _ => random.below(0x400) as u32,
    };
    let flags = [0, 1, 2, 3, 4, 5, 0x80, 0x8000, 0x81, 0x82, 0x84, 0x8001, 0x8080, 0xffff];
    let flags = flags[random.index(flags.len())];
    let index = if random.below(8) == 0 { random.number() as u16 } else { random.below(u64::from(SIZE)) as u16 };
    let (third, fourth) = if is_packed { (index, flags) } else { (flags, index) };
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&address.to_le_bytes());
    bytes[8..12].copy_from_slice(&len.to_le_bytes());
    bytes[12..14].copy_from_slice(&third.to_le_bytes());
    bytes[14..].copy_from_slice(&fourth.to_le_bytes());
    bytes
}

/// What came of it, so that a run that tests only the first check is known.
#[derive(Default)]
struct Outcomes {
    chains: u64,
    stopped: u64,
    recovered: u64,
    refused: u64,
}

fn attack(memory: &HostMemory, config: &QueueConfig, random: &mut Random) {
    for _ in 0..random.below(4) {
        match random.below(6) {
            0 | 1 => {
                let at = RING + 16 * random.below(u64::from(SIZE));
                memory.write(GuestAddress(at), &descriptor(random, config.is_packed())).unwrap();
            }
            2 => {
                let at = TABLES + 16 * random.below(16);
                memory.write(GuestAddress(at), &descriptor(random, config.is_packed())).unwrap();
            }
            3 => {
                let value = if random.below(2) == 0 { random.number() as u16 } else { random.below(16) as u16 };
                let at = config.addresses.driver.0 + 2 * random.below(12);
                memory.write(GuestAddress(at), &value.to_le_bytes()).unwrap();
            }
            // Back to a ring in which something is available.
            _ => {
                let index = random.below(u64::from(SIZE));
                let buffer = Buffer::writable(DATA + 64 * index, 64);
                let flags: u16 = if config.is_packed() { random.choose(&[0x82, 0x8002]) } else { 2 };
                let mut bytes = [0; 16];
                bytes[..8].copy_from_slice(&buffer.address.to_le_bytes());
                bytes[8..12].copy_from_slice(&buffer.len.to_le_bytes());
                bytes[if config.is_packed() { 14 } else { 12 }..][..2].copy_from_slice(&flags.to_le_bytes());
                memory.write(GuestAddress(RING + 16 * index), &bytes).unwrap();
            }
        }
    }
}

/// One queue, until it stops or enough was tried.
fn play(random: &mut Random, outcomes: &mut Outcomes) {
    let all = [RingFeatures::EVENT_IDX, RingFeatures::INDIRECT_DESC, RingFeatures::IN_ORDER, RingFeatures::RING_PACKED];
    let features = all.into_iter().filter(|_| random.below(2) == 0).fold(RingFeatures::empty(), |all, one| all | one);
    let config = config_at(RING, SIZE, features);
    let memory = HostMemory::new(&[(0, CANARY as usize + CANARY_BYTES)]);
    let region_size = in_flight_region_size(SIZE, config.is_packed());
    let region_memory = HostMemory::new(&[(0, region_size)]);
    memory.write(GuestAddress(CANARY), &[0x5a; CANARY_BYTES]).unwrap();
    let mut driver = driver(&config, &memory);
    for index in 0..4 {
        driver.add(&memory, &[Buffer::readable(DATA + 64 * index, 64)], 1, None);
    }
    driver.publish(&memory);

    let tracked = WithInFlight { memory: &memory, region: region_memory.slice(GuestAddress(0), region_size).unwrap() };
    let is_tracked = random.below(2) == 0;
    let mut queue = if is_tracked { Queue::recover(config, &tracked) } else { Queue::new(config) }.unwrap();
    let mut held: Vec<ChainId> = Vec::new();
    for _ in 0..200 {
        attack(&memory, &config, random);
        let stopped = queue.error();
        let result = if is_tracked {
            turn(&mut queue, &tracked, &mut held, random, outcomes)
        } else {
            turn(&mut queue, &memory, &mut held, random, outcomes)
        };
        assert!(held.len() <= usize::from(SIZE));
        if let Some(reason) = stopped {
            assert_eq!((result, queue.error()), (Err(reason), Some(reason)));
            outcomes.stopped += 1;
            break;
        }
        // The front end may be hostile as well.
        if is_tracked && random.below(40) == 0 {
            let at = random.below(region_size as u64);
            region_memory.write(GuestAddress(at), &[random.number() as u8]).unwrap();
        }
        if is_tracked && random.below(20) == 0 {
            held.clear();
            match Queue::recover(config, &tracked) {
                Ok(new) => (queue, outcomes.recovered) = (new, outcomes.recovered + 1),
                Err(_) => {
                    outcomes.refused += 1;
                    break;
                }
            }
        }
    }
    let mut canary = [0; CANARY_BYTES];
    memory.read(GuestAddress(CANARY), &mut canary).unwrap();
    assert!(canary.iter().all(|byte| *byte == 0x5a), "a write went wild");
}

/// What a device does in a turn; `Err` as soon as the queue says so.
fn turn<M: GuestMemory>(
    queue: &mut Queue,
    memory: &M,
    held: &mut Vec<ChainId>,
    random: &mut Random,
    outcomes: &mut Outcomes,
) -> Result<(), dragonfly_virtqueue::QueueError> {
    let mut chain = Chain::new();
    if random.below(2) == 0 {
        let access = if random.below(2) == 0 { Access::Read } else { Access::Write };
        let mut burst = Burst::new();
        let mut ring = queue.attach(memory)?;
        ring.pop_burst(random.index(2 * MAX_BURST), access, &mut burst)?;
        assert!(burst.len() <= usize::from(SIZE));
        for single in &burst {
            outcomes.chains += 1;
            let mut bytes = [0; 20];
            let _ = single.buffer().read(0, &mut bytes);
            if access == Access::Write {
                let _ = single.buffer().write_pair(0, [1, 2]);
                let _ = single.buffer().write(12, &bytes);
            }
        }
        ring.unpop_burst(&mut burst, random.index(usize::from(SIZE)))?;
        held.extend(burst.iter().map(Single::id));
    }
    for _ in 0..random.below(3) {
        if !queue.pop_into(memory, &mut chain)? {
            break;
        }
        outcomes.chains += 1;
        assert!(chain.segments().len() <= MAX_SEGMENTS);
        assert!(chain.readable_len() + chain.writable_len() <= 1 << 32);
        assert!(chain.readable().iter().all(|segment| !segment.is_writable));
        assert!(chain.writable().iter().all(|segment| segment.is_writable));
        let mut bytes = [0; 100];
        let _ = chain.reader(memory).read_exact(&mut bytes);
        let _ = chain.writer(memory).write_all(&bytes);
        held.push(chain.id());
        if random.once_in(5) {
            queue.attach(memory)?.unpop(chain.id())?;
            held.pop();
        }
    }
    for _ in 0..random.below(3) {
        if held.is_empty() {
            break;
        }
        let in_order = queue.config().features.contains(RingFeatures::IN_ORDER);
        let which = if in_order { 0 } else { random.index(held.len()) };
        queue.push(memory, held.remove(which), random.number() as u32)?;
    }
    if random.below(2) == 0 {
        queue.needs_notification(memory);
        queue.enable_kicks(memory);
        queue.disable_kicks(memory);
    }
    queue.attach(memory).map(|_| ())
}

#[test]
fn whatever_a_driver_writes_the_device_neither_panics_nor_writes_elsewhere() {
    let end = fuzz_end();
    let mut random = Random::new(1);
    let mut outcomes = Outcomes::default();
    while Instant::now() < end {
        for _ in 0..20 {
            play(&mut random, &mut outcomes);
        }
    }
    let Outcomes { chains, stopped, recovered, refused } = outcomes;
    assert!(chains > 100 && stopped > 10 && recovered > 10 && refused > 0, "{chains} {stopped} {recovered} {refused}");
}
