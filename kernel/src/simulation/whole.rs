//! Random domains: their threads make random calls, most of them with handles and numbers that mean something, on CPUs
//! that act, are kicked and are interrupted in random order. After each step all of the kernel is looked at; at the end
//! everything must be back.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

use dragonfly_abi::{
    Call, FOREVER, Handle, HandleTransfer, MIN_BUDGET_NS, MessageKind, MessageTag, ObjectType, PAGE_SIZE, Rights,
    Status, USER_END,
};
use dragonfly_memory::UserVirt;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestError, TestRng, TestRunner};

use super::Ref;
use super::rounds::{Pace, random_turns};
use super::shortage::Withheld;
use super::world::{Action, Buffer, DomainRef, Home, Results, ThreadRef, World};
use crate::arch::Arch;
use crate::arch::fake::Fake;
use crate::capability::Object;
use crate::fault::Fault;
use crate::thread::{Phase, Thread};

/// CPUs of a run, beside the keeper's.
const CPUS: usize = 3;
/// What all the random domains may have together.
const QUOTA: u64 = 12 << 20;
/// Where memory is mapped: pages from here on.
const MAPPINGS: u64 = 0x10_0000_0000;

/// How many threads the keeper keeps going.
const MOST_NURTURED: usize = 16;

/// Numbers from which one step is made, whatever state the run is in.
#[derive(Clone, Copy, Debug)]
struct Step {
    cpu: u8,
    kind: u8,
    words: [u16; 6],
}

/// What is known of a thread between its steps.
#[derive(Default)]
struct Life {
    /// The call that it waits for, and the number of its message.
    pending: Option<(Call, u64)>,
    /// The number of the message that it has received and not answered.
    serving: u64,
}

struct Run {
    world: World,
    /// The domain that all random ones are in.
    home: Home,
    lives: HashMap<*const Thread<Fake>, (ThreadRef, Life)>,
    messages: u64,
    /// For how many more steps there is no memory, and the frames that are kept away meanwhile.
    shortage: u64,
    withheld: Option<Withheld>,
    /// Threads that the keeper made: the number of the message buffer, and the keeper's handle.
    nurtured: VecDeque<(u64, u64)>,
}

impl Run {
    fn new() -> Self {
        let mut world = World::new(CPUS);
        let home = world.home(QUOTA);
        let mut run = Self {
            world,
            home,
            lives: HashMap::new(),
            messages: 0,
            shortage: 0,
            withheld: None,
            nurtured: VecDeque::new(),
        };
        (0..CPUS).for_each(|cpu| run.nurture(cpu, 20));
        let first = run.world.thread(&home, 0, 40);
        for call in [Call::GateCreate, Call::NotificationCreate, Call::GateCreate, Call::NotificationCreate] {
            run.world.get(&first, call, &[]);
        }
        run.world.get(&first, Call::MemoryCreate, &[16 * PAGE_SIZE, 1]);
        let memory = run.world.get(&first, Call::MemoryCreate, &[1024 * PAGE_SIZE, 0]);
        assert_eq!(run.world.status(&first, Call::MemoryCommit, &[memory, 0, 4 * PAGE_SIZE]), Status::Ok);
        run.world.wait(&first, Call::ThreadExit, &[]);
        run
    }

    /// Sees to it that there is somebody to do something, with handles to do it with.
    fn nurture(&mut self, cpu: usize, priority: u64) {
        let (world, home) = (&mut self.world, self.home);
        if world.domain_of(&home).table.lock().count() < 4 {
            for handle in [home.handle, world.system] {
                world.ask(Call::HandleCopy, &[handle, home.handle, u64::from(Rights::all().bits()), 0]);
            }
        }
        if self.nurtured.len() == MOST_NURTURED {
            let (_, oldest) = self.nurtured.pop_front().expect("threads");
            assert_eq!(world.insist(Call::ThreadDestroy, &[oldest]), Status::Ok);
            assert_eq!(world.insist(Call::HandleClose, &[oldest]), Status::Ok);
        }
        let free = |number: &u64| self.nurtured.iter().all(|(other, _)| other != number);
        let number = (0..).find(free).expect("a free number");
        let place = cpu as u64 | ((priority % 64) << 32);
        let words = [home.handle, place, 0x1000, 0x2000, 0x7000_0000 + number * PAGE_SIZE, 0];
        let (status, results) = world.ask(Call::ThreadCreate, &words);
        if status == Status::Ok {
            world.keep(Call::ThreadStart, &[results[0]]);
            self.nurtured.push_back((number, results[0]));
            world.deliver(cpu);
        }
    }

