//! x86-64.
//!
//! [`boot`] takes over from the loader, [`smp`] starts the other CPUs, [`entry`] is the way in and out of the kernel
//! ever after, [`run`] what it calls. [`kernel_space`] says where things are.
#![expect(unsafe_code, reason = "it vouches for the direct map and drives the CPU")]

use core::alloc::Layout;
use core::ptr::NonNull;

use dragonfly_abi::guest::Virtualisation;
use dragonfly_abi::{Status, SystemItem};
use dragonfly_memory::{
    Frames, Heap, HostFormat, HostPhys, NestedFormat, NodeFrames, ObjectPool, PageSize, PhysicalMemory, Relax,
    SharedHalf,
};

use super::{Arch, Ticks, Trigger};
use crate::Kernel;

pub mod apic;
pub mod boot;
pub mod clock;
pub mod context;
pub mod descriptors;
pub mod entry;
pub mod features;
pub mod guest;
pub mod interrupts;
pub mod io_apic;
pub mod kernel_space;
pub mod log;
pub mod mitigations;
pub mod panic;
pub mod per_cpu;
pub mod registers;
pub mod run;
pub mod smp;

/// Where physical address 0 is in the kernel's address space.
pub const DIRECT_MAP_BASE: u64 = dragonfly_handoff::DIRECT_MAP_BASE.0;

/// The machine's frames.
pub static FRAMES: Frames<X86, RelaxCpu> = Frames::new(X86);
/// The kernel's objects.
static POOL: ObjectPool<NodeFrames<'static, X86, RelaxCpu>, RelaxCpu> = ObjectPool::new(NodeFrames::new(&FRAMES, 0));
/// The kernel.
pub static KERNEL: Kernel<X86> = Kernel::new(X86);

/// The x86-64 machine that this kernel runs on.
#[derive(Clone, Copy, Debug)]
pub struct X86;

/// Waiting for a lock answers TLB shoot-downs.
pub struct RelaxCpu;

impl Relax for RelaxCpu {
    #[inline]
    fn relax() {
        KERNEL.answer_shootdown(per_cpu::id());
        core::hint::spin_loop();
    }
}

/// The heap of kernel objects: a handle without size to the pool.
#[derive(Clone, Copy, Debug)]
pub struct KernelHeap;

// SAFETY: It is the pool, which is one.
unsafe impl Heap for KernelHeap {
    #[inline]
    fn allocate(self, layout: Layout) -> Option<NonNull<u8>> {
        POOL.allocate(layout)
    }

    #[inline]
    unsafe fn deallocate(self, memory: NonNull<u8>, layout: Layout) {
        // SAFETY: The caller keeps the same contract.
        unsafe { POOL.deallocate(memory, layout) };
    }
}

// SAFETY: The direct map shows all RAM at a fixed distance, in the loader's tables and in the kernel's.
unsafe impl PhysicalMemory for X86 {
    #[inline]
    fn pointer(&self, address: HostPhys) -> NonNull<u8> {
        let pointer = (DIRECT_MAP_BASE + address.as_u64()) as *mut u8;
        // SAFETY: The direct map's base is not 0, and physical addresses are too small to wrap around from there.
        unsafe { NonNull::new_unchecked(pointer) }
    }

    #[inline]
    fn address(&self, pointer: NonNull<u8>) -> HostPhys {
        HostPhys::new(pointer.as_ptr() as u64 - DIRECT_MAP_BASE)
    }
}

impl Arch for X86 {
    type Heap = KernelHeap;
    type Relax = RelaxCpu;
    type Context = context::Context;
    type Format = HostFormat;
    type GuestFormat = guest::format::GuestFormat;
    type Guest = guest::X86Guest;
    type Local = guest::Local;
    const LOCAL: guest::Local = guest::Local::NEW;

