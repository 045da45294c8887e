//! Random system calls by a domain with real objects, on every CPU, beside a neighbour whose work is checked.
//!
//! The domain lives for some thousand calls, then it is destroyed in whatever state it is, and everything must come
//! back. Its calls take handles that exist, numbers near the edges, and noise. What it may not have is a way to the
//! machine outside: no device but one harmless port.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, MESSAGE_HANDLES, PAGE_SIZE, Rights, Status, USER_END};
use dragonfly_random::Random;
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{
    Commit, Domain, DomainSettings, Gate, Memory, Message, Notification, System, clock_now_ns, exit_thread,
};

use super::Context;
use crate::check::{Failure, Outcome, equal};
use crate::light::{Buffer, Builder, Child, Light, PLAYGROUND, SHARED, Words, handle, shared, usual_settings, word_at};
use crate::probe::pause;
use crate::raw;

mod registers;
mod server;

super::tests! {
    "random calls harm nobody but their domain" within 600 => random_calls,
    "random messages to a server leave it able to serve" within 120 => server::random_messages,
    "random registers for a faulted thread harm nobody" within 120 => registers::random_states,
}

/// Calls that one life of the domain makes on each CPU.
const LIFE: u64 = 4000;
/// Words of the shared page; the first ones are the echo's.
const CALLS: usize = 4;
const MISTAKES: usize = 5;
const PROGRESS: usize = 6;
/// Words by CPU.
const BY_CPU: usize = 64;

/// Makes random calls. Words: seed, CPU, number of calls, first handle slot that exists, own domain.
extern "C" fn fuzzer(words: &Words) -> ! {
    let [seed, cpu, calls, ..] = *words;
    let mut random = Random::new(seed);
    let buffer = Buffer::own();
    let counter = shared(BY_CPU + cpu as usize);
    for _ in 0..calls {
        // Its own buffer is the only memory that the kernel reads of it.
        if random.once_in(4) {
            buffer.set_timeout_ns(short_time(&mut random));
            buffer.accept_handles(random.choose(&[0, 1, 8, 9, u32::MAX]));
            for index in 0..MESSAGE_HANDLES {
                let word = any_handle(&mut random) & 0xffff_ffff | random.number() << 32;
                buffer.word(2 + index).store(word, Ordering::Relaxed);
            }
            buffer.data(random.below(400) as usize).store(any_number(&mut random), Ordering::Relaxed);
        }
        let (number, arguments) = any_call(&mut random, words[4]);
        let (status, _) = raw::number(number, arguments);
        if status == 0 {
            shared(PROGRESS).fetch_add(1, Ordering::Relaxed);
        }
        if status >= Status::ALL.len() as u64 {
            shared(MISTAKES).fetch_add(1, Ordering::Relaxed);
        }
        counter.fetch_add(1, Ordering::Relaxed);
    }
    shared(CALLS).fetch_add(1, Ordering::Release);
    exit_thread()
}

/// A time that lets few waits last.
fn short_time(random: &mut Random) -> u64 {
    match random.below(40) {
        0 => random.number(),
        1 => u64::MAX,
        2..20 => 0,
        _ => random.below(50_000),
    }
}

/// A handle that mostly exists: the domain's slots are few and seldom used again.
fn any_handle(random: &mut Random) -> u64 {
    match random.below(16) {
        0 => random.number(),
        1 => random.number() & 0xffff_ffff,
        2 => random.below(64) | random.below(40) << 16,
        3..6 => random.below(64) | random.below(4) << 16,
        _ => 1 + random.below(24),
    }
}

fn any_number(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => random.number(),
        1 => 1 << random.below(64),
        2 => (1_u64 << random.below(64)).wrapping_sub(1),
        3 => {
            random.choose(&[0, 1, 2, 7, 4095, 4096, 4097, USER_END, USER_END - PAGE_SIZE, u64::MAX, 1 << 47, 0xb_8000])
        }
        4 => random.number() >> random.below(64),
        _ => random.below(16),
    }
}

/// An address: of the playground, the thread's surroundings, or anything.
fn any_address(random: &mut Random) -> u64 {
    match random.below(8) {
        0 => any_number(random),
        1 => SHARED,
        2 => random.below(1 << 20) * PAGE_SIZE,
        _ => PLAYGROUND + random.below(64) * PAGE_SIZE,
    }
}

