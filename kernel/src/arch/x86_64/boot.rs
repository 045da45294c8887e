//! From the loader's jump to the first domain (docs/boot.md).
#![expect(unsafe_code, reason = "it takes the machine over")]

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr;

use dragonfly_acpi::{Acpi, TableMemory};
use dragonfly_handoff::{
    CommandLine, HANDOFF_SIZE, Handoff, HandoffError, MAX_COMMAND_LINE, MemoryKind, MemoryMap, MemoryMapError,
    PhysAddr, PhysRange,
};
use dragonfly_hw::x86::cpuid::Leaf1Ecx;
use dragonfly_hw::x86::exception::Exception;
use dragonfly_hw::x86::hpet;
use dragonfly_hw::x86::msr::{
    ApicBase, IA32_APIC_BASE, IA32_EFER, IA32_FMASK, IA32_GS_BASE, IA32_KERNEL_GS_BASE, IA32_LSTAR, IA32_PAT,
    IA32_STAR, PAT_RESET,
};
use dragonfly_hw::x86::pic;
use dragonfly_memory::{FrameUse, HostPhys, Lock, PAGE_SIZE, PhysicalMemory};
use spin::Once;

use super::descriptors::{
    INTERRUPT_STACKS, IST_DEBUG, IST_DOUBLE_FAULT, IST_MACHINE_CHECK, IST_NMI, InterruptTable, KERNEL_CODE_SELECTOR,
    KERNEL_DATA_SELECTOR, STAR, TSS_SELECTOR, TablePointer,
};
use super::features::Features;
use super::guest;
use super::per_cpu::{self, Anchored, PerCpu};
use super::{
    FRAMES, KERNEL, RelaxCpu, X86, apic, clock, entry, io_apic, kernel_space, log, mitigations, panic, registers, run,
    smp,
};
use crate::root::RootPlan;
use dragonfly_hw::x86::descriptor::InterruptGate;

/// Bytes of a CPU's kernel stack.
const STACK_SIZE: u64 = if cfg!(debug_assertions) { 96 << 10 } else { 32 << 10 };
/// Bytes of an interrupt stack.
const INTERRUPT_STACK_SIZE: u64 = 8 << 10;
/// Bytes of the stack until there is memory for another.
const BOOT_STACK_SIZE: usize = 256 << 10;
/// End of the memory that a start-up message can reach.
const LOW_MEMORY_END: u64 = 1 << 20;
/// RFLAGS bits that SYSCALL clears: interrupts, direction, trap, alignment check, nested task, I/O privilege.
const SYSCALL_FLAGS: u64 = 0x200 | 0x400 | 0x100 | 0x4_0000 | 0x4000 | 0x3000;

/// The stack of the first part.
#[repr(align(16))]
struct BootStack(#[expect(dead_code, reason = "only the entry code names it")] UnsafeCell<[u8; BOOT_STACK_SIZE]>);

// SAFETY: Only the boot CPU uses it, as its stack.
unsafe impl Sync for BootStack {}

/// What the loader handed over, copied.
struct BootInfo {
    handoff: Handoff,
    map: MemoryMap,
    command_line: [u8; MAX_COMMAND_LINE],
    command_line_length: usize,
    features: Features,
}

static BOOT: Once<BootInfo> = Once::new();
/// Stack of the first part.
static BOOT_STACK: BootStack = BootStack(UnsafeCell::new([0; BOOT_STACK_SIZE]));
static ACPI: Lock<Acpi, RelaxCpu> = Lock::new(Acpi::absent());
static INTERRUPT_TABLE: Once<InterruptTable> = Once::new();
/// A frame below 1 MiB to start CPUs from.
static START_UP_PAGE: Once<HostPhys> = Once::new();
/// Set when all CPUs may schedule.
static ALL_UP: Once<()> = Once::new();
/// Where the HPET's main counter is, for the calibration.
static HPET_COUNTER: Once<usize> = Once::new();

/// What is wrong with what the loader handed over.
enum BootError {
    Handoff(HandoffError),
    Map(MemoryMapError),
}

impl core::fmt::Display for BootError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Handoff(error) => error.fmt(formatter),
            Self::Map(error) => error.fmt(formatter),
        }
    }
}

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

