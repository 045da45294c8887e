//! How many 64-byte frames per second the switch alone decides on one core, both directions summed.
//!
//! `cargo run --release -p dragonfly-vswitch --example mpps [SECONDS PER RUN] [RUNS] [FLOWS]`
//!
//! Two guests send UDP frames to each other in batches of 32, in turn; each flow is used in both directions, and every
//! frame belongs to the next flow, so that with many flows each meets the tables cold. Frames are written into a ring
//! of buffers just before, which counts; real rings, and the copying of frames, are not part of it. Time is the
//! thread's own on the CPU, so that other programs' turns do not count, yet their use of the caches does: the best of
//! the runs is what the machine can do, the median tells how disturbed it was.
//!
//! With many flows the tables are larger than what a CPU's translation cache covers with small pages; with
//! `GLIBC_TUNABLES=glibc.malloc.hugetlb=1` they lie in large ones.

use std::{
    array,
    hint::black_box,
    time::{Duration, Instant},
};

use dragonfly_vswitch::{
    Edit, MacAddress, Output, PortConfig, PortId, Prefix, Role, Switch, SwitchConfig,
    identity::Identity,
    policy::{Action, Direction, FilterConfig, GroupId, Ports, Rule, Service},
};

const BATCH: usize = 32;
const GUESTS: [PortId; 2] = [PortId(0), PortId(1)];

type Frame = [u8; 64];

#[derive(Clone, Copy, PartialEq)]
enum Policy {
    None,
    Rules(Action),
}

/// Counts what comes out.
#[derive(Default)]
struct Sink(u64);

impl Output for Sink {
    fn forward(&mut self, frame: usize, port: PortId, edit: &Edit<'_>) {
        black_box((frame, port, edit.is_none()));
        self.0 += 1;
    }

    fn originate(&mut self, _: PortId, _: &[u8]) {}
}

fn mac(guest: usize) -> MacAddress {
    MacAddress([2, 0, 0, 0, 0, guest as u8])
}

/// A UDP frame of a flow; odd and even guests' frames are each other's answers.
fn frame(sender: usize, flow: usize) -> Frame {
    let mut frame = [0; 64];
    frame[..6].copy_from_slice(&mac(1 - sender).0);
    frame[6..12].copy_from_slice(&mac(sender).0);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..26].copy_from_slice(&[0x45, 0, 0, 50, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    let addresses = [[10, 0, (flow >> 14) as u8, 1], [10, 0, (flow >> 14) as u8, 2]];
    frame[26..30].copy_from_slice(&addresses[sender]);
    frame[30..34].copy_from_slice(&addresses[1 - sender]);
    let ports = [1024 + (flow & 0x3fff) as u16, 5001];
    frame[34..36].copy_from_slice(&ports[sender].to_be_bytes());
    frame[36..38].copy_from_slice(&ports[1 - sender].to_be_bytes());
    frame[38..40].copy_from_slice(&30_u16.to_be_bytes());
    frame
}

/// A hundred rules, of which the last lets the traffic pass.
fn rules(action: Action) -> Vec<Rule> {
    let rule = |priority, direction, remote: [u8; 4], ports, action| Rule {
        priority,
        direction,
        action,
        remote: Prefix::new(remote.into(), 16),
        service: Service::Udp(ports),
    };
    let both = [Direction::Egress, Direction::Ingress];
    let others = (0..49_u8).flat_map(|n| {
        both.map(|direction| rule(n.into(), direction, [10, 100 + n, 0, 0], Ports::one(u16::from(n)), Action::Deny))
    });
    others.chain(both.map(|direction| rule(100, direction, [10, 0, 0, 0], Ports::ALL, action))).collect()
}

fn switch(policy: Policy, flows: usize) -> Switch {
    let mut switch = Switch::new(SwitchConfig::new(0x5eed));
    if let Policy::Rules(action) = policy {
        switch.set_group(GroupId(0), &rules(action));
    }
    for (guest, id) in GUESTS.into_iter().enumerate() {
        let identity =
            Identity { macs: vec![mac(guest)], addresses: Prefix::new([10, 0, 0, 0].into(), 8).into_iter().collect() };
        let config = PortConfig {
            identity: Some(identity),
            groups: (policy != Policy::None).then(|| vec![GroupId(0)]),
            filter: FilterConfig { connections: 131_072, ..FilterConfig::default() },
            flows: (flows * 2).max(4096) as u32,
            ..PortConfig::new(Role::Guest)
        };
        switch.add_port(id, config).expect("a port of its own");
    }
    switch
}

/// Frames in the ring of each guest.
const RING: usize = 256;

/// Both guests' rings, and the next flow to send.
struct Traffic {
    rings: [Vec<Frame>; 2],
    flows: usize,
    next: usize,
}

impl Traffic {
    fn new(flows: usize) -> Self {
        Self { rings: array::from_fn(|sender| vec![frame(sender, 0); RING]), flows, next: 0 }
    }

    /// Sends a batch each way.
    fn round(&mut self, switch: &mut Switch, now_ns: u64, sink: &mut Sink) {
        let place = self.next % RING;
        for step in 0..BATCH {
            let flow = (self.next + step) % self.flows;
            let (net, port) = ((flow >> 14) as u8, (1024 + (flow & 0x3fff) as u16).to_be_bytes());
            for (sender, ring) in self.rings.iter_mut().enumerate() {
                let frame = &mut ring[(place + step) % RING];
                (frame[28], frame[32]) = (net, net);
                frame[34 + 2 * sender..36 + 2 * sender].copy_from_slice(&port);
            }
        }
        self.next += BATCH;
        for (ring, id) in self.rings.iter().zip(GUESTS) {
            let batch: [&[u8]; BATCH] = array::from_fn(|step| &ring[(place + step) % RING][..]);
            switch.receive(id, &batch, now_ns, sink);
        }
    }
}

/// Time that this thread has spent on a CPU.
fn cpu_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux tells it");
    Duration::from_nanos(text.split(' ').next().and_then(|text| text.parse().ok()).expect("a number of nanoseconds"))
}

