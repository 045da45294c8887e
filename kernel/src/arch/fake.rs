//! A simulated machine for host tests: several CPUs, run by the test one step at a time, on simulated RAM.
//!
//! A test says which CPU acts next; between steps any of them may. Time passes when the test says so, a nanosecond a
//! tick. What interrupts a CPU (kicks, its timer, lines) is delivered when the test asks for it, as on a machine between
//! two instructions of a domain. Each CPU has a TLB that forgets nothing by itself. With [`turns`] several CPUs are in
//! the kernel at once.
//!
//! The machine and what tests do with it are here; `services`, `memory`, `context` and `guest` are what the kernel asks
//! of it.
#![expect(unsafe_code, reason = "it vouches for simulated RAM")]

use std::cell::Cell;
use std::collections::BTreeMap;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, OnceLock};

use dragonfly_abi::Rights;
use dragonfly_memory::host::HostMemory;
use dragonfly_memory::{Frames, HostPhys, NodeFrames, PageTable, PhysicalMemory, Relax, SharedHalf, UserVirt};

use super::{Arch, NEVER, Ticks};
use crate::Kernel;
use tlb::{Tlb, Translation};

mod context;
mod guest;
mod memory;
mod services;
pub mod tlb;
pub mod turns;

/// Where the simulated RAM starts.
const RAM_START: HostPhys = HostPhys::new(16 << 20);

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
