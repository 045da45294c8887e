//! A simulated machine for host tests: several CPUs, run by the test one step at a time, on simulated RAM.
//!
//! A test says which CPU acts next; between steps any of them may. Time passes when the test says so, a nanosecond a
//! tick. What interrupts a CPU (kicks, its timer, lines) is delivered when the test asks for it, as on a machine between
//! two instructions of a domain. Each CPU has a TLB that forgets nothing by itself. With [`turns`] several CPUs are in
//! the kernel at once.
#![expect(unsafe_code, reason = "it vouches for simulated RAM")]

use std::alloc::Layout;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};

use dragonfly_abi::arch::ThreadState;
use dragonfly_abi::guest::{MsrPolicy, RunFlags};
use dragonfly_abi::{Rights, Status, SystemItem};
use dragonfly_memory::host::HostMemory;
use dragonfly_memory::{Frames, Heap, HostPhys, NodeFrames, PageTable, PhysicalMemory, Relax, SharedHalf, UserVirt};

use super::{Arch, Guest, GuestExit, NEVER, Ticks, Trigger};
use crate::cpu::Cpu;
use crate::domain::Domain;
use crate::shared_page::SharedPage;
use crate::space::GuestSpace;
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use crate::{Kernel, Ref};
use tlb::{Tlb, Translation};

pub mod tlb;
pub mod turns;

/// Where the simulated RAM starts.
const RAM_START: HostPhys = HostPhys::new(16 << 20);
/// From here on physical addresses are devices.
const DEVICES_START: u64 = 1 << 32;
/// How many interrupt lines there are.
const LINES: u32 = 24;

/// One simulated machine.
struct Machine {
    memory: HostMemory,
    frames: OnceLock<Frames<Fake, FakeRelax>>,
    objects: AtomicU64,
    /// How many more kernel objects there is memory for.
    objects_left: AtomicU64,
    kernel: OnceLock<Kernel<Fake>>,
    kernel_half: OnceLock<SharedHalf>,
    now: AtomicU64,
    kicked: AtomicU64,
    in_kernel: AtomicU64,
    /// CPUs that stay in the kernel until all of these have done what they are to do.
    in_round: AtomicU64,
    /// Held by who answers for CPUs that are not in the kernel.
    answering: Mutex<()>,
    timers: Vec<AtomicU64>,
    tlbs: Vec<Mutex<Tlb>>,
    /// Lines that are connected: the CPU, and whether the line is held back.
    lines: Mutex<BTreeMap<u32, (usize, bool)>>,
}

/// A handle to a simulated machine.
#[derive(Clone, Copy)]
pub struct Fake(NonNull<Machine>);

// SAFETY: All of a machine's state is atomic or behind a lock.
unsafe impl Send for Fake {}
// SAFETY: As above.
unsafe impl Sync for Fake {}

thread_local! {
    /// Which CPU of which machine this thread of the host is.
    static ACTING: Cell<Option<(Fake, usize)>> = const { Cell::new(None) };
}

/// How a simulated CPU waits: it lets another one act. When one step runs at a time, a lock that is held when another
/// step wants it is a dead-lock.
pub struct FakeRelax;

impl Relax for FakeRelax {
    fn relax() {
        let (fake, cpu) = ACTING.get().expect("a CPU acts");
        fake.kernel().answer_shootdown(cpu);
        assert!(turns::must_switch(), "a lock is taken twice, or a CPU waits for one that cannot answer");
    }
}

impl Fake {
    /// A machine with so many CPUs and bytes of RAM, and a kernel on it.
    pub fn new(cpus: usize, bytes: u64) -> Self {
        let machine = Box::new(Machine {
            memory: HostMemory::new(RAM_START, bytes),
            frames: OnceLock::new(),
            objects: AtomicU64::new(0),
            objects_left: AtomicU64::new(u64::MAX),
            kernel: OnceLock::new(),
            kernel_half: OnceLock::new(),
            now: AtomicU64::new(1_000_000),
            kicked: AtomicU64::new(0),
            in_kernel: AtomicU64::new(0),
            in_round: AtomicU64::new(0),
            answering: Mutex::default(),
            timers: (0..cpus).map(|_| AtomicU64::new(NEVER)).collect(),
            tlbs: (0..cpus).map(|_| Mutex::default()).collect(),
            lines: Mutex::default(),
        });
        let fake = Self(NonNull::from(Box::leak(machine)));
        let machine = fake.machine();
        let frames = machine.frames.get_or_init(|| Frames::new(fake));
        // SAFETY: The RAM is this machine's, and all use of it goes through the allocator.
        let added = unsafe { frames.lock().add_range(RAM_START, bytes, 0) };
        added.expect("one range of RAM in an empty allocator");
        let mut table = PageTable::new(fake.format(), &NodeFrames::new(frames, 0)).expect("the kernel's root");
        machine.kernel_half.get_or_init(|| table.share().expect("a table with a root"));
        machine.kernel.get_or_init(|| Kernel::new(fake)).set_up(cpus, machine.now.load(SeqCst));
        fake
    }

