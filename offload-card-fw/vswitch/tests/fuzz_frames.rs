//! Throws damaged frames at a switch with everything switched on, for `DRAGONFLY_FUZZ_SECONDS` (2 if unset): it must
//! not panic, and a guest behind anti-spoofing must get only what it may.

mod common;

use std::time::Instant;

use common::*;
use dragonfly_random::{Random, fuzz_end};
use dragonfly_vswitch::{
    Edit, MAX_PREFIX, MacAddress, Offload, Output, PartialChecksum, PortConfig, PortId, Role, SegmentKind,
    Segmentation, Switch,
    capture::CaptureConfig,
    identity::Identity,
    offload::{Features, finish},
    policy::{Action, Direction, FilterConfig, GroupId, Ports, Service},
    tunnel::{Tunnel, TunnelProtocol},
    vlan::VlanMode,
};

fn tunnel(protocol: TunnelProtocol) -> Tunnel {
    Tunnel {
        protocol,
        network: 7,
        local: [10, 0, 0, 2].into(),
        remote: [10, 0, 0, 3].into(),
        local_mac: mac(2),
        next_hop_mac: mac(3),
        vlan: None,
        uplink: PortId(2),
        has_checksum: true,
    }
}

fn switch() -> Switch {
    let bound = |last: u8| {
        let addresses = [prefix(&format!("10.0.0.{last}/32")), prefix("fd00::/16")].into_iter().flatten().collect();
        let filter = FilterConfig { connections: 64, ..FilterConfig::default() };
        let identity = Some(Identity { macs: vec![mac(last)], addresses });
        PortConfig { identity, filter, flows: 64, stations: 8, ..filtered() }
    };
    let tagged = VlanMode::Trunk { tagged: vec![5, 6], native: Some(0) };
    let mut switch = switch_of(vec![
        bound(0),
        bound(1),
        PortConfig { vlan: tagged, ..PortConfig::new(Role::Uplink) },
        PortConfig::new(Role::Tunnel(tunnel(TunnelProtocol::Vxlan))),
        PortConfig { vlan: VlanMode::Access(5), ..PortConfig::new(Role::Tunnel(tunnel(TunnelProtocol::Geneve))) },
        guest(),
    ]);
    let rules = [
        rule(1, Direction::Egress, Action::Allow, None, Service::Any),
        rule(2, Direction::Ingress, Action::Allow, None, Service::Tcp(Ports { first: 0, last: 300 })),
        rule(3, Direction::Ingress, Action::AllowStateless, prefix("10.0.0.0/31"), Service::Any),
    ];
    switch.set_group(GroupId(0), &rules);
    switch.pick_up_connections(0);
    let capture = CaptureConfig { snap_length: 60, received: true, sent: true, transport_port: None };
    switch.set_capture(PortId(1), Some(capture)).expect("it exists");
    switch
}

fn seeds() -> Vec<Vec<u8>> {
    let datagram = Build::udp(0, 1, (1, 2), &[1; 40]);
    let segment = |flags| Build::tcp(1, 0, (2, 1), Tcp { flags, ..Tcp::default() }, &[2; 40]);
    let error = |kind| Build::icmp(2, 0, kind, 0, &[&[0; 4][..], &datagram.packet()].concat());
    let wrap = |port, shim: &[u8]| {
        let inner = Build::udp(9, 0, (2, 1), &[3; 20]).tag(5).frame();
        Build::udp(3, 2, (50_000, port), &[shim, &inner].concat()).frame()
    };
    let mut extended = datagram.clone().v6();
    // Hop-by-hop options, a fragment header, then UDP.
    extended.transport = [&[44, 0, 1, 4, 0, 0, 0, 0, 17, 0, 0, 1, 0, 0, 0, 9][..], &datagram.transport].concat();
    extended.protocol = 0;
    vec![
        datagram.frame(),
        datagram.clone().v6().frame(),
        datagram.clone().tag(5).tag(9).frame(),
        datagram.clone().fragment(7, 0, true).frame(),
        datagram.clone().fragment(7, 48, false).frame(),
        extended.frame(),
        segment(SYN).frame(),
        segment(SYN | ACK).v6().frame(),
        segment(RST).frame(),
        segment(FIN | ACK).frame(),
        error(3).frame(),
        error(2).v6().frame(),
        Build::icmp(0, 1, 136, 0, &[0; 28]).v6().frame(),
        arp(0, 0, true),
        wrap(4789, &[8, 0, 0, 0, 0, 0, 7, 0]),
        wrap(6081, &[1, 0, 0x65, 0x58, 0, 0, 7, 0, 0, 0, 0, 0]),
    ]
}

