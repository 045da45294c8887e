//! The split layout, by sections of virtio 1.2: what a correct driver sees, and what each wrong ring is called.

mod common;

use common::{DATA, INDIRECT, MEMORY, NEXT, RING, Ring, TABLE, WRITE};
use dragonfly_virtqueue::host::config_at;
use dragonfly_virtqueue::{
    GuestAddress, MAX_SEGMENTS, Position, Queue, QueueConfig, QueueError, QueueState, RingFeatures, RingPart, Segment,
};

impl Ring {
    /// A descriptor of the queue's own table.
    fn descriptor(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        self.write_descriptor(RING, index, address, len, flags, next);
    }

    /// An entry of an indirect table.
    fn entry(&self, index: u16, address: u64, len: u32, flags: u16, next: u16) {
        self.write_descriptor(TABLE, index, address, len, flags, next);
    }

    /// Makes `heads` available.
    fn offer(&self, heads: &[u16]) {
        let available = self.config.addresses.driver.0;
        let index = self.load(available + 2);
        for (added, head) in heads.iter().enumerate() {
            let slot = u64::from(index.wrapping_add(added as u16) % 8);
            self.store(available + 4 + 2 * slot, *head);
        }
        self.store(available + 2, index.wrapping_add(heads.len() as u16));
    }

    fn used(&self) -> u64 {
        self.config.addresses.device.0
    }
}

fn ring() -> Ring {
    Ring::new(RingFeatures::INDIRECT_DESC)
}

#[test]
fn a_chain_is_taken_with_its_segments_in_order_2_7_5() {
    let mut ring = ring();
    ring.descriptor(3, DATA, 16, NEXT, 0);
    ring.descriptor(0, DATA + 0x100, 32, NEXT | WRITE, 7);
    ring.descriptor(7, DATA + 0x200, 1, WRITE, 0);
    ring.offer(&[3]);
    let chain = ring.pop().unwrap().unwrap();
    let segment = |offset, len, is_writable| Segment { address: GuestAddress(DATA + offset), len, is_writable };
    assert_eq!(chain.segments(), [segment(0, 16, false), segment(0x100, 32, true), segment(0x200, 1, true)]);
    assert_eq!((chain.readable().len(), chain.writable().len()), (1, 2));
    assert_eq!((chain.readable_len(), chain.writable_len()), (16, 33));
    assert_eq!(chain.id().index(), 3);
    assert!(ring.pop().unwrap().is_none());
}

#[test]
fn an_indirect_table_may_follow_direct_descriptors_2_7_5_3_2() {
    let mut ring = ring();
    ring.descriptor(1, DATA, 8, NEXT, 2);
    // The write-only flag of a descriptor that refers to a table is ignored.
    ring.descriptor(2, TABLE, 48, INDIRECT | WRITE, 0);
    ring.entry(0, DATA + 8, 8, NEXT, 2);
    ring.entry(2, DATA + 16, 4, WRITE, 0);
    ring.offer(&[1]);
    let chain = ring.pop().unwrap().unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len(), chain.segments().len()), (16, 4, 3));
}

#[test]
fn an_indirect_table_may_lie_at_any_address() {
    let mut ring = ring();
    ring.descriptor(0, TABLE + 3, 16, INDIRECT, 0);
    ring.write_descriptor(TABLE + 3, 0, DATA, 9, 0, 0);
    ring.offer(&[0]);
    assert_eq!(ring.pop().unwrap().unwrap().readable_len(), 9);
}

