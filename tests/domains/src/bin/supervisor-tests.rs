//! Tests of the supervisor and the runtime on the real kernel; `tests/bundles/supervisor.toml` says who is who.
//!
//! The domain `main` runs the tests. The others die in their ways, and tell `main` each time that they start.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::hint::black_box;
use core::sync::atomic::Ordering;
use core::time::Duration;

use dragonfly_rt::abi::{PAGE_SIZE, Rights, Status};
use dragonfly_rt::sync::Mutex;
use dragonfly_rt::sys::{Commit, Gate, Memory, Message, Notification, Object, Ports, System, reply};
use dragonfly_rt::thread::Builder;
use dragonfly_rt::{Mapping, argument, cpus, named, supervisor, time};
use dragonfly_test_domains::check::{Failure, Outcome, equal, refused, that};
use dragonfly_test_domains::list::{self, Test};

dragonfly_rt::main!(run);

/// Label of a message to the gate `reports`: its sender has started. The badge tells which domain it is.
const STARTED: u32 = 1;

/// As [`STARTED`], with the status of a write to the log in the first word.
const LOG_STATUS: u32 = 2;

/// Labels of messages to a server: give the word back plus 1, or die.
const ADD_ONE: u32 = 1;
const DIE: u32 = 2;
const HANG: u32 = 3;

/// Badges: places in the bundle, counted from 1.
const PANICS: u64 = 2;
const LOSES_MEMORY: u64 = 3;
const FILLS_ITS_STACK: u64 = 4;
const THREAD_PANICS: u64 = 5;
const SILENT: u64 = 6;

/// When something that should happen soon is late, in nanoseconds.
const LATE_NS: u64 = 10_000_000_000;

/// Priority of most threads here, which is every domain's.
const PRIORITY: u8 = 16;

fn run() {
    let done = match argument("role") {
        Some("main") => return list::run(&TESTS),
        Some("panics") => report(STARTED, 0).map(|_| panic!("as it should")),
        Some("loses-memory") => report(STARTED, 0).and_then(|_| lose_memory()),
        Some("fills-its-stack") => report(STARTED, 0).map(|_| _ = black_box(fill_stack(0))),
        Some("thread-panics") => report(STARTED, 0).and_then(|_| panic_in_thread()),
        Some("silent") => {
            report(LOG_STATUS, System::OWN.log_write(1).err().map_or(0, |status| status as u64)).map(drop)
        }
        Some("server") => serve(),
        Some("driver") => drive(),
        _ => Err(Status::BadArgument),
    };
    if let Err(status) = done {
        panic!("a domain could not play its part: {status}");
    }
}

/// Tells `main` something.
fn report(label: u32, word: u64) -> Result<Message, Status> {
    named::<Gate>("reports").ok_or(Status::BadHandle)?.call(Message::new(label, [word, 0, 0, 0]))
}

/// Reads memory that was taken back.
fn lose_memory() -> Result<(), Status> {
    let memory = Memory::create(PAGE_SIZE, Commit::OnDemand)?;
    let mapping = Mapping::new(*memory, 0, PAGE_SIZE, Rights::READ)?;
    memory.revoke()?;
    black_box(mapping.word(0)?.load(Ordering::Relaxed));
    Ok(())
}

/// Calls itself until the stack is full.
fn fill_stack(depth: u64) -> u64 {
    let frame = black_box([depth; 64]);
    if depth == u64::MAX { 0 } else { fill_stack(depth + 1) + frame[0] }
}

/// Dies in another thread than the first.
fn panic_in_thread() -> Result<(), Status> {
    Builder::new(0, PRIORITY).spawn(|| panic!("as it should"))?.join()
}

fn serve() -> Result<(), Status> {
    let gate: Gate = argument("gate").and_then(named).ok_or(Status::BadHandle)?;
    loop {
        let message = gate.receive()?.message;
        match message.tag.label() {
            DIE => panic!("as it should"),
            // Nobody signals it.
            HANG => drop(Notification::create()?.wait()),
            label => reply(Message::new(label, [message.words[0] + 1, 0, 0, 0]))?,
        }
    }
}

