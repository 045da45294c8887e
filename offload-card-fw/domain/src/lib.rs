//! The card's firmware as a domain of the hypervisor: serves the disks and networks of all guests.
//!
//! [`machines`] reads from the bundle which devices there are. VMMs attach over the gate `card` ([`server`]) and say by
//! vhost-user's messages where their guests' memory and rings are ([`platform`]). One thread serves all rings of all devices
//! ([`worker`]) but disks in physical ones, each of which has a thread of its own ([`disks`]), for which messages are left while it is busy ([`letters`]). [`card`] knows whose device is
//! whose, [`port`] has a device's session, [`memory`] maps what guests share, and [`faults`] keeps those threads going when a
//! VMM ends and takes its guest's memory with it. [`entropy`] makes random numbers for guests. [`outside`] is what the switch
//! has beside guests. [`operator`] changes rules and links while it runs, and [`kept`] has them for the card after this one.
//!
//! What runs where: control thread (the first one), faults' thread, the operator's thread, worker and disks' threads share the
//! card's CPU. The first three come before the others, which take turns.
#![cfg_attr(not(test), no_std)]
#![deny(unsafe_code)]

extern crate alloc;

mod card;
mod disks;
mod entropy;
mod faults;
mod kept;
mod letters;
mod machines;
mod memory;
mod operator;
mod outside;
mod platform;
mod port;
mod random;
mod server;
mod worker;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;

use dragonfly_abi::{FOREVER, Status};
use dragonfly_card_devices::{Fabric, Pools, SharedDisk};
use dragonfly_card_gate::GATE_NAME;
use dragonfly_physical::{Wake, open_disks, open_uplinks};
use dragonfly_rt::sync::Mutex;
use dragonfly_rt::sys::{Domain, Gate, Notification, Thread, clock_now_ns};
use dragonfly_rt::thread::Builder;
use dragonfly_rt::{argument, bundle, named, supervisor};
use log::{error, info, warn};

use card::Card;
use disks::{DiskThread, Waker};
use faults::Faults;
use kept::{Kept, KeptOrders};
use machines::Stores;
use operator::{Operator, Order};
use outside::Outside;
use platform::GatePlatform;
use random::Random;
use server::Server;

/// Names of the physical devices in `bundle.toml`, before their numbers.
const DISKS: &str = "disk";
const UPLINKS: &str = "uplink";

/// What the uplink sets in the worker's notification; kicks of rings are below.
const UPLINK_BIT: u64 = 1 << 32;

/// How long worker and disks' threads have the CPU each while others of them want it: what a frame may wait for a disk.
const TURN_NS: u64 = 500_000;

/// Memory of the card's that disks in memory leave for everything else: rings' state, frames, page tables of guests' memory.
const OWN_MEMORY: u64 = 24 << 20;

/// The most memory that disks may have: heaps have 1 GiB at most.
const MOST_RAM: u64 = (1 << 30) - OWN_MEMORY;

/// The program.
pub fn run() {
    let mut threads = Vec::new();
    if let Err(status) = serve(&mut threads) {
        error!("the card cannot go on: {status}");
        // The supervisor may be what is gone.
        let _ = supervisor::finish(1);
    }
    // The domain ends when all its threads have. Last of all, as each is ended wherever it is, which may be in the heap: that
    // is nobody's any more then, and nothing is given back to it.
    for thread in threads.leak() {
        if let Err(status) = thread.destroy() {
            warn!("a thread cannot be ended: {status}");
        }
    }
}

/// Serves until that cannot go on; `threads` are all those that were started.
fn serve(threads: &mut Vec<Thread>) -> Result<(), Status> {
    let gate: Gate = named(GATE_NAME).ok_or(Status::BadHandle)?;
    let first = Thread::FIRST.info()?;
    let (cpu, priority) = (first.cpu as u32, first.priority as u8);
    let events = Notification::create()?.keep();
    let mut card = make_card(Wake { notification: events, bits: UPLINK_BIT, cpu })?;
    let kept = KeptOrders::new(Kept::find()?);
    for order in kept.orders() {
        if let Err(reason) = Order::parse(order).and_then(|order| order.obey(&mut card)) {
            warn!("an order that was given to the card before: {reason}");
        }
    }
    if kept.has_predecessor() {
        card.fabric().pick_up_connections(clock_now_ns());
    }
    let faults = Arc::new(Faults::new()?);
    let resolver = Builder::new(cpu, priority).spawn({
        let faults = faults.clone();
        move || faults.serve()
    })?;
    threads.push(resolver.thread());
    let poll_ns = argument("poll_us").and_then(|text| text.parse().ok()).map_or(0, |us: u64| us.saturating_mul(1000));
    let alone = Builder::new(cpu, priority.saturating_sub(1)).fault_gate(faults.gate(), 0);
    let in_turn = alone.budget(TURN_NS, TURN_NS);
    let mut has_disks = false;
    card.start_disks(|disk| {
        let events = Notification::create()?.keep();
        threads.push(in_turn.spawn(move || wait_for_disk(&disk, events))?.thread());
        has_disks = true;
        Ok::<Waker, Status>(Box::new(move || {
            // It is the card's own, and lives as long.
            let _ = events.signal(1);
        }))
    })?;
    let card = Arc::new(Mutex::new(card));
    let worker = if has_disks { in_turn } else { alone }.spawn({
        let card = card.clone();
        move || worker::serve(&card, events, poll_ns)
    })?;
    threads.push(worker.thread());
    if let Some(operator) = Operator::find()? {
        let card = card.clone();
        threads.push(Builder::new(cpu, priority).spawn(move || operator.serve(&card, kept))?.thread());
    }
    info!("ready");
    Server::new(gate, card, faults, events).serve()
}

/// Serves the guests' disks in a physical disk; `events` wakes whoever does.
fn wait_for_disk(disk: &DiskThread<GatePlatform>, events: Notification) -> Status {
    disk.serve(clock_now_ns, |until_ns| {
        let timeout_ns = until_ns.map_or(FOREVER, |time_ns| time_ns.saturating_sub(clock_now_ns()));
        match events.wait_timed(timeout_ns) {
            Ok(_) | Err(Status::TimedOut | Status::WouldBlock) => Ok(()),
            Err(status) => Err(status),
        }
    })
}

/// All that the machine files describe. The uplink wakes the worker as `wake` says.
fn make_card(wake: Wake) -> Result<Card<GatePlatform>, Status> {
    let bundle = bundle().unwrap_or_default();
    let account = Domain::OWN.info()?;
    let ram_bytes = account.quota.saturating_sub(account.used).saturating_sub(OWN_MEMORY).min(MOST_RAM);
    let disks = open_disks(DISKS, wake.cpu).into_iter();
    let disks = disks.map(|disk| (disk.serial().into(), Arc::new(disk) as SharedDisk)).collect();
    let mut stores = Stores { ram_bytes, disks, pools: Pools::default() };
    let mut random = Random::new();
    let mut card = Card::new(Fabric::new(random.next()));
    let machines = machines::read(bundle);
    for machine in &machines {
        machines::add(machine, &mut card, bundle, &mut stores);
    }
    let uplink = open_uplinks(UPLINKS, Some(wake)).into_iter().next();
    let outside = Outside::new(&machines, uplink, card.fabric(), random);
    card.connect(outside);
    Ok(card)
}
