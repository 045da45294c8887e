//! From the loader's jump to the first domain (docs/boot.md).
//!
//! The order of the steps is here; what each is made of is in `handoff`, `memory`, `platform` and `cpu`.
#![expect(unsafe_code, reason = "it takes the machine over")]

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;

use dragonfly_handoff::Handoff;
use dragonfly_hw::x86::msr::IA32_GS_BASE;
use dragonfly_memory::{HostPhys, PAGE_SIZE, PhysicalMemory};
use spin::Once;

use super::per_cpu::{self, PerCpu};
use super::{FRAMES, KERNEL, X86, apic, clock, guest, kernel_space, log, mitigations, panic, registers, run, smp};
use crate::root::RootPlan;
use handoff::BOOT;

mod cpu;
mod handoff;
mod memory;
mod platform;

pub use cpu::{control_registers, new_per_cpu, set_up_cpu, stack_of};
pub use handoff::{acpi_rsdp, bundle_size, command_line, command_line_word, features};
pub use platform::{is_device_memory, pci_segment};

/// Bytes of the stack until there is memory for another.
const BOOT_STACK_SIZE: usize = 256 << 10;

/// The stack of the first part.
#[repr(align(16))]
struct BootStack(#[expect(dead_code, reason = "only the entry code names it")] UnsafeCell<[u8; BOOT_STACK_SIZE]>);

// SAFETY: Only the boot CPU uses it, as its stack.
unsafe impl Sync for BootStack {}

/// Stack of the first part.
static BOOT_STACK: BootStack = BootStack(UnsafeCell::new([0; BOOT_STACK_SIZE]));
/// Set when all CPUs may schedule.
static ALL_UP: Once<()> = Once::new();

/// The loader jumps here: RDI is the handoff.
///
/// # Safety
/// Only for a loader that has kept its part of the handoff's contract.
#[unsafe(naked)]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".text.dragonfly_entry")]
pub unsafe extern "sysv64" fn dragonfly_kernel_entry() {
    // A stack of the kernel's own from the start: the loader's is as large as the loader thought fit.
    naked_asm!(
        "lea rsp, [rip + {stack} + {size}]",
        "xor ebp, ebp",
        "push rbp",
        "jmp {next}",
        stack = sym BOOT_STACK,
        size = const BOOT_STACK_SIZE,
        next = sym take_over,
    )
}

/// First part, in the loader's tables.
extern "sysv64" fn take_over(handoff: u64) -> ! {
    clock::start();
    // A lock asks GS for the CPU's number; until there is per-CPU data, GS points at zeroes.
    static NOBODY: [u64; 16] = [0; 16];
    const _: () = assert!(per_cpu::offset::ID < 128);
    // SAFETY: The register exists in long mode; the zeroes live for ever.
    unsafe { registers::write_msr(IA32_GS_BASE, NOBODY.as_ptr() as u64) };
    log::start();
    let boot = match handoff::read(handoff) {
        Ok(boot) => BOOT.call_once(|| boot),
        Err(error) => panic!("the loader's handoff is not usable: {error}"),
    };
    let command_line = command_line();
    if let Some(level) = command_line.value("log") {
        log::set_level(level);
    }
    if let Some(kind) = command_line.value("exit") {
        panic::set_exit(kind);
    }
    ::log::info!("Dragonfly {} on x86-64, started by {}", env!("CARGO_PKG_VERSION"), boot.handoff.loader_name.as_str());
    ::log::info!("CPU: {}", boot.features);
    memory::set_up(boot);
    if let Err(reason) = kernel_space::build(&boot.handoff, &boot.map) {
        panic!("{reason}");
    }
    cpu::enable_paging_features(boot.features);
    // SAFETY: The kernel's tables map its image, its data and the direct map as the loader's do, and never go.
    unsafe { registers::write_cr3(kernel_space::root()) };
    let Some(this) = new_per_cpu(0) else { panic!("too little memory for the first CPU's stacks") };
    let stack = stack_of(this);
    // SAFETY: The new stack is mapped, 16-byte aligned less the pushed return address; nothing of the old one is needed.
    unsafe {
        asm!(
            "mov rsp, {stack}",
            "xor ebp, ebp",
            "push rbp",
            "jmp {next}",
            stack = in(reg) stack,
            next = sym go_on,
            in("rdi") this,
            options(noreturn),
        );
    }
}

/// Second part, on the kernel's own stack and tables.
extern "sysv64" fn go_on(this: &'static mut PerCpu) -> ! {
    let Some(boot) = BOOT.get() else { panic!("the handoff is gone") };
    let handoff = &boot.handoff;
    cpu::fill_interrupt_table();
    platform::discover(handoff);
    platform::choose_apic(boot.features);
    set_up_cpu(this);
    memory::reclaim(boot);
    platform::mask_8259();
    let acpi = platform::ACPI.lock();
    platform::add_io_apics(&acpi);
    clock::calibrate(&acpi, platform::find_hpet(&acpi));
    apic::calibrate(|| clock::wait_ns(10_000_000));
    mitigations::choose(&boot.features, command_line().value("mitigations") != Some("off"));
    mitigations::enable_on_this_cpu();
    guest::detect(&acpi);
    guest::enable_on_this_cpu(&mut this.cpu().local);
    let cpus = smp::start_others(&acpi, memory::START_UP_PAGE.get().copied());
    drop(acpi);
    KERNEL.set_up(cpus, clock::boot_ticks());
    let (mode, timer) = apic::describe();
    let free = FRAMES.lock().free_pages();
    ::log::info!("{cpus} CPUs, {mode}, timer: {timer}; {} MiB free", (free * PAGE_SIZE) >> 20);
    start_supervisor(handoff, this);
    if command_line().value("panic") == Some("test") {
        panic!("asked for on the command line");
    }
    ALL_UP.call_once(|| ());
    run::start()
}

fn start_supervisor(handoff: &Handoff, this: &mut PerCpu) {
    let bundle = handoff.bundle;
    // SAFETY: The bundle is RAM in the direct map that nobody writes: it is kept out of the frame allocator, and
    // domains map it read-only.
    let bytes = unsafe {
        let start = X86.pointer(HostPhys::new(bundle.base().0)).as_ptr();
        core::slice::from_raw_parts(start, usize::try_from(bundle.size()).unwrap_or(0))
    };
    let size = bundle.size().next_multiple_of(PAGE_SIZE);
    let plan = RootPlan {
        bundle: bytes,
        bundle_frames: (HostPhys::new(bundle.base().0), size),
        command_line: command_line().as_str(),
        tsc_hz: clock::frequency_hz(),
    };
    if let Err(error) = KERNEL.start_root(this.cpu(), &plan) {
        panic!("no supervisor: {error}");
    }
}

/// Waits until all CPUs may schedule.
pub fn wait_for_all() {
    while ALL_UP.get().is_none() {
        core::hint::spin_loop();
    }
}