/// Tells `main` what is known of the PCI function that this domain has, misuses it and dies.
fn drive() -> Result<(), Status> {
    let functions = ["disk1", "none0"].map(|name| u64::from(named::<Memory>(name).is_some()));
    let mut words = [functions[0] + functions[1], 0, 0, 0];
    if let (Some(page), Some(registers)) = (named::<Memory>("disk0"), named::<Memory>("disk0.bar5")) {
        let page = Mapping::new(page, 0, PAGE_SIZE, Rights::READ | Rights::WRITE)?;
        let registers = Mapping::new(registers, 0, PAGE_SIZE, Rights::READ | Rights::WRITE)?;
        let [id, command, version] =
            [page.word32(0)?, page.word32(4)?, registers.word32(0x10)?].map(|word| word.load(Ordering::Relaxed));
        words = [words[0], id.into(), (command & 0xffff).into(), version.into()];
        page.word32(4)?.store(0, Ordering::Relaxed);
        page.word32(0x24)?.store(0, Ordering::Relaxed);
    }
    named::<Gate>("functions").ok_or(Status::BadHandle)?.call(Message::new(STARTED, words))?;
    panic!("as it should")
}

const TESTS: [Test; 17] = [
    ("supervisor/domains that die are started again as often as the bundle says, and have their grants", deaths),
    ("supervisor/a caller of a domain that dies is told so, and the next call finds its successor", restarted_server),
    ("supervisor/a domain may have those started anew that its own entry names, however often", replaced_server),
    ("supervisor/a domain that does not answer is started anew when one of its users says so", hanging_server),
    ("supervisor/the gate of a domain that stays dead is closed", closed_gate),
    ("supervisor/a domain that was not granted it may not stop the machine", no_shut_down),
    ("supervisor/a domain has no more of the machine than it was granted", no_other_grants),
    ("supervisor/a domain can use the ports that it was given and no others", ports),
    ("supervisor/a domain has its PCI functions as firmware left them, also when it is started again", functions),
    ("runtime/the heap grows, and an allocation that is too large fails without harm", heap),
    ("runtime/a thread gives back what its function returns", join),
    ("runtime/threads that were joined leave nothing behind", joined_threads),
    ("runtime/a thread that is joined does not take the heap's lock along", joined_with_a_long_heap),
    ("runtime/a mutex lets one thread in at a time, on all CPUs", mutex),
    ("runtime/a mutex held by a thread of low priority is not waited for in vain", mutex_priorities),
    ("runtime/a mapping reads what it wrote and refuses what lies outside", mapping),
    ("runtime/a sleep takes as long as it should", sleep),
];

/// Each start is counted; a domain with `n` restarts starts `n + 1` times. One report more would come before the next
/// test has ended, so that test would find it.
fn deaths() -> Outcome {
    let gate: Gate = named("reports").ok_or(Status::BadHandle)?;
    let wanted = [(PANICS, 3), (LOSES_MEMORY, 2), (FILLS_ITS_STACK, 2), (THREAD_PANICS, 2), (SILENT, 1)];
    let mut counts = [0; 8];
    for _ in 0..wanted.iter().map(|(_, count)| count).sum::<usize>() {
        let received = gate.receive_timed(LATE_NS)?;
        if received.badge == SILENT {
            equal("the label of the report", received.message.tag.label(), LOG_STATUS)?;
            equal("a write to the log without the grant", received.message.words[0], Status::Denied as u64)?;
        }
        let count = counts.get_mut(received.badge as usize).ok_or_else(|| Failure::new("a report of nobody"))?;
        *count += 1;
        reply(Message::default())?;
    }
    for (badge, count) in wanted {
        equal(badge, counts[badge as usize], count)?;
    }
    refused("one more report", gate.receive_timed(100_000_000), Status::TimedOut)
}

fn restarted_server() -> Outcome {
    let server: Gate = named("server").ok_or(Status::BadHandle)?;
    equal("the answer", server.call(Message::new(ADD_ONE, [41, 0, 0, 0]))?.words[0], 42)?;
    refused("a call to a domain that dies", server.call(Message::new(DIE, [0; 4])), Status::Aborted)?;
    equal("the successor's answer", server.call(Message::new(ADD_ONE, [1, 0, 0, 0]))?.words[0], 2)
}

/// More often than it has restarts left: none.
fn replaced_server() -> Outcome {
    let server: Gate = named("server").ok_or(Status::BadHandle)?;
    for word in 0..3 {
        supervisor::restart("server")?;
        equal("the successor's answer", server.call(Message::new(ADD_ONE, [word, 0, 0, 0]))?.words[0], word + 1)?;
    }
    for name in ["victim", "main", "serve", "server ", "", "a-name-that-is-longer-than-any-domain-has"] {
        refused(name, supervisor::restart(name), Status::Denied)?;
    }
    Ok(())
}