#[test]
fn a_wrong_ring_stops_the_queue_with_the_reason_and_is_not_written() {
    type Setup = fn(&Ring);
    let cases: [(Setup, QueueError); 18] = [
        (|ring| ring.offer(&[8]), QueueError::DescriptorIndex { index: 8, size: 8 }),
        (|ring| ring.offer(&[0xffff]), QueueError::DescriptorIndex { index: 0xffff, size: 8 }),
        (
            |ring| {
                ring.descriptor(0, DATA, 1, NEXT, 8);
                ring.offer(&[0]);
            },
            QueueError::DescriptorIndex { index: 8, size: 8 },
        ),
        (
            |ring| {
                ring.descriptor(0, DATA, 1, NEXT, 1);
                ring.descriptor(1, DATA, 1, NEXT, 0);
                ring.offer(&[0]);
            },
            QueueError::ChainTooLong,
        ),
        (
            |ring| {
                ring.descriptor(0, DATA, 1, NEXT, 0);
                ring.offer(&[0]);
            },
            QueueError::ChainTooLong,
        ),
        (
            |ring| ring.store(ring.config.addresses.driver.0 + 2, 9),
            QueueError::AvailableTooFar { available: 9, used: 0, size: 8 },
        ),
        (
            |ring| ring.store(ring.config.addresses.driver.0 + 2, 0xffff),
            QueueError::AvailableTooFar { available: 0xffff, used: 0, size: 8 },
        ),
        (
            |ring| {
                ring.descriptor(0, u64::MAX - 1, 3, 0, 0);
                ring.offer(&[0]);
            },
            QueueError::SegmentWraps(GuestAddress(u64::MAX - 1)),
        ),
        (
            |ring| {
                ring.descriptor(0, DATA, u32::MAX, NEXT, 1);
                ring.descriptor(1, DATA, 2, WRITE, 0);
                ring.offer(&[0]);
            },
            QueueError::ChainTooLarge,
        ),
        (
            |ring| {
                ring.descriptor(0, DATA, 1, NEXT | WRITE, 1);
                ring.descriptor(1, DATA, 1, 0, 0);
                ring.offer(&[0]);
            },
            QueueError::ReadableAfterWritable,
        ),
        (
            |ring| {
                ring.descriptor(0, TABLE, 16, INDIRECT | NEXT, 1);
                ring.offer(&[0]);
            },
            QueueError::IndirectChained,
        ),
        (
            |ring| {
                ring.descriptor(0, TABLE, 32, INDIRECT, 0);
                ring.entry(0, DATA, 1, NEXT, 1);
                ring.entry(1, TABLE, 16, INDIRECT, 0);
                ring.offer(&[0]);
            },
            QueueError::IndirectOfIndirect,
        ),
        (
            |ring| {
                ring.descriptor(0, TABLE, 24, INDIRECT, 0);
                ring.offer(&[0]);
            },
            QueueError::IndirectLength(24),
        ),
        (
            |ring| {
                ring.descriptor(0, TABLE, 0, INDIRECT, 0);
                ring.offer(&[0]);
            },
            QueueError::IndirectLength(0),
        ),
        (
            |ring| {
                ring.descriptor(0, MEMORY as u64 - 16, 32, INDIRECT, 0);
                ring.offer(&[0]);
            },
            QueueError::IndirectUnmapped(GuestAddress(MEMORY as u64 - 16)),
        ),
        (
            |ring| {
                ring.descriptor(0, TABLE, 32, INDIRECT, 0);
                ring.entry(0, DATA, 1, NEXT, 2);
                ring.offer(&[0]);
            },
            QueueError::DescriptorIndex { index: 2, size: 2 },
        ),
        (
            |ring| {
                ring.descriptor(0, TABLE, 32, INDIRECT, 0);
                ring.entry(0, DATA, 1, NEXT, 1);
                ring.entry(1, DATA, 1, NEXT, 0);
                ring.offer(&[0]);
            },
            QueueError::ChainTooLong,
        ),
        (
            |ring| {
                let count = MAX_SEGMENTS as u16 + 1;
                ring.descriptor(0, TABLE, 16 * u32::from(count), INDIRECT, 0);
                (0..count).for_each(|index| ring.entry(index, DATA, 1, NEXT, index + 1));
                ring.offer(&[0]);
            },
            QueueError::TooManySegments,
        ),
    ];
    for (number, (set_up, reason)) in cases.into_iter().enumerate() {
        let mut ring = ring();
        set_up(&ring);
        assert_eq!(ring.pop().unwrap_err(), reason, "case {number}");
        assert_eq!(ring.queue.error(), Some(reason));
        assert_eq!(ring.pop().unwrap_err(), reason, "case {number} goes on");
        assert!(!ring.queue.needs_notification(&ring.memory) && !ring.queue.enable_kicks(&ring.memory));
        ring.queue.disable_kicks(&ring.memory);
        assert!((0..36).all(|word| ring.load(ring.used() + 2 * word) == 0), "case {number} wrote the used ring");
    }
}

