//! A simulated machine for host tests: several CPUs, run by the test one step at a time, on simulated RAM.
//!
//! A test says which CPU acts next; between steps any of them may. Time passes when the test says so, a nanosecond a
//! tick. What interrupts a CPU (kicks, its timer) is delivered when the test asks for it, as on a machine between two
//! instructions of a domain.
#![expect(unsafe_code, reason = "it vouches for simulated RAM")]

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};

use dragonfly_abi::arch::ThreadState;
use dragonfly_abi::{Status, SystemItem};
use dragonfly_memory::host::{HostHeap, HostMemory};
use dragonfly_memory::{Frames, HostPhys, NodeFrames, PageTable, PhysicalMemory, Relax, SharedHalf};

use super::{Arch, NEVER, Ticks, Trigger};
use crate::Kernel;

/// One simulated machine.
pub struct Machine {
    memory: &'static HostMemory,
    frames: OnceLock<Frames<Fake, NoContention>>,
    heap: &'static HostHeap,
    kernel: OnceLock<Kernel<Fake>>,
    kernel_half: OnceLock<SharedHalf>,
    now: AtomicU64,
    this_cpu: AtomicUsize,
    kicked: AtomicU64,
    timers: [AtomicU64; 64],
    masked: Mutex<Vec<u32>>,
}

/// A handle to a simulated machine.
#[derive(Clone, Copy)]
pub struct Fake(&'static Machine);

/// On a simulated machine one step runs at a time, so a lock that is held when another step wants it is a dead-lock.
pub struct NoContention;

impl Relax for NoContention {
    fn relax() {
        panic!("a lock is taken twice, or a CPU waits for one that cannot answer");
    }
}

impl Fake {
    /// A machine with so many CPUs and bytes of RAM, and a kernel on it.
    pub fn new(cpus: usize, bytes: u64) -> Self {
        let machine: &'static Machine = Box::leak(Box::new(Machine {
            memory: Box::leak(Box::new(HostMemory::new(HostPhys::new(16 << 20), bytes))),
            frames: OnceLock::new(),
            heap: HostHeap::leak(),
            kernel: OnceLock::new(),
            kernel_half: OnceLock::new(),
            now: AtomicU64::new(1_000_000),
            this_cpu: AtomicUsize::new(0),
            kicked: AtomicU64::new(0),
            timers: [const { AtomicU64::new(NEVER) }; 64],
            masked: Mutex::new(Vec::new()),
        }));
        let fake = Self(machine);
        let frames = machine.frames.get_or_init(|| Frames::new(fake));
        // SAFETY: The RAM is this machine's, and all use of it goes through the allocator.
        let added = unsafe { frames.lock().add_range(machine.memory.start(), bytes, 0) };
        added.expect("one range of RAM in an empty allocator");
        let mut table = PageTable::new(fake.format(), &NodeFrames::new(frames, 0)).expect("the kernel's root");
        machine.kernel_half.get_or_init(|| table.share().expect("a table with a root"));
        machine.kernel.get_or_init(|| Kernel::new(fake)).set_up(cpus, machine.now.load(SeqCst));
        fake
    }

    /// The CPU that acts from now on.
    pub fn set_cpu(self, cpu: usize) {
        self.0.this_cpu.store(cpu, SeqCst);
    }

    /// Lets time pass.
    pub fn advance(self, ns: u64) {
        self.0.now.fetch_add(ns, SeqCst);
    }

    /// Whether a CPU has been kicked since this was asked last.
    pub fn take_kick(self, cpu: usize) -> bool {
        self.0.kicked.fetch_and(!(1 << cpu), SeqCst) >> cpu & 1 != 0
    }

    /// When a CPU's timer comes.
    pub fn timer(self, cpu: usize) -> Ticks {
        self.0.timers[cpu].load(SeqCst)
    }

    /// Number of kernel objects alive.
    pub fn objects(self) -> u64 {
        self.0.heap.objects()
    }

    /// Makes every allocation of a kernel object after the next `count` fail.
    pub fn fail_after(self, count: u64) {
        self.0.heap.fail_after(count);
    }

    /// Lines that are held back.
    pub fn masked(self) -> Vec<u32> {
        self.0.masked.lock().unwrap().clone()
    }
}

// SAFETY: It is the simulated RAM.
unsafe impl PhysicalMemory for Fake {
    fn pointer(&self, address: HostPhys) -> NonNull<u8> {
        self.0.memory.pointer(address)
    }

