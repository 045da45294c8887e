//! Light threads: functions of this program that run without a runtime, in this domain or in others.
//!
//! The program's text and read-only data are mapped, from the same frames and at the same addresses, into every
//! [`Child`]. So a child costs no loading, and tests can make thousands. What runs there uses its stack, its message
//! buffer and the words it was given, and no statics: those are not mapped.
#![expect(unsafe_code, reason = "starts threads at functions of this program and reaches their stacks and buffers")]

use alloc::vec::Vec;
use core::mem::offset_of;
use core::ptr;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dragonfly_abi::arch::ThreadState;
use dragonfly_abi::{
    Handle, HandleTransfer, MESSAGE_DATA_SIZE, MESSAGE_HANDLES, MessageBuffer, PAGE_SIZE, Rights, Status,
};
use dragonfly_archive::Archive;
use dragonfly_rt::loader::Program;
use dragonfly_rt::sync::Mutex;
use dragonfly_rt::sys::{
    Commit, Domain, DomainSettings, Gate, Memory, Object, Owned, Thread, ThreadPlan, ThreadSettings,
};
use dragonfly_rt::{Mapping, bundle, cpus, named};

use crate::check::{Failure, Outcome};
use crate::machine::stack_pointer;

/// Where the code of a light thread begins. It gets the words that it was started with.
pub type Entry = extern "C" fn(&Words) -> !;

/// What a light thread is given.
pub type Words = [u64; 8];

/// Priority of threads for which a test chooses none.
pub const PRIORITY: u8 = 30;

/// Addresses of light threads: each has a slot of this size.
const SLOTS: u64 = 0x8000_0000;
const SLOT_SIZE: u64 = 0x2_0000;
const SLOT_COUNT: u64 = 4096;
/// Where in a slot the stack begins and ends; around it nothing is mapped.
const STACK_START: u64 = 0x1000;
const STACK_SIZE: u64 = 0x8000;
/// Where in a slot the message buffer is.
const BUFFER: u64 = 0x1_0000;

/// Where a child's page is that its maker sees too.
pub const SHARED: u64 = 0x6000_0000;

/// Addresses at which tests may map what they like, in every domain.
pub const PLAYGROUND: u64 = 0x200_0000_0000;

static NEXT_SLOT: AtomicU64 = AtomicU64::new(0);

/// How a light thread is to run.
#[derive(Clone, Copy, Debug)]
pub struct Builder {
    cpu: u32,
    priority: u8,
    settings: ThreadSettings,
}

impl Builder {
    /// A thread with the usual priority. Its faults go to the test's runner, which then fails the test.
    #[must_use]
    pub fn new(cpu: u32) -> Self {
        let settings = ThreadSettings {
            budget_ns: 10_000_000,
            period_ns: 10_000_000,
            fault_gate: named("supervisor").map(|gate| (gate, 0)),
            report_exhaustion: false,
        };
        Self { cpu, priority: PRIORITY, settings }
    }

