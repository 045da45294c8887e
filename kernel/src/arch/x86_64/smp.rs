//! Starts the other CPUs: INIT, start-up, real mode, protected mode, long mode.
#![expect(unsafe_code, reason = "start-up code is machine code, in a page that all CPUs share")]

use core::arch::global_asm;
use core::sync::atomic::{AtomicU64, Ordering};

use dragonfly_abi::MAX_CPUS;
use dragonfly_acpi::{Acpi, ProcessorState};
use dragonfly_memory::{HostPhys, PhysicalMemory};

use super::per_cpu::{self, PerCpu};
use super::{X86, apic, boot, clock, kernel_space, registers};

/// How long a CPU may take to come up.
const PATIENCE_NS: u64 = 200_000_000;
/// Wait after INIT (SDM 3A, "Typical BSP Initialization Sequence").
const INIT_WAIT_NS: u64 = 10_000_000;
/// Wait between the two start-up messages.
const STARTUP_WAIT_NS: u64 = 200_000;

global_asm!(
    r#"
    .pushsection .rodata.dragonfly_start_up, "a", @progbits
    .global dragonfly_start_up_begin, dragonfly_start_up_end, dragonfly_start_up_arguments
    .code16
dragonfly_start_up_begin:
    cli
    cld
    movw %cs, %ax
    movw %ax, %ds
    // Addresses follow from where the page is: CS << 4.
    xorl %ebx, %ebx
    movw %cs, %bx
    shll $4, %ebx
    leal (dragonfly_start_up_gdt - dragonfly_start_up_begin)(%ebx), %eax
    movl %eax, (dragonfly_start_up_gdt_pointer - dragonfly_start_up_begin + 2)
    leal (dragonfly_start_up_protected - dragonfly_start_up_begin)(%ebx), %eax
    movl %eax, (dragonfly_start_up_to_protected - dragonfly_start_up_begin)
    leal (dragonfly_start_up_long_mode - dragonfly_start_up_begin)(%ebx), %eax
    movl %eax, (dragonfly_start_up_to_long - dragonfly_start_up_begin)
    lgdtl (dragonfly_start_up_gdt_pointer - dragonfly_start_up_begin)
    movl %cr0, %eax
    orl $1, %eax
    movl %eax, %cr0
    ljmpl *(dragonfly_start_up_to_protected - dragonfly_start_up_begin)
    .code32
dragonfly_start_up_protected:
    movw $0x10, %ax
    movw %ax, %ds
    movw %ax, %ss
    movl (dragonfly_start_up_cr4 - dragonfly_start_up_begin)(%ebx), %eax
    movl %eax, %cr4
    movl (dragonfly_start_up_cr3 - dragonfly_start_up_begin)(%ebx), %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx
    movl (dragonfly_start_up_efer - dragonfly_start_up_begin)(%ebx), %eax
    xorl %edx, %edx
    wrmsr
    movl (dragonfly_start_up_cr0 - dragonfly_start_up_begin)(%ebx), %eax
    movl %eax, %cr0
    ljmpl *(dragonfly_start_up_to_long - dragonfly_start_up_begin)(%ebx)
    .code64
dragonfly_start_up_long_mode:
    movq (dragonfly_start_up_stack - dragonfly_start_up_begin)(%rbx), %rsp
    movq (dragonfly_start_up_argument - dragonfly_start_up_begin)(%rbx), %rdi
    movq (dragonfly_start_up_entry - dragonfly_start_up_begin)(%rbx), %rax
    xorl %ebp, %ebp
    pushq %rbp
    jmpq *%rax
    .balign 8
dragonfly_start_up_gdt:
    .quad 0
    .quad 0x00cf9b000000ffff    // 32-bit code
    .quad 0x00cf93000000ffff    // data
    .quad 0x00af9b000000ffff    // 64-bit code
dragonfly_start_up_gdt_pointer:
    .word 31
    .long 0
dragonfly_start_up_to_protected:
    .long 0
    .word 8
dragonfly_start_up_to_long:
    .long 0
    .word 0x18
    .balign 8
dragonfly_start_up_arguments:
dragonfly_start_up_cr4:        .quad 0
dragonfly_start_up_cr3:        .quad 0
dragonfly_start_up_efer:       .quad 0
dragonfly_start_up_cr0:        .quad 0
dragonfly_start_up_stack:      .quad 0
dragonfly_start_up_argument:   .quad 0
dragonfly_start_up_entry:      .quad 0
dragonfly_start_up_end:
    .popsection
    "#,
    options(att_syntax)
);

