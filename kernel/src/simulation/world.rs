//! A simulated machine with a kernel on it, and what tests do with it.
//!
//! Beside the CPUs of the test there is one more, on which the *keeper* runs: the first domain's first thread. Tests
//! make domains, threads and handles through it without disturbing what the other CPUs schedule.
//!
//! - `action`: what a CPU can do.
//! - `keeper`: the keeper's calls.
//! - `time`: kicks and timers that come.
//! - `buffer`: message buffers.
//! - `end`: the machine taken apart.

use dragonfly_abi::{Call, Handle, Rights, Status};
use dragonfly_memory::UserVirt;

use super::Ref;
use super::audit::audit;
use crate::Kernel;
use crate::arch::Arch;
use crate::arch::fake::Fake;
use crate::capability::{Capability, Object};
use crate::cpu::Cpu;
use crate::domain::{Domain, publish};
use crate::system_call::thread::ThreadPlan;
use crate::thread::Thread;
use action::settle;

mod action;
mod buffer;
mod end;
mod keeper;
mod time;

pub use action::{Action, perform};
pub use buffer::Buffer;

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

    /// The capability that a domain's handle names.
    pub fn capability(&self, home: &Home, handle: u64) -> Ref<Capability<Fake>> {
        self.find(home, handle).expect("a handle that names something")
    }

    /// The capability that a domain's handle names, if it does.
    pub fn find(&self, home: &Home, handle: u64) -> Option<Ref<Capability<Fake>>> {
        self.domain_of(home).table.lock().get(Handle(u32::try_from(handle).ok()?)).ok().cloned()
    }

    /// A thread's message buffer.
    pub fn buffer(&self, actor: &Actor) -> Buffer {
        Buffer::of(self.fake, &self.thread_of(actor))
    }

    /// Free frames, kernel objects and what the first domain has used.
    pub fn figures(&self) -> (u64, u64, u64) {
        (self.fake.free_frames(), self.fake.objects(), self.first().account.used())
    }
}

/// Rights as a word of a call.
pub fn word(rights: Rights) -> u64 {
    u64::from(rights.bits())
}

/// Six words from the first of them.
pub fn padded(words: &[u64]) -> [u64; 6] {
    std::array::from_fn(|index| words.get(index).copied().unwrap_or(0))
}
