//! The entropy device under a driver that follows the specification, and one that does not.

mod common;

use std::num::NonZeroU64;

use common::ring_config;
use dragonfly_card_devices::{Entropy, RngDevice, Serve, tables::Rng};
use dragonfly_rate::Rate;
use dragonfly_vhost_user::Device;
use dragonfly_virtqueue::{
    GuestAddress, GuestMemory, QueueConfig, RingFeatures,
    host::{Buffer, Driver, HostMemory, config_at, driver},
};
use proptest::prelude::*;

const SIZE: u16 = 32;
const DATA: u64 = 0x1000;
const MEMORY: u64 = 0x4000;
/// What a buffer gets at most.
const MOST: u32 = 1024;

/// Bytes that count on, as long as the source is not dry.
struct Counter {
    next: u8,
    is_dry: bool,
}

impl Entropy for Counter {
    fn fill(&mut self, into: &mut [u8]) -> bool {
        for byte in into {
            self.next = self.next.wrapping_add(1);
            *byte = self.next;
        }
        !self.is_dry
    }
}

struct Guest {
    device: RngDevice,
    memory: HostMemory,
    ring: Box<dyn Driver<HostMemory>>,
}

impl Guest {
    fn new(layout: RingFeatures, per_second: Option<u64>, is_dry: bool) -> Self {
        let rate = per_second.and_then(NonZeroU64::new).map(|tokens| Rate { per_second: tokens, burst: tokens });
        let rng = Rng { name: "r".into(), rate };
        let mut device = RngDevice::new(&rng, Box::new(Counter { next: 0, is_dry }));
        let features = layout | RingFeatures::VERSION_1;
        assert_eq!(features.bits() & !device.features(), 0);
        device.set_features(features.bits());
        let config: QueueConfig = config_at(0, SIZE, features);
        let memory = HostMemory::new(&[(0, MEMORY as usize)]);
        let ring = driver(&config, &memory);
        device.start_ring(0, ring_config(&config)).unwrap();
        Self { device, memory, ring }
    }

    fn ask(&mut self, buffer: Buffer) {
        self.ring.add(&self.memory, &[buffer], 1, None).unwrap();
        self.ring.publish(&self.memory);
    }

    fn serve(&mut self, now_ns: u64) -> dragonfly_card_devices::Service {
        self.device.serve(&mut (), 0, &self.memory, now_ns).unwrap()
    }

    fn used(&mut self) -> Option<u32> {
        self.ring.take_used(&self.memory).map(|(_, written)| written)
    }
}

#[test]
fn buffers_are_filled_with_what_the_source_has() {
    for layout in [RingFeatures::empty(), RingFeatures::RING_PACKED] {
        let mut guest = Guest::new(layout, None, false);
        guest.ask(Buffer::writable(DATA, 300));
        let service = guest.serve(0);
        assert!(service.has_worked && service.notify && service.wait_until_ns.is_none());
        assert_eq!(guest.used(), Some(300));
        let mut bytes = [0; 301];
        guest.memory.read(GuestAddress(DATA), &mut bytes).unwrap();
        let expected: Vec<u8> = (1..=300).map(|number| number as u8).collect();
        assert_eq!(bytes[..300], expected);
        assert_eq!(bytes[300], 0, "nothing behind the buffer");
    }
}

#[test]
fn a_large_buffer_gets_some() {
    let mut guest = Guest::new(RingFeatures::empty(), None, false);
    guest.ask(Buffer::writable(DATA, 0x2000));
    guest.serve(0);
    assert_eq!(guest.used(), Some(MOST));
}

#[test]
fn what_cannot_be_written_is_given_back_empty() {
    let mut guest = Guest::new(RingFeatures::empty(), None, false);
    guest.ask(Buffer::writable(0x10_0000, 64));
    guest.ask(Buffer::readable(DATA, 64));
    guest.serve(0);
    assert_eq!([guest.used(), guest.used()], [Some(0), Some(0)]);
}

#[test]
fn a_dry_source_is_asked_again_later() {
    let mut guest = Guest::new(RingFeatures::empty(), None, true);
    guest.ask(Buffer::writable(DATA, 64));
    let service = guest.serve(5);
    assert!(!service.has_worked && service.wait_until_ns.is_some_and(|time_ns| time_ns > 5));
    assert_eq!(guest.used(), None);
    assert!(!guest.device.enable_kicks(0, &guest.memory), "it waits for a time, not for kicks");
}

proptest! {
    #[test]
    fn a_limit_holds_whatever_is_asked(
        per_second in 1_u64..5000,
        asked in prop::collection::vec((1_u32..2000, 0_u64..500_000_000), 1..60),
    ) {
        let mut guest = Guest::new(RingFeatures::empty(), Some(per_second), false);
        let (mut now_ns, mut got) = (0, 0);
        for (len, pause_ns) in asked {
            now_ns += pause_ns;
            if guest.ring.add(&guest.memory, &[Buffer::writable(DATA, len)], 1, None).is_some() {
                guest.ring.publish(&guest.memory);
            }
            let service = guest.serve(now_ns);
            prop_assert!(service.wait_until_ns.is_none_or(|time_ns| time_ns > now_ns));
            while let Some(written) = guest.used() {
                got += u64::from(written);
            }
            // A burst is what one second brings; the last request may go into debt.
            let most = per_second as f64 * (1.0 + now_ns as f64 / 1e9) + f64::from(MOST);
            prop_assert!(got as f64 <= most, "{} of {}", got, most);
        }
    }
}