unsafe extern "C" {
    static dragonfly_start_up_begin: u8;
    static dragonfly_start_up_end: u8;
    static dragonfly_start_up_arguments: u8;
}

/// The CPU that comes up now reports here.
static ARRIVED: AtomicU64 = AtomicU64::new(0);

/// Starts all enabled CPUs but this one and gives how many there are now. `page` is a free page below 1 MiB.
pub fn start_others(acpi: &Acpi, page: Option<HostPhys>) -> usize {
    let own = per_cpu::apic_id(0);
    let others = acpi
        .madt
        .processors
        .iter()
        .filter(|processor| processor.state == ProcessorState::Enabled && processor.apic_id != own);
    if others.clone().next().is_none() {
        return 1;
    }
    let Some(page) = page else {
        log::warn!("no free page below 1 MiB to start other CPUs from: going on with one CPU");
        return 1;
    };
    // The start-up page is mapped at its own address while CPUs come up, in tables of their own.
    let Some(root) = kernel_space::start_up_root(page) else {
        log::warn!("no memory below 4 GiB for start-up page tables: going on with one CPU");
        return 1;
    };
    let mut cpus = 1;
    for processor in others {
        if cpus == MAX_CPUS {
            log::warn!("more than {MAX_CPUS} CPUs: the others stay off");
            break;
        }
        if start(processor.apic_id, cpus, page, root) {
            cpus += 1;
        } else {
            log::warn!("CPU with APIC ID {} does not come up: going on without it", processor.apic_id);
        }
    }
    cpus
}

fn start(apic_id: u32, id: usize, page: HostPhys, root: HostPhys) -> bool {
    let Some(this) = boot::new_per_cpu(id) else { return false };
    per_cpu::set_apic_id(id, apic_id);
    let stack = boot::stack_of(this);
    let control = boot::control_registers();
    let arguments = [
        // Long mode is entered with little set; the rest follows once the CPU runs kernel code.
        control.cr4_at_start,
        root.as_u64(),
        control.efer,
        control.cr0,
        stack,
        &raw mut *this as u64,
        arrive as *const () as u64,
    ];
    write_page(page, &arguments);
    let before = ARRIVED.load(Ordering::Acquire);
    apic::send_init(apic_id);
    clock::wait_ns(INIT_WAIT_NS);
    let vector = (page.as_u64() >> 12) as u8;
    for _ in 0..2 {
        apic::send_startup(apic_id, vector);
        clock::wait_ns(STARTUP_WAIT_NS);
        if ARRIVED.load(Ordering::Acquire) != before {
            return true;
        }
    }
    for _ in 0..PATIENCE_NS / STARTUP_WAIT_NS {
        if ARRIVED.load(Ordering::Acquire) != before {
            return true;
        }
        clock::wait_ns(STARTUP_WAIT_NS);
    }
    false
}

/// Copies the start-up code and its arguments into the start-up page.
fn write_page(page: HostPhys, arguments: &[u64; 7]) {
    // SAFETY: The symbols bound the start-up code in the image. The page is free memory that only starting CPUs use,
    // one at a time, and the code with its arguments is shorter than a page.
    unsafe {
        let begin = &raw const dragonfly_start_up_begin;
        let length = (&raw const dragonfly_start_up_end).offset_from_unsigned(begin);
        let at = (&raw const dragonfly_start_up_arguments).offset_from_unsigned(begin);
        let target = X86.pointer(page).as_ptr();
        target.copy_from_nonoverlapping(begin, length);
        target.add(at).cast::<[u64; 7]>().write(*arguments);
    }
}

/// The first kernel code of a CPU that has just come up.
extern "sysv64" fn arrive(this: &'static mut PerCpu) -> ! {
    // SAFETY: The kernel's tables map everything that this CPU uses; it leaves the start-up tables for good.
    unsafe { registers::write_cr3(kernel_space::root()) };
    boot::set_up_cpu(this);
    super::mitigations::enable_on_this_cpu();
    super::guest::enable_on_this_cpu(&mut this.cpu().local);
    ARRIVED.fetch_add(1, Ordering::AcqRel);
    boot::wait_for_all();
    super::run::start()
}