/// Features of the boot CPU.
pub fn features() -> Features {
    BOOT.get().map_or_else(Features::detect, |boot| boot.features)
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
    let boot = match read_handoff(handoff) {
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
    set_up_memory(boot);
    if let Err(reason) = kernel_space::build(&boot.handoff, &boot.map) {
        panic!("{reason}");
    }
    enable_paging_features(boot.features);
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
    fill_interrupt_table();
    discover_platform(handoff);
    choose_apic(boot.features);
    set_up_cpu(this);
    reclaim_boot_memory(boot);
    mask_8259();
    let acpi = ACPI.lock();
    add_io_apics(&acpi);
    clock::calibrate(&acpi, find_hpet(&acpi));
    apic::calibrate(|| clock::wait_ns(10_000_000));
    mitigations::choose(&boot.features, command_line().value("mitigations") != Some("off"));
    guest::detect();
    guest::enable_on_this_cpu(&mut this.cpu().local);
    let cpus = smp::start_others(&acpi, START_UP_PAGE.get().copied());
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

fn read_handoff(address: u64) -> Result<BootInfo, BootError> {
    // SAFETY: The loader's contract: the handoff, the memory map and the command line are in the direct map, and
    // nobody writes them.
    let bytes = |start: u64, length: u64| unsafe {
        core::slice::from_raw_parts(start as *const u8, usize::try_from(length).unwrap_or(0))
    };
    let handoff = Handoff::parse(bytes(address, HANDOFF_SIZE as u64)).map_err(BootError::Handoff)?;
    let virt = |range: PhysRange| handoff.direct_map.virt(range).map_or(0, |virt| virt.0);
    let features = Features::detect();
    let limit = PhysAddr(1 << features.physical_bits.clamp(32, 46));
    let map = handoff.memory_map;
    let map = MemoryMap::parse(bytes(virt(map), map.size()), limit).map_err(BootError::Map)?;
    let line = bytes(virt(handoff.command_line), handoff.command_line.size());
    let line = CommandLine::parse(line).map_err(BootError::Handoff)?.as_str().as_bytes();
    let mut command_line = [0; MAX_COMMAND_LINE];
    command_line[..line.len()].copy_from_slice(line);
    Ok(BootInfo { handoff, map, command_line, command_line_length: line.len(), features })
}

/// The words with which the kernel was started.
pub fn command_line() -> CommandLine<'static> {
    let bytes = BOOT.get().map_or(&[][..], |boot| &boot.command_line[..boot.command_line_length]);
    CommandLine::parse(bytes).unwrap_or_else(|_| CommandLine::parse(b"").unwrap_or_else(|_| panic!("no command line")))
}

/// Gives usable RAM to the frame allocator, but for one page below 1 MiB and page zero.
fn set_up_memory(boot: &BootInfo) {
    let mut frames = FRAMES.lock();
    for range in boot.map.usable() {
        let (mut start, end) = (range.base().0.max(PAGE_SIZE), range.end().0);
        if start < LOW_MEMORY_END && end > start && START_UP_PAGE.get().is_none() {
            START_UP_PAGE.call_once(|| HostPhys::new(start));
            start += PAGE_SIZE;
        }
        if start >= end {
            continue;
        }
        // SAFETY: Usable RAM belongs to nobody, and the loader's direct map reaches it.
        if let Err(error) = unsafe { frames.add_range(HostPhys::new(start), end - start, 0) } {
            ::log::warn!("{} KiB of RAM at {start:#x} stay unused: {error}", (end - start) >> 10);
        }
    }
}

/// Takes the loader's memory into use, now that nothing of it is.
fn reclaim_boot_memory(boot: &BootInfo) {
    let mut frames = FRAMES.lock();
    for range in boot.map.of_kind(MemoryKind::BOOTLOADER) {
        // SAFETY: The loader's contract: the kernel has left its tables and stack, and copied what the handoff names.
        let added = unsafe { frames.add_range(HostPhys::new(range.base().0), range.size(), 0) };
        if let Err(error) = added {
            ::log::warn!("{} KiB of the loader's memory stay unused: {error}", range.size() >> 10);
        }
    }
}

/// Lets the page tables use no-execute and global pages.
fn enable_paging_features(features: Features) {
    // SAFETY: The CPU has each of these; the loader's tables stay valid under them.
    unsafe {
        registers::write_msr(IA32_EFER, features.efer().bits());
        asm!("mov cr4, {}", in(reg) features.cr4().bits(), options(nostack));
        asm!("mov cr0, {}", in(reg) Features::cr0().bits(), options(nostack));
        registers::write_msr(IA32_PAT, PAT_RESET);
    }
}

/// Register values for CPUs that start.
pub struct ControlRegisters {
    /// CR4 on the way to long mode.
    pub cr4_at_start: u64,
    /// EFER.
    pub efer: u64,
    /// CR0.
    pub cr0: u64,
}

/// Register values for CPUs that start.
pub fn control_registers() -> ControlRegisters {
    let features = features();
    let efer = features.efer() & !dragonfly_hw::x86::msr::Efer::LMA;
    ControlRegisters {
        cr4_at_start: dragonfly_hw::x86::control::Cr4::PAE.bits(),
        efer: efer.bits(),
        cr0: Features::cr0().bits(),
    }
}

/// Makes a CPU's data and stacks.
pub fn new_per_cpu(id: usize) -> Option<&'static mut PerCpu> {
    let mut tops = [0; INTERRUPT_STACKS];
    let stack = kernel_space::new_stack(id, 0, STACK_SIZE)?;
    for (number, top) in tops.iter_mut().enumerate() {
        *top = kernel_space::new_stack(id, number as u64 + 1, INTERRUPT_STACK_SIZE)?;
    }
    let bytes = size_of::<Anchored>() as u64;
    let order = bytes.div_ceil(PAGE_SIZE).next_power_of_two().trailing_zeros();
    let place = FRAMES.lock().alloc(order, 0, FrameUse::Kernel)?;
    let place = X86.pointer(place).cast::<MaybeUninit<Anchored>>();
    // SAFETY: The block is fresh, large and aligned enough, and never given back.
    let anchored = unsafe { (*place.as_ptr()).write(Anchored::new(PerCpu::new(id, stack))) };
    let this = anchored.fix();
    this.segments.set_up(tops);
    Some(this)
}