fn any_size(random: &mut Random) -> u64 {
    match random.below(6) {
        0 => any_number(random),
        1 => (1 + random.below(600)) * PAGE_SIZE,
        _ => (1 + random.below(8)) * PAGE_SIZE,
    }
}

/// A call with arguments of the right kinds, more or less.
fn any_call(random: &mut Random, own: u64) -> (u64, [u64; 6]) {
    if random.once_in(32) {
        return (any_number(random), [(); 6].map(|()| any_number(random)));
    }
    let index = random.below(Call::ALL.len() as u64) as usize;
    let call = Call::ALL.get(index).copied().unwrap_or(Call::Nop);
    let domain = if random.once_in(4) { any_handle(random) } else { own };
    let h = any_handle(random);
    let mut tag = random.number() & 0x0001_ffff | random.below(4) << 24 | random.number() << 32;
    if random.once_in(2) {
        tag &= !0xe_0800;
    }
    // Calls without a limit of time would end the life early: most have one.
    if !random.once_in(16) {
        tag |= 1 << 16;
    }
    let n = |random: &mut Random| any_number(random);
    let arguments = match call {
        Call::Call | Call::Reply | Call::ReplyReceive => [h, tag, n(random), n(random), n(random), n(random)],
        Call::Receive | Call::NotificationWait => [h, short_time(random), 0, 0, 0, 0],
        Call::HandleCopy => [h, domain, random.number() & 0xfff, random.below(3), 0, 0],
        Call::DomainCreate => {
            let quota = random.choose(&[40_000, 100_000, 300_000, 1 << 40]);
            [domain, quota, random.below(12), random.below(4), any_handle(random) * random.below(2), n(random)]
        }
        Call::ThreadCreate => {
            let place = random.below(u64::from(cpus_of(own)) + 1) | random.below(12) << 32;
            let entry = if random.once_in(2) { stray as *const () as u64 } else { any_address(random) };
            [domain, place, entry, any_address(random), any_address(random), n(random)]
        }
        Call::ThreadConfigure => {
            let budget = random.choose(&[10_000, 50_000, 9_999, 1 << 40]);
            [
                h,
                budget,
                random.choose(&[10_000, 200_000, 1 << 40]),
                any_handle(random) * random.below(2),
                n(random),
                random.below(3),
            ]
        }
        // Its end would be an early one, but now and then that is worth a look.
        Call::ThreadExit if !random.once_in(500) => return (Call::ThreadYield as u64, [0; 6]),
        Call::DomainDestroy | Call::ThreadDestroy | Call::HandleClose | Call::HandleRevoke if !random.once_in(3) => {
            return (Call::HandleInfo as u64, [h, 0, 0, 0, 0, 0]);
        }
        Call::ThreadMove => [random.below(u64::from(cpus_of(own)) + 1), 0, 0, 0, 0, 0],
        Call::MemoryCreate => [any_size(random), random.below(3), 0, 0, 0, 0],
        Call::MemoryCommit => [h, random.below(8) * PAGE_SIZE, any_size(random), 0, 0, 0],
        Call::MemoryMap => {
            let rights = random.choose(&[2, 6, 10, 14, 0, 1 << 40]);
            [h, domain, any_address(random), random.below(8) * PAGE_SIZE, any_size(random), rights]
        }
        Call::MemoryUnmap => [domain, PLAYGROUND + random.below(64) * PAGE_SIZE, 0, 0, 0, 0],
        Call::TimerArm => [h, clock_now_ns().wrapping_add(random.below(100_000)), n(random), 0, 0, 0],
        Call::PortRead | Call::PortWrite => [h, 0x80, 1, random.below(256), 0, 0],
        _ => [h, n(random), n(random), n(random), n(random), n(random)],
    };
    (call as u64, arguments)
}

/// How many CPUs the fuzzing domain may name: word 40 of its page.
fn cpus_of(_: u64) -> u32 {
    shared(40).load(Ordering::Relaxed) as u32
}

/// Where threads start that the domain makes: without a stack or arguments of their own, so in machine code.
#[unsafe(naked)]
extern "C" fn stray() -> ! {
    core::arch::naked_asm!(
        "mov ebx, 50",
        "2:",
        "mov eax, {yield_}",
        "syscall",
        "dec ebx",
        "jnz 2b",
        "mov eax, {exit}",
        "syscall",
        "ud2",
        yield_ = const Call::ThreadYield as u32,
        exit = const Call::ThreadExit as u32,
    )
}