    /// Takes the machine apart.
    ///
    /// # Safety
    /// No kernel object is alive, and no copy of this handle is used any more.
    pub unsafe fn retire(self) {
        ACTING.set(None);
        // SAFETY: `new` made it from a box, and by the contract nobody refers to it.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }

    fn machine(self) -> &'static Machine {
        // SAFETY: The machine lives until `retire`, after which no copy of this handle is used.
        unsafe { self.0.as_ref() }
    }

    /// Makes this thread of the host a CPU that is in the kernel.
    pub fn enter(self, cpu: usize) {
        ACTING.set(Some((self, cpu)));
        self.machine().in_kernel.fetch_or(1 << cpu, SeqCst);
    }

    /// This thread's CPU leaves the kernel: from now on interrupts reach it.
    pub fn leave(self, cpu: usize) {
        let stays = self.machine().in_round.load(SeqCst);
        self.machine().in_kernel.fetch_and(!(1 << cpu) | stays, SeqCst);
        self.kernel().answer_shootdown(cpu);
    }

    /// The CPUs that are about to be in the kernel at once, one bit each. None: they have all left.
    pub fn begin_round(self, cpus: u64) {
        self.machine().in_round.store(cpus, SeqCst);
        self.machine().in_kernel.store(cpus, SeqCst);
    }

    /// Lets time pass.
    pub fn advance(self, ns: u64) {
        self.machine().now.fetch_add(ns, SeqCst);
    }

    /// Whether a CPU has been kicked and not been told yet.
    pub fn is_kicked(self, cpu: usize) -> bool {
        self.machine().kicked.load(SeqCst) >> cpu & 1 != 0
    }

    /// Whether a CPU has been kicked since this was asked last.
    pub fn take_kick(self, cpu: usize) -> bool {
        self.machine().kicked.fetch_and(!(1 << cpu), SeqCst) >> cpu & 1 != 0
    }

    /// When a CPU's timer comes.
    pub fn timer(self, cpu: usize) -> Ticks {
        self.machine().timers[cpu].load(SeqCst)
    }

    /// Number of kernel objects alive.
    pub fn objects(self) -> u64 {
        self.machine().objects.load(SeqCst)
    }

    /// Makes every allocation of a kernel object after the next `count` fail.
    pub fn fail_after(self, count: u64) {
        self.machine().objects_left.store(count, SeqCst);
    }

    /// Number of free frames.
    pub fn free_frames(self) -> u64 {
        self.frames().lock().free_pages()
    }

    /// The CPUs whose line would interrupt them now.
    pub fn open_lines(self) -> Vec<(u32, usize)> {
        let lines = self.machine().lines.lock().unwrap();
        lines.iter().filter(|(_, (_, is_masked))| !is_masked).map(|(line, (cpu, _))| (*line, *cpu)).collect()
    }

    /// A domain's access on a CPU, as far as the hardware allows it: the place in RAM or a device.
    pub fn access(self, cpu: usize, address: UserVirt, access: Rights) -> Option<HostPhys> {
        let mut tlb = self.machine().tlbs[cpu].lock().unwrap();
        let address = address.as_host();
        let translation = tlb.translate(address, |at| self.load(at))?;
        if access.contains(Rights::WRITE) && !translation.is_writable
            || access.contains(Rights::EXECUTE) && !translation.is_executable
        {
            tlb.forget(address);
            return None;
        }
        Some(translation.frame.wrapping_add(address.page_offset(translation.size)))
    }

    /// What a CPU's TLB holds that its page tables do not say any more.
    pub fn stale_translation(self, cpu: usize) -> Option<Translation> {
        let tlb = self.machine().tlbs[cpu].lock().unwrap();
        let root = tlb.root?;
        let walked = |known: &Translation| tlb::walk(root, known.page, |at| self.load(at));
        tlb.translations.iter().find(|known| walked(known) != Some(**known)).copied()
    }