/// Top of a CPU's kernel stack.
pub fn stack_of(this: &PerCpu) -> u64 {
    this.stack_top()
}

/// Loads a CPU's segments, interrupt table, system call entry and APIC.
pub fn set_up_cpu(this: &mut PerCpu) {
    enable_paging_features(features());
    let gdt =
        TablePointer { limit: (size_of_val(&this.segments.gdt) - 1) as u16, base: this.segments.gdt.as_ptr() as u64 };
    let idt = INTERRUPT_TABLE.get().map_or(ptr::null(), ptr::from_ref);
    let idt = TablePointer { limit: (size_of::<InterruptTable>() - 1) as u16, base: idt as u64 };
    // SAFETY: Both tables live for ever and hold what the selectors name. GS is set after the selectors, which clear
    // its base. SYSCALL's registers name kernel code.
    unsafe {
        asm!(
            "lgdt [{gdt}]",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            "mov ss, {data:x}",
            "mov ds, {data:x}",
            "mov es, {data:x}",
            "mov fs, {null:x}",
            "mov gs, {null:x}",
            "ltr {tss:x}",
            "lidt [{idt}]",
            "lldt {null:x}",
            gdt = in(reg) &gdt,
            idt = in(reg) &idt,
            code = const KERNEL_CODE_SELECTOR,
            data = in(reg) KERNEL_DATA_SELECTOR,
            null = in(reg) 0u64,
            tss = in(reg) TSS_SELECTOR,
            scratch = out(reg) _,
        );
        registers::write_msr(IA32_GS_BASE, ptr::from_mut(this) as u64);
        registers::write_msr(IA32_KERNEL_GS_BASE, 0);
        registers::write_msr(IA32_STAR, STAR);
        registers::write_msr(IA32_LSTAR, entry::syscall_entry());
        registers::write_msr(IA32_FMASK, SYSCALL_FLAGS);
    }
    let apic_id = apic::enable();
    per_cpu::set_apic_id(per_cpu::id(), apic_id);
    per_cpu::count_up();
}

/// Waits until all CPUs may schedule.
pub fn wait_for_all() {
    while ALL_UP.get().is_none() {
        core::hint::spin_loop();
    }
}

