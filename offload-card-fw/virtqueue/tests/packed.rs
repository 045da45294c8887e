//! The packed layout, by sections of virtio 1.2: what a correct driver sees, and what each wrong ring is called.

mod common;

use common::{DATA, INDIRECT, NEXT, RING, Ring, TABLE, WRITE};
use dragonfly_virtqueue::host::config_at;
use dragonfly_virtqueue::{
    Chain, GuestAddress, Position, Queue, QueueConfig, QueueError, QueueState, RingFeatures, RingPart,
};

const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// Features of most rings here.
fn features() -> RingFeatures {
    RingFeatures::RING_PACKED | RingFeatures::INDIRECT_DESC
}

impl Ring {
    /// An available descriptor of the first lap.
    fn available(&self, index: u16, address: u64, len: u32, id: u16, flags: u16) {
        self.write_descriptor(RING, index, address, len, id, flags | AVAIL);
    }

    /// A descriptor as the driver reads it: length, id and flags.
    fn used(&self, index: u16) -> (u32, u16, u16) {
        let at = RING + 16 * u64::from(index);
        (self.load_u32(at + 8), self.load(at + 12), self.load(at + 14))
    }

    /// Takes and gives back `count` chains in a batch.
    fn serve(&mut self, count: usize) {
        let mut attached = self.queue.attach(&self.memory).unwrap();
        let mut chain = Chain::new();
        for _ in 0..count {
            assert!(attached.pop_into(&mut chain).unwrap());
            attached.stage(chain.id(), 0).unwrap();
        }
        assert!(!attached.needs_notification(), "nothing published");
        attached.publish().unwrap();
    }

    /// A queue that goes on at `position`, where the driver is as well.
    fn at(features: RingFeatures, position: Position) -> Self {
        let mut config = config_at(RING, 8, features);
        config.state = QueueState { next_available: position, next_used: position };
        Self { config, queue: Queue::new(config).unwrap(), ..Self::new(features) }
    }
}

#[test]
fn a_list_is_taken_once_its_first_descriptor_is_available_2_8_6() {
    let mut ring = Ring::new(features());
    ring.write_descriptor(RING, 0, DATA, 16, 0, NEXT);
    ring.available(1, DATA + 16, 8, 5, WRITE);
    assert!(ring.pop().unwrap().is_none());
    ring.available(0, DATA, 16, 0, NEXT);
    let chain = ring.pop().unwrap().unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (16, 8));
    assert_eq!(chain.id().index(), 5, "the id is the last descriptor's");
    assert!(ring.pop().unwrap().is_none());
}

#[test]
fn a_used_descriptor_stands_for_the_list_and_the_ring_goes_on_behind_it_2_8_6() {
    let mut ring = Ring::new(features());
    ring.available(0, DATA, 16, 0, NEXT | WRITE);
    ring.available(1, DATA, 16, 3, WRITE);
    ring.available(2, DATA, 16, 6, 0);
    let (first, second) = (ring.pop().unwrap().unwrap(), ring.pop().unwrap().unwrap());
    ring.queue.push(&ring.memory, second.id(), 0).unwrap();
    assert_eq!(ring.used(0), (0, 6, AVAIL | USED));
    ring.queue.push(&ring.memory, first.id(), 20).unwrap();
    // The second list took one descriptor, so this one comes next; nothing is written behind it.
    assert_eq!(ring.used(1), (20, 3, AVAIL | USED | WRITE));
    assert_eq!(ring.used(2), (16, 6, AVAIL));
    let position = Position { index: 3, wrap: true };
    assert_eq!(ring.queue.state(), QueueState { next_available: position, next_used: position });
}

#[test]
fn wrap_counters_change_at_the_end_of_the_ring_2_8_1() {
    let mut ring = Ring::at(features(), Position { index: 7, wrap: true });
    ring.available(7, DATA, 1, 0, NEXT);
    // The next lap begins: available is now 0 for AVAIL and 1 for USED.
    ring.write_descriptor(RING, 0, DATA, 1, 2, USED);
    ring.write_descriptor(RING, 1, DATA, 1, 3, USED);
    ring.serve(2);
    assert_eq!(ring.used(7).2, AVAIL | USED);
    assert_eq!(ring.used(1), (0, 3, 0));
    let position = Position { index: 2, wrap: false };
    assert_eq!(ring.queue.state(), QueueState { next_available: position, next_used: position });
    assert_eq!(ring.queue.state().to_vring_base(true), 0x0002_0002);
    assert_eq!(QueueState::packed(0x0002_8002).next_available, Position { index: 2, wrap: true });
}

