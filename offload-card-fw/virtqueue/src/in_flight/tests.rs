//! Devices that die anywhere, and those that come after them.

use std::collections::BTreeSet;

use dragonfly_random::Random;

use crate::host::{Buffer, Driver, HostMemory, config_at, driver};
use crate::memory::{GuestAddress, GuestMemory, WithInFlight, death};
use crate::{
    Chain, ChainId, Position, Queue, QueueConfig, QueueError, QueueState, RingFeatures, in_flight_region_size,
};

const SIZE: u16 = 8;

/// Enough for any test to go on to its end.
const IMMORTAL: u32 = u32::MAX;

/// A guest and what outlives a device; and what the device had, as far as that is certain.
struct World {
    config: QueueConfig,
    memory: HostMemory,
    region: HostMemory,
    driver: Box<dyn Driver<HostMemory>>,
    random: Random,
    /// Chains that the driver added and has not got back.
    outstanding: BTreeSet<u16>,
    /// Chains that the device has, in the order in which it took them.
    held: Vec<ChainId>,
}

impl World {
    fn new(features: RingFeatures, seed: u64) -> Self {
        let config = config_at(0x1000, SIZE, features);
        let memory = HostMemory::new(&[(0, 0x4000)]);
        let driver = driver(&config, &memory);
        let region = HostMemory::new(&[(0, in_flight_region_size(SIZE, config.is_packed()))]);
        Self {
            config,
            memory,
            region,
            driver,
            random: Random::new(seed),
            outstanding: BTreeSet::new(),
            held: Vec::new(),
        }
    }