    /// For the next steps there is memory for a few objects or frames more, and then for none.
    fn run_short(&mut self, steps: u64, left: u64) {
        self.shortage = steps;
        if steps.is_multiple_of(2) {
            self.world.fake.fail_after(left);
        } else {
            self.withheld = Some(Withheld::all_but(self.world.fake, left));
        }
    }

    fn end_shortage(&mut self) {
        self.world.fake.fail_after(u64::MAX);
        self.withheld = None;
    }

    fn step(&mut self, step: &Step) {
        if self.shortage > 0 {
            self.shortage -= 1;
            if self.shortage == 0 {
                self.end_shortage();
            }
        }
        let cpu = usize::from(step.cpu) % CPUS;
        let fake = self.world.fake;
        let [first, ..] = step.words.map(u64::from);
        match step.kind {
            0..16 => {
                self.world.deliver(cpu);
            }
            16..32 => {
                self.world.tick(cpu);
            }
            32..34 if self.shortage == 0 => self.run_short(1 + first % 32, u64::from(step.words[1]) % 8),
            34..42 => fake.advance(1 << (first % 24)),
            42..50 => {
                let next = fake.timer(cpu);
                if next != FOREVER {
                    fake.advance(next.saturating_sub(fake.now()));
                    self.world.tick(cpu);
                }
            }
            50..56 => {
                let lines = fake.open_lines();
                if let Some((line, cpu)) = lines.get(first as usize % lines.len().max(1)) {
                    self.world.perform(*cpu, Action::Interrupt(*line));
                }
            }
            56..58 => self.nurture(cpu, first),
            _ if self.world.current(cpu).is_none() => {
                self.world.step(cpu);
                if self.world.current(cpu).is_none() {
                    self.nurture(cpu, first);
                }
            }
            kind => self.let_thread_act(cpu, kind, step.words.map(u64::from)),
        }
        self.lives.retain(|_, (thread, _)| thread.phase() != Phase::Ended);
    }

    fn let_thread_act(&mut self, cpu: usize, kind: u8, words: [u64; 6]) {
        let Some(action) = self.plan(cpu, kind, words) else { return };
        self.world.perform(cpu, action);
        if let Action::Touch(address, access) = action {
            self.look(cpu, address, access);
        }
    }

    /// What the current thread of a CPU does next.
    fn plan(&mut self, cpu: usize, kind: u8, words: [u64; 6]) -> Option<Action> {
        let thread = self.world.current(cpu)?;
        self.go_on(&thread);
        Some(match kind {
            58..80 => self.touch(&thread, words),
            80..83 => Action::Fault(Fault::Exception { number: words[0], code: 0 }),
            83 => {
                // As of a call that gives nothing but a status.
                self.lives.get_mut(&Ref::as_ptr(&thread)).expect("a life").1.pending = Some((Call::Nop, 0));
                Action::BadCall(words[0] << (words[1] % 48) | 1 << 16)
            }
            _ => {
                let call = CALLS[(usize::from(kind) * 8 + words[5] as usize % 8) % CALLS.len()];
                let arguments = self.arguments(&thread, call, words);
                let life = &mut self.lives.get_mut(&Ref::as_ptr(&thread)).expect("a life").1;
                life.pending = Some((call, self.messages));
                if words[4].is_multiple_of(4) {
                    Action::GeneralCall(call, arguments)
                } else {
                    Action::Call(call, arguments)
                }
            }
        })
    }

    /// CPUs do something at the same time, each a step of its own.
    fn step_together(&mut self, steps: &[Step], pace: Pace) {
        let mut actions: Vec<(usize, Action)> = Vec::new();
        for step in steps {
            let cpu = usize::from(step.cpu) % CPUS;
            if actions.iter().any(|(other, _)| *other == cpu) {
                continue;
            }
            let action = match step.kind {
                0..32 => Some(Action::Kick),
                32..50 => Some(Action::Timer),
                kind => self.plan(cpu, kind, step.words.map(u64::from)),
            };
            actions.extend(action.map(|action| (cpu, action)));
        }
        if actions.len() > 1 {
            self.world.round(&actions, pace);
        } else if let Some((cpu, action)) = actions.pop() {
            self.world.perform(cpu, action);
        }
        self.lives.retain(|_, (thread, _)| thread.phase() != Phase::Ended);
    }

