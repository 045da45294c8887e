//! A simulated machine with a kernel on it, and what tests do with it.
//!
//! Beside the CPUs of the test there is one more, on which the *keeper* runs: the first domain's first thread. Tests
//! make domains, threads and handles through it without disturbing what the other CPUs schedule.

use std::mem::{forget, take};

use dragonfly_abi::{Call, FOREVER, Handle, HandleTransfer, MessageBuffer, PAGE_SIZE, Rights, Status};
use dragonfly_memory::{HostPhys, UserVirt};

use super::Ref;
use super::audit::audit;
use crate::Kernel;
use crate::arch::Arch;
use crate::arch::fake::Fake;
use crate::capability::{Capability, Object};
use crate::cpu::Cpu;
use crate::domain::{Domain, publish};
use crate::fault::Fault;
use crate::system_call::Return;
use crate::system_call::thread::ThreadPlan;
use crate::teardown::Progress;
use crate::thread::Thread;

/// RAM of a simulated machine.
const RAM: u64 = if cfg!(miri) { 12 << 20 } else { 24 << 20 };
/// Where message buffers go.
const BUFFERS: u64 = 0x6000_0000_0000;
/// More rounds than any settling needs.
const MANY: usize = 3_000;

/// What a call gave.
pub type Results = (Status, [u64; 6]);
/// A thread of the simulated machine.
pub type ThreadRef = Ref<Thread<Fake>>;
/// A domain of the simulated machine.
pub type DomainRef = Ref<Domain<Fake>>;

/// A domain that the keeper has made. It holds no reference: those count for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Home {
    /// The keeper's handle to it.
    pub handle: u64,
}

/// A thread that the keeper has made. It holds no reference: those count for the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The CPU that it runs on.
    pub cpu: usize,
    /// The keeper's handle to it.
    pub handle: u64,
}

/// What a CPU does next.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// Its current thread makes a system call.
    Call(Call, [u64; 6]),
    /// As `Call`, but not by the fast path where there is one.
    GeneralCall(Call, [u64; 6]),
    /// It makes a call that there is not.
    BadCall(u64),
    /// Its current thread accesses memory.
    Touch(UserVirt, Rights),
    /// Its current thread faults otherwise.
    Fault(Fault),
    /// Another CPU's kick reaches it.
    Kick,
    /// Its timer interrupts it.
    Timer,
    /// A line interrupts it.
    Interrupt(u32),
}

/// A machine, its CPUs and the first domain.
pub struct World {
    /// The machine.
    pub fake: Fake,
    /// Its CPUs; the keeper's is the last.
    pub cpus: Vec<Cpu<Fake>>,
    /// The first domain.
    pub root: Home,
    /// The keeper. It is current on its CPU all the time.
    pub keeper: Actor,
    /// The keeper's handle to the machine.
    pub system: u64,
    /// Whether to print what the CPUs do.
    pub is_traced: bool,
    /// Whether to look at the whole kernel after each step.
    pub is_audited: bool,
    first: Option<DomainRef>,
    buffers: u64,
    /// Free frames and kernel objects before there was a domain.
    empty: (u64, u64),
}

impl World {
    /// A machine with so many CPUs, and one for the keeper.
    pub fn new(cpus: usize) -> Self {
        let count = cpus + 1;
        let fake = Fake::new(count, RAM);
        let kernel = fake.kernel();
        let mut cpus: Vec<_> = (0..count).map(Cpu::new).collect();
        let empty = (fake.free_frames(), fake.objects());
        let place = count - 1;
        fake.enter(place);
        let domain = kernel.new_root_domain().unwrap();
        let plan = ThreadPlan {
            cpu: place,
            priority: 32,
            entry: 0x1000,
            stack: 0x2000,
            buffer: UserVirt::new(BUFFERS),
            argument: 0,
        };
        let thread = kernel.new_thread(&domain, &plan).unwrap();
        let own = publish(fake, &domain, &domain, Object::Domain(domain.clone()), Rights::all()).unwrap();
        let own_thread = publish(fake, &domain, &domain, Object::Thread(thread.clone()), Rights::all()).unwrap();
        let system = publish(fake, &domain, &domain, Object::System, Rights::all()).unwrap();
        kernel.start(&mut cpus[place], &thread).unwrap();
        fake.leave(place);
        let root = Home { handle: u64::from(own.0) };
        let keeper = Actor { cpu: place, handle: u64::from(own_thread.0) };
        let (first, system) = (Some(domain), u64::from(system.0));
        drop(thread);
        let mut world = Self {
            fake,
            cpus,
            root,
            keeper,
            system,
            is_traced: false,
            // Under Miri a look at the whole kernel takes seconds: the last one, in `finish`, is enough there.
            is_audited: !cfg!(miri),
            first,
            buffers: BUFFERS,
            empty,
        };
        (0..count).for_each(|cpu| settle(fake, &mut world.cpus[cpu]));
        world
    }