fn fill_interrupt_table() {
    INTERRUPT_TABLE.call_once(|| {
        let mut gates = [InterruptGate::ABSENT; 256];
        for (vector, gate) in (0..=u8::MAX).zip(&mut gates) {
            let ist = match Exception::from_vector(vector) {
                Some(Exception::Debug) => IST_DEBUG,
                Some(Exception::DoubleFault) => IST_DOUBLE_FAULT,
                Some(Exception::Nmi) => IST_NMI,
                Some(Exception::MachineCheck) => IST_MACHINE_CHECK,
                _ => 0,
            };
            // INT3 and INTO are for domains too; other gates would be a way to forge exceptions.
            let dpl = match Exception::from_vector(vector) {
                Some(Exception::Breakpoint | Exception::Overflow) => 3,
                _ => 0,
            };
            *gate = InterruptGate::new(entry::interrupt_stub(vector), KERNEL_CODE_SELECTOR, ist, dpl);
        }
        InterruptTable(gates)
    });
}

/// Which physical ranges firmware's tables may be read from: RAM that the kernel does not use itself.
struct Tables;

impl TableMemory for Tables {
    fn map(&self, address: u64, length: usize) -> Option<&[u8]> {
        let end = address.checked_add(length as u64)?;
        let boot = BOOT.get()?;
        let is_readable = |kind: MemoryKind| kind.is_ram() || kind == MemoryKind::RESERVED;
        let mut at = address;
        while at < end {
            let (range, _) = boot
                .map
                .iter()
                .find(|(range, kind)| is_readable(*kind) && (range.base().0..range.end().0).contains(&at))?;
            at = range.end().0;
        }
        // The loader's direct map is gone: what is no RAM has to be mapped first, and stays so.
        let start = if boot.map.kind_at(PhysAddr(address)).is_some_and(MemoryKind::is_ram) {
            X86.pointer(HostPhys::new(address)).as_ptr()
        } else {
            kernel_space::map_device(address, length as u64)?.cast()
        };
        // SAFETY: Mapped above or by the direct map; firmware's tables are written by nobody.
        Some(unsafe { core::slice::from_raw_parts(start, length) })
    }
}

fn discover_platform(handoff: &Handoff) {
    let Some(rsdp) = handoff.acpi_rsdp else {
        ::log::warn!("no ACPI: one CPU, no interrupt lines");
        return;
    };
    let mut report = |problem| ::log::warn!("ACPI: {problem}: going on without it");
    let mut acpi = ACPI.lock();
    if let Err(error) = acpi.discover(&Tables, rsdp.0, &mut report) {
        ::log::warn!("ACPI: {error}: one CPU, no interrupt lines");
    }
    ::log::info!(
        "ACPI: {} processors, {} I/O APICs, {} PCIe segments, {} NUMA CPU entries; DMA remapping units: VT-d {}, AMD-Vi {}",
        acpi.madt.processors.len(),
        acpi.madt.io_apics.len(),
        acpi.mcfg.segments.len(),
        acpi.srat.processors.len(),
        acpi.dmar.units.len(),
        acpi.ivrs.units.len()
    );
}

fn choose_apic(features: Features) {
    let base = registers::read_msr(IA32_APIC_BASE) & dragonfly_hw::x86::msr::APIC_BASE_ADDRESS;
    let was_x2apic = ApicBase::from_bits_retain(registers::read_msr(IA32_APIC_BASE)).contains(ApicBase::EXTD);
    let has_x2apic = features.leaf_1_ecx.contains(Leaf1Ecx::X2APIC);
    let is_wanted = command_line().value("x2apic") != Some("off") || was_x2apic;
    let is_x2apic = has_x2apic && is_wanted;
    let registers = if is_x2apic { None } else { kernel_space::map_device(base, PAGE_SIZE) };
    let registers = registers.unwrap_or(ptr::null_mut());
    if !is_x2apic && registers.is_null() {
        panic!("the local APIC at {base:#x} cannot be mapped");
    }
    let has_deadline = features.leaf_1_ecx.contains(Leaf1Ecx::TSC_DEADLINE);
    // SAFETY: The registers are mapped for good, or the CPU has x2APIC mode.
    unsafe { apic::choose(is_x2apic, has_deadline, registers) };
}

fn add_io_apics(acpi: &Acpi) {
    for io_apic in &acpi.madt.io_apics {
        match kernel_space::map_device(io_apic.address, PAGE_SIZE) {
            Some(registers) => {
                // SAFETY: Mapped for good, at the address that firmware gives for an I/O APIC.
                let inputs = unsafe { io_apic::add(registers, io_apic.gsi_base) };
                ::log::debug!(
                    "I/O APIC at {:#x}: lines {} to {}",
                    io_apic.address,
                    io_apic.gsi_base,
                    io_apic.gsi_base + inputs - 1
                );
            }
            None => ::log::warn!("I/O APIC at {:#x} lies in RAM: going on without it", io_apic.address),
        }
    }
}

