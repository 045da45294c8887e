//! What the kernel needs of an architecture. `x86_64` implements it on the machine, `fake` in host tests; everything
//! above knows only these traits.

use core::sync::atomic::AtomicU64;

use dragonfly_abi::Rights;
use dragonfly_abi::guest::{ExitReason, MsrPolicy, PortAccess, RECORD_WORDS, RunFlags};
use dragonfly_abi::{Status, arch::ThreadState};
use dragonfly_memory::{Frames, GuestPhys, Heap, HostPhys, HostVirt, PageFormat, PhysicalMemory, Relax, SharedHalf};

use crate::cpu::Cpu;
use crate::domain::Domain;
use crate::shared_page::{RecordPlace, SharedPage};
use crate::space::GuestSpace;
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use crate::{Kernel, Ref};

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
    /// Format of the second-stage page tables of guests.
    type GuestFormat: PageFormat<Input = GuestPhys> + Send + Sync;
    /// A virtual CPU's state.
    type Guest: Guest<Self>;
    /// What it keeps for each CPU to run guests.
    type Local: Send;
    /// A CPU that has run no guest yet.
    const LOCAL: Self::Local;

    /// The kernel that runs here.
    fn kernel(self) -> &'static Kernel<Self>;
    /// The heap of that kernel.
    fn heap(self) -> Self::Heap;
    /// The page-table format with the features of this machine.
    fn format(self) -> Self::Format;
    /// The second-stage format with the features of this machine; nothing if it cannot run guests.
    fn guest_format(self) -> Option<Self::GuestFormat>;

    /// All frames of the machine.
    fn frames(self) -> &'static Frames<Self, Self::Relax>;
    /// Zeroes RAM that nobody uses: the caller has just taken it from the frame allocator, or is about to give it to that.
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

    /// What a device writes to interrupt a CPU with the message of a number, as address and data: the CPU then calls
    /// [`Kernel::interrupt`].
    fn message(self, number: u32, cpu: usize) -> Result<(u64, u32), Status>;

    /// Whether a physical range may be given to a domain as device memory: no RAM that the kernel manages.
    fn is_device_memory(self, start: HostPhys, size: u64) -> bool;
    /// The words of [`SystemItem::PciSegment`](dragonfly_abi::SystemItem::PciSegment) for one range; nothing past the last.
    fn pci_segment(self, index: u64) -> Option<[u64; 4]>;
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
    /// The thread goes on in the guest that it runs.
    fn enter_guest(&self);
    /// The thread goes on with what its call gave.
    fn leave_guest(&self);
    /// Whether it goes on in a guest.
    fn is_in_guest(&self) -> bool;
    /// All general registers; for a thread that faulted.
    fn state(&self) -> ThreadState;
    /// Replaces the general registers of a thread that faulted, after bringing what a domain must not choose
    /// (privilege, interrupt flag) back to what it was.
    fn set_state(&self, state: &ThreadState);
}

/// A virtual CPU: the guest's registers and what the hardware needs to run it. Whoever runs the virtual CPU has it
/// alone; what others send it goes to [`Guest::Interrupts`].
pub trait Guest<A: Arch>: Send + Sized {
    /// Its interrupt controller, which all CPUs may use.
    type Interrupts: Send + Sync;

    /// A virtual CPU as after a reset. `domain` pays.
    fn new(
        arch: A,
        domain: &Ref<Domain<A>, A>,
        number: u32,
        space: &GuestSpace<A>,
    ) -> Result<(Self, Self::Interrupts), Status>;

    /// Takes register groups from the state page, after skipping an instruction if the flags say so.
    fn take(&mut self, vcpu: &Vcpu<A>, flags: RunFlags);
    /// Brings register groups of the state page up to date.
    fn sync(&mut self, interrupts: &Self::Interrupts, page: &SharedPage<A>, groups: RunFlags);
    /// Shows the VMM what addresses mean to the code that was left: registers that paging depends on in the state page,
    /// and the code's privilege level and whether it is 64-bit code.
    fn show_mode(&self, page: &SharedPage<A>) -> (u8, bool);
    /// Runs until there is something to do that is not the virtual CPU's own matter.
    fn run(&mut self, cpu: &mut Cpu<A>, vcpu: &Ref<Vcpu<A>, A>) -> GuestExit;
    /// Skips the write to memory that the guest was left for. False if the length of the instruction is not known.
    fn skip_write(&mut self) -> bool;