    /// The current thread is about to do something: looks at what its last call gave.
    fn go_on(&mut self, thread: &ThreadRef) {
        let (_, life) = self.lives.entry(Ref::as_ptr(thread)).or_insert_with(|| (thread.clone(), Life::default()));
        match (life.pending.take(), thread.context.take_results()) {
            (None, None) => {}
            (Some((call, number)), Some(results)) => life.check(call, number, results),
            (Some((call, _)), None) => panic!("a thread goes on after {call:?} without results"),
            (None, Some(results)) => panic!("a thread gets {results:?} without having called"),
        }
    }

    /// An access to memory, most often to what is mapped.
    fn touch(&self, thread: &ThreadRef, words: [u64; 6]) -> Action {
        let access = [Rights::READ, Rights::WRITE, Rights::EXECUTE][words[1] as usize % 3];
        let mappings = thread.domain.space.mappings();
        let address = match mappings.get(words[0] as usize % (mappings.len() + 1)).and_then(|mapping| mapping.range) {
            Some(range) => {
                let pages = (range.end.as_u64() - range.start.as_u64()) / PAGE_SIZE;
                range.start.as_u64() + words[2] % pages * PAGE_SIZE
            }
            None => [0, USER_END, u64::MAX, MAPPINGS + words[2] * PAGE_SIZE][words[3] as usize % 4] & !7,
        };
        Action::Touch(UserVirt::new(address), access)
    }

    /// What is in memory must be zero or what the object's users wrote.
    fn look(&self, cpu: usize, address: UserVirt, access: Rights) {
        let fake = self.world.fake;
        let Some(place) = fake.access(cpu, address, access).filter(|place| fake.is_ram(*place)) else { return };
        let Some(current) = self.world.current(cpu) else { return };
        let mapping = current
            .domain
            .space
            .mappings()
            .into_iter()
            .find(|mapping| mapping.range.is_some_and(|range| (range.start..range.end).contains(&address.into())));
        let mapping = mapping.expect("an accessible address is mapped");
        let (Some(range), Object::Memory(memory)) = (mapping.range, &mapping.object) else { panic!("a mapping") };
        if memory.pinned_frame().is_some() {
            return;
        }
        let offset = range.offset.as_u64() + (address.as_u64() - range.start.as_u64());
        let stamp = (Ref::as_ptr(memory) as u64) << 16 ^ offset | 1;
        let found = fake.load(place);
        assert!(found == 0 || found == stamp, "an object's page holds {found:#x}, not zero or {stamp:#x}");
        if access == Rights::WRITE {
            fake.store(place, stamp);
        }
    }

