//! Driver and device that stop working and wait for each other's notifications, in every interleaving under loom's memory
//! model: the queue itself with a driver, over memory in which loom reports each access that nothing orders.
//!
//! If a notification could be lost, one side would sleep for ever beside work that waits for it.
#![cfg(loom)]

use dragonfly_virtqueue::host::{Buffer, Driver, LoomMemory, PackedDriver, Plain, SplitDriver, config_at};
use dragonfly_virtqueue::{Chain, Queue, QueueConfig, RingFeatures};
use loom::model::Builder;
use loom::sync::{Arc, Notify};
use loom::thread;

const SIZE: u16 = 2;
/// Chains that the driver makes available, one after the other.
const CHAINS: u16 = 2;

/// Loom reports a deadlock if somebody waits for one of these for ever.
struct Shared {
    kick: Notify,
    interrupt: Notify,
}

/// Which bytes of the ring are ordered by others: all but the fields by which the protocol works.
fn plain(config: &QueueConfig) -> Vec<Plain> {
    let [descriptors, driver, device] =
        [config.addresses.descriptors, config.addresses.driver, config.addresses.device].map(|at| at.0 as usize);
    let size = usize::from(config.size);
    if config.is_packed() {
        (0..size).map(|index| descriptors + 16 * index..descriptors + 16 * index + 14).collect()
    } else {
        vec![descriptors..descriptors + 16 * size, driver + 4..driver + 4 + 2 * size, device + 4..device + 4 + 8 * size]
    }
}

fn device(config: QueueConfig, memory: &LoomMemory, shared: &Shared) {
    let mut queue = Queue::new(config).unwrap();
    let mut chain = Chain::new();
    let mut served = 0;
    while served < CHAINS {
        queue.disable_kicks(memory);
        while queue.pop_into(memory, &mut chain).unwrap() {
            queue.push(memory, chain.id(), u32::from(served)).unwrap();
            served += 1;
        }
        if queue.needs_notification(memory) {
            shared.interrupt.notify();
        }
        if served < CHAINS && !queue.enable_kicks(memory) {
            shared.kick.wait();
        }
    }
    assert_eq!(queue.error(), None);
}

fn drive<D: Driver<LoomMemory>>(mut driver: D, memory: &LoomMemory, shared: &Shared) {
    for number in 0..CHAINS {
        driver.add(memory, &[Buffer::readable(0x1000, 64)], 1, None).unwrap();
        if driver.publish(memory) {
            shared.kick.notify();
        }
        // Waits for each before the next: both sides go to sleep as often as possible.
        let written = loop {
            driver.disable_notifications(memory);
            if let Some((_, written)) = driver.take_used(memory) {
                break written;
            }
            if !driver.enable_notifications(memory) {
                shared.interrupt.wait();
            }
        };
        assert_eq!(written, u32::from(number));
    }
}

fn model<D: Driver<LoomMemory> + Send + 'static>(
    features: RingFeatures,
    make: impl Fn(&QueueConfig, &LoomMemory) -> D + Send + Sync + 'static,
) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(move || {
        let config = config_at(0, SIZE, features);
        let memory = Arc::new(LoomMemory::new(0x80, &plain(&config)));
        let driver = make(&config, &memory);
        let shared = Arc::new(Shared { kick: Notify::new(), interrupt: Notify::new() });
        let (device_memory, device_shared) = (memory.clone(), shared.clone());
        let device = thread::spawn(move || device(config, &device_memory, &device_shared));
        drive(driver, &memory, &shared);
        device.join().unwrap();
    });
}

#[test]
fn no_notification_is_lost_on_a_split_ring_with_flags() {
    model(RingFeatures::empty(), SplitDriver::new);
}

#[test]
fn no_notification_is_lost_on_a_split_ring_with_the_event_index() {
    model(RingFeatures::EVENT_IDX, SplitDriver::new);
}

#[test]
fn no_notification_is_lost_on_a_packed_ring_with_flags() {
    model(RingFeatures::RING_PACKED, PackedDriver::new);
}

#[test]
fn no_notification_is_lost_on_a_packed_ring_with_the_event_index() {
    model(RingFeatures::RING_PACKED | RingFeatures::EVENT_IDX, PackedDriver::new);
}