    /// Adds to the CPUID table: a leaf, its sub-leaf if that counts, and the four registers.
    fn add_cpuid(&mut self, leaf: u32, subleaf: Option<u32>, registers: [u32; 4]) -> Result<(), Status>;
    /// Says how an MSR is handled.
    fn add_msr(&mut self, register: u32, value: u64, policy: MsrPolicy) -> Result<(), Status>;
    /// Lets the guest's counter of time run at a frequency; gives the ratio to the host's, in the architecture's form.
    fn set_counter_frequency(&mut self, hz: u64) -> Result<u64, Status>;
    /// An access of the VMM to the interrupt controller's register page.
    fn access_controller(
        &mut self,
        cpu: &mut Cpu<A>,
        vcpu: &Vcpu<A>,
        offset: u32,
        write: Option<u32>,
    ) -> Result<u32, Status>;

    /// Says where the guest may end interrupts without being left. Gives back where it was before.
    fn set_end_place(&mut self, place: Option<RecordPlace<A>>) -> Result<Option<RecordPlace<A>>, Status>;
    /// It is to forget all translations of addresses before it goes on.
    fn flush(&mut self);
    /// Tells the guest, by its record, that it has no CPU.
    fn tell_away(record: &[AtomicU64; RECORD_WORDS]);
    /// Tells the guest that it has its CPU again, after nanoseconds in which it wanted it. Whether translations are to be
    /// forgotten.
    fn tell_back(record: &[AtomicU64; RECORD_WORDS], stolen_ns: u64) -> bool;
    /// Counts what became of an exit in the state page.
    fn count(page: &SharedPage<A>, fate: ExitFate);
    /// No CPU keeps anything of it: it is about to go.
    fn retire(&mut self, vcpu: &Vcpu<A>);
    /// Whether something waits for the guest that ends a halt.
    fn has_event(&self, interrupts: &Self::Interrupts) -> bool;
    /// When the guest's timer comes.
    fn deadline(interrupts: &Self::Interrupts) -> Ticks;
    /// Delivers a message-signalled interrupt.
    fn send_message(cpu: &mut Cpu<A>, vm: &Vm<A>, address: u64, data: u32);
}

/// What became of an exit that was not the virtual CPU's own matter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitFate {
    /// The VMM deals with it.
    Vmm,
    /// The guest got the page that it touched.
    Page,
    /// The guest touched memory that is none.
    Mmio,
    /// It rang a doorbell.
    Doorbell,
}

/// Why a guest was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestExit {
    /// The host's CPU is wanted: the architecture deals with what has come before it chooses what runs next.
    Interrupted,
    /// It waits for an interrupt.
    Halted,
    /// It waits for another virtual CPU by looking again and again.
    Paused,
    /// Its timer was changed, or the like: it goes on.
    Again,
    /// It accessed memory that the second stage does not show.
    Memory {
        /// Where.
        address: GuestPhys,
        /// How: one of READ, WRITE, EXECUTE.
        access: Rights,
        /// The linear address, or 0 if it is not known.
        linear: u64,
        /// It is the access of an instruction, not one to the guest's page tables.
        is_final: bool,
    },
    /// It accessed a port.
    Port {
        /// Which and how.
        access: PortAccess,
        /// What it writes.
        value: u32,
        /// Length of the instruction.
        length: u32,
    },
    /// The VMM has to see to it.
    Vmm {
        /// Why.
        reason: ExitReason,
        /// Length of the instruction, 0 if not known.
        length: u32,
        /// Details.
        words: [u64; 3],
    },
}