#[test]
fn an_indirect_descriptor_needs_the_feature_2_7_5_3_1() {
    let mut ring = Ring::new(RingFeatures::empty());
    ring.descriptor(0, TABLE, 16, INDIRECT, 0);
    ring.offer(&[0]);
    assert_eq!(ring.pop().unwrap_err(), QueueError::IndirectNotNegotiated);
}

#[test]
fn an_available_index_may_not_go_back_2_7_6_1() {
    let mut ring = ring();
    (0..3).for_each(|index| ring.descriptor(index, DATA, 1, 0, 0));
    ring.offer(&[0, 1, 2]);
    (0..3).for_each(|_| assert!(ring.pop().unwrap().is_some()));
    ring.store(ring.config.addresses.driver.0 + 2, 2);
    assert_eq!(ring.pop().unwrap_err(), QueueError::AvailableTooFar { available: 2, used: 0, size: 8 });
}

#[test]
fn more_chains_than_entries_are_not_taken_while_none_was_given_back_2_7_13() {
    let mut ring = ring();
    ring.descriptor(0, DATA, 1, 0, 0);
    ring.offer(&[0; 8]);
    (0..8).for_each(|_| assert!(ring.pop().unwrap().is_some()));
    ring.offer(&[0]);
    assert_eq!(ring.pop().unwrap_err(), QueueError::AvailableTooFar { available: 9, used: 0, size: 8 });
}

#[test]
fn a_ring_that_leaves_the_memory_stops_the_queue() {
    let mut ring = ring();
    let elsewhere = dragonfly_virtqueue::host::HostMemory::new(&[(RING, 192)]);
    assert_eq!(ring.queue.pop(&elsewhere).unwrap_err(), QueueError::RingUnmapped(RingPart::Device));
    assert_eq!(ring.pop().unwrap_err(), QueueError::RingUnmapped(RingPart::Device));
}

#[test]
fn a_used_element_holds_head_and_length_and_counts_once_published_2_7_8() {
    let mut ring = ring();
    (0..2).for_each(|index| ring.descriptor(index, DATA, 64, WRITE, 0));
    ring.offer(&[1, 0]);
    let (first, second) = (ring.pop().unwrap().unwrap(), ring.pop().unwrap().unwrap());
    let used = ring.used();
    let mut attached = ring.queue.attach(&ring.memory).unwrap();
    attached.stage(second.id(), 0x1_0002).unwrap();
    attached.stage(first.id(), 7).unwrap();
    assert_eq!(ring.load(used + 2), 0);
    ring.queue.attach(&ring.memory).unwrap().publish().unwrap();
    assert_eq!(ring.load(used + 2), 2);
    assert_eq!((ring.load_u32(used + 4), ring.load_u32(used + 8)), (0, 0x1_0002));
    assert_eq!((ring.load_u32(used + 12), ring.load_u32(used + 16)), (1, 7));
}