fn damage(bytes: &mut Vec<u8>, random: &mut Random) {
    for _ in 0..random.index(5) {
        let at = random.index(bytes.len());
        match random.index(6) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_within(at..),
            2 => bytes.insert(at, random.number() as u8),
            3 => bytes[at..].iter_mut().take(1).for_each(|byte| *byte ^= 1 << random.index(8)),
            // Small numbers are lengths, types, stations.
            4 => bytes[at..].iter_mut().take(1).for_each(|byte| *byte = random.index(70) as u8),
            _ => bytes[at..].iter_mut().take(2).for_each(|byte| *byte = random.number() as u8),
        }
    }
    bytes.truncate(3000);
}

fn claim(random: &mut Random) -> Offload {
    let number =
        |random: &mut Random| if random.index(2) == 0 { random.index(80) as u16 } else { random.number() as u16 };
    let has = |random: &mut Random| random.index(3) == 0;
    let kind = if random.index(2) == 0 { SegmentKind::Tcp } else { SegmentKind::Udp };
    Offload {
        checksum: has(random).then(|| PartialChecksum { start: number(random), offset: number(random) }),
        segmentation: has(random).then(|| Segmentation { kind, size: number(random) }),
        is_valid: has(random),
    }
}

/// Finishes every frame for its receiver.
struct Finisher<'a> {
    frames: &'a [(Vec<u8>, Offload)],
    scratch: Vec<u8>,
    features: Features,
}

impl Output for Finisher<'_> {
    fn forward(&mut self, number: usize, port: PortId, edit: &Edit<'_>) {
        let (frame, offload) = &self.frames[number];
        let mut prefix = [0; MAX_PREFIX];
        assert!(edit.write(frame, frame.len(), &mut prefix).is_some(), "what is forwarded can be written");
        let _refused = finish(frame, offload, edit, self.features, &mut self.scratch, |frame, _| {
            let destination = MacAddress(*frame.first_chunk().expect("an Ethernet header"));
            let is_for = |last| destination == mac(last) || destination.is_group();
            assert!(port.0 > 1 || is_for(port.0 as u8), "{destination} at {port:?}");
        });
    }

    fn originate(&mut self, port: PortId, frame: &[u8]) {
        assert!(port.0 < 6 && frame.len() > 42);
    }
}

#[test]
fn damaged_frames_do_no_harm() {
    let end = fuzz_end();
    let (mut random, seeds, mut switch) = (Random::new(1), seeds(), switch());
    let mut now = 0;
    let mut forwarded = 0;
    while Instant::now() < end {
        let frames: Vec<_> = (0..1 + random.index(40))
            .map(|_| {
                let mut frame = seeds[random.index(seeds.len())].clone();
                damage(&mut frame, &mut random);
                (frame, claim(&mut random))
            })
            .collect();
        let offered: Vec<_> = frames.iter().map(|(frame, offload)| Offered(frame, *offload)).collect();
        let can = random.number();
        let can = |bit: u64| can >> bit & 1 == 1;
        let features = Features { checksum: can(1), tcp_v4: can(2), tcp_v6: can(3), udp: can(4) };
        let mut finisher = Finisher { frames: &frames, scratch: vec![0; 4000], features };
        now += random.number() >> (30 + random.index(34));
        switch.receive(PortId(random.index(6) as u16), &offered, now, &mut finisher);
        if random.index(1000) == 0 {
            switch.expire(now, 50);
            forwarded += switch.counters(PortId(0)).map_or(0, |counters| counters.sent.frames);
            switch.change_port(PortId(5), guest()).expect("it exists");
        }
    }
    assert!(forwarded > 0, "some frames must come through, or nothing is tested");
}