    /// The kernel.
    pub fn kernel(&self) -> &'static Kernel<Fake> {
        self.fake.kernel()
    }

    /// The current thread of a CPU.
    pub fn current(&self, cpu: usize) -> Option<ThreadRef> {
        self.cpus[cpu].current.clone()
    }

    /// Whether a thread is current on its CPU.
    pub fn is_current(&self, actor: &Actor) -> bool {
        self.current(actor.cpu).is_some_and(|current| Ref::ptr_eq(&current, &self.thread_of(actor)))
    }

    /// What a thread is in the kernel.
    pub fn thread_of(&self, actor: &Actor) -> ThreadRef {
        match &self.capability(&self.root, actor.handle).object {
            Object::Thread(thread) => thread.clone(),
            _ => panic!("a thread"),
        }
    }

    /// What a domain is in the kernel.
    pub fn domain_of(&self, home: &Home) -> DomainRef {
        if home.handle == self.root.handle {
            return self.first().clone();
        }
        match &self.capability(&self.root, home.handle).object {
            Object::Domain(domain) => domain.clone(),
            _ => panic!("a domain"),
        }
    }

    /// What the first domain is in the kernel.
    pub fn first(&self) -> &DomainRef {
        self.first.as_ref().expect("the first domain")
    }

    /// Lets a CPU do something.
    pub fn perform(&mut self, cpu: usize, action: Action) {
        if self.is_traced {
            let current = self.cpus[cpu].current.as_ref();
            let name = current.map(|current| (Ref::as_ptr(current), current.priority()));
            eprintln!("{} CPU {cpu}, thread {name:?}: {action:x?}", self.fake.now());
        }
        perform(self.fake, &mut self.cpus[cpu], action);
        if self.is_audited {
            audit(self);
        }
    }

    /// The current thread of a CPU makes a call. Nothing if it does not go on at once: it waits, or another one runs.
    pub fn call(&mut self, cpu: usize, call: Call, words: &[u64]) -> Option<Results> {
        let caller = self.current(cpu).expect("a current thread");
        assert!(!caller.context.has_results(), "the thread has not taken what its last call gave");
        self.perform(cpu, Action::Call(call, padded(words)));
        let is_back = self.current(cpu).is_some_and(|current| Ref::ptr_eq(&current, &caller));
        is_back.then(|| caller.context.take_results().expect("a thread that goes on after a call has results"))
    }

    /// A thread, which must be current, makes a call.
    pub fn act(&mut self, actor: &Actor, call: Call, words: &[u64]) -> Option<Results> {
        assert!(self.is_current(actor), "another thread is current");
        self.call(actor.cpu, call, words)
    }

    /// A thread's call that goes on at once and succeeds: its first word.
    pub fn get(&mut self, actor: &Actor, call: Call, words: &[u64]) -> u64 {
        let (status, words) = self.act(actor, call, words).expect("a call that goes on at once");
        assert_eq!(status, Status::Ok);
        words[0]
    }

    /// A thread's call that goes on at once: its status.
    pub fn status(&mut self, actor: &Actor, call: Call, words: &[u64]) -> Status {
        self.act(actor, call, words).expect("a call that goes on at once").0
    }

    /// A thread's call, again as long as it says so: the last status.
    pub fn complete(&mut self, actor: &Actor, call: Call, words: &[u64]) -> Status {
        for _ in 0..MANY {
            match self.status(actor, call, words) {
                Status::Again => self.deliver_all(),
                status => return status,
            }
        }
        panic!("{call:?} never comes to its end");
    }

    /// A thread's call that does not go on at once.
    pub fn wait(&mut self, actor: &Actor, call: Call, words: &[u64]) {
        assert_eq!(self.act(actor, call, words), None);
    }

    /// What a thread, which must be current, finds when it goes on after a wait.
    pub fn results(&self, actor: &Actor) -> Results {
        assert!(self.is_current(actor), "another thread is current");
        self.thread_of(actor).context.take_results().expect("results")
    }

    /// The keeper's call and its status.
    pub fn ask(&mut self, call: Call, words: &[u64]) -> Results {
        let cpu = self.keeper.cpu;
        self.call(cpu, call, words).expect("the keeper does not wait")
    }

    /// The keeper's call, which succeeds: its first word.
    pub fn keep(&mut self, call: Call, words: &[u64]) -> u64 {
        let (status, words) = self.ask(call, words);
        assert_eq!(status, Status::Ok, "{call:?}");
        words[0]
    }

    /// The keeper's call, again as long as it says so while the other CPUs do what they are asked: the last status.
    pub fn insist(&mut self, call: Call, words: &[u64]) -> Status {
        for _ in 0..MANY {
            match self.ask(call, words).0 {
                Status::Again => self.deliver_all(),
                status => return status,
            }
        }
        panic!("{call:?} never comes to its end");
    }

    /// A domain below the first with a quota in bytes, every priority, and every CPU but the keeper's.
    pub fn home(&mut self, quota: u64) -> Home {
        let cpus = (1 << (self.cpus.len() - 1)) - 1;
        let handle = self.keep(Call::DomainCreate, &[self.root.handle, quota, 63, cpus]);
        Home { handle }
    }

    /// A thread that has not been started.
    pub fn stopped(&mut self, home: &Home, cpu: usize, priority: u8) -> Actor {
        self.buffers += PAGE_SIZE;
        let place = cpu as u64 | u64::from(priority) << 32;
        let handle = self.keep(Call::ThreadCreate, &[home.handle, place, 0x1000, 0x2000, self.buffers, 0]);
        Actor { cpu, handle }
    }

    /// A thread that runs if its priority is the highest.
    pub fn thread(&mut self, home: &Home, cpu: usize, priority: u8) -> Actor {
        let actor = self.stopped(home, cpu, priority);
        self.start(&actor);
        actor
    }

    /// Starts a thread.
    pub fn start(&mut self, actor: &Actor) {
        self.keep(Call::ThreadStart, &[actor.handle]);
        self.deliver(actor.cpu);
    }

    /// Gives a copy of one of the keeper's handles to a domain.
    pub fn grant(&mut self, handle: u64, home: &Home, rights: Rights, badge: u64) -> u64 {
        self.keep(Call::HandleCopy, &[handle, home.handle, u64::from(rights.bits()), badge])
    }

    /// A thread with a domain of its own, and the domain's handle to itself.
    pub fn settler(&mut self, cpu: usize, priority: u8) -> (Home, Actor, u64) {
        let home = self.home(2 << 20);
        let own = self.grant(home.handle, &home, Rights::all(), 0);
        let actor = self.thread(&home, cpu, priority);
        (home, actor, own)
    }

    /// The capability that a domain's handle names.
    pub fn capability(&self, home: &Home, handle: u64) -> Ref<Capability<Fake>> {
        self.find(home, handle).expect("a handle that names something")
    }

    /// The capability that a domain's handle names, if it does.
    pub fn find(&self, home: &Home, handle: u64) -> Option<Ref<Capability<Fake>>> {
        self.domain_of(home).table.lock().get(Handle(u32::try_from(handle).ok()?)).ok().cloned()
    }

    /// Tells a CPU that it has been kicked, if it has.
    pub fn deliver(&mut self, cpu: usize) -> bool {
        let is_kicked = self.fake.is_kicked(cpu);
        if is_kicked {
            self.perform(cpu, Action::Kick);
        }
        is_kicked
    }

    /// Lets a CPU's timer come, if its time has.
    pub fn tick(&mut self, cpu: usize) -> bool {
        let is_due = self.fake.timer(cpu) <= self.fake.now();
        if is_due {
            self.perform(cpu, Action::Timer);
        }
        is_due
    }

    /// Delivers kicks and due timers to a CPU until there are none.
    pub fn step(&mut self, cpu: usize) {
        for _ in 0..MANY {
            if !self.deliver(cpu) && !self.tick(cpu) {
                return;
            }
        }
        panic!("the timer of CPU {cpu} comes for ever");
    }

    /// Delivers all kicks.
    pub fn deliver_all(&mut self) {
        while (0..self.cpus.len()).any(|cpu| self.deliver(cpu)) {}
    }

    /// Delivers all kicks and due timers.
    pub fn step_all(&mut self) {
        while (0..self.cpus.len()).any(|cpu| self.deliver(cpu) || self.tick(cpu)) {}
    }

    /// Lets time pass, with every timer at its time.
    pub fn advance(&mut self, ns: u64) {
        let end = self.fake.now() + ns;
        for _ in 0..MANY {
            self.step_all();
            let next = (0..self.cpus.len()).map(|cpu| self.fake.timer(cpu)).min().unwrap_or(FOREVER);
            let now = self.fake.now();
            if next >= end {
                self.fake.advance(end - now);
                self.step_all();
                return;
            }
            self.fake.advance(next - now);
        }
        panic!("the timers never let {ns} ns pass");
    }

    /// A thread's message buffer.
    pub fn buffer(&self, actor: &Actor) -> Buffer {
        Buffer::of(self.fake, &self.thread_of(actor))
    }

    /// Free frames, kernel objects and what the first domain has used.
    pub fn figures(&self) -> (u64, u64, u64) {
        (self.fake.free_frames(), self.fake.objects(), self.first().account.used())
    }

    /// Ends the keeper and takes away all it has, then the first domain: nothing must be left of the kernel's objects.
    pub fn finish(mut self) {
        self.deliver_all();
        audit(&self);
        let kernel = self.kernel();
        let place = self.keeper.cpu;
        let domain = self.first().clone();
        let keeper = self.thread_of(&self.keeper);
        let is_child = |object: &Object<Fake>| matches!(object, Object::Domain(child) if !Ref::ptr_eq(child, &domain));
        let handles = domain.table.lock().handles();
        let children = handles.into_iter().filter(|(_, capability)| is_child(&capability.object));
        for child in children.map(|(handle, _)| u64::from(handle.0)).collect::<Vec<_>>() {
            assert_eq!(self.insist(Call::DomainDestroy, &[child]), Status::Ok);
        }
        // The first domain's other threads, on their CPUs; the keeper last.
        loop {
            let threads = super::audit::threads(&domain);
            let Some(thread) = threads.iter().rev().find(|thread| threads.len() == 1 || !Ref::ptr_eq(thread, &keeper))
            else {
                break;
            };
            let cpu = &mut self.cpus[thread.cpu];
            self.fake.enter(cpu.id);
            kernel.end(cpu, thread);
            settle(self.fake, cpu);
        }
        self.fake.enter(place);
        let cpu = &mut self.cpus[place];
        loop {
            let Some((_, capability)) = domain.table.lock().handles().pop() else { break };
            while kernel.close(cpu, &capability, &mut { 64 }) == Progress::More {}
        }
        loop {
            let Some(derivation) = domain.owned.lock().front_ref() else { break };
            assert!(derivation.state.lock().object.outlives_handles(), "an object without handles is still there");
            kernel.disown(&derivation);
        }
        *domain.derivation.lock() = None;
        while domain.space.give_back() == Progress::More {}
        settle(self.fake, cpu);
        let (fake, empty) = (self.fake, self.empty);
        drop((domain, keeper));
        drop(self);
        assert_eq!((fake.free_frames(), fake.objects()), empty, "frames and objects are not all back");
        retire(fake);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Objects of a kernel that went wrong may not stand being dropped.
            forget((take(&mut self.cpus), self.first.take()));
        }
    }
}