    /// Runs with this priority.
    #[must_use]
    pub const fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }

    /// Runs for `budget_ns` in every `period_ns` nanoseconds.
    #[must_use]
    pub const fn budget(mut self, budget_ns: u64, period_ns: u64) -> Self {
        self.settings.budget_ns = budget_ns;
        self.settings.period_ns = period_ns;
        self
    }

    /// Sends its faults to a gate, with this badge.
    #[must_use]
    pub const fn fault_gate(mut self, gate: Gate, badge: u64) -> Self {
        self.settings.fault_gate = Some((gate, badge));
        self
    }

    /// Ends at its first fault.
    #[must_use]
    pub const fn no_fault_gate(mut self) -> Self {
        self.settings.fault_gate = None;
        self
    }

    /// Takes the end of its budget for a fault.
    #[must_use]
    pub const fn report_exhaustion(mut self) -> Self {
        self.settings.report_exhaustion = true;
        self
    }

    /// Makes the thread and starts it.
    ///
    /// # Errors
    /// What the calls give that make a thread and its stack.
    pub fn spawn(self, domain: Domain, entry: Entry, words: &[u64]) -> Result<Light, Status> {
        let light = self.prepare(domain, entry, words)?;
        light.start()?;
        Ok(light)
    }

    /// Makes the thread, stopped.
    ///
    /// # Errors
    /// As [`Builder::spawn`].
    pub fn prepare(self, domain: Domain, entry: Entry, words: &[u64]) -> Result<Light, Status> {
        let slot = NEXT_SLOT.fetch_add(1, Ordering::Relaxed) % SLOT_COUNT;
        let base = SLOTS + slot * SLOT_SIZE;
        let stack = Memory::create(STACK_SIZE, Commit::Explicit)?;
        stack.commit(0, STACK_SIZE)?;
        let given = STACK_SIZE - size_of::<Words>() as u64;
        {
            let mapping = Mapping::new(*stack, STACK_SIZE - PAGE_SIZE, PAGE_SIZE, Rights::READ | Rights::WRITE)?;
            for (word, offset) in words.iter().take(8).zip((given + PAGE_SIZE - STACK_SIZE..).step_by(8)) {
                mapping.word(offset)?.store(*word, Ordering::Relaxed);
            }
        }
        stack.map(domain, base + STACK_START, 0, STACK_SIZE, Rights::READ | Rights::WRITE)?;
        let plan = ThreadPlan {
            cpu: self.cpu,
            priority: self.priority,
            entry: entry as *const () as u64,
            // As after a call: the return address, which is zero, is at the top (System V ABI 3.2.2).
            stack: base + STACK_START + given - 8,
            message_buffer: base + BUFFER,
            argument: base + STACK_START + given,
        };
        let mut light = Light { domain, base, thread: None, _stack: stack };
        // SAFETY: an entry is a function that may run in any domain, on the stack that was just mapped for it alone.
        let thread = unsafe { domain.create_thread(&plan) }?;
        let thread = light.thread.insert(thread);
        thread.configure(&self.settings)?;
        Ok(light)
    }
}

/// A light thread. Dropping it ends it.
#[derive(Debug)]
pub struct Light {
    domain: Domain,
    base: u64,
    thread: Option<Owned<Thread>>,
    _stack: Owned<Memory>,
}

impl Light {
    /// The thread.
    #[must_use]
    pub fn thread(&self) -> Thread {
        self.thread.as_deref().copied().unwrap_or(Thread::from_handle(Handle::NULL))
    }

    /// Lets it run.
    ///
    /// # Errors
    /// What [`Thread::start`] gives.
    pub fn start(&self) -> Result<(), Status> {
        self.thread().start()
    }

    /// Where its message buffer is.
    #[must_use]
    pub const fn message_buffer(&self) -> u64 {
        self.base + BUFFER
    }
}

impl Drop for Light {
    fn drop(&mut self) {
        // A domain that is gone has taken the thread and the mapping with it.
        let _ = self.thread().destroy();
        // SAFETY: the thread has ended, and nobody else uses its stack.
        let _ = unsafe { self.domain.unmap(self.base + STACK_START) };
    }
}

/// A domain whose threads are light ones. Dropping it destroys it.
#[derive(Debug)]
pub struct Child {
    domain: Owned<Domain>,
    shared: Mapping,
    _memory: Owned<Memory>,
}

/// What [`Child::new`] gives a domain.
#[must_use]
pub fn usual_settings() -> DomainSettings {
    DomainSettings { quota: 1 << 20, max_priority: 50, cpus: (1 << cpus()) - 1, death: None }
}

impl Child {
    /// A domain with the program's text and a page that this domain sees too.
    ///
    /// # Errors
    /// What the calls give that make it.
    pub fn new() -> Outcome<Self> {
        Self::with(&usual_settings())
    }

