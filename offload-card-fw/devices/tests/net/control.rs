//! The control queue, and what the configuration space tells.

use dragonfly_card_devices::{Control, Serve};
use dragonfly_vhost_user::{Device, ProtocolFeatures};

use crate::{
    packets::{KINDS, Place},
    station::*,
};

const OK: u8 = 0;
const ERR: u8 = 1;

/// Without MQ the queue behind the first pair.
const QUEUE: usize = 2;

const ALL: u64 =
    CTRL_VQ | CTRL_RX | CTRL_RX_EXTRA | CTRL_VLAN | CTRL_MAC_ADDR | CTRL_GUEST_OFFLOADS | GUEST_ANNOUNCE | TAKES_ALL;

fn table(addresses: &[[u8; 6]]) -> Vec<u8> {
    [&(addresses.len() as u32).to_le_bytes()[..], &addresses.concat()].concat()
}

#[test]
fn commands_that_can_be_done_are_acknowledged_and_others_refused() {
    let (mut fabric, nets) = two_nets();
    let mut guest = Station::new(&mut fabric, &nets[0], Control::Card, ALL);
    let none = table(&[]);
    for (command, answer) in [
        (vec![], ERR),
        (vec![0], ERR),
        (vec![0, 0], ERR),
        (vec![0, 0, 1], OK),
        (vec![0, 0, 2], ERR),
        (vec![0, 1, 0], OK),
        (vec![0, 5, 0], OK),
        (vec![0, 6, 0], ERR),
        ([&[1, 0][..], &none, &none].concat(), OK),
        ([&[1, 0][..], &table(&[MACS[1].0; 100]), &none].concat(), OK),
        ([&[1, 0][..], &none].concat(), ERR),
        ([&[1, 0][..], &none, &none, &[0]].concat(), ERR),
        ([&[1, 0][..], &[0xff; 4], &none].concat(), ERR),
        ([&[1, 0][..], &table(&[[1; 6]; 1000]), &none].concat(), ERR),
        ([&[1, 1][..], &MACS[0].0].concat(), OK),
        ([&[1, 1][..], &MACS[1].0].concat(), ERR),
        (vec![2, 0, 1, 0], OK),
        (vec![2, 1, 0xff, 0x0f], OK),
        (vec![2, 0, 0, 0x10], ERR),
        (vec![2, 2, 1, 0], ERR),
        (vec![3, 0], OK),
        (vec![3, 0, 0], ERR),
        // MQ was not negotiated.
        (vec![4, 0, 1, 0], ERR),
        ([&[5, 0][..], &TAKES_ALL.to_le_bytes()].concat(), OK),
        ([&[5, 0][..], &(TAKES_ALL | CSUM).to_le_bytes()].concat(), ERR),
        ([&[5, 0][..], &(1u64 << 63).to_le_bytes()].concat(), ERR),
        (vec![6, 0], ERR),
        (vec![255, 255], ERR),
    ] {
        assert_eq!(guest.command(&mut fabric, QUEUE, &command), answer, "{command:?}");
    }
}

#[test]
fn commands_that_were_not_negotiated_are_refused() {
    let (mut fabric, nets) = two_nets();
    let mut guest = Station::new(&mut fabric, &nets[0], Control::Card, CTRL_VQ);
    let none = table(&[]);
    for command in [
        vec![0, 0, 1],
        vec![0, 2, 1],
        [&[1, 0][..], &none, &none].concat(),
        [&[1, 1][..], &MACS[0].0].concat(),
        vec![2, 0, 1, 0],
        vec![3, 0],
        vec![4, 0, 1, 0],
        [&[5, 0][..], &0u64.to_le_bytes()].concat(),
    ] {
        assert_eq!(guest.command(&mut fabric, QUEUE, &command), ERR, "{command:?}");
    }
}