#[expect(unsafe_code, reason = "it frees the machine")]
fn retire(fake: Fake) {
    // SAFETY: `World::finish` has seen that there are no kernel objects, and has dropped the world.
    unsafe { fake.retire() };
}

/// Lets a CPU, which nobody else uses, do something, and then what the kernel has it do before it runs a domain again.
pub fn perform(fake: Fake, cpu: &mut Cpu<Fake>, action: Action) {
    let kernel = fake.kernel();
    match action {
        Action::Call(call, words) if call_fast(fake, cpu, call, words) => return,
        Action::Call(..) | Action::GeneralCall(..) | Action::BadCall(_) => {
            let (number, words) = match action {
                Action::Call(call, words) | Action::GeneralCall(call, words) => (call as u64, words),
                Action::BadCall(number) => (number, [0; 6]),
                _ => return,
            };
            let Some(caller) = cpu.current.clone() else { return };
            fake.enter(cpu.id);
            match kernel.system_call(cpu, number, words) {
                Return::Direct(status, word) => {
                    assert!(cpu.current.as_ref().is_some_and(|current| Ref::ptr_eq(current, &caller)));
                    crate::arch::Context::set_results(&caller.context, status, [word, 0, 0, 0, 0, 0]);
                    fake.leave(cpu.id);
                    return;
                }
                Return::Selected => {}
            }
        }
        Action::Touch(address, access) => {
            if fake.access(cpu.id, address, access).is_some() {
                return;
            }
            fake.enter(cpu.id);
            kernel.fault(cpu, Fault::Page { address, access });
        }
        Action::Fault(fault) => {
            fake.enter(cpu.id);
            kernel.fault(cpu, fault);
        }
        Action::Kick => {
            fake.take_kick(cpu.id);
            fake.enter(cpu.id);
            kernel.kicked(cpu);
        }
        Action::Timer => {
            fake.enter(cpu.id);
            kernel.timer(cpu);
        }
        Action::Interrupt(line) => {
            fake.enter(cpu.id);
            kernel.interrupt(cpu, line);
        }
    }
    settle(fake, cpu);
}

