//! What a card that takes over from one that died knows of what the driver had set by commands.

use dragonfly_card_devices::{Control, Fabric, Serve, kept};
use dragonfly_vhost_user::Device;
use dragonfly_virtqueue::{GuestAddress, GuestMemory};
use dragonfly_vswitch::PortId;

use crate::{
    packets::{KINDS, Place},
    station::*,
};

const OK: u8 = 0;
/// Behind four pairs.
const QUEUE: usize = 8;
const ALL: u64 = CTRL_VQ | CTRL_RX | CTRL_RX_EXTRA | CTRL_VLAN | CTRL_GUEST_OFFLOADS | MQ | RSS | TAKES_ALL | MRG_RXBUF;

const GROUP: [u8; 6] = [0x01, 0, 0x5e, 0, 0, 7];
const OTHER_GROUP: [u8; 6] = [0x01, 0, 0x5e, 0, 0, 8];

type Net = (dragonfly_card_devices::tables::Net, PortId);

fn guests() -> (Fabric, Vec<Net>, Station, Station) {
    let (mut fabric, nets) = nets("[[net]]\nname = 'one'\n[[net]]\nname = 'two'\nqueues = 4\n");
    let one = Station::new(&mut fabric, &nets[0], Control::Card, SENDS_ALL);
    let two = Station::new(&mut fabric, &nets[1], Control::Card, ALL);
    (fabric, nets, one, two)
}

/// UDP over IPv4 to pairs 1 and 3.
fn steering() -> Vec<u8> {
    [&[4, 1, 4, 0, 0, 0, 1, 0, 0, 0, 1, 0, 3, 0, 4, 0, 40][..], &[0x6d, 0x5a, 0x56, 0xda].repeat(10)].concat()
}

/// What commands can set and frames of the switch's show, each set in another way than it is at first.
fn commands() -> Vec<Vec<u8>> {
    let group = |group: &[u8]| [&[1, 0][..], &[0; 4], &[1, 0, 0, 0], group].concat();
    vec![
        vec![0, 0, 0],
        vec![0, 5, 1],
        group(&OTHER_GROUP),
        vec![4, 0, 2, 0],
        [&[5, 0][..], &GUEST_CSUM.to_le_bytes()].concat(),
    ]
}

/// How many frames come to each pair: flows of UDP, frames to two groups and to everybody, and a long one.
fn received(fabric: &mut Fabric, one: &mut Station, two: &mut Station) -> Vec<Vec<usize>> {
    let count = |fabric: &mut Fabric, two: &mut Station| {
        (0..4).map(|pair| two.receive_by(fabric, 2 * pair, 2000).len()).collect::<Vec<_>>()
    };
    let mut all = Vec::new();
    for port in 0..64u8 {
        let mut frame = KINDS[2].frame(Place::default(), &[]);
        frame[35] = port;
        frame[40..42].fill(0);
        one.send(fabric, PLAIN, &frame);
    }
    all.push(count(fabric, two));
    for to in [GROUP, OTHER_GROUP, [0xff; 6]] {
        one.send(fabric, PLAIN, &[&to[..], &MACS[0].0, &[0x88, 0xb5], &[0; 46]].concat());
        all.push(count(fabric, two));
    }
    one.send(fabric, KINDS[0].cut(1000), &KINDS[0].partial(Place::default(), &[7; 3000]));
    all.push(count(fabric, two));
    all
}

#[test]
fn all_that_was_set_by_commands_is_so_after_a_change_of_cards() {
    for steers in [false, true] {
        let (mut fabric, nets, mut one, mut two) = guests();
        let at_first = received(&mut fabric, &mut one, &mut two);
        for command in commands().into_iter().chain(steers.then(steering)) {
            assert_eq!(two.command(&mut fabric, QUEUE, &command), OK, "{command:?}");
        }
        let before = received(&mut fabric, &mut one, &mut two);
        // But for the group that is wanted.
        assert_eq!(before.iter().zip(&at_first).filter(|(now, first)| now == first).count(), 1);
        for _ in 0..2 {
            two.change_card(&mut fabric, &nets[1]);
            assert_eq!(received(&mut fabric, &mut one, &mut two), before);
        }
    }
}

#[test]
fn a_card_that_finds_nothing_keeps_what_is_so() {
    let (mut fabric, nets, mut one, mut two) = guests();
    assert_eq!(two.command(&mut fabric, QUEUE, &steering()), OK);
    let before = received(&mut fabric, &mut one, &mut two);
    // The front end has new memory, and starts the rings again.
    two.kept.write(GuestAddress(0), &[0; 128 << 10]).unwrap();
    let base = two.device.stop_ring(QUEUE as u16);
    two.restart(QUEUE, base);
    two.serve(&mut fabric, QUEUE);
    two.change_card(&mut fabric, &nets[1]);
    assert_eq!(received(&mut fabric, &mut one, &mut two), before);
}

#[test]
fn what_a_driver_could_not_have_said_is_not_taken_over() {
    let (mut fabric, nets, mut one, mut two) = guests();
    let at_first = received(&mut fabric, &mut one, &mut two);
    let long = [&[4, 1][..], &[0xff; 300]].concat();
    for nonsense in [&[][..], &[4], &[4, 0, 5, 0], &[4, 0, 0, 0], &[2, 0, 0, 0x10], &[0, 9, 1], &long, &[9, 9]] {
        {
            let area = two.kept.slice(GuestAddress(0), 128 << 10).unwrap();
            assert!(kept::keep(&area, 1 << 40, [nonsense]).is_some());
        }
        two.change_card(&mut fabric, &nets[1]);
        assert_eq!(received(&mut fabric, &mut one, &mut two), at_first, "{nonsense:?}");
    }
    two.kept.write(GuestAddress(0), &[0x5a; 128 << 10]).unwrap();
    two.change_card(&mut fabric, &nets[1]);
    assert_eq!(received(&mut fabric, &mut one, &mut two), at_first);
}

#[test]
fn a_driver_is_asked_to_announce_itself_when_another_card_has_died() {
    const ANNOUNCE: u8 = 2;
    let (mut fabric, nets) = nets("[[net]]\nname = 'one'\n");
    let status = |guest: &Station| {
        let mut status = [0];
        guest.device.read_config(6, &mut status);
        status[0]
    };
    for (features, is_asked) in [(CTRL_VQ | GUEST_ANNOUNCE, true), (CTRL_VQ, false)] {
        let mut guest = Station::new(&mut fabric, &nets[0], Control::Card, features);
        guest.serve(&mut fabric, 2);
        assert!(!guest.device.take_config_change() && status(&guest) == 1, "the first card");
        for _ in 0..2 {
            guest.change_card(&mut fabric, &nets[0]);
            assert_eq!((guest.device.take_config_change(), status(&guest) & ANNOUNCE != 0), (is_asked, is_asked));
        }
        // The driver has done it, and is not asked again.
        assert_eq!(guest.command(&mut fabric, 2, &[3, 0]) == OK, is_asked);
        assert_eq!((guest.device.take_config_change(), status(&guest)), (is_asked, 1));
        assert!(!guest.device.take_config_change());
    }
}