#[test]
fn what_is_received_is_what_the_driver_wants() {
    let group = [0x01, 0, 0x5e, 0, 0, 7];
    let (promiscuous_off, all_multicast) = ([0, 0, 0], [0, 1, 1]);
    let only_group = [&[1, 0][..], &table(&[]), &table(&[group])].concat();
    let other_group = [&[1, 0][..], &table(&[]), &table(&[[0x33; 6]])].concat();
    let many_groups = [&[1, 0][..], &table(&[]), &table(&[[0x33; 6]; 65])].concat();
    let (no_multicast, no_unicast, no_broadcast) = ([0, 3, 1], [0, 4, 1], [0, 5, 1]);
    let off = &promiscuous_off[..];
    // Whether frames to the station, to a group and to everybody come.
    for (commands, wanted) in [
        (vec![], [true, true, true]),
        (vec![off], [true, false, true]),
        (vec![off, &all_multicast], [true, true, true]),
        (vec![off, &all_multicast, &no_multicast], [true, false, true]),
        (vec![off, &only_group], [true, true, true]),
        (vec![off, &other_group], [true, false, true]),
        (vec![off, &many_groups], [true, true, true]),
        (vec![off, &no_unicast], [false, false, true]),
        (vec![off, &no_broadcast], [true, false, false]),
        (vec![&no_broadcast, &no_unicast], [true, true, true]),
    ] {
        let (mut fabric, nets) = two_nets();
        let mut one = Station::new(&mut fabric, &nets[0], Control::Card, 0);
        let mut two = Station::new(&mut fabric, &nets[1], Control::Card, ALL);
        for command in &commands {
            assert_eq!(two.command(&mut fabric, QUEUE, command), OK);
        }
        let came = [MACS[1].0, group, [0xff; 6]].map(|to| {
            let frame = [&to[..], &MACS[0].0, &[0x88, 0xb5], &[0; 46]].concat();
            one.send(&mut fabric, PLAIN, &frame);
            !two.receive(&mut fabric).is_empty()
        });
        assert_eq!(came, wanted, "{commands:?}");
    }
}

#[test]
fn offloads_that_the_driver_switches_off_are_done_for_it() {
    let (mut fabric, nets) = two_nets();
    let mut one = Station::new(&mut fabric, &nets[0], Control::Card, SENDS_ALL);
    let mut two = Station::new(&mut fabric, &nets[1], Control::Card, ALL | MRG_RXBUF);
    let whole = KINDS[0].partial(Place::default(), &[7; 3000]);
    for (offloads, frames) in [(TAKES_ALL, 1), (0, 3), (GUEST_CSUM, 3), (GUEST_CSUM | GUEST_TSO4, 1)] {
        assert_eq!(two.command(&mut fabric, QUEUE, &[&[5, 0][..], &offloads.to_le_bytes()].concat()), OK);
        one.send(&mut fabric, KINDS[0].cut(1000), &whole);
        assert_eq!(two.receive_by(&mut fabric, 0, 1600).len(), frames, "{offloads:#x}");
    }
}

#[test]
fn as_many_pairs_receive_as_the_driver_says() {
    let (mut fabric, nets) = nets("[[net]]\nname = 'one'\n[[net]]\nname = 'two'\nqueues = 4\n");
    let mut one = Station::new(&mut fabric, &nets[0], Control::Card, 0);
    let mut two = Station::new(&mut fabric, &nets[1], Control::Card, CTRL_VQ | MQ);
    let control = 8;
    for (command, pairs, answer) in
        [(None, 1, OK), (Some(3), 3, OK), (Some(0), 3, ERR), (Some(5), 3, ERR), (Some(1), 1, OK)]
    {
        if let Some(wanted) = command {
            assert_eq!(two.command(&mut fabric, control, &[4, 0, wanted, 0]), answer);
        }
        let mut used = [false; 4];
        for port in 0..64u8 {
            let mut frame = KINDS[2].frame(Place::default(), &[]);
            frame[35] = port;
            frame[40..42].fill(0);
            one.send(&mut fabric, PLAIN, &frame);
        }
        for (pair, used) in used.iter_mut().enumerate() {
            *used = !two.receive_by(&mut fabric, 2 * pair, 1600).is_empty();
        }
        assert_eq!(used, std::array::from_fn(|pair| pair < pairs), "{command:?}");
    }
}

#[test]
fn pairs_receive_what_the_driver_steers_to_them() {
    let (mut fabric, nets) = nets("[[net]]\nname = 'one'\n[[net]]\nname = 'two'\nqueues = 4\n");
    let mut one = Station::new(&mut fabric, &nets[0], Control::Card, 0);
    let mut two = Station::new(&mut fabric, &nets[1], Control::Card, CTRL_VQ | MQ | RSS);
    let control = 8;
    // Addresses and ports of UDP over IPv4, two entries, any key.
    let steer = |types: u8, [one, other]: [u8; 2], unclassified: u8| {
        let numbers = [4, 1, types, 0, 0, 0, 1, 0, unclassified, 0, one, 0, other, 0, 4, 0, 40];
        [&numbers[..], &[0x6d, 0x5a, 0x56, 0xda].repeat(10)].concat()
    };
    for (command, pairs, answer) in [
        (steer(4, [1, 3], 0), vec![1, 3], OK),
        (steer(4, [2, 2], 0), vec![2], OK),
        (steer(4, [2, 4], 0), vec![2], ERR),
        // Those of TCP only.
        (steer(2, [1, 2], 3), vec![3], OK),
        // The card chooses again.
        (vec![4, 0, 2, 0], vec![0, 1], OK),
    ] {
        assert_eq!(two.command(&mut fabric, control, &command), answer);
        for port in 0..64u8 {
            let mut frame = KINDS[2].frame(Place::default(), &[]);
            frame[35] = port;
            frame[40..42].fill(0);
            one.send(&mut fabric, PLAIN, &frame);
        }
        let used: Vec<_> = (0..4).filter(|pair| !two.receive_by(&mut fabric, 2 * pair, 1600).is_empty()).collect();
        assert_eq!(used, pairs, "{command:?}");
    }
    let mut config = [0; 7];
    two.device.read_config(17, &mut config);
    assert_eq!(config, [40, 128, 0, 0x3f, 0, 0, 0]);
}