    fn arguments(&mut self, thread: &ThreadRef, call: Call, words: [u64; 6]) -> [u64; 6] {
        let fake = self.world.fake;
        let pick = Pick { domain: &thread.domain };
        let buffer = Buffer::of(fake, thread);
        let [a, b, c, d, e, _] = words;
        let timeout = [0, 3_000, 60_000, 2_000_000, FOREVER, FOREVER][b as usize % 6];
        self.messages += 1;
        let serving = self.lives[&Ref::as_ptr(thread)].1.serving;
        let message = |gate: u64| {
            let bytes = if c % 4 == 0 { (d as usize * 7) % 4000 } else { 0 };
            let handles = if c % 5 == 0 { d as usize % 4 } else { 0 };
            let tag = MessageTag::new(d as u32, bytes, handles);
            buffer.set_timeout(timeout);
            buffer.accept(if e % 8 == 0 { 0 } else { 8 });
            for index in 0..handles {
                let rights = if (d >> index) & 1 == 0 { u32::MAX } else { Rights::all().bits() };
                let handle = Handle(pick.any(d.rotate_left(index as u32)) as u32);
                buffer.set_handle(index, HandleTransfer { handle, rights });
            }
            let tag = if b % 3 == 0 { tag.timed() } else { tag };
            [gate, tag.0, self.messages, serving, words[4], words[5]]
        };
        let gate = |word| pick.of(word, ObjectType::Gate);
        let notification = |word| pick.of(word, ObjectType::Notification);
        let domain = |word| pick.of(word, ObjectType::Domain);
        let a_thread = |word| pick.of(word, ObjectType::Thread);
        let memory = |word| pick.of(word, ObjectType::Memory);
        let interrupt = |word| pick.of(word, ObjectType::Interrupt);
        let system = |word| pick.of(word, ObjectType::System);
        let pages = |word: u64| (word % 24) * PAGE_SIZE;
        let place = |word: u64| MAPPINGS + (word % 64) * 4 * PAGE_SIZE;
        match call {
            Call::Call | Call::ReplyReceive => message(gate(a)),
            Call::Reply => message(0),
            Call::Receive => {
                buffer.accept(if e % 8 == 0 { 0 } else { 8 });
                [gate(a), timeout, 0, 0, 0, 0]
            }
            Call::HandleCopy => {
                let rights = if c % 4 == 0 { d & 0x7ff } else { u64::from(Rights::all().bits()) };
                [pick.any(a), domain(b), rights, if d % 5 == 0 { e } else { 0 }, 0, 0]
            }
            Call::HandleClose | Call::HandleRevoke | Call::HandleInfo => [pick.any(a), 0, 0, 0, 0, 0],
            Call::DomainCreate => {
                let quota = [1 << 15, 1 << 17, 1 << 19, 1 << 21][b as usize % 4];
                let death = if d % 2 == 0 { notification(d) } else { 0 };
                [domain(a), quota, c % 66, if e % 8 == 0 { e } else { (1 << CPUS) - 1 }, death, d]
            }
            Call::DomainDestroy | Call::DomainInfo => [domain(a), 0, 0, 0, 0, 0],
            Call::ThreadCreate => {
                let place = (b % 4) | ((c % 66) << 32);
                [domain(a), place, 0x1000 * (d % 16), 0x2000, 0x5000_0000 + (e % 32) * PAGE_SIZE, d]
            }
            Call::ThreadConfigure => {
                let budget = MIN_BUDGET_NS * (b % 10);
                let period = budget + MIN_BUDGET_NS * (c % 3) * (c % 50);
                [a_thread(a), budget, period, if d % 4 == 0 { 0 } else { gate(d) }, e, d % 2]
            }
            Call::ThreadStart | Call::ThreadDestroy | Call::ThreadInfo => [a_thread(a), 0, 0, 0, 0, 0],
            Call::NotificationSignal => [notification(a), 1 << (b % 64), 0, 0, 0, 0],
            Call::NotificationWait => [notification(a), timeout, 0, 0, 0, 0],
            Call::NotificationBind => [notification(a), gate(b), 0, 0, 0, 0],
            Call::TimerArm => {
                let now = fake.now() - self.world.kernel().started();
                let deadline = [now + (c << (d % 8)), FOREVER, 0, now + 1][b as usize % 4];
                [notification(a), deadline, d, 0, 0, 0]
            }
            Call::MemoryCreate => {
                let size = if a % 4 == 0 { 700 * PAGE_SIZE } else { pages(a) };
                [size, b % 2, 0, 0, 0, 0]
            }
            Call::MemoryCommit => {
                let (offset, size) = if b % 4 == 0 { (0, 512 * PAGE_SIZE) } else { (pages(b), pages(c)) };
                [memory(a), offset, size, 0, 0, 0]
            }
            Call::MemoryMap => {
                let rights =
                    [Rights::READ, Rights::READ | Rights::WRITE, Rights::READ | Rights::EXECUTE][e as usize % 3];
                let rights = if e % 16 == 0 { e } else { u64::from(rights.bits()) };
                let (at, offset, size) =
                    if c % 4 == 0 { (MAPPINGS, 0, 512 * PAGE_SIZE) } else { (place(c), pages(d), pages(d / 24)) };
                [memory(a), domain(b), at, offset, size, rights]
            }
            Call::MemoryUnmap => {
                let mappings = thread.domain.space.mappings();
                let range = mappings.get(b as usize % mappings.len().max(1)).and_then(|mapping| mapping.range);
                let at = if c % 4 == 0 { place(c) } else { range.map_or(0, |range| range.start.as_u64()) };
                [domain(a), at, 0, 0, 0, 0]
            }
            Call::MemoryInfo => [memory(a), 0, 0, 0, 0, 0],
            Call::DevicePorts => [system(a), b, c, 0, 0, 0],
            Call::DeviceMemory => [system(a), (1 << 32) + pages(b), pages(c), 0, 0, 0],
            Call::DeviceInterrupt => [system(a), b % 26, c % 5, 0, 0, 0],
            Call::PortRead | Call::PortWrite => [pick.of(a, ObjectType::Ports), b, c % 5, d, 0, 0],
            Call::InterruptBind => [interrupt(a), if b % 4 == 0 { 0 } else { notification(b) }, c, d % 4, 0, 0],
            Call::InterruptAcknowledge => [interrupt(a), 0, 0, 0, 0, 0],
            Call::SystemInfo => [system(a), b % 9, c, 0, 0, 0],
            Call::LogWrite => [system(a), b % 300, 0, 0, 0, 0],
            Call::Nop
            | Call::ThreadExit
            | Call::ThreadYield
            | Call::NotificationCreate
            | Call::GateCreate
            | Call::ClockNow
            | Call::VmCreate
            | Call::VmDoorbell
            | Call::VmInterrupt
            | Call::VcpuCreate
            | Call::VcpuRun
            | Call::VcpuKick
            | Call::VcpuSync
            | Call::VcpuCpuid
            | Call::VcpuMsr
            | Call::VcpuApic
            | Call::NotificationRoute => words,
        }
    }