    /// The root that a CPU's page-table register holds.
    pub fn active_root(self, cpu: usize) -> Option<HostPhys> {
        self.machine().tlbs[cpu].lock().unwrap().root
    }

    /// Whether an address is RAM.
    pub fn is_ram(self, at: HostPhys) -> bool {
        at.checked_offset_from(RAM_START).is_some_and(|offset| offset < self.machine().memory.bytes())
    }

    /// Reads a word of RAM.
    pub fn load(self, at: HostPhys) -> u64 {
        self.word(at).load(SeqCst)
    }

    /// Writes a word of RAM.
    pub fn store(self, at: HostPhys, value: u64) {
        self.word(at).store(value, SeqCst);
    }

    fn word(self, at: HostPhys) -> &'static AtomicU64 {
        assert!(at.as_u64().is_multiple_of(8), "an aligned word");
        // SAFETY: It is RAM, or this panics; any content is valid, and what the kernel reads too it reads atomically.
        unsafe { self.machine().memory.pointer(at).cast().as_ref() }
    }
}

// SAFETY: The memory comes from and goes to the host's allocator with the caller's layout.
unsafe impl Heap for Fake {
    fn allocate(self, layout: Layout) -> Option<NonNull<u8>> {
        turns::may_switch();
        let machine = self.machine();
        machine.objects_left.try_update(SeqCst, SeqCst, |left| left.checked_sub(1)).ok()?;
        // SAFETY: `Heap` is asked only for layouts with a size.
        let memory = NonNull::new(unsafe { std::alloc::alloc(layout) })?;
        machine.objects.fetch_add(1, SeqCst);
        Some(memory)
    }

    unsafe fn deallocate(self, memory: NonNull<u8>, layout: Layout) {
        self.machine().objects.fetch_sub(1, SeqCst);
        // SAFETY: The caller passes what `allocate` gave.
        unsafe { std::alloc::dealloc(memory.as_ptr(), layout) };
        turns::may_switch();
    }
}

// SAFETY: It is the simulated RAM.
unsafe impl PhysicalMemory for Fake {
    fn pointer(&self, address: HostPhys) -> NonNull<u8> {
        turns::may_switch();
        self.machine().memory.pointer(address)
    }

    fn address(&self, pointer: NonNull<u8>) -> HostPhys {
        self.machine().memory.address(pointer)
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

    /// Whether a call has given something that the thread has not taken.
    pub fn has_results(&self) -> bool {
        self.results.lock().unwrap().is_some()
    }
}

impl super::Context for FakeContext {
    fn new(entry: u64, stack: u64, argument: u64) -> Self {
        let state = ThreadState { rip: entry, rsp: stack, rdi: argument, ..ThreadState::default() };
        Self { results: Mutex::new(None), state: Mutex::new(state) }
    }

    fn set_results(&self, status: Status, words: [u64; 6]) {
        turns::may_switch();
        *self.results.lock().unwrap() = Some((status, words));
    }

    fn enter_guest(&self) {}

    fn leave_guest(&self) {}

    fn is_in_guest(&self) -> bool {
        false
    }

    fn state(&self) -> ThreadState {
        *self.state.lock().unwrap()
    }

    fn set_state(&self, state: &ThreadState) {
        *self.state.lock().unwrap() = *state;
    }
}

impl Arch for Fake {
    type Heap = Self;
    type Relax = FakeRelax;
    type Context = FakeContext;
    type Format = dragonfly_memory::HostFormat;
    type GuestFormat = dragonfly_memory::NestedFormat;
    type Guest = NoGuest;
    type Local = ();
    const LOCAL: () = ();

    fn kernel(self) -> &'static Kernel<Self> {
        self.machine().kernel.get().expect("the kernel is made with the machine")
    }

    fn heap(self) -> Self {
        turns::may_switch();
        self
    }

    fn format(self) -> Self::Format {
        dragonfly_memory::HostFormat::new(true, dragonfly_memory::PageSize::Size1G)
    }

    fn guest_format(self) -> Option<Self::GuestFormat> {
        None
    }

