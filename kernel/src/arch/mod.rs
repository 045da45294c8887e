//! What the kernel needs of an architecture. `x86_64` implements it on the machine, `fake` in host tests; everything
//! above knows only these traits.

use dragonfly_abi::{Status, arch::ThreadState};
use dragonfly_memory::{Frames, Heap, HostPhys, HostVirt, PageFormat, PhysicalMemory, Relax, SharedHalf};

use crate::Kernel;

#[cfg(test)]
pub mod fake;
#[cfg(all(target_os = "none", target_arch = "x86_64"))]
pub mod x86_64;

/// Ticks of the kernel's clock since an arbitrary start; the same on all CPUs.
pub type Ticks = u64;

/// A point in time that never comes.
pub const NEVER: Ticks = u64::MAX;

/// An architecture, and through [`Arch::kernel`] one kernel that runs on it. The value is a handle: no size on the
/// machine, a reference in host tests, where several kernels live in one process.
pub trait Arch: PhysicalMemory + Copy + Send + Sync + 'static {
    /// Where kernel objects live.
    type Heap: Heap + Send + Sync;
    /// What a CPU does while it waits for a lock: answers TLB shoot-downs.
    type Relax: Relax;
    /// A thread's registers.
    type Context: Context;
    /// Format of the page tables of domains.
    type Format: PageFormat<Input = HostVirt> + Send + Sync;

    /// The kernel that runs here.
    fn kernel(self) -> &'static Kernel<Self>;
    /// The heap of that kernel.
    fn heap(self) -> Self::Heap;
    /// The page-table format with the features of this machine.
    fn format(self) -> Self::Format;

    /// All frames of the machine.
    fn frames(self) -> &'static Frames<Self, Self::Relax>;
    /// Zeroes RAM that the caller has just taken from the frame allocator.
    fn zero(self, start: HostPhys, bytes: u64);
    /// Writes to RAM of a memory object.
    fn copy_in(self, start: HostPhys, content: &[u8]);

    /// Number of the CPU that runs this.
    fn this_cpu(self) -> usize;
    /// The time.
    fn now(self) -> Ticks;
    /// Nanoseconds since the clock's start, rounded down.
    fn ns_from_ticks(self, ticks: Ticks) -> u64;
    /// Ticks of a duration or a point in nanoseconds, rounded up; saturates at [`NEVER`].
    fn ticks_from_ns(self, ns: u64) -> Ticks;
    /// Makes this CPU's timer interrupt come at `deadline`, at once if that has passed, not at all for [`NEVER`].
    fn set_timer(self, deadline: Ticks);

    /// Interrupts another CPU: it then calls [`Kernel::kicked`].
    fn kick(self, cpu: usize);
    /// Forgets this CPU's cached translations of the active address space.
    fn flush_tlb(self);
    /// Makes an address space active on this CPU; `None` is the kernel's own, without a user half.
    fn activate(self, root: Option<HostPhys>);
    /// The upper half of the kernel's own tables, which all address spaces share.
    fn kernel_half(self) -> SharedHalf;

    /// Reads from an I/O port. `width` is 1, 2 or 4 bytes.
    fn port_read(self, port: u16, width: u8) -> u32;
    /// Writes to an I/O port.
    fn port_write(self, port: u16, width: u8, value: u32);

    /// How many interrupt lines there are.
    fn interrupt_lines(self) -> u32;
    /// Lets an interrupt line interrupt a CPU: it then calls [`Kernel::interrupt`].
    fn connect_interrupt(self, line: u32, cpu: usize, trigger: Trigger) -> Result<(), Status>;
    /// Holds an interrupt line back.
    fn mask_interrupt(self, line: u32);
    /// Lets an interrupt line come again.
    fn unmask_interrupt(self, line: u32);

    /// Whether a physical range may be given to a domain as device memory: no RAM that the kernel manages.
    fn is_device_memory(self, start: HostPhys, size: u64) -> bool;
    /// One of [`SystemItem`](dragonfly_abi::SystemItem)s that only the architecture knows.
    fn system_item(self, item: dragonfly_abi::SystemItem, argument: u64) -> Result<u64, Status>;
    /// Writes text of a domain to the log.
    fn log_text(self, text: &[u8]);
}

/// How an interrupt line signals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// Level instead of edge.
    pub is_level: bool,
    /// Low or falling instead of high or rising.
    pub is_active_low: bool,
}

/// A thread's registers while it does not run.
///
/// Only whoever may continue the thread touches them: the CPU on which it runs, or whoever claimed it from a wait.
/// Implementations stay memory-safe when that is broken; only the thread's values would mix.
pub trait Context: Send + Sync + Sized {
    /// Registers of a new thread.
    fn new(entry: u64, stack: u64, argument: u64) -> Self;
    /// Ends the thread's system call with a status and six words.
    fn set_results(&self, status: Status, words: [u64; 6]);
    /// All general registers; for a thread that faulted.
    fn state(&self) -> ThreadState;
    /// Replaces the general registers of a thread that faulted, after bringing what a domain must not choose
    /// (privilege, interrupt flag) back to what it was.
    fn set_state(&self, state: &ThreadState);
}