    /// Destroys everything that the random domains made: nothing must be left of it.
    fn end(mut self) {
        self.end_shortage();
        self.lives.clear();
        assert_eq!(self.world.insist(Call::DomainDestroy, &[self.home.handle]), Status::Ok);
        self.world.step_all();
        self.world.finish();
    }
}

impl Life {
    fn check(&mut self, call: Call, number: u64, (status, words): Results) {
        if status != Status::Ok {
            assert_eq!(words, [0; 6], "words beside {status:?} of {call:?}");
            return;
        }
        match call {
            Call::Call => assert_eq!(words[3], number, "the answer to another message"),
            Call::Receive | Call::ReplyReceive => match MessageTag(words[1]).kind() {
                MessageKind::Call => self.serving = words[2],
                MessageKind::Notification => assert_ne!(words[2], 0, "a message of no bits"),
                MessageKind::Fault => {}
            },
            Call::NotificationWait => assert_ne!(words[0], 0, "a wait ends without bits"),
            _ => {}
        }
    }
}

/// Picks handles of a domain.
struct Pick<'a> {
    domain: &'a DomainRef,
}

impl Pick<'_> {
    /// Any handle, now and then none.
    fn any(&self, word: u64) -> u64 {
        let handles = self.domain.table.lock().handles();
        match handles.get(word as usize % (handles.len() + 1)) {
            Some((handle, _)) => u64::from(handle.0),
            None => word,
        }
    }

    /// A handle of a type, now and then another.
    fn of(&self, word: u64, wanted: ObjectType) -> u64 {
        if word % 32 == 31 {
            return self.any(word);
        }
        let mut handles = self.domain.table.lock().handles();
        handles.retain(|(_, capability)| capability.object.object_type() == wanted);
        handles.get(word as usize % handles.len().max(1)).map_or(0, |(handle, _)| u64::from(handle.0))
    }
}

