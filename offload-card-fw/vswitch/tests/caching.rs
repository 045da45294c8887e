//! What the cache must not get wrong, where a model seldom looks.

mod common;

use common::*;
use dragonfly_vswitch::{
    PortConfig,
    policy::{Action, Direction, FilterConfig, GroupId, Service},
};

#[test]
fn flows_that_look_alike_to_the_cache_are_told_apart() {
    // One set of eight places for 2,000 flows: some share a place's 15-bit tag with one that may pass.
    let mut switch = switch_of(vec![PortConfig { flows: 8, ..filtered() }, guest()]);
    let allowed = rule(1, Direction::Egress, Action::AllowStateless, prefix("10.1.0.0/16"), Service::Any);
    switch.set_group(GroupId(0), &[allowed]);
    introduce(&mut switch, 2, 0);
    let mut number = 1_u32;
    for _ in 0..60_000 {
        number = number.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let [high, low, ..] = number.to_be_bytes();
        let network = 1 + (high >> 7);
        let build = Build::udp(0, 1, (1, 2), b"");
        let build = Build { addresses: (build.addresses.0, [10, network, high & 3, low]), ..build };
        let passes = ports_of(&mut switch, 0, &build.frame(), 1) == [1];
        assert_eq!(passes, network == 1, "to {:?}", build.addresses.1);
    }
}

#[test]
fn a_connection_that_is_replaced_within_a_batch_is_not_taken_for_its_successor() {
    let filter = FilterConfig { connections: 1, ..FilterConfig::default() };
    let mut switch = switch_of(vec![PortConfig { filter, ..filtered() }, guest()]);
    switch.set_group(GroupId(0), &[rule(1, Direction::Egress, Action::Allow, None, Service::Any)]);
    introduce(&mut switch, 2, 0);
    let [first, second] = [1, 2].map(|port| Build::udp(0, 1, (port, 53), b"?").frame());
    let [to_first, to_second] = [1, 2].map(|port| Build::udp(1, 0, (53, port), b"!").frame());
    send(&mut switch, 0, &[&first], 1);
    send(&mut switch, 0, &[&first], 2);
    // The second takes the only place, and the first, which the cache knows, takes it back.
    assert_eq!(send(&mut switch, 0, &[&second, &first], 3).numbers, [0, 1]);
    assert_eq!(ports_of(&mut switch, 1, &to_second, 4), [0_u16; 0]);
    assert_eq!(ports_of(&mut switch, 1, &to_first, 5), [0]);
}

#[test]
fn a_port_that_is_replaced_does_not_inherit_decisions() {
    let mut switch = switch_of(vec![guest(), guest()]);
    introduce(&mut switch, 2, 0);
    let frame = Build::udp(0, 1, (1, 2), b"").frame();
    for now in 1..4 {
        assert_eq!(ports_of(&mut switch, 0, &frame, now), [1]);
    }
    switch.remove_port(dragonfly_vswitch::PortId(1)).expect("it exists");
    assert_eq!(ports_of(&mut switch, 0, &frame, 4), [0_u16; 0]);
    let shut = PortConfig { groups: Some(vec![]), ..guest() };
    switch.add_port(dragonfly_vswitch::PortId(1), shut).expect("its place is free");
    introduce(&mut switch, 2, 5);
    assert_eq!(ports_of(&mut switch, 0, &frame, 6), [0_u16; 0], "the new one has its own rules");
}