/// A call by the fast path, as the entry code of a machine tries it first.
fn call_fast(fake: Fake, cpu: &mut Cpu<Fake>, call: Call, words: [u64; 6]) -> bool {
    let [gate, tag, words @ ..] = words;
    fake.enter(cpu.id);
    let is_done = match call {
        Call::Call => fake.kernel().fast_call(cpu, gate, tag, words),
        Call::ReplyReceive => fake.kernel().fast_reply_receive(cpu, gate, tag, words),
        _ => false,
    };
    if is_done {
        fake.kernel().enter_current(cpu);
    }
    fake.leave(cpu.id);
    is_done
}

/// Has the kernel decide what a CPU runs, as on each way out of it.
pub fn settle(fake: Fake, cpu: &mut Cpu<Fake>) {
    fake.enter(cpu.id);
    for _ in 0..MANY {
        if !fake.kernel().select(cpu) || cpu.current.is_some() {
            fake.leave(cpu.id);
            return;
        }
    }
    panic!("CPU {} cannot decide what to run", cpu.id);
}

/// Rights as a word of a call.
pub fn word(rights: Rights) -> u64 {
    u64::from(rights.bits())
}

/// Six words from the first of them.
pub fn padded(words: &[u64]) -> [u64; 6] {
    std::array::from_fn(|index| words.get(index).copied().unwrap_or(0))
}