    #[inline]
    fn kernel(self) -> &'static Kernel<Self> {
        &KERNEL
    }

    #[inline]
    fn heap(self) -> KernelHeap {
        KernelHeap
    }

    fn format(self) -> HostFormat {
        let features = boot::features();
        HostFormat::new(
            features.has_no_execute(),
            if features.has_1g_pages() { PageSize::Size1G } else { PageSize::Size2M },
        )
    }

    fn guest_format(self) -> Option<guest::format::GuestFormat> {
        match guest::back_end() {
            Virtualisation::Svm => Some(guest::format::GuestFormat::Nested(NestedFormat::new(self.format()))),
            Virtualisation::Vmx => Some(guest::format::GuestFormat::Extended(guest::vmx::format())),
            Virtualisation::None => None,
        }
    }

    fn frames(self) -> &'static Frames<Self, RelaxCpu> {
        &FRAMES
    }

    fn zero(self, start: HostPhys, bytes: u64) {
        // SAFETY: The caller has taken this RAM from the frame allocator or is about to give it to that: nobody else uses it.
        unsafe { self.pointer(start).as_ptr().write_bytes(0, bytes as usize) };
    }

    fn copy_in(self, start: HostPhys, content: &[u8]) {
        // SAFETY: The frames belong to a memory object that no domain runs with yet.
        unsafe { self.pointer(start).as_ptr().copy_from_nonoverlapping(content.as_ptr(), content.len()) };
    }

    #[inline]
    fn this_cpu(self) -> usize {
        per_cpu::id()
    }

    #[inline]
    fn now(self) -> Ticks {
        registers::read_tsc()
    }

    #[inline]
    fn ns_from_ticks(self, ticks: Ticks) -> u64 {
        clock::ns_from_ticks(ticks)
    }

    #[inline]
    fn ticks_from_ns(self, ns: u64) -> Ticks {
        clock::ticks_from_ns(ns)
    }

    #[inline]
    fn set_timer(self, deadline: Ticks) {
        apic::set_timer(deadline);
    }

    fn kick(self, cpu: usize) {
        apic::kick(cpu);
    }

    fn flush_tlb(self) {
        guest::answer();
        // SAFETY: The same tables again; domains' pages are not global.
        unsafe { registers::write_cr3(registers::read_cr3()) };
    }

    #[inline]
    fn activate(self, root: Option<HostPhys>) {
        if root.is_some() {
            mitigations::on_domain_switch();
        }
        // SAFETY: A domain's tables share the kernel's upper half, and live until no CPU has them active.
        unsafe { registers::write_cr3(root.unwrap_or_else(kernel_space::root)) };
    }

    fn kernel_half(self) -> SharedHalf {
        kernel_space::half()
    }

    fn port_read(self, port: u16, width: u8) -> u32 {
        registers::port_in(port, width)
    }

    fn port_write(self, port: u16, width: u8, value: u32) {
        registers::port_out(port, width, value);
    }

    fn interrupt_lines(self) -> u32 {
        io_apic::line_count()
    }

    fn connect_interrupt(self, line: u32, cpu: usize, trigger: Trigger) -> Result<(), Status> {
        if interrupts::connect(line, per_cpu::apic_id(cpu), trigger) { Ok(()) } else { Err(Status::BadArgument) }
    }

    fn mask_interrupt(self, line: u32) {
        interrupts::set_masked(line, true);
    }

    fn unmask_interrupt(self, line: u32) {
        interrupts::set_masked(line, false);
    }

    fn message(self, number: u32, cpu: usize) -> Result<(u64, u32), Status> {
        interrupts::message(number, per_cpu::apic_id(cpu)).ok_or(Status::NotSupported)
    }

    fn is_device_memory(self, start: HostPhys, size: u64) -> bool {
        boot::is_device_memory(start.as_u64(), size)
    }

    fn pci_segment(self, index: u64) -> Option<[u64; 4]> {
        boot::pci_segment(index)
    }

    fn system_item(self, item: SystemItem, argument: u64) -> Result<u64, Status> {
        match item {
            SystemItem::TscFrequency => Ok(clock::frequency_hz()),
            SystemItem::AcpiRsdp => Ok(boot::acpi_rsdp()),
            SystemItem::Virtualisation => Ok(guest::back_end() as u64),
            SystemItem::BundleSize => Ok(boot::bundle_size()),
            SystemItem::CommandLine => Ok(boot::command_line_word(argument)),
            _ => Err(Status::BadArgument),
        }
    }

    fn log_text(self, text: &[u8]) {
        log::domain_line(text);
    }
}