#[test]
fn a_batch_is_seen_only_with_its_first_descriptor() {
    let mut ring = Ring::new(features());
    (0..3).for_each(|index| ring.available(index, DATA, 16, index, 0));
    let mut attached = ring.queue.attach(&ring.memory).unwrap();
    let mut chain = Chain::new();
    while attached.pop_into(&mut chain).unwrap() {
        attached.stage(chain.id(), 0).unwrap();
    }
    assert_eq!(ring.used(0).2, AVAIL, "the driver looks here, and no further");
    ring.queue.attach(&ring.memory).unwrap().publish().unwrap();
    (0..3).for_each(|index| assert_eq!(ring.used(index), (0, index, AVAIL | USED)));
}

#[test]
fn of_an_indirect_table_only_the_write_flag_counts_2_8_7() {
    let mut ring = Ring::new(features());
    ring.available(0, TABLE, 32, 4, INDIRECT | WRITE);
    ring.write_descriptor(TABLE, 0, DATA, 8, 77, INDIRECT | NEXT);
    ring.write_descriptor(TABLE, 1, DATA, 4, 78, WRITE);
    let chain = ring.pop().unwrap().unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len(), chain.id().index()), (8, 4, 4));
}

#[test]
fn a_queue_size_need_not_be_a_power_of_two_2_8_10_1() {
    let config = config_at(RING, 3, features());
    let mut ring = Ring { config, queue: Queue::new(config).unwrap(), ..Ring::new(features()) };
    for lap in 0..4 {
        for index in 0..3 {
            let flags = if lap % 2 == 0 { AVAIL } else { USED };
            ring.write_descriptor(RING, index, DATA, 1, index, flags);
            ring.serve(1);
            assert!(ring.pop().unwrap().is_none());
        }
    }
}

#[test]
fn a_wrong_ring_stops_the_queue_with_the_reason_and_is_not_written() {
    type Setup = fn(&Ring);
    let cases: [(Setup, QueueError); 10] = [
        (
            |ring| {
                ring.available(0, DATA, 1, 0, NEXT);
                ring.write_descriptor(RING, 1, DATA, 1, 0, 0);
            },
            QueueError::ChainIncomplete(1),
        ),
        (
            |ring| {
                (0..8).for_each(|index| ring.available(index, DATA, 1, 0, NEXT));
            },
            QueueError::ChainTooLong,
        ),
        (|ring| ring.available(0, TABLE, 16, 0, INDIRECT | NEXT), QueueError::IndirectChained),
        (
            |ring| {
                ring.available(0, DATA, 1, 0, NEXT);
                ring.available(1, TABLE, 16, 0, INDIRECT);
            },
            QueueError::IndirectChained,
        ),
        (|ring| ring.available(0, TABLE, 17, 0, INDIRECT), QueueError::IndirectLength(17)),
        (|ring| ring.available(0, 1 << 40, 16, 0, INDIRECT), QueueError::IndirectUnmapped(GuestAddress(1 << 40))),
        (|ring| ring.available(0, TABLE, 16 * 257, 0, INDIRECT), QueueError::TooManySegments),
        (|ring| ring.available(0, u64::MAX, 2, 0, 0), QueueError::SegmentWraps(GuestAddress(u64::MAX))),
        (
            |ring| {
                ring.available(0, DATA, 1, 0, NEXT | WRITE);
                ring.available(1, DATA, 1, 0, 0);
            },
            QueueError::ReadableAfterWritable,
        ),
        (
            |ring| {
                ring.available(0, DATA, u32::MAX, 0, NEXT);
                ring.available(1, DATA, 2, 0, 0);
            },
            QueueError::ChainTooLarge,
        ),
    ];
    for (number, (set_up, reason)) in cases.into_iter().enumerate() {
        let mut ring = Ring::new(features());
        set_up(&ring);
        let before: Vec<_> = (0..8).map(|index| ring.used(index)).collect();
        assert_eq!(ring.pop().unwrap_err(), reason, "case {number}");
        assert_eq!(ring.pop().unwrap_err(), reason, "case {number} goes on");
        ring.queue.disable_kicks(&ring.memory);
        assert!((0..8).map(|index| ring.used(index)).eq(before), "case {number} wrote the ring");
        assert_eq!(ring.load(ring.config.addresses.device.0 + 2), 0, "case {number} wrote the event suppression");
    }
}

#[test]
fn a_descriptor_that_the_device_has_is_not_taken_again_2_8_16() {
    let mut ring = Ring::new(features());
    (0..8).for_each(|index| ring.available(index, DATA, 1, index, 0));
    (0..8).for_each(|_| assert!(ring.pop().unwrap().is_some()));
    assert!(ring.pop().unwrap().is_none());
    ring.write_descriptor(RING, 0, DATA, 1, 0, USED);
    assert_eq!(ring.pop().unwrap_err(), QueueError::ChainTooLong);
}