fn find_hpet(acpi: &Acpi) -> Option<clock::Hpet> {
    let table = acpi.hpet.as_ref()?;
    let registers = kernel_space::map_device(table.address, PAGE_SIZE)?;
    // SAFETY: Mapped for good; capabilities and configuration are 64-bit registers of an HPET.
    let (capabilities, configuration) = unsafe {
        let capabilities = registers.byte_add(hpet::GCAP_ID as usize).cast::<u64>().read_volatile();
        (capabilities, registers.byte_add(hpet::GEN_CONF as usize).cast::<u64>())
    };
    let period = hpet::period_fs(capabilities);
    if period == 0 || period > hpet::MAX_PERIOD_FS {
        return None;
    }
    // SAFETY: As above; only the counter's run bit changes.
    unsafe {
        configuration.write_volatile(configuration.read_volatile() | hpet::GeneralConfiguration::ENABLE_CNF.bits())
    };
    HPET_COUNTER.call_once(|| registers as usize + hpet::MAIN_CNT as usize);
    let read = || match HPET_COUNTER.get() {
        // SAFETY: The counter's register, mapped for good.
        Some(&counter) => unsafe { (counter as *const u32).read_volatile() },
        None => 0,
    };
    Some(clock::Hpet { read, hz: hpet::FEMTOSECONDS_PER_SECOND / u64::from(period) })
}

/// Moves the 8259s away from the exceptions and masks them.
fn mask_8259() {
    for (port, value) in [
        (pic::MASTER_COMMAND, pic::ICW1_INIT),
        (pic::SLAVE_COMMAND, pic::ICW1_INIT),
        (pic::MASTER_DATA, 0x20),
        (pic::SLAVE_DATA, 0x28),
        (pic::MASTER_DATA, pic::ICW3_MASTER),
        (pic::SLAVE_DATA, pic::ICW3_SLAVE),
        (pic::MASTER_DATA, pic::ICW4_8086),
        (pic::SLAVE_DATA, pic::ICW4_8086),
        (pic::MASTER_DATA, pic::MASK_ALL),
        (pic::SLAVE_DATA, pic::MASK_ALL),
    ] {
        registers::port_out(port, 1, u32::from(value));
    }
}

/// Whether no part of a range is RAM or a controller of the kernel's.
pub fn is_device_memory(start: u64, size: u64) -> bool {
    let Some(boot) = BOOT.get() else { return false };
    let Some(end) = start.checked_add(size) else { return false };
    let overlaps = |first: u64, past: u64| first < end && start < past;
    let is_ram =
        |kind: MemoryKind| kind.is_ram() && kind != MemoryKind::ACPI_RECLAIMABLE && kind != MemoryKind::ACPI_NVS;
    if boot.map.iter().any(|(range, kind)| is_ram(kind) && overlaps(range.base().0, range.end().0)) {
        return false;
    }
    let apic = registers::read_msr(IA32_APIC_BASE) & dragonfly_hw::x86::msr::APIC_BASE_ADDRESS;
    if overlaps(apic, apic + PAGE_SIZE) || end > 1 << boot.features.physical_bits.min(46) {
        return false;
    }
    !ACPI
        .lock()
        .madt
        .io_apics
        .iter()
        .any(|io_apic| overlaps(io_apic.address, io_apic.address.saturating_add(PAGE_SIZE)))
}

/// Physical address of the RSDP, 0 for none.
pub fn acpi_rsdp() -> u64 {
    BOOT.get().and_then(|boot| boot.handoff.acpi_rsdp).map_or(0, |address| address.0)
}

/// Bytes of the bundle.
pub fn bundle_size() -> u64 {
    BOOT.get().map_or(0, |boot| boot.handoff.bundle.size())
}

/// Eight bytes of the command line.
pub fn command_line_word(offset: u64) -> u64 {
    let line = command_line().as_str().as_bytes();
    let tail = usize::try_from(offset).ok().and_then(|offset| line.get(offset..)).unwrap_or(&[]);
    let mut word = [0; 8];
    let length = tail.len().min(8);
    word[..length].copy_from_slice(&tail[..length]);
    u64::from_le_bytes(word)
}