#[test]
fn the_control_queue_is_behind_the_pairs_that_the_driver_knows() {
    for (features, queue) in [(CTRL_VQ, 2), (CTRL_VQ | MQ, 8)] {
        let (mut fabric, nets) = nets("[[net]]\nname = 'one'\nqueues = 4\n");
        let mut guest = Station::new(&mut fabric, &nets[0], Control::Card, features);
        assert_eq!(guest.command(&mut fabric, queue, &[9, 9]), ERR);
        assert!(guest.device.runs(queue as u16));
    }
}

#[test]
fn who_controls_the_device_is_told_what_is_its_own() {
    let (mut fabric, nets) = nets("[[net]]\nname = 'one'\nqueues = 4\n");
    for (control, queues, has_config, offers_commands) in
        [(Control::FrontEnd, 8, false, false), (Control::Card, 9, true, true)]
    {
        let guest = Station::new(&mut fabric, &nets[0], control, 0);
        assert_eq!((guest.device.queues(), guest.device.told_queues()), (queues, 4));
        assert_eq!(guest.device.extensions().contains(ProtocolFeatures::CONFIG), has_config);
        assert_eq!(guest.device.features() & CTRL_RX != 0, offers_commands);
    }
}

#[test]
fn the_configuration_space_tells_address_link_pairs_and_mtu() {
    let (mut fabric, nets) = nets("[[net]]\nname = 'one'\nqueues = 4\nmtu = 9000\n");
    let mut guest = Station::new(&mut fabric, &nets[0], Control::Card, CTRL_VQ | GUEST_ANNOUNCE);
    let config = |guest: &Station| {
        let mut bytes = [0xff; 14];
        guest.device.read_config(0, &mut bytes);
        bytes
    };
    let of = |status: u8| [&MACS[0].0[..], &[status, 0, 4, 0], &9000u16.to_le_bytes(), &[0, 0]].concat();
    assert_eq!(config(&guest)[..], of(1));
    guest.device.ask_to_announce();
    assert_eq!(config(&guest)[..], of(3));
    assert_eq!(guest.command(&mut fabric, QUEUE, &[3, 0]), OK);
    guest.device.set_link(false, &mut fabric);
    assert_eq!(config(&guest)[..], of(0));
}

#[test]
fn nothing_passes_while_the_link_is_down() {
    let (mut fabric, nets) = two_nets();
    let mut one = Station::new(&mut fabric, &nets[0], Control::Card, 0);
    let mut two = Station::new(&mut fabric, &nets[1], Control::Card, 0);
    let frame = KINDS[0].frame(Place::default(), &[]);
    for (of_one, of_two, count) in [(false, true, 0), (true, false, 0), (true, true, 1)] {
        one.device.set_link(of_one, &mut fabric);
        two.device.set_link(of_two, &mut fabric);
        one.send(&mut fabric, PLAIN, &frame);
        assert_eq!(two.receive(&mut fabric).len(), count);
    }
}

#[test]
fn a_reset_forgets_what_the_driver_had_set() {
    let (mut fabric, nets) = two_nets();
    let mut one = Station::new(&mut fabric, &nets[0], Control::Card, 0);
    let mut two = Station::new(&mut fabric, &nets[1], Control::Card, ALL);
    let frame = [&[0x01, 0, 0x5e, 0, 0, 7][..], &MACS[0].0, &[0x88, 0xb5], &[0; 46]].concat();
    assert_eq!(two.command(&mut fabric, QUEUE, &[0, 0, 0]), OK);
    one.send(&mut fabric, PLAIN, &frame);
    assert_eq!(two.receive(&mut fabric).len(), 0);
    let features = two.device.features();
    two.device.reset();
    two.device.set_features(features);
    one.send(&mut fabric, PLAIN, &frame);
    assert_eq!(two.receive(&mut fabric).len(), 1);
}