#[test]
fn the_driver_says_by_its_event_flags_whether_it_wants_notifications_2_8_10() {
    let event_idx = features() | RingFeatures::EVENT_IDX;
    // Features; flags and position of the driver's event suppression; the lap in which it is; expected after descriptors
    // 6, 7 of a lap and 0 of the next one.
    for (features, flags, index, wrap, expected) in [
        (features(), 0, 0, false, true),
        (features(), 1, 0, false, false),
        (features(), 2, 1, true, true),
        (event_idx, 0, 0, false, true),
        (event_idx, 1, 6, true, false),
        (event_idx, 2, 5, true, false),
        (event_idx, 2, 6, true, true),
        (event_idx, 2, 7, true, true),
        (event_idx, 2, 0, false, true),
        (event_idx, 2, 1, false, false),
        (event_idx, 2, 6, false, false),
        (event_idx, 3, 0, false, true),
    ] {
        let mut ring = Ring::at(features, Position { index: 6, wrap: true });
        assert!(ring.queue.needs_notification(&ring.memory), "nobody knows what the driver was told before");
        let driver = ring.config.addresses.driver.0;
        ring.store(driver, Position { index, wrap }.to_packed());
        ring.store(driver + 2, flags);
        ring.available(6, DATA, 1, 0, 0);
        ring.available(7, DATA, 1, 1, 0);
        ring.write_descriptor(RING, 0, DATA, 1, 2, USED);
        ring.serve(3);
        assert_eq!(ring.queue.needs_notification(&ring.memory), expected, "{flags} {index} {wrap}");
        assert!(!ring.queue.needs_notification(&ring.memory), "nothing new");
    }
}

#[test]
fn kicks_are_asked_for_by_flags_or_position_and_work_that_is_there_is_told_2_8_10() {
    let mut ring = Ring::new(features());
    let device = ring.config.addresses.device.0;
    ring.queue.disable_kicks(&ring.memory);
    assert_eq!(ring.load(device + 2), 1);
    assert!(!ring.queue.enable_kicks(&ring.memory));
    assert_eq!(ring.load(device + 2), 0);
    ring.available(0, DATA, 1, 0, 0);
    assert!(ring.queue.enable_kicks(&ring.memory));

    let mut ring = Ring::at(features() | RingFeatures::EVENT_IDX, Position { index: 4, wrap: true });
    assert!(!ring.queue.enable_kicks(&ring.memory));
    assert_eq!((ring.load(device), ring.load(device + 2)), (4 | 1 << 15, 2));
    ring.queue.disable_kicks(&ring.memory);
    assert_eq!(ring.load(device + 2), 1);
}

#[test]
fn in_order_means_in_order_2_8_8() {
    let mut ring = Ring::new(features() | RingFeatures::IN_ORDER);
    (0..2).for_each(|index| ring.available(index, DATA, 1, index, 0));
    let (first, second) = (ring.pop().unwrap().unwrap(), ring.pop().unwrap().unwrap());
    assert_eq!(ring.queue.push(&ring.memory, second.id(), 0), Err(QueueError::OutOfOrder));
    ring.queue.push(&ring.memory, first.id(), 0).unwrap();
    ring.queue.push(&ring.memory, second.id(), 0).unwrap();
}

#[test]
fn a_queue_is_not_made_from_a_wrong_configuration_2_8_10_1() {
    let good = config_at(RING, 8, features());
    let state = |available: (u16, bool), used: (u16, bool)| QueueConfig {
        state: QueueState {
            next_available: Position { index: available.0, wrap: available.1 },
            next_used: Position { index: used.0, wrap: used.1 },
        },
        ..good
    };
    for (config, error) in [
        (QueueConfig { size: 0, ..good }, QueueError::Size(0)),
        (QueueConfig { size: 0x8001, ..good }, QueueError::Size(0x8001)),
        (state((8, true), (8, true)), QueueError::Position),
        (state((3, true), (4, true)), QueueError::Position),
        (state((5, false), (4, true)), QueueError::Position),
    ] {
        assert_eq!(Queue::new(config).unwrap_err(), error);
    }
    for config in [state((4, true), (3, true)), state((4, false), (4, true)), state((3, true), (3, true))] {
        assert!(Queue::new(config).is_ok());
    }
    let mut config = good;
    config.addresses.driver.0 += 2;
    assert_eq!(Queue::new(config).unwrap_err(), QueueError::Alignment(RingPart::Driver));
}
