//! The jump to the kernel.

use core::arch::asm;

use dragonfly_multiboot2::load::Launch;

/// IA32_EFER (SDM 4, table 2-2).
const EFER: u32 = 0xc000_0080;
const EFER_NO_EXECUTE: u64 = 1 << 11;

/// Starts the kernel in the state that the handoff's contract describes.
pub fn kernel(launch: &Launch) -> ! {
    // SAFETY: the page tables map this code at the address it runs at, so the instruction after the load of CR3 is still
    // there; they map the stack and the entry point, which were checked. No-execute is enabled first, since its bit in the
    // entries is reserved without it, and only if CPUID has it. CR0, CR4 and interrupts are as entry.s left them. Nothing of
    // the loader is used afterwards.
    unsafe {
        asm!(
            "rdmsr",
            "or eax, r8d",
            "wrmsr",
            "mov cr3, r9",
            "mov rsp, r10",
            "xor ebp, ebp",
            "push rbp",
            "popfq",
            "push rbp",
            "jmp r11",
            in("ecx") EFER,
            in("r8") if launch.no_execute { EFER_NO_EXECUTE } else { 0 },
            in("r9") launch.page_tables.0,
            in("r10") launch.stack_end.0,
            in("r11") launch.entry.0,
            in("rdi") launch.handoff.0,
            options(noreturn),
        )
    }
}