/// Frames per second in millions, and how many of them the cache decided.
fn run(policy: Policy, flows: usize, time: Duration) -> (f64, f64) {
    let mut switch = switch(policy, flows);
    let mut traffic = Traffic::new(flows);
    let mut sink = Sink::default();
    let begin = Instant::now();
    let mut turn = |switch: &mut Switch, sink: &mut Sink, rounds: usize| {
        let now_ns = begin.elapsed().as_nanos() as u64;
        for _ in 0..rounds {
            traffic.round(switch, now_ns, sink);
        }
    };
    // Opens the connections and fills the caches.
    turn(&mut switch, &mut sink, 2 * flows.div_ceil(BATCH));
    let cached = |switch: &Switch| GUESTS.iter().filter_map(|&id| switch.counters(id)).map(|c| c.cached).sum::<u64>();
    let (sent_before, cached_before) = (sink.0, cached(&switch));
    let start = cpu_time();
    let mut rounds = 0;
    while cpu_time() - start < time {
        turn(&mut switch, &mut sink, 1_000);
        rounds += 1_000;
    }
    let elapsed = cpu_time() - start;
    let sent = sink.0 - sent_before;
    assert_eq!(sent, rounds * 2 * BATCH as u64, "every frame must go out");
    (sent as f64 / elapsed.as_secs_f64() / 1e6, (cached(&switch) - cached_before) as f64 / sent as f64)
}

fn main() {
    let mut arguments = std::env::args().skip(1).map(|text| text.parse::<f64>().expect("a number"));
    let time = Duration::from_secs_f64(arguments.next().unwrap_or(0.3));
    let runs = arguments.next().unwrap_or(5.0).max(1.0) as usize;
    let flow_counts = arguments.next().map_or(vec![1, 1_000, 100_000], |flows| vec![flows as usize]);
    println!("{:32} {:>8} {:>10} {:>10} {:>8}", "policy", "flows", "best Mpps", "median", "cached");
    let policies = [
        ("no security groups", Policy::None),
        ("100 rules, stateless", Policy::Rules(Action::AllowStateless)),
        ("100 rules, connection tracking", Policy::Rules(Action::Allow)),
    ];
    for (name, policy) in policies {
        for &flows in &flow_counts {
            let mut results: Vec<_> = (0..runs).map(|_| run(policy, flows, time)).collect();
            results.sort_by(|a, b| a.0.total_cmp(&b.0));
            let (best, cached) = results[runs - 1];
            println!("{name:32} {flows:>8} {best:>10.1} {:>10.1} {:>7.1} %", results[runs / 2].0, cached * 100.0);
        }
    }
}
