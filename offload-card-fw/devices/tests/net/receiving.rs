//! Receive buffers.

use dragonfly_card_devices::{Control, Fabric, Serve};
use dragonfly_vhost_user::Device;

use crate::{
    packets::{KINDS, Place},
    station::*,
};

const TAKES: u64 = TAKES_ALL | MRG_RXBUF;

/// Two guests, and a frame for the second one that has taken two of the three buffers that it needs.
fn a_frame_that_waits() -> (Fabric, Station, Station) {
    let (mut fabric, nets) = two_nets();
    let mut one = Station::new(&mut fabric, &nets[0], Control::FrontEnd, SENDS_ALL);
    let mut two = Station::new(&mut fabric, &nets[1], Control::FrontEnd, TAKES);
    one.send(&mut fabric, KINDS[0].cut(1000), &KINDS[0].partial(Place::default(), &[7; 4000]));
    two.offer(0, 2, 1500);
    two.serve(&mut fabric, 0);
    (fabric, one, two)
}

#[test]
fn a_frame_waits_until_there_are_buffers_enough_for_it() {
    let (mut fabric, nets) = two_nets();
    let mut one = Station::new(&mut fabric, &nets[0], Control::FrontEnd, SENDS_ALL);
    for layout in [0, 1 << 34] {
        let mut two = Station::new(&mut fabric, &nets[1], Control::FrontEnd, TAKES | layout);
        let whole = KINDS[0].partial(Place::default(), &[7; 4000]);
        one.send(&mut fabric, KINDS[0].cut(1000), &whole);
        for _ in 0..2 {
            two.offer(0, 1, 1500);
            assert!(!two.serve(&mut fabric, 0).has_worked);
            assert!(two.take(0).is_empty(), "a part of a frame");
            assert!(!two.device.enable_kicks(0, &two.memory), "nothing is to be done until there are more buffers");
        }
        two.offer(0, 1, 1500);
        assert!(two.device.enable_kicks(0, &two.memory));
        assert!(two.serve(&mut fabric, 0).has_worked);
        let buffers = two.take(0);
        assert_eq!(buffers.iter().map(Vec::len).collect::<Vec<_>>(), [1500, 1500, HEADER + whole.len() - 3000]);
        assert_eq!(buffers.concat()[HEADER..], whole);
    }
}

#[test]
fn buffers_that_one_frame_waited_for_serve_others() {
    let (mut fabric, mut one, mut two) = a_frame_that_waits();
    // What waits is lost with the link, the buffers are not.
    two.device.set_link(false, &mut fabric);
    two.device.set_link(true, &mut fabric);
    let small = KINDS[0].frame(Place::default(), b"small");
    for _ in 0..2 {
        one.send(&mut fabric, PLAIN, &small);
    }
    two.serve(&mut fabric, 0);
    let received = [&PLAIN[..], &small].concat();
    assert_eq!(two.take(0), [received.clone(), received]);
}

#[test]
fn a_ring_that_was_stopped_goes_on_with_the_buffers_that_it_had_taken() {
    let (mut fabric, mut one, mut two) = a_frame_that_waits();
    let base = two.device.stop_ring(0);
    assert_eq!(base, 0);
    two.restart(0, base);
    two.device.rings_changed(&mut fabric);
    let small = KINDS[0].frame(Place::default(), b"small");
    two.serve(&mut fabric, 0);
    two.offer(0, 3, 1500);
    two.serve(&mut fabric, 0);
    assert_eq!(two.take(0).len(), 3, "the frame that waited, in three buffers");
    one.send(&mut fabric, PLAIN, &small);
    two.serve(&mut fabric, 0);
    assert_eq!(two.take(0), [[&PLAIN[..], &small].concat()]);
}

#[test]
fn without_merging_a_buffer_that_is_too_short_costs_the_frame() {
    let (mut fabric, nets) = two_nets();
    let mut one = Station::new(&mut fabric, &nets[0], Control::FrontEnd, 0);
    let mut two = Station::new(&mut fabric, &nets[1], Control::FrontEnd, 0);
    let frame = KINDS[0].frame(Place::default(), &[1; 200]);
    for _ in 0..2 {
        one.send(&mut fabric, PLAIN, &frame);
    }
    two.offer(0, 1, 100);
    two.offer(0, 1, 1600);
    two.serve(&mut fabric, 0);
    assert_eq!(two.take(0), [vec![], [&PLAIN[..], &frame].concat()]);
}

#[test]
fn a_frame_that_no_number_of_buffers_holds_is_lost_and_the_next_one_comes() {
    let (mut fabric, nets) = two_nets();
    let mut one = Station::new(&mut fabric, &nets[0], Control::FrontEnd, SENDS_ALL);
    let mut two = Station::new(&mut fabric, &nets[1], Control::FrontEnd, TAKES);
    one.send(&mut fabric, KINDS[0].cut(1000), &KINDS[0].partial(Place::default(), &[7; 4000]));
    let small = KINDS[0].frame(Place::default(), b"s");
    one.send(&mut fabric, PLAIN, &small);
    two.offer(0, 66, 40);
    two.offer(0, 1, 1500);
    two.serve(&mut fabric, 0);
    let buffers = two.take(0);
    assert!(buffers[..64].iter().all(Vec::is_empty));
    assert_eq!(buffers[64..].concat()[HEADER..], small);
}

#[test]
fn frames_keep_their_order_whether_they_are_in_one_buffer_or_in_several() {
    let (mut fabric, nets) = two_nets();
    for layout in [0, 1 << 34] {
        let mut one = Station::new(&mut fabric, &nets[0], Control::FrontEnd, layout);
        let mut two = Station::new(&mut fabric, &nets[1], Control::FrontEnd, MRG_RXBUF | layout);
        let frames: Vec<_> = (0..40_u8)
            .map(|number| KINDS[0].frame(Place::default(), &vec![number; 300 + 20 * usize::from(number)]))
            .collect();
        let cuts = [2000, 2000, 300, 2000, 500];
        let cut: Vec<_> =
            frames.iter().zip(cuts.into_iter().cycle()).map(|(frame, cut)| (cut, frame.clone())).collect();
        one.send_cut(&mut fabric, &cut);
        // The longer ones need two.
        two.offer(0, 100, 700);
        while two.serve(&mut fabric, 0).has_worked {}
        let (mut buffers, mut received) = (two.take(0).into_iter(), Vec::new());
        while let Some(first) = buffers.next() {
            let more = usize::from(first[10]) - 1;
            received
                .push(first.into_iter().skip(HEADER).chain(buffers.by_ref().take(more).flatten()).collect::<Vec<_>>());
        }
        assert_eq!(received, frames);
    }
}

#[test]
fn an_mtu_of_the_machine_files_is_what_fits() {
    let (mut fabric, nets) = nets("[[net]]\nname = 'one'\nmtu = 9000\n[[net]]\nname = 'two'\nmtu = 9000\n");
    let mut one = Station::new(&mut fabric, &nets[0], Control::Card, 0);
    let mut two = Station::new(&mut fabric, &nets[1], Control::Card, MRG_RXBUF);
    let longest = KINDS[0].frame(Place::default(), &[1; 9000 - 40]);
    one.send(&mut fabric, PLAIN, &longest);
    one.send(&mut fabric, PLAIN, &KINDS[0].frame(Place::default(), &[1; 9001 - 40]));
    let frames = two.receive_by(&mut fabric, 0, 1600);
    assert_eq!(frames.into_iter().map(|(_, frame)| frame).collect::<Vec<_>>(), [longest]);
}