fn hanging_server() -> Outcome {
    let server: Gate = named("server").ok_or(Status::BadHandle)?;
    refused("one that answers", supervisor::report_hang("server"), Status::Denied)?;
    for name in ["reports", "console", ""] {
        refused(name, supervisor::report_hang(name), Status::Denied)?;
    }
    refused("a call", server.call_timed(Message::new(HANG, [0; 4]), 1_000_000), Status::TimedOut)?;
    supervisor::report_hang("server")?;
    equal("the successor's answer", server.call(Message::new(ADD_ONE, [1, 0, 0, 0]))?.words[0], 2)
}

fn closed_gate() -> Outcome {
    let victim: Gate = named("victim").ok_or(Status::BadHandle)?;
    refused("a call to a domain that dies", victim.call(Message::new(DIE, [0; 4])), Status::Aborted)?;
    // The supervisor closes the gate when it has taken the domain's memory back: a call meanwhile waits, and is aborted.
    match victim.call_timed(Message::new(ADD_ONE, [0; 4]), LATE_NS) {
        Err(Status::Aborted | Status::BadHandle) => {}
        other => return Err(Failure::new(format_args!("a call to a dead domain: {other:?}"))),
    }
    refused("a later call", victim.call(Message::new(ADD_ONE, [0; 4])), Status::BadHandle)
}

fn no_shut_down() -> Outcome {
    refused("shutting down", supervisor::shut_down(0), Status::Denied)
}

fn no_other_grants() -> Outcome {
    refused("a figure", System::OWN.free_pages(), Status::Denied)?;
    refused("making ports", System::OWN.ports(0x80, 1), Status::Denied)?;
    refused("making device memory", System::OWN.device_memory(0xfed0_0000, PAGE_SIZE), Status::Denied)?;
    that(dragonfly_rt::bundle().is_none(), "the bundle is there without the grant")
}

fn ports() -> Outcome {
    let ports: Ports = named("post-codes").ok_or(Status::BadHandle)?;
    ports.write(0x80, 1, 0)?;
    ports.read(0x80, 1)?;
    refused("the next port", ports.read(0x81, 1), Status::BadArgument)?;
    refused("a wider access", ports.write(0x80, 2, 0), Status::BadArgument)
}

/// The function's ID, its command register with memory and without bus mastering, and AHCI's version 1.0 in its registers.
fn functions() -> Outcome {
    let gate: Gate = named("functions").ok_or(Status::BadHandle)?;
    for start in ["first", "second"] {
        let [others, id, command, version] = gate.receive_timed(LATE_NS)?.message.words;
        reply(Message::default())?;
        equal(format_args!("functions beside the first, {start} start"), others, 0)?;
        if argument("exit") == Some("qemu") {
            equal(format_args!("ID and version, {start} start"), (id, version), (0x2922_8086, 0x1_0000))?;
            equal(format_args!("memory without bus mastering, {start} start"), command & 6, 2)?;
        } else {
            equal(format_args!("ID, command and version, {start} start"), (id, command, version), (0, 0, 0))?;
        }
    }
    refused("a third start", gate.receive_timed(50_000_000), Status::TimedOut)
}

fn heap() -> Outcome {
    let numbers: Vec<u64> = (0..100_000).collect();
    let mut large: Vec<u8> = Vec::new();
    that(large.try_reserve_exact(64 << 20).is_err(), "an allocation of eight times the quota")?;
    that(numbers.iter().copied().eq(0..100_000), "the numbers have changed")
}

fn join() -> Outcome {
    let threads = (0..cpus()).map(|cpu| Builder::new(cpu, PRIORITY).spawn(move || u64::from(cpu) << 32));
    for (cpu, thread) in threads.collect::<Result<Vec<_>, _>>()?.into_iter().enumerate() {
        equal("what the thread returned", thread.join()?, (cpu as u64) << 32)?;
    }
    Ok(())
}

/// The domain's account before and after work that should leave nothing behind.
fn leaves_nothing(work: impl Fn() -> Outcome) -> Outcome {
    // The first time may grow the heap or page tables, which stay.
    work()?;
    let used = settled_use()?;
    work()?;
    equal("memory in use", settled_use()?, used)
}

/// What the account has in use once another CPU, which may be the last to let go of a thread that has ended, is done.
fn settled_use() -> Result<u64, Status> {
    let mut used = dragonfly_rt::sys::Domain::OWN.info()?.used;
    loop {
        time::sleep(Duration::from_millis(20));
        let now = dragonfly_rt::sys::Domain::OWN.info()?.used;
        if now == used {
            return Ok(now);
        }
        used = now;
    }
}