    fn frames(self) -> &'static Frames<Self, FakeRelax> {
        turns::may_switch();
        self.machine().frames.get().expect("the frames are made with the machine")
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
        ACTING.get().expect("a CPU acts").1
    }

    fn now(self) -> Ticks {
        turns::may_switch();
        self.machine().now.load(SeqCst)
    }

    fn ns_from_ticks(self, ticks: Ticks) -> u64 {
        ticks
    }

    fn ticks_from_ns(self, ns: u64) -> Ticks {
        ns
    }

    fn set_timer(self, deadline: Ticks) {
        self.machine().timers[self.this_cpu()].store(deadline, SeqCst);
    }

    fn kick(self, cpu: usize) {
        let machine = self.machine();
        machine.kicked.fetch_or(1 << cpu, SeqCst);
        if machine.in_kernel.load(SeqCst) >> cpu & 1 == 0 {
            // It runs a domain or idles, so the interrupt comes at once. What else that does may come later: it is told
            // when the test says so. But the flush is waited for.
            let _answering = loop {
                // Who answers may lose its turn to this CPU meanwhile.
                match machine.answering.try_lock() {
                    Ok(answering) => break answering,
                    Err(_) => assert!(turns::must_switch(), "nobody else can be answering"),
                }
            };
            let acting = ACTING.replace(Some((self, cpu)));
            self.kernel().answer_shootdown(cpu);
            ACTING.set(acting);
        }
        turns::may_switch();
    }

    fn flush_tlb(self) {
        self.machine().tlbs[self.this_cpu()].lock().unwrap().translations.clear();
    }

    fn activate(self, root: Option<HostPhys>) {
        let mut tlb = self.machine().tlbs[self.this_cpu()].lock().unwrap();
        *tlb = Tlb { root, translations: Vec::new() };
    }

    fn kernel_half(self) -> SharedHalf {
        *self.machine().kernel_half.get().expect("the kernel's half is made with the machine")
    }

    fn port_read(self, port: u16, width: u8) -> u32 {
        u32::from(port) << 8 | u32::from(width)
    }

    fn port_write(self, _port: u16, _width: u8, _value: u32) {}

    fn interrupt_lines(self) -> u32 {
        LINES
    }

    fn connect_interrupt(self, line: u32, cpu: usize, _trigger: Trigger) -> Result<(), Status> {
        self.machine().lines.lock().unwrap().insert(line, (cpu, false));
        Ok(())
    }

    fn mask_interrupt(self, line: u32) {
        turns::may_switch();
        if let Some((_, is_masked)) = self.machine().lines.lock().unwrap().get_mut(&line) {
            *is_masked = true;
        }
    }

    fn unmask_interrupt(self, line: u32) {
        if let Some((_, is_masked)) = self.machine().lines.lock().unwrap().get_mut(&line) {
            *is_masked = false;
        }
    }

    fn is_device_memory(self, start: HostPhys, _size: u64) -> bool {
        start.as_u64() >= DEVICES_START
    }

    fn system_item(self, _item: SystemItem, _argument: u64) -> Result<u64, Status> {
        Err(Status::BadArgument)
    }

    fn log_text(self, _text: &[u8]) {}
}

/// This machine cannot run guests.
pub enum NoGuest {}

impl Guest<Fake> for NoGuest {
    type Interrupts = ();

    fn new(
        _arch: Fake,
        _domain: &Ref<Domain<Fake>, Fake>,
        _number: u32,
        _space: &GuestSpace<Fake>,
    ) -> Result<(Self, ()), Status> {
        Err(Status::NotSupported)
    }

    fn take(&mut self, _vcpu: &Vcpu<Fake>, _flags: RunFlags) {
        match *self {}
    }

    fn sync(&mut self, (): &(), _page: &SharedPage<Fake>, _groups: RunFlags) {
        match *self {}
    }

    fn run(&mut self, _cpu: &mut Cpu<Fake>, _vcpu: &Ref<Vcpu<Fake>, Fake>) -> GuestExit {
        match *self {}
    }

    fn skip_write(&mut self) -> bool {
        match *self {}
    }

    fn add_cpuid(&mut self, _leaf: u32, _subleaf: Option<u32>, _registers: [u32; 4]) -> Result<(), Status> {
        match *self {}
    }

    fn add_msr(&mut self, _register: u32, _value: u64, _policy: MsrPolicy) -> Result<(), Status> {
        match *self {}
    }

    fn access_controller(
        &mut self,
        _cpu: &mut Cpu<Fake>,
        _vcpu: &Vcpu<Fake>,
        _offset: u32,
        _write: Option<u32>,
    ) -> Result<u32, Status> {
        match *self {}
    }

    fn retire(&mut self, _vcpu: &Vcpu<Fake>) {}

    fn has_event(&self, (): &()) -> bool {
        match *self {}
    }

    fn deadline((): &()) -> Ticks {
        NEVER
    }

    fn send_message(_cpu: &mut Cpu<Fake>, _vm: &Vm<Fake>, _address: u64, _data: u32) {}
}