    fn address(&self, pointer: NonNull<u8>) -> HostPhys {
        self.0.memory.address(pointer)
    }
}

/// A thread's registers: what the last system call gave, and what a fault handler sees.
#[derive(Default)]
pub struct FakeContext {
    results: Mutex<Option<(Status, [u64; 6])>>,
    state: Mutex<ThreadState>,
}

impl FakeContext {
    /// Takes what the last call gave.
    pub fn take_results(&self) -> Option<(Status, [u64; 6])> {
        self.results.lock().unwrap().take()
    }
}

impl super::Context for FakeContext {
    fn new(entry: u64, stack: u64, argument: u64) -> Self {
        let state = ThreadState { rip: entry, rsp: stack, rdi: argument, ..ThreadState::default() };
        Self { results: Mutex::new(None), state: Mutex::new(state) }
    }

    fn set_results(&self, status: Status, words: [u64; 6]) {
        *self.results.lock().unwrap() = Some((status, words));
    }

    fn state(&self) -> ThreadState {
        *self.state.lock().unwrap()
    }

    fn set_state(&self, state: &ThreadState) {
        *self.state.lock().unwrap() = *state;
    }
}

impl Arch for Fake {
    type Heap = &'static HostHeap;
    type Relax = NoContention;
    type Context = FakeContext;
    type Format = dragonfly_memory::HostFormat;

    fn kernel(self) -> &'static Kernel<Self> {
        self.0.kernel.get().expect("the kernel is made with the machine")
    }

    fn heap(self) -> &'static HostHeap {
        self.0.heap
    }

    fn format(self) -> Self::Format {
        dragonfly_memory::HostFormat::new(true, dragonfly_memory::PageSize::Size1G)
    }

    fn frames(self) -> &'static Frames<Self, NoContention> {
        self.0.frames.get().expect("the frames are made with the machine")
    }

    fn zero(self, start: HostPhys, bytes: u64) {
        // SAFETY: The caller has just taken this RAM from the frame allocator.
        unsafe { self.pointer(start).as_ptr().write_bytes(0, bytes as usize) };
    }

    fn copy_in(self, start: HostPhys, content: &[u8]) {
        // SAFETY: The frames belong to a memory object that nobody runs with yet.
        unsafe { self.pointer(start).as_ptr().copy_from_nonoverlapping(content.as_ptr(), content.len()) };
    }

    fn this_cpu(self) -> usize {
        self.0.this_cpu.load(SeqCst)
    }

    fn now(self) -> Ticks {
        self.0.now.load(SeqCst)
    }

    fn ns_from_ticks(self, ticks: Ticks) -> u64 {
        ticks
    }

    fn ticks_from_ns(self, ns: u64) -> Ticks {
        ns
    }

    fn set_timer(self, deadline: Ticks) {
        self.0.timers[self.this_cpu()].store(deadline, SeqCst);
    }

    fn kick(self, cpu: usize) {
        self.0.kicked.fetch_or(1 << cpu, SeqCst);
        // The others are not in the kernel now, so they answer a shoot-down at once.
        self.kernel().answer_shootdown(cpu);
    }

    fn flush_tlb(self) {}

    fn activate(self, _root: Option<HostPhys>) {}

    fn kernel_half(self) -> SharedHalf {
        *self.0.kernel_half.get().expect("the kernel's half is made with the machine")
    }

    fn port_read(self, port: u16, width: u8) -> u32 {
        u32::from(port) << 8 | u32::from(width)
    }

    fn port_write(self, _port: u16, _width: u8, _value: u32) {}

    fn interrupt_lines(self) -> u32 {
        24
    }

    fn connect_interrupt(self, line: u32, _cpu: usize, _trigger: Trigger) -> Result<(), Status> {
        self.unmask_interrupt(line);
        Ok(())
    }

    fn mask_interrupt(self, line: u32) {
        self.0.masked.lock().unwrap().push(line);
    }

    fn unmask_interrupt(self, line: u32) {
        self.0.masked.lock().unwrap().retain(|masked| *masked != line);
    }

    fn is_device_memory(self, start: HostPhys, _size: u64) -> bool {
        start.as_u64() >= 1 << 32
    }

    fn system_item(self, _item: SystemItem, _argument: u64) -> Result<u64, Status> {
        Err(Status::BadArgument)
    }

    fn log_text(self, _text: &[u8]) {}
}
