//! What a domain looks like: two of them talk over a gate, use memory, and sleep.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::vec::Vec;
use core::sync::atomic::Ordering;
use core::time::Duration;

use dragonfly_rt::abi::{PAGE_SIZE, Rights, Status};
use dragonfly_rt::sys::{Commit, Gate, Memory, Message, System};
use dragonfly_rt::{Mapping, argument, cpus, named, supervisor, thread, time};
use log::{error, info};

dragonfly_rt::main!(run);

/// Label of a request to `pong`: add 1 to the first word.
const ADD_ONE: u32 = 1;

/// How many messages go to and fro.
const ROUNDS: u64 = 1000;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// Priority of the threads that `ping` makes: its own.
const PRIORITY: u8 = 16;

fn run() {
    let done = match argument("role") {
        Some("pong") => pong(),
        _ => ping(),
    };
    if let Err(status) = done {
        error!("the demonstration failed: {status}");
        let _ = supervisor::finish(1);
    }
}

/// Serves the gate that others use.
fn pong() -> Result<(), Status> {
    let gate: Gate = named("pong").ok_or(Status::BadHandle)?;
    let mut received = gate.receive()?;
    loop {
        let [number, ..] = received.message.words;
        received = gate.reply_receive(Message::new(received.message.tag.label(), [number + 1, 0, 0, 0]))?;
    }
}

/// Shows what a domain can do.
fn ping() -> Result<(), Status> {
    let (free_pages, pages) = System::OWN.free_pages()?;
    info!("hello from a user domain on a machine with {} CPUs", cpus());
    info!("{} MiB of {} MiB of memory are free", free_pages * PAGE_SIZE / MIB, pages * PAGE_SIZE / MIB);
    messages()?;
    demand_paging()?;
    threads()?;
    sleep();
    Ok(())
}

fn messages() -> Result<(), Status> {
    let gate: Gate = named("pong").ok_or(Status::BadHandle)?;
    let start = time::now();
    let mut number = 0;
    for _ in 0..ROUNDS {
        [number, ..] = gate.call(Message::new(ADD_ONE, [number, 0, 0, 0]))?.words;
    }
    let each = (time::now() - start) / ROUNDS as u32;
    info!("pong counted to {number}: {} ns for each call and reply", each.as_nanos());
    Ok(())
}

fn demand_paging() -> Result<(), Status> {
    let size = 64 * MIB;
    let memory = Memory::create(size, Commit::OnDemand)?;
    let mapping = Mapping::new(*memory, 0, size, Rights::READ | Rights::WRITE)?;
    for offset in [0, size / 2, size - PAGE_SIZE] {
        mapping.word(offset)?.store(offset + 1, Ordering::Relaxed);
    }
    let info = memory.info()?;
    info!("touched 3 pages of a {} MiB object: {} KiB are in use", info.size / MIB, info.committed / KIB);
    Ok(())
}

/// One thread on each CPU.
fn threads() -> Result<(), Status> {
    let start = |cpu| thread::Builder::new(cpu, PRIORITY).spawn(move || u64::from(cpu) + 1);
    let threads = (0..cpus()).map(start).collect::<Result<Vec<_>, _>>()?;
    let sum = threads.into_iter().try_fold(0, |sum, thread| thread.join().map(|number| sum + number))?;
    info!("{} threads, one on each CPU, counted to {sum}", cpus());
    Ok(())
}

fn sleep() {
    let wanted = Duration::from_millis(20);
    let start = time::now();
    time::sleep(wanted);
    info!("slept {} us, of which {} were wanted", (time::now() - start).as_micros(), wanted.as_micros());
}