/// A thread's message buffer, as its domain sees it.
pub struct Buffer {
    fake: Fake,
    frame: HostPhys,
}

impl Buffer {
    /// That of a thread.
    pub fn of(fake: Fake, thread: &Thread<Fake>) -> Self {
        Self { fake, frame: thread.buffer.memory().pinned_frame().expect("a committed buffer") }
    }

    fn at(&self, offset: usize) -> HostPhys {
        self.frame.wrapping_add(offset as u64)
    }

    /// Sets the time-out of timed messages.
    pub fn set_timeout(&self, ns: u64) {
        self.fake.store(self.at(std::mem::offset_of!(MessageBuffer, timeout_ns)), ns);
    }

    /// Accepts so many handles.
    pub fn accept(&self, handles: u64) {
        self.fake.store(self.at(std::mem::offset_of!(MessageBuffer, accept_handles)), handles);
    }

    /// Names a handle to send.
    pub fn set_handle(&self, index: usize, transfer: HandleTransfer) {
        let word = u64::from(transfer.rights) << 32 | u64::from(transfer.handle.0);
        self.fake.store(self.at(std::mem::offset_of!(MessageBuffer, handles) + 8 * index), word);
    }

    /// A handle received.
    pub fn handle(&self, index: usize) -> HandleTransfer {
        let word = self.fake.load(self.at(std::mem::offset_of!(MessageBuffer, handles) + 8 * index));
        HandleTransfer { handle: Handle(word as u32), rights: (word >> 32) as u32 }
    }

    /// Writes a word of data.
    pub fn set_data(&self, index: usize, word: u64) {
        self.fake.store(self.at(std::mem::offset_of!(MessageBuffer, data) + 8 * index), word);
    }

    /// Reads a word of data.
    pub fn data(&self, index: usize) -> u64 {
        self.fake.load(self.at(std::mem::offset_of!(MessageBuffer, data) + 8 * index))
    }
}