    /// The device's view; apart from `self`, so that the rest can be changed meanwhile.
    fn with_memory<T>(&self, run: impl FnOnce(&WithInFlight<'_, HostMemory>) -> T) -> T {
        let len = in_flight_region_size(SIZE, self.config.is_packed());
        let region = self.region.slice(GuestAddress(0), len).unwrap();
        run(&WithInFlight { memory: &self.memory, region })
    }

    fn recover(&self, left: &mut u32) -> Result<Queue, QueueError> {
        self.with_memory(|memory| death::run(left, || Queue::recover(self.config, memory)))
    }

    fn driver_adds(&mut self) {
        for _ in 0..self.random.below(4) {
            let buffers = [Buffer::readable(0x3000, 8); 3];
            let count = 1 + self.random.index(3);
            if let Some(id) = self.driver.add(&self.memory, &buffers[..count], count, None) {
                assert!(self.outstanding.insert(id));
            }
        }
        self.driver.publish(&self.memory);
    }

    fn driver_takes(&mut self) {
        while let Some((id, _)) = self.driver.take_used(&self.memory) {
            assert!(self.outstanding.remove(&id), "{id} was given back twice");
        }
    }

    /// Takes some chains and gives some back, in any order and in batches; `Err` when it dies. Returns what may have been
    /// taken or given back, or not, at that moment.
    fn device_works(&mut self, queue: &mut Queue, left: &mut u32) -> Result<(), Vec<u16>> {
        for _ in 0..self.random.below(4) {
            let popped = self.with_memory(|memory| death::run(left, || queue.pop(memory)));
            match popped {
                Ok(Some(chain)) => self.held.push(chain.id()),
                Ok(None) => break,
                // What it was about to take is whatever the driver has out beside what is held.
                Err(_) => {
                    let held: BTreeSet<_> = self.held.iter().map(|id| id.index()).collect();
                    return Err(self.outstanding.difference(&held).copied().collect());
                }
            }
        }
        if self.random.once_in(3)
            && let Some(id) = self.held.pop()
        {
            let put_back = self.with_memory(|memory| death::run(left, || queue.attach(memory)?.unpop(id)));
            match put_back {
                Ok(()) => {}
                // Not the last one that was taken, as others have been given back.
                Err(QueueError::NotInFlight) => self.held.push(id),
                Err(_) => return Err(vec![id.index()]),
            }
        }
        let mut batch = Vec::new();
        for _ in 0..self.random.index(self.held.len() + 1) {
            batch.push(self.held.remove(self.random.index(self.held.len())));
        }
        let pushed = self.with_memory(|memory| {
            death::run(left, || {
                let mut ring = queue.attach(memory)?;
                for id in &batch {
                    ring.stage(*id, 1)?;
                }
                ring.publish()
            })
        });
        pushed.map_err(|_| batch.iter().map(|id| id.index()).collect())
    }

    /// Does all that is there, with a device that does not die: nothing may be lost, and nothing come twice.
    fn finish(&mut self, mut queue: Queue) -> Vec<u16> {
        let mut taken = Vec::new();
        for _ in 0..3 {
            self.with_memory(|memory| {
                let mut chain = Chain::new();
                while queue.pop_into(memory, &mut chain).unwrap() {
                    taken.push(chain.id().index());
                    queue.push(memory, chain.id(), 1).unwrap();
                }
            });
            self.driver_takes();
        }
        assert_eq!(self.outstanding, BTreeSet::new(), "lost");
        taken
    }
}

fn layouts() -> [RingFeatures; 2] {
    [RingFeatures::empty(), RingFeatures::RING_PACKED]
}

/// Lets a device die after `lifetime` stores; its successor, if `second` is less than it needs, after so many. Returns
/// whether the first one died.
fn live_and_die(features: RingFeatures, seed: u64, lifetime: u32, second: u32, driver_goes_on: bool) -> bool {
    let mut world = World::new(features, seed);
    let mut left = lifetime;
    let mut unsure = Vec::new();
    let mut has_died = true;
    if let Ok(mut queue) = world.recover(&mut left) {
        has_died = (0..30).any(|_| {
            world.driver_adds();
            let died = world.device_works(&mut queue, &mut left).map_err(|at_death| unsure = at_death).is_err();
            if !died && world.random.below(2) == 0 {
                world.driver_takes();
            }
            died
        });
    }
    if driver_goes_on {
        world.driver_takes();
        world.driver_adds();
    }
    if second != IMMORTAL {
        let _ = world.recover(&mut { second });
    }
    let queue = world.recover(&mut { IMMORTAL }).unwrap();
    let held: Vec<_> = world.held.iter().map(|id| id.index()).collect();
    let again = world.finish(queue);
    let surely_again: Vec<_> = again.iter().copied().filter(|id| held.contains(id) && !unsure.contains(id)).collect();
    let held: Vec<_> = held.into_iter().filter(|id| !unsure.contains(id)).collect();
    // Numbers of chains that were held come first; later on the driver may use the same numbers again.
    assert_eq!(surely_again.get(..held.len()), Some(&held[..]), "not taken again, or in another order");
    has_died
}

#[test]
fn a_device_that_dies_between_any_two_stores_loses_nothing_and_does_nothing_twice() {
    for features in layouts() {
        for seed in 1..=6 {
            for driver_goes_on in [false, true] {
                let deaths =
                    (0..).take_while(|lifetime| live_and_die(features, seed, *lifetime, IMMORTAL, driver_goes_on));
                assert!(deaths.count() > 100);
            }
        }
    }
}

#[test]
fn a_device_may_die_while_it_takes_up_what_another_left() {
    for features in layouts() {
        for lifetime in (0..180).step_by(3) {
            for second in 0..12 {
                live_and_die(features, 5, lifetime, second, true);
            }
        }
    }
}

#[test]
fn what_was_in_flight_is_taken_again_in_its_order_and_then_what_is_new() {
    for features in layouts() {
        let mut world = World::new(features, 1);
        let buffers = [Buffer::readable(0x3000, 8), Buffer::writable(0x3100, 4)];
        let mut queue = world.recover(&mut { IMMORTAL }).unwrap();
        let ids: Vec<_> = (0..3).map(|_| world.driver.add(&world.memory, &buffers, 2, None).unwrap()).collect();
        world.driver.publish(&world.memory);
        world.with_memory(|memory| {
            let chains: Vec<_> = (0..3).map(|_| queue.pop(memory).unwrap().unwrap()).collect();
            queue.push(memory, chains[1].id(), 4).unwrap();
        });
        assert_eq!(world.driver.take_used(&world.memory), Some((ids[1], 4)));
        let new = world.driver.add(&world.memory, &buffers, 2, None).unwrap();
        world.driver.publish(&world.memory);
        let mut queue = world.recover(&mut { IMMORTAL }).unwrap();
        world.with_memory(|memory| {
            assert!(queue.enable_kicks(memory), "there is work");
            for expected in [ids[0], ids[2], new] {
                let chain = queue.pop(memory).unwrap().unwrap();
                assert_eq!(chain.id().index(), expected);
                assert_eq!((chain.readable_len(), chain.writable_len()), (8, 4));
            }
            assert!(queue.pop(memory).unwrap().is_none());
            assert!(queue.needs_notification(memory), "nobody knows what the driver was told");
        });
    }
}

#[test]
fn a_chain_that_is_taken_again_can_be_put_back_too() {
    for features in layouts() {
        let mut world = World::new(features, 1);
        let mut queue = world.recover(&mut { IMMORTAL }).unwrap();
        let buffers = [Buffer::readable(0x3000, 8)];
        let ids: Vec<_> = (0..4).map(|_| world.driver.add(&world.memory, &buffers, 1, None).unwrap()).collect();
        world.driver.publish(&world.memory);
        world.with_memory(|memory| (0..3).for_each(|_| assert!(queue.pop(memory).unwrap().is_some())));
        let mut queue = world.recover(&mut { IMMORTAL }).unwrap();
        world.with_memory(|memory| {
            // One of the three first ones, all of them, and then the new one as well.
            for count in [1, 3, 4] {
                let chains: Vec<_> = (0..count).map(|_| queue.pop(memory).unwrap().unwrap()).collect();
                assert!(chains.iter().map(|chain| chain.id().index()).eq(ids[..count].iter().copied()));
                let mut ring = queue.attach(memory).unwrap();
                chains.iter().rev().for_each(|chain| ring.unpop(chain.id()).unwrap());
            }
        });
        assert_eq!(world.with_memory(|memory| queue.pop(memory)).unwrap().unwrap().id().index(), ids[0]);
    }
}

#[test]
fn memory_for_tracking_that_holds_something_else_is_refused() {
    for features in layouts() {
        let world = World::new(features, 1);
        world.recover(&mut { IMMORTAL }).unwrap();
        let config = QueueConfig { size: SIZE / 2, ..world.config };
        let refused = world.with_memory(|memory| Queue::recover(config, memory).unwrap_err());
        assert_eq!(refused, QueueError::InFlightState);
        world.region.write(GuestAddress(8), &[2]).unwrap();
        assert_eq!(world.recover(&mut { IMMORTAL }).unwrap_err(), QueueError::InFlightState);
        assert_eq!(Queue::recover(world.config, &world.memory).unwrap_err(), QueueError::InFlightMemory);
    }
}

#[test]
fn a_head_that_is_in_flight_may_not_be_made_available_again() {
    let world = World::new(RingFeatures::empty(), 1);
    let mut queue = world.recover(&mut { IMMORTAL }).unwrap();
    let available = world.config.addresses.driver;
    world.memory.write(available, &[0, 0, 2, 0, 0, 0, 0, 0]).unwrap();
    world.with_memory(|memory| {
        assert!(queue.pop(memory).unwrap().is_some());
        assert_eq!(queue.pop(memory).unwrap_err(), QueueError::AvailableTwice(0));
    });
}

#[test]
fn regions_have_the_size_that_the_layouts_need() {
    for (size, is_packed, bytes) in [(1, false, 64), (256, false, 16 + 4096 + 48), (256, true, 32 + 8192 + 32)] {
        assert_eq!(in_flight_region_size(size, is_packed), bytes);
    }
}

#[test]
fn a_new_region_tracks_from_the_position_at_which_the_queue_begins() {
    let mut world = World::new(RingFeatures::RING_PACKED, 1);
    let at = Position { index: 5, wrap: false };
    world.config.state = QueueState { next_available: at, next_used: at };
    assert_eq!(world.recover(&mut { IMMORTAL }).unwrap().state(), world.config.state);
    world.config.state = QueueState::default();
    assert_eq!(world.recover(&mut { IMMORTAL }).unwrap().state().next_used, at);
}
