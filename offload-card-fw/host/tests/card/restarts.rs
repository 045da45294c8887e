//! Clients that die and come back.

use std::{collections::BTreeSet, thread};

use dragonfly_vhost_user::{Request, wire::VringState};
use dragonfly_virtqueue::RingFeatures;
use zerocopy::IntoBytes;

use crate::{Setup, front_end::*};

/// Begins to write this round's 20 sectors: the requests' numbers.
pub fn begin(guest: &mut Guest, round: u8) -> BTreeSet<u16> {
    let pending: BTreeSet<_> = (0..20)
        .map(|place| {
            guest.fill(place, &[round + 1; 512]);
            guest.add(0, place, WRITE, u64::from(round) * 20 + place, 512).unwrap()
        })
        .collect();
    assert_eq!(pending.len(), 20);
    guest.publish(0);
    pending
}

/// Waits until each of them has come back, once.
pub fn finish(guest: &mut Guest, mut pending: BTreeSet<u16>) {
    while !pending.is_empty() {
        let (id, _) = guest.wait_used(0);
        assert!(pending.remove(&id), "{:?}: chain {id} came back twice", guest.features);
    }
    assert!((0..20).all(|place| guest.status(place) == 0));
    let used = guest.rings[0].driver.take_used(&guest.ram);
    assert_eq!(used, None, "{:?}: one more came back", guest.features);
}

#[test]
fn each_request_is_done_once_however_often_the_client_dies() {
    for layout in [RingFeatures::empty(), RingFeatures::RING_PACKED] {
        let setup = Setup::new("");
        die_while_writing(&setup, layout, 40);
        assert_rounds_were_written(&setup.end(), 40);
    }
}

/// A client that dies in each of so many rounds while its writing is under way, and comes back.
pub fn die_while_writing(setup: &Setup, layout: RingFeatures, rounds: u8) {
    let mut guest = Guest::new(layout);
    for round in 0..rounds {
        let front_end = FrontEnd::serve(&setup.socket(), &mut guest);
        let pending = begin(&mut guest, round);
        yield_for(round);
        drop(front_end);
        let _front_end = FrontEnd::serve(&setup.socket(), &mut guest);
        finish(&mut guest, pending);
    }
}

/// Lets others run: another time in each round.
pub fn yield_for(round: u8) {
    (0..u32::from(round) * 4).for_each(|_| thread::yield_now());
}

/// A disk to which so many rounds were written.
pub fn assert_rounds_were_written(image: &[u8], rounds: u8) {
    for round in 0..rounds {
        let written = &image[usize::from(round) * 20 * 512..][..20 * 512];
        assert!(written.iter().all(|byte| *byte == round + 1), "round {round}");
    }
}

#[test]
fn a_ring_that_was_stopped_goes_on_where_it_was() {
    let setup = Setup::new("");
    let mut guest = Guest::new(RingFeatures::empty());
    let mut front_end = FrontEnd::serve(&setup.socket(), &mut guest);
    for _ in 0..100 {
        assert_eq!(guest.request(0, READ, 0, 512), 0);
    }
    let (answer, _) = front_end.ask(Request::GetVringBase, VringState { index: 0, num: 0 }.as_bytes());
    assert_eq!(answer, VringState { index: 0, num: 100 }.as_bytes());
    front_end.tell(Request::SetVringKick, &0u64, &[std::os::fd::AsFd::as_fd(&guest.rings[0].kick)]);
    assert_eq!(guest.request(0, READ, 0, 512), 0);
}

#[test]
fn a_second_client_is_served_when_the_first_is_gone() {
    let setup = Setup::new("");
    let mut first = Guest::new(RingFeatures::empty());
    let front_end = FrontEnd::serve(&setup.socket(), &mut first);
    let waiting = thread::spawn({
        let socket = setup.socket();
        move || {
            let mut second = Guest::new(RingFeatures::RING_PACKED);
            let _front_end = FrontEnd::serve(&socket, &mut second);
            second.request(1, READ, 0, 512)
        }
    });
    assert_eq!(first.request(0, READ, 0, 512), 0);
    drop(front_end);
    assert_eq!(waiting.join().unwrap(), 0);
}