#[test]
fn indices_wrap_at_65536_2_7_13_3() {
    let mut config = config_at(RING, 8, RingFeatures::empty());
    config.state = QueueState::split(0xffff);
    let mut ring = Ring { config, queue: Queue::new(config).unwrap(), ..Ring::new(RingFeatures::empty()) };
    ring.store(config.addresses.driver.0 + 2, 0xffff);
    ring.descriptor(0, DATA, 1, 0, 0);
    ring.offer(&[0, 0]);
    for index in [0, 1] {
        let chain = ring.pop().unwrap().unwrap();
        ring.queue.push(&ring.memory, chain.id(), 0).unwrap();
        assert_eq!(ring.load(ring.used() + 2), index);
    }
    assert_eq!(ring.queue.state(), QueueState::split(1));
    assert_eq!(ring.queue.state().to_vring_base(false), 1);
}

#[test]
fn without_the_event_index_the_flag_decides_on_notifications_2_7_7_2() {
    let mut ring = ring();
    ring.descriptor(0, DATA, 1, 0, 0);
    for (flags, expected) in [(0, true), (1, false), (0, true)] {
        ring.store(ring.config.addresses.driver.0, flags);
        ring.offer(&[0]);
        let chain = ring.pop().unwrap().unwrap();
        ring.queue.push(&ring.memory, chain.id(), 0).unwrap();
        assert_eq!(ring.queue.needs_notification(&ring.memory), expected);
        assert!(!ring.queue.needs_notification(&ring.memory), "nothing new");
    }
}

#[test]
fn with_the_event_index_a_notification_is_due_when_that_entry_was_written_2_7_7_2() {
    // Used entries written at once, the index asked for, and whether that is among them.
    for (from, count, event, expected) in [
        (0, 1, 0, true),
        (0, 1, 1, false),
        (0, 3, 2, true),
        (0, 3, 3, false),
        (5, 2, 4, false),
        (5, 2, 5, true),
        (5, 2, 0xffff, false),
        (0xfffe, 4, 0xffff, true),
        (0xfffe, 4, 1, true),
        (0xfffe, 4, 2, false),
    ] {
        let mut config = config_at(RING, 8, RingFeatures::EVENT_IDX);
        config.state = QueueState::split(from);
        let mut ring = Ring { config, queue: Queue::new(config).unwrap(), ..Ring::new(RingFeatures::empty()) };
        let available = config.addresses.driver.0;
        ring.store(available + 2, from);
        // The flag is to be ignored.
        ring.store(available, 1);
        // After a start in the middle nobody knows what the driver was told, so it is told.
        assert_eq!(ring.queue.needs_notification(&ring.memory), from != 0);
        ring.store(available + 4 + 16, event);
        ring.descriptor(0, DATA, 1, 0, 0);
        ring.offer(&vec![0; count]);
        let mut attached = ring.queue.attach(&ring.memory).unwrap();
        let mut chain = dragonfly_virtqueue::Chain::new();
        while attached.pop_into(&mut chain).unwrap() {
            attached.stage(chain.id(), 0).unwrap();
        }
        assert!(!attached.needs_notification(), "nothing published");
        attached.publish().unwrap();
        assert_eq!(attached.needs_notification(), expected, "{from} {count} {event}");
        assert!(!attached.needs_notification());
    }
}

#[test]
fn kicks_are_asked_for_by_flag_or_index_and_work_that_is_there_is_told_2_7_10() {
    let mut ring = ring();
    ring.queue.disable_kicks(&ring.memory);
    assert_eq!(ring.load(ring.used()), 1);
    assert!(!ring.queue.enable_kicks(&ring.memory));
    assert_eq!(ring.load(ring.used()), 0);
    ring.descriptor(0, DATA, 1, 0, 0);
    ring.offer(&[0]);
    assert!(ring.queue.enable_kicks(&ring.memory));

    let mut ring = Ring::new(RingFeatures::EVENT_IDX);
    ring.descriptor(0, DATA, 1, 0, 0);
    ring.offer(&[0, 0, 0]);
    (0..3).for_each(|_| assert!(ring.pop().unwrap().is_some()));
    ring.queue.disable_kicks(&ring.memory);
    assert_eq!(ring.load(ring.used()), 0, "flags stay 0");
    assert!(!ring.queue.enable_kicks(&ring.memory));
    assert_eq!(ring.load(ring.used() + 4 + 64), 3);
    ring.offer(&[0]);
    assert!(ring.queue.enable_kicks(&ring.memory));
}