/// The calls, as often as they are to be made.
const CALLS: &[Call] = &[
    Call::Call,
    Call::Call,
    Call::Call,
    Call::Call,
    Call::Call,
    Call::Call,
    Call::Receive,
    Call::Receive,
    Call::Receive,
    Call::Receive,
    Call::ReplyReceive,
    Call::ReplyReceive,
    Call::ReplyReceive,
    Call::ReplyReceive,
    Call::Reply,
    Call::Reply,
    Call::HandleCopy,
    Call::HandleCopy,
    Call::HandleCopy,
    Call::HandleCopy,
    Call::HandleClose,
    Call::HandleClose,
    Call::HandleRevoke,
    Call::HandleInfo,
    Call::DomainCreate,
    Call::DomainCreate,
    Call::DomainDestroy,
    Call::DomainInfo,
    Call::ThreadCreate,
    Call::ThreadCreate,
    Call::ThreadCreate,
    Call::ThreadCreate,
    Call::ThreadConfigure,
    Call::ThreadConfigure,
    Call::ThreadStart,
    Call::ThreadStart,
    Call::ThreadStart,
    Call::ThreadDestroy,
    Call::ThreadExit,
    Call::ThreadYield,
    Call::ThreadYield,
    Call::ThreadInfo,
    Call::NotificationCreate,
    Call::NotificationSignal,
    Call::NotificationSignal,
    Call::NotificationSignal,
    Call::NotificationWait,
    Call::NotificationWait,
    Call::NotificationWait,
    Call::NotificationBind,
    Call::TimerArm,
    Call::TimerArm,
    Call::GateCreate,
    Call::MemoryCreate,
    Call::MemoryCommit,
    Call::MemoryCommit,
    Call::MemoryMap,
    Call::MemoryMap,
    Call::MemoryMap,
    Call::MemoryUnmap,
    Call::MemoryInfo,
    Call::DevicePorts,
    Call::DeviceMemory,
    Call::DeviceInterrupt,
    Call::PortRead,
    Call::PortWrite,
    Call::InterruptBind,
    Call::InterruptBind,
    Call::InterruptAcknowledge,
    Call::SystemInfo,
    Call::LogWrite,
    Call::ClockNow,
    Call::Nop,
];

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = (any::<u8>(), any::<u8>(), any::<[u16; 6]>()).prop_map(|(cpu, kind, words)| Step { cpu, kind, words });
    proptest::collection::vec(step, 1..1200)
}

/// How long to go on, and how many cases at least: `DRAGONFLY_FUZZ_SECONDS`, `PROPTEST_CASES`.
fn effort(cases: u32) -> (Duration, u32) {
    let number = |name| std::env::var(name).ok().and_then(|value| value.parse().ok());
    let seconds = number("DRAGONFLY_FUZZ_SECONDS").unwrap_or(0);
    (Duration::from_secs(seconds), number("PROPTEST_CASES").map_or(cases, |cases| cases as u32))
}

fn execute(steps: &[Step], with: Option<fn(&Step) -> Pace>, is_traced: bool) {
    let mut run = Run::new();
    run.world.is_traced = is_traced;
    let mut rest = steps;
    while let [step, after @ ..] = rest {
        rest = after;
        match with {
            Some(pace) if step.kind >= 192 => {
                let together = &steps[steps.len() - rest.len() - 1..][..rest.len().min(2) + 1];
                rest = &rest[together.len() - 1..];
                run.step_together(together, pace(step));
            }
            _ => run.step(step),
        }
    }
    run.end();
}

/// Runs random cases for as long as it is to take. `with` says how several CPUs act at once, if they do.
fn explore(cases: u32, salt: u8, with: Option<fn(&Step) -> Pace>) {
    let (duration, cases) = effort(cases);
    let start = Instant::now();
    for round in 0_u64.. {
        let config = Config { cases, max_shrink_time: 120_000, failure_persistence: None, ..Config::default() };
        let mut seed = [salt; 32];
        seed[..8].copy_from_slice(&round.to_le_bytes());
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &seed));
        let result = runner.run(&steps(), |steps| {
            execute(&steps, with, false);
            Ok(())
        });
        if let Err(TestError::Fail(reason, steps)) = result {
            eprintln!("round {round}: {reason}\n{steps:?}");
            execute(&steps, with, true);
            panic!("{reason}, but not again");
        }
        if start.elapsed() >= duration {
            break;
        }
    }
}

#[test]
fn random_domains_never_break_the_kernel() {
    explore(256, 0, None);
}

#[test]
fn random_domains_on_cpus_that_take_turns_in_the_kernel_never_break_it() {
    explore(64, 1, Some(|step| random_turns(u64::from(step.words[0]), 1 + u64::from(step.words[1] % 16))));
}

#[test]
fn random_domains_on_cpus_that_are_in_the_kernel_at_once_never_break_it() {
    explore(64, 2, Some(|_| None));
}
