//! A hostile driver writes anything into the rings of a console device, for `DRAGONFLY_FUZZ_SECONDS` (2 if unset), while two
//! other guests talk.

mod common;
#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "console/guest.rs"]
mod guest;

use std::time::Instant;

use dragonfly_card_devices::Cables;
use dragonfly_random::{Random, fuzz_end};
use dragonfly_virtqueue::{GuestAddress, GuestMemory, RingFeatures, host::Buffer};
use guest::*;

#[test]
fn a_hostile_driver_harms_nobody_elses_ports() {
    let (mut random, end) = (Random::new(1), fuzz_end());
    let mut cables = Cables::default();
    let mut one = Guest::new(&mut cables, &table(&["talk"], None), RingFeatures::empty(), MULTIPORT);
    let mut two = Guest::new(&mut cables, &table(&["talk"], None), RingFeatures::empty(), MULTIPORT);
    let hostile = table(&["x", "y"], Some("y"));
    let mut hostile = Guest::new(&mut cables, &hostile, RingFeatures::empty(), MULTIPORT);
    one.begin(&mut cables);
    two.begin(&mut cables);
    let mut round = 0_u64;
    while Instant::now() < end {
        let index = random.below(6) as u16;
        match random.below(8) {
            0 => hostile.renew(index, &mut cables),
            1 => {
                let at = random.below(6 * RING_BYTES);
                hostile.memory.write(GuestAddress(at), &[random.number() as u8]).unwrap();
            }
            2 => {
                let message = [random.below(4) as u8, 0, 0, 0, random.below(9) as u8, 0, random.below(2) as u8, 0];
                hostile.memory.write(GuestAddress(DATA), &message).unwrap();
                hostile.add(TELL, Buffer::readable(DATA, 8));
            }
            _ => {
                let (at, len) = (random.below(DATA + 2 * DATA_BYTES), random.below(0x2_0000) as u32);
                let buffer = if random.once_in(2) { Buffer::readable(at, len) } else { Buffer::writable(at, len) };
                hostile.add(index, buffer);
            }
        }
        hostile.serve(&mut cables);
        round += 1;
        let text = round.to_le_bytes();
        assert!(one.send(&mut cables, TRANSMIT, &text));
        assert_eq!(two.receive(&mut cables, RECEIVE, 64).unwrap(), text);
    }
}