#[test]
fn in_order_means_in_order_2_7_9() {
    let mut ring = Ring::new(RingFeatures::IN_ORDER);
    (0..2).for_each(|index| ring.descriptor(index, DATA, 1, 0, 0));
    ring.offer(&[0, 1]);
    let (first, second) = (ring.pop().unwrap().unwrap(), ring.pop().unwrap().unwrap());
    assert_eq!(ring.queue.push(&ring.memory, second.id(), 0), Err(QueueError::OutOfOrder));
    assert_eq!(ring.queue.error(), None);
    ring.queue.push(&ring.memory, first.id(), 0).unwrap();
    ring.queue.push(&ring.memory, second.id(), 0).unwrap();
    assert_eq!(ring.load(ring.used() + 2), 2);
}

#[test]
fn a_reset_queue_takes_nothing_back_from_before_2_6_1_1() {
    let mut ring = ring();
    ring.descriptor(0, DATA, 1, 0, 0);
    ring.offer(&[0]);
    let before = ring.pop().unwrap().unwrap();
    ring.queue.reset(QueueConfig { state: QueueState::default(), ..ring.config }).unwrap();
    let after = ring.pop().unwrap().unwrap();
    assert_eq!(ring.queue.push(&ring.memory, before.id(), 0), Err(QueueError::NotInFlight));
    assert_eq!(ring.load(ring.used() + 2), 0);
    ring.queue.push(&ring.memory, after.id(), 0).unwrap();
    assert_eq!(ring.queue.push(&ring.memory, after.id(), 0), Err(QueueError::NotInFlight), "given back twice");
}

#[test]
fn a_reset_starts_a_stopped_queue_again() {
    let mut ring = ring();
    ring.offer(&[8]);
    assert!(ring.pop().is_err());
    ring.store(ring.config.addresses.driver.0 + 2, 0);
    ring.queue.reset(ring.config).unwrap();
    assert_eq!(ring.queue.error(), None);
    assert!(ring.pop().unwrap().is_none());
}

#[test]
fn a_device_may_stop_a_queue_and_the_first_reason_stays() {
    let mut ring = ring();
    ring.queue.stop(QueueError::ChainTooLarge);
    ring.queue.stop(QueueError::ChainTooLong);
    assert_eq!(ring.pop().unwrap_err(), QueueError::ChainTooLarge);
}

#[test]
fn a_queue_is_not_made_from_a_wrong_configuration_2_7() {
    let good = config_at(RING, 8, RingFeatures::EVENT_IDX);
    assert!(Queue::new(good).is_ok());
    let part = |change: fn(&mut QueueConfig)| {
        let mut config = good;
        change(&mut config);
        Queue::new(config).unwrap_err()
    };
    for size in [0, 3, 0x8001, 0xffff] {
        assert_eq!(Queue::new(QueueConfig { size, ..good }).unwrap_err(), QueueError::Size(size));
    }
    assert!(Queue::new(config_at(RING, 1 << 15, RingFeatures::empty())).is_ok());
    assert_eq!(part(|c| c.addresses.descriptors.0 += 8), QueueError::Alignment(RingPart::Descriptors));
    assert_eq!(part(|c| c.addresses.driver.0 += 1), QueueError::Alignment(RingPart::Driver));
    assert_eq!(part(|c| c.addresses.device.0 += 2), QueueError::Alignment(RingPart::Device));
    assert_eq!(part(|c| c.addresses.descriptors.0 = !0xf), QueueError::RingWraps(RingPart::Descriptors));
    assert_eq!(part(|c| c.addresses.device.0 = !0x3), QueueError::RingWraps(RingPart::Device));
    assert_eq!(part(|c| c.state.next_available = Position { index: 9, wrap: true }), QueueError::Position);
}