    /// The same with other settings.
    ///
    /// # Errors
    /// What the calls give that make it.
    pub fn with(settings: &DomainSettings) -> Outcome<Self> {
        let memory = Memory::create(PAGE_SIZE, Commit::Explicit)?;
        memory.commit(0, PAGE_SIZE)?;
        let shared = Mapping::new(*memory, 0, PAGE_SIZE, Rights::READ | Rights::WRITE)?;
        let domain = Domain::create(Domain::OWN, settings)?;
        map_program(*domain)?;
        memory.map(*domain, SHARED, 0, PAGE_SIZE, Rights::READ | Rights::WRITE)?;
        Ok(Self { domain, shared, _memory: memory })
    }

    /// The domain.
    #[must_use]
    pub fn domain(&self) -> Domain {
        *self.domain
    }

    /// A word of the shared page.
    ///
    /// # Errors
    /// `BadArgument` past its end.
    pub fn word(&self, index: u64) -> Outcome<&AtomicU64> {
        Ok(self.shared.word(index * 8)?)
    }

    /// Gives the domain a handle; gives its number there, as a word.
    ///
    /// # Errors
    /// What `HandleCopy` gives.
    pub fn give(&self, object: impl Object, rights: Rights) -> Outcome<u64> {
        Ok(self.domain.grant(object, rights, 0)?.0.into())
    }

    /// The same with a badge.
    ///
    /// # Errors
    /// What `HandleCopy` gives.
    pub fn give_badged(&self, object: impl Object, rights: Rights, badge: u64) -> Outcome<u64> {
        Ok(self.domain.grant(object, rights, badge)?.0.into())
    }

    /// Starts a light thread with the usual priority.
    ///
    /// # Errors
    /// What [`Builder::spawn`] gives.
    pub fn spawn(&self, cpu: u32, entry: Entry, words: &[u64]) -> Outcome<Light> {
        Ok(Builder::new(cpu).spawn(self.domain(), entry, words)?)
    }

    /// Destroys the domain.
    ///
    /// # Errors
    /// What `DomainDestroy` gives.
    pub fn destroy(self) -> Outcome {
        Ok(self.domain.destroy()?)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // After `destroy` this fails and does nothing.
        let _ = self.domain.destroy();
    }
}

/// A thread in another domain that is never started, for tests of the calls about threads.
///
/// # Errors
/// What `ThreadCreate` gives.
pub fn stopped_thread(domain: Domain, plan: &ThreadPlan) -> Result<Owned<Thread>, Status> {
    // SAFETY: it is not started, or starts in another domain.
    unsafe { domain.create_thread(plan) }
}

/// Maps the program's text and read-only data into a domain.
///
/// # Errors
/// What `MemoryMap` gives.
pub fn map_program(domain: Domain) -> Outcome {
    for segment in PROGRAM.lock().iter() {
        segment.memory.map(domain, segment.address, 0, segment.size, segment.rights)?;
    }
    Ok(())
}

/// A part of the program that is not written to.
#[derive(Clone, Copy, Debug)]
pub struct Segment {
    /// Its frames.
    pub memory: Memory,
    /// Where it belongs.
    pub address: u64,
    /// Bytes.
    pub size: u64,
    /// How it is mapped.
    pub rights: Rights,
}

/// What children run.
static PROGRAM: Mutex<Vec<Segment>> = Mutex::new(Vec::new());

/// Says what children run: this program.
pub fn set_program(segments: Vec<Segment>) {
    *PROGRAM.lock() = segments;
}

/// Puts the parts of a program that are not written to into memory objects.
///
/// # Errors
/// What the calls give that make them.
pub fn load(program: &Program<'_>) -> Outcome<Vec<Segment>> {
    let mut segments = Vec::new();
    for segment in program.segments.iter().filter(|segment| !segment.rights.contains(Rights::WRITE)) {
        let memory = Memory::create(segment.size, Commit::Explicit)?.keep();
        memory.commit(0, segment.size)?;
        Mapping::new(memory, 0, segment.size, Rights::READ | Rights::WRITE)?.write(segment.offset, segment.data)?;
        segments.push(Segment { memory, address: segment.address, size: segment.size, rights: segment.rights });
    }
    Ok(segments)
}

