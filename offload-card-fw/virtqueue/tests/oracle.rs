//! Split rings beside rust-vmm's `virtio-queue`: the same ring, the same calls, the same chains and the same used ring.

use std::sync::atomic::Ordering;

use dragonfly_random::Random;
use dragonfly_virtqueue::host::{Buffer, Driver, HostMemory, SplitDriver, config_at};
use dragonfly_virtqueue::{GuestAddress, GuestMemory, Queue, RingFeatures};
use virtio_queue::{Queue as Oracle, QueueT};
use vm_memory::{Bytes, GuestAddress as OracleAddress, GuestMemoryMmap};

const SIZE: u16 = 16;
const RING: u64 = 0x1000;
const TABLES: u64 = 0x8000;
const DATA: u64 = 0x1_0000;
const MEMORY: usize = 0x2_0000;

/// One guest twice, with a driver in the first.
struct World {
    memory: HostMemory,
    oracle_memory: GuestMemoryMmap,
    driver: SplitDriver,
    queue: Queue,
    oracle: Oracle,
    /// Where the used ring is, and how long.
    used: (u64, usize),
    random: Random,
    /// Counts chains.
    next: u64,
}

impl World {
    fn new(features: RingFeatures, seed: u64) -> Self {
        let config = config_at(RING, SIZE, features);
        let memory = HostMemory::new(&[(0, MEMORY)]);
        let mut oracle = Oracle::new(SIZE).unwrap();
        oracle.set_size(SIZE);
        oracle.try_set_desc_table_address(OracleAddress(config.addresses.descriptors.0)).unwrap();
        oracle.try_set_avail_ring_address(OracleAddress(config.addresses.driver.0)).unwrap();
        oracle.try_set_used_ring_address(OracleAddress(config.addresses.device.0)).unwrap();
        oracle.set_event_idx(features.contains(RingFeatures::EVENT_IDX));
        oracle.set_ready(true);
        Self {
            driver: SplitDriver::new(&config, &memory),
            memory,
            oracle_memory: GuestMemoryMmap::from_ranges(&[(OracleAddress(0), MEMORY)]).unwrap(),
            queue: Queue::new(config).unwrap(),
            oracle,
            used: (config.addresses.device.0, 6 + 8 * usize::from(SIZE)),
            random: Random::new(seed),
            next: 0,
        }
    }

    fn driver_works(&mut self) {
        for _ in 0..self.random.below(6) {
            // Fewer chains than this are under way.
            let slot = self.next % 64;
            self.next += 1;
            let count = 1 + self.random.below(5);
            let writable_from = self.random.below(count + 1);
            let buffers: Vec<_> = (0..count)
                .map(|at| Buffer {
                    address: DATA + 0x100 * slot + 16 * at,
                    len: 1 + self.random.below(16) as u32,
                    is_writable: at >= writable_from,
                })
                .collect();
            let (direct, table) = match self.random.below(3) {
                0 => (0, None),
                1 => (0, Some(TABLES + 0x100 * slot)),
                _ => (self.random.below(count) as usize, Some(TABLES + 0x100 * slot)),
            };
            self.driver.add(&self.memory, &buffers, direct, table);
        }
        Driver::publish(&mut self.driver, &self.memory);
        if self.random.once_in(2) {
            Driver::enable_notifications(&mut self.driver, &self.memory);
        }
        // All but the used ring is the driver's to write, so it goes to the other guest.
        let mut bytes = vec![0; MEMORY];
        self.memory.read(GuestAddress(0), &mut bytes).unwrap();
        let (used, len) = self.used;
        for range in [0..used as usize, used as usize + len..MEMORY] {
            self.oracle_memory.write_slice(&bytes[range.clone()], OracleAddress(range.start as u64)).unwrap();
        }
    }

    fn devices_work(&mut self) {
        let mut chains = Vec::new();
        for _ in 0..self.random.below(8) {
            let chain = self.queue.pop(&self.memory).unwrap();
            let expected = self.oracle.pop_descriptor_chain(&self.oracle_memory);
            let (Some(chain), Some(expected)) = (&chain, &expected) else {
                assert_eq!(chain.is_some(), expected.is_some());
                break;
            };
            assert_eq!(chain.id().index(), expected.head_index());
            let ours = chain.segments().iter().map(|segment| (segment.address.0, segment.len, segment.is_writable));
            let theirs = expected.clone().map(|it| (it.addr().0, it.len(), it.is_write_only()));
            assert!(ours.eq(theirs));
            chains.push(chain.id());
        }
        while !chains.is_empty() {
            let id = chains.remove(self.random.index(chains.len()));
            let written = self.random.below(1 << 32) as u32;
            self.queue.push(&self.memory, id, written).unwrap();
            self.oracle.add_used(&self.oracle_memory, id.index(), written).unwrap();
        }
        if self.queue.config().features.contains(RingFeatures::EVENT_IDX) {
            let expected = self.oracle.needs_notification(&self.oracle_memory).unwrap();
            assert_eq!(self.queue.needs_notification(&self.memory), expected);
        }
        match self.random.below(3) {
            0 => {
                let expected = self.oracle.enable_notification(&self.oracle_memory).unwrap();
                assert_eq!(self.queue.enable_kicks(&self.memory), expected);
            }
            1 => {
                self.oracle.disable_notification(&self.oracle_memory).unwrap();
                self.queue.disable_kicks(&self.memory);
            }
            _ => {}
        }
        let (address, len) = self.used;
        let (mut ours, mut theirs) = (vec![0; len], vec![0; len]);
        self.memory.read(GuestAddress(address), &mut ours).unwrap();
        self.oracle_memory.read_slice(&mut theirs, OracleAddress(address)).unwrap();
        assert_eq!(ours, theirs, "the used rings differ");
        assert_eq!(self.queue.state().next_available.index, self.oracle.next_avail());
        assert_eq!(self.queue.state().next_used.index, self.oracle.next_used());
        assert_eq!(self.oracle.used_idx(&self.oracle_memory, Ordering::Relaxed).unwrap().0, self.oracle.next_used());
        while Driver::take_used(&mut self.driver, &self.memory).is_some() {}
    }
}

#[test]
fn both_take_the_same_chains_and_write_the_same_used_ring() {
    for features in [RingFeatures::INDIRECT_DESC, RingFeatures::INDIRECT_DESC | RingFeatures::EVENT_IDX] {
        for seed in 0..20 {
            let mut world = World::new(features, seed);
            for _ in 0..100 {
                world.driver_works();
                world.devices_work();
            }
            assert!(world.oracle.next_used() > 100);
        }
    }
}