fn joined_threads() -> Outcome {
    leaves_nothing(|| {
        for cpu in (0..cpus()).cycle().take(50) {
            Builder::new(cpu, PRIORITY).spawn(|| ())?.join()?;
        }
        Ok(())
    })
}

/// The join ends its thread, wherever that is: not in the heap, whose lock would be nobody's then.
fn joined_with_a_long_heap() -> Outcome {
    // Gaps that are too short for what a thread is started with: giving that back takes a walk past all of them, which some of
    // the joins come upon.
    let mut short: Vec<Option<Box<u8>>> = (0..20_000).map(|_| Some(Box::new(0))).collect();
    short.iter_mut().step_by(2).for_each(|place| *place = None);
    let long = [0_u64; 32];
    for pause in (0..2000).step_by(20).map(Duration::from_micros) {
        let thread = Builder::new(0, PRIORITY - 1).spawn(move || black_box(long).iter().sum::<u64>())?;
        time::sleep(pause);
        equal("what the thread gave", thread.join()?, 0)?;
    }
    Ok(())
}

fn mutex() -> Outcome {
    const ROUNDS: u64 = 2000;
    let sum = Arc::new(Mutex::new(0_u64));
    let start = |number: u32| {
        let sum = sum.clone();
        Builder::new(number % cpus(), PRIORITY).spawn(move || {
            for _ in 0..ROUNDS {
                let mut sum = sum.lock();
                // Long enough that others meet it.
                *sum = black_box(*sum) + 1;
            }
        })
    };
    let threads = (0..4).map(start).collect::<Result<Vec<_>, _>>()?;
    threads.into_iter().try_for_each(|thread| thread.join())?;
    equal("the sum", *sum.lock(), 4 * ROUNDS)
}

/// A thread that spins for the lock would keep its holder, which is less urgent, from ever running.
fn mutex_priorities() -> Outcome {
    let shared = Arc::new(Mutex::new(0_u64));
    let low = {
        let shared = shared.clone();
        Builder::new(0, PRIORITY - 1).spawn(move || {
            let mut value = shared.lock();
            time::sleep(Duration::from_millis(5));
            *value += 1;
        })?
    };
    // Lets the other thread take the lock.
    time::sleep(Duration::from_millis(1));
    let high = {
        let shared = shared.clone();
        Builder::new(0, PRIORITY + 4).spawn(move || *shared.lock() += 1)?
    };
    high.join()?;
    low.join()?;
    equal("the sum", *shared.lock(), 2)
}

fn mapping() -> Outcome {
    let memory = Memory::create(2 * PAGE_SIZE, Commit::OnDemand)?;
    let mapping = Mapping::new(*memory, 0, 2 * PAGE_SIZE, Rights::READ | Rights::WRITE)?;
    let second = Mapping::new(*memory, PAGE_SIZE, PAGE_SIZE, Rights::READ)?;
    mapping.write(PAGE_SIZE - 2, b"page")?;
    let mut found = [0; 4];
    mapping.read(PAGE_SIZE - 2, &mut found)?;
    equal("what was written", &found, b"page")?;
    second.read(0, &mut found)?;
    equal("the second page", &found, b"ge\0\0")?;
    refused("a write past the end", mapping.write(2 * PAGE_SIZE - 1, b"xx"), Status::BadArgument)?;
    refused("a read that wraps", mapping.read(u64::MAX, &mut found), Status::BadArgument)?;
    refused("a write to what is readable only", second.write(0, b"x"), Status::Denied)?;
    refused("a word that is not aligned", mapping.word(4).map(drop), Status::BadArgument)?;
    mapping.word32(PAGE_SIZE - 4)?.store(7 << 24 | 0x61, Ordering::Relaxed);
    equal("half a word", mapping.word(PAGE_SIZE - 8)?.load(Ordering::Relaxed) >> 32, 7 << 24 | 0x61)?;
    for offset in [2, 2 * PAGE_SIZE, u64::MAX - 3] {
        refused("half a word that is not there or not aligned", mapping.word32(offset).map(drop), Status::BadArgument)?;
    }
    Ok(())
}

fn sleep() -> Outcome {
    for milliseconds in [0, 1, 20] {
        let wanted = Duration::from_millis(milliseconds);
        let start = time::now();
        time::sleep(wanted);
        that(time::now() - start >= wanted, format_args!("a sleep of {milliseconds} ms was too short"))?;
    }
    Ok(())
}