/// The program of this name in the bundle that the domain was granted.
///
/// # Errors
/// A failure that says what is wrong with the bundle.
pub fn find_program(name: &str) -> Outcome<Program<'static>> {
    let bundle = bundle().ok_or_else(|| Failure::new("the bundle was not granted"))?;
    let file = Archive::new(bundle)
        .find(name)
        .map_err(|error| Failure::new(format_args!("the bundle is damaged: {error:?}")))?
        .ok_or_else(|| Failure::new(format_args!("the bundle has no {name}")))?;
    Program::parse(file.data).map_err(Failure::new)
}

/// A word of the page that a child shares with its maker. For the child's threads.
#[must_use]
pub fn shared(index: usize) -> &'static AtomicU64 {
    word_at(SHARED + index as u64 * 8)
}

/// The word at an address, which a test has mapped for good. An access to one that is not mapped faults.
#[must_use]
pub fn word_at(address: u64) -> &'static AtomicU64 {
    // SAFETY: tests give aligned addresses of memory of which only atomics are made. One that is taken away faults,
    // which the tests expect of the thread then.
    unsafe { AtomicU64::from_ptr(ptr::with_exposed_provenance_mut(address as usize)) }
}

/// A light thread's message buffer.
#[derive(Clone, Copy, Debug)]
pub struct Buffer {
    address: u64,
}

impl Buffer {
    /// The buffer of the light thread that runs.
    #[must_use]
    pub fn own() -> Self {
        Self { address: (stack_pointer() & !(SLOT_SIZE - 1)) + BUFFER }
    }

    /// Any of the buffer's words.
    #[must_use]
    pub fn word(self, index: usize) -> &'static AtomicU64 {
        word_at(self.address + index as u64 * 8)
    }

    /// A word of the data.
    #[must_use]
    pub fn data(self, index: usize) -> &'static AtomicU64 {
        self.word(offset_of!(MessageBuffer, data) / 8 + index)
    }

    /// How many words of data there are.
    pub const DATA_WORDS: usize = MESSAGE_DATA_SIZE / 8;

    /// How long a message with `TIMED` waits.
    pub fn set_timeout_ns(self, timeout_ns: u64) {
        self.word(0).store(timeout_ns, Ordering::Relaxed);
    }

    /// How many handles the next messages may bring.
    pub fn accept_handles(self, count: u32) {
        self.word(1).store(count.into(), Ordering::Relaxed);
    }

    /// Puts a handle in.
    pub fn set_handle(self, index: usize, transfer: HandleTransfer) {
        let word = u64::from(transfer.rights) << 32 | u64::from(transfer.handle.0);
        self.word(2 + index % MESSAGE_HANDLES).store(word, Ordering::Relaxed);
    }

    /// A handle that came.
    #[must_use]
    pub fn handle(self, index: usize) -> HandleTransfer {
        let word = self.word(2 + index % MESSAGE_HANDLES).load(Ordering::Relaxed);
        HandleTransfer { handle: Handle(word as u32), rights: (word >> 32) as u32 }
    }

    /// The registers of a thread whose fault came.
    #[must_use]
    pub fn rip(self) -> &'static AtomicU64 {
        self.data(offset_of!(ThreadState, rip) / 8)
    }
}

/// A 32-bit number of the words that a light thread was given, as a handle.
#[must_use]
pub fn handle<T: Object>(word: u64) -> T {
    T::from_handle(Handle(word as u32))
}

const _: () = assert!(offset_of!(MessageBuffer, accept_handles) == 8 && size_of::<AtomicU32>() == 4);