/// The neighbour: two threads on each CPU that talk to each other and sum up memory of their own. Words: gate, CPU,
/// address of its pages.
extern "C" fn neighbour_client(words: &Words) -> ! {
    let [gate, cpu, pages, ..] = *words;
    let gate: Gate = handle(gate);
    for page in 0..4 {
        for index in 0..512 {
            word_at(pages + page * PAGE_SIZE + index * 8).store(pattern(cpu, page, index), Ordering::Relaxed);
        }
    }
    loop {
        for page in 0..4 {
            for index in 0..512 {
                if word_at(pages + page * PAGE_SIZE + index * 8).load(Ordering::Relaxed) != pattern(cpu, page, index) {
                    shared(MISTAKES).fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        let round = shared(BY_CPU + cpu as usize).load(Ordering::Relaxed);
        match gate.call(Message::new(round as u32, [round, cpu, !round, 4])) {
            Ok(reply) if reply.words == [round + 1, cpu + 1, (!round).wrapping_add(1), 5] => {}
            _ => drop(shared(MISTAKES).fetch_add(1, Ordering::Relaxed)),
        }
        shared(BY_CPU + cpu as usize).fetch_add(1, Ordering::Release);
    }
}

fn pattern(cpu: u64, page: u64, index: u64) -> u64 {
    (cpu + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (page << 32) ^ index
}

struct Neighbour {
    child: Child,
    _gates: Vec<dragonfly_rt::sys::Owned<Gate>>,
    _lights: Vec<Light>,
}

impl Neighbour {
    fn start() -> Outcome<Self> {
        let child = Child::new()?;
        let (mut gates, mut lights) = (Vec::new(), Vec::new());
        for cpu in 0..cpus() {
            let gate = Gate::create()?;
            let pages = PLAYGROUND + u64::from(cpu) * 16 * PAGE_SIZE;
            let memory = Memory::create(4 * PAGE_SIZE, Commit::OnDemand)?;
            memory.map(child.domain(), pages, 0, 4 * PAGE_SIZE, Rights::READ | Rights::WRITE)?;
            // Stays mapped without its handle.
            memory.close()?;
            let (receive, send) = (child.give(*gate, Rights::RECEIVE)?, child.give(*gate, Rights::SEND)?);
            // A share of each CPU that the other domain's priority cannot take away, and that leaves it the rest.
            let plan = Builder::new(cpu).priority(20).budget(300_000, 2_000_000);
            lights.push(plan.spawn(child.domain(), super::ipc::echo, &[receive])?);
            lights.push(plan.spawn(child.domain(), neighbour_client, &[send, cpu.into(), pages])?);
            gates.push(gate);
        }
        Ok(Self { child, _gates: gates, _lights: lights })
    }

    /// What it has done on each CPU.
    fn progress(&self) -> Outcome<Vec<u64>> {
        (0..u64::from(cpus())).map(|cpu| Ok(self.child.word(BY_CPU as u64 + cpu)?.load(Ordering::Acquire))).collect()
    }

    fn check(&self) -> Outcome {
        let mistakes = self.child.word(MISTAKES as u64)?.load(Ordering::Relaxed);
        equal("mistakes in the neighbour's work", mistakes, 0)
    }

    /// Waits until it has gone on on every CPU.
    fn expect_progress(&self, before: &[u64]) -> Outcome {
        let end = clock_now_ns() + crate::probe::LIMIT_NS;
        loop {
            let now = self.progress()?;
            if now.iter().zip(before).all(|(now, before)| now > before) {
                return self.check();
            }
            if clock_now_ns() > end {
                return Err(Failure::new(format_args!("the neighbour stands still: {before:?} and then {now:?}")));
            }
            pause();
        }
    }
}

/// One life of the fuzzing domain; gives the numbers of calls that it made and that succeeded.
fn live(seed: u64, life: u64) -> Outcome<(u64, u64)> {
    let settings = DomainSettings { quota: 1 << 20, max_priority: 10, ..usual_settings() };
    let fuzz = Child::with(&settings)?;
    fuzz.word(40)?.store(cpus().into(), Ordering::Relaxed);
    // Objects in the first slots; with all rights, but for the machine.
    let domain = fuzz.give(fuzz.domain(), Rights::all())?;
    let gates = [Gate::create()?, Gate::create()?];
    let notifications = [Notification::create()?, Notification::create()?];
    let memories =
        [Memory::create(16 * PAGE_SIZE, Commit::OnDemand)?, Memory::create(600 * PAGE_SIZE, Commit::OnDemand)?];
    memories[0].commit(0, 4 * PAGE_SIZE)?;
    for gate in &gates {
        fuzz.give(**gate, Rights::all())?;
        fuzz.give_badged(**gate, Rights::all(), 7)?;
    }
    for notification in &notifications {
        fuzz.give(**notification, Rights::all())?;
        fuzz.give_badged(**notification, Rights::SEND | Rights::COPY, 4)?;
    }
    for memory in &memories {
        fuzz.give(**memory, Rights::all())?;
        fuzz.give(**memory, Rights::READ | Rights::COPY)?;
    }
    let ports = System::OWN.ports(0x80, 1)?;
    fuzz.give(*ports, Rights::all())?;
    fuzz.give(System::OWN, Rights::READ | Rights::COPY)?;
    let relative =
        Domain::create(fuzz.domain(), &DomainSettings { quota: 100_000, max_priority: 5, ..usual_settings() })?;
    fuzz.give(*relative, Rights::all())?;
    let mut lights = Vec::new();
    for cpu in 0..cpus() {
        let words = [seed ^ u64::from(cpu) << 56, cpu.into(), life, 0, domain];
        let light = Builder::new(cpu).priority(10).no_fault_gate().prepare(fuzz.domain(), fuzzer, &words)?;
        fuzz.give(light.thread(), Rights::all())?;
        lights.push(light);
    }
    for light in &lights {
        match light.start() {
            // One of those before has started it, or ended it, by chance.
            Ok(()) | Err(Status::BadState) => {}
            Err(status) => return Err(status.into()),
        }
    }
    // It ends when all its threads are through, have ended or wait for what never comes.
    let calls = || -> Outcome<u64> {
        let each = (0..u64::from(cpus())).map(|cpu| Ok(fuzz.word(BY_CPU as u64 + cpu)?.load(Ordering::Relaxed)));
        each.sum()
    };
    let (mut last, mut same) = (calls()?, 0);
    while fuzz.word(CALLS as u64)?.load(Ordering::Acquire) < cpus().into() && same < 100 {
        pause();
        let now = calls()?;
        same = if now == last { same + 1 } else { 0 };
        last = now;
    }
    equal("statuses that do not exist", fuzz.word(MISTAKES as u64)?.load(Ordering::Relaxed), 0)?;
    let counts = (calls()?, fuzz.word(PROGRESS as u64)?.load(Ordering::Relaxed));
    fuzz.destroy()?;
    Ok(counts)
}

fn random_calls(context: &Context) -> Outcome {
    let seed = context.options.seed.unwrap_or(20_261_122);
    let wanted = context.repeat(20_000, 1_000_000, 5_000_000);
    let mut random = Random::new(seed);
    let neighbour = Neighbour::start()?;
    // The first lives make tables of this domain that stay.
    live(random.number(), 500)?;
    let before = (Domain::OWN.info()?.used, System::OWN.free_pages()?.0);
    let (mut made, mut succeeded, mut lives) = (0, 0, 0_u64);
    while made < wanted {
        let progress = neighbour.progress()?;
        let seed_of_life = random.number();
        let case = |failure: Failure| failure.in_case(format_args!("life {lives} of seed {seed}"));
        let (calls, good) = live(seed_of_life, LIFE).map_err(case)?;
        made += calls;
        succeeded += good;
        neighbour.expect_progress(&progress).map_err(case)?;
        let after = (Domain::OWN.info()?.used, System::OWN.free_pages()?.0);
        equal("used memory and free pages after the domain is gone", after, before).map_err(case)?;
        lives += 1;
    }
    context.note(format_args!(
        "seed {seed}: {made} calls in {lives} lives, {succeeded} succeeded, neighbour's rounds {:?}",
        neighbour.progress()?
    ));
    Ok(())
}
