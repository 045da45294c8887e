//! A run: random domains, and one step after the other.

use std::collections::{HashMap, VecDeque};

use dragonfly_abi::{Call, FOREVER, MessageKind, MessageTag, PAGE_SIZE, Rights, Status, USER_END};
use dragonfly_memory::UserVirt;

use super::calls::CALLS;
use super::{CPUS, MAPPINGS, Step};
use crate::arch::Arch;
use crate::arch::fake::Fake;
use crate::capability::Object;
use crate::fault::Fault;
use crate::simulation::Ref;
use crate::simulation::rounds::Pace;
use crate::simulation::shortage::Withheld;
use crate::simulation::world::{Action, Home, Results, ThreadRef, World};
use crate::thread::{Phase, Thread};

/// What all the random domains may have together.
const QUOTA: u64 = 12 << 20;

/// How many threads the keeper keeps going.
const MOST_NURTURED: usize = 16;

/// What is known of a thread between its steps.
#[derive(Default)]
pub struct Life {
    /// The call that it waits for, and the number of its message.
    pending: Option<(Call, u64)>,
    /// The number of the message that it has received and not answered.
    pub serving: u64,
}

/// A machine on which random domains run.
pub struct Run {
    /// The machine.
    pub world: World,
    /// The domain that all random ones are in.
    home: Home,
    /// What is known of the threads that have acted.
    pub lives: HashMap<*const Thread<Fake>, (ThreadRef, Life)>,
    /// How many messages have been made: each has a number of its own.
    pub messages: u64,
    /// For how many more steps there is no memory, and the frames that are kept away meanwhile.
    shortage: u64,
    withheld: Option<Withheld>,
    /// Threads that the keeper made: the number of the message buffer, and the keeper's handle.
    nurtured: VecDeque<(u64, u64)>,
}

impl Run {
    /// One with a domain for the random ones, and a thread for each CPU.
    pub fn new() -> Self {
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

    /// A CPU does something, or time passes.
    pub fn step(&mut self, step: &Step) {
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
    pub fn step_together(&mut self, steps: &[Step], pace: Pace) {
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

    /// Destroys everything that the random domains made: nothing must be left of it.
    pub fn end(mut self) {
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
