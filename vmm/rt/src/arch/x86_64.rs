//! x86-64: `SYSCALL`, with registers as [`dragonfly_abi::arch::x86_64`] says.
#![expect(unsafe_code, reason = "system calls and entry points are machine code")]

use core::arch::x86_64::{__cpuid, __cpuid_count};
use core::arch::{asm, naked_asm};
use core::mem::MaybeUninit;

/// Makes a system call; gives the raw status and the words that came back.
///
/// Registers of arguments that are not given keep whatever they held: the kernel ignores them, and setting them would
/// cost instructions.
///
/// # Safety
/// The call must not take away or change memory of this domain that Rust code still relies on.
#[inline(always)]
pub(crate) unsafe fn call<const N: usize>(number: u32, arguments: [u64; N]) -> (u64, [u64; 6]) {
    const { assert!(N <= 6) };
    let mut words = [MaybeUninit::<u64>::uninit(); 6];
    for (word, argument) in words.iter_mut().zip(arguments) {
        word.write(argument);
    }
    let [w0, w1, w2, w3, w4, w5] = words;
    let status: u64;
    let (r0, r1, r2, r3, r4, r5): (u64, u64, u64, u64, u64, u64);
    // SAFETY: the kernel keeps RBX, RBP, RSP and R12 to R15; everything else that it changes is named here. What the
    // call does to this domain's memory is the caller's promise.
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") u64::from(number) => status,
            inlateout("rdi") w0 => r0,
            inlateout("rsi") w1 => r1,
            inlateout("rdx") w2 => r2,
            inlateout("r10") w3 => r3,
            inlateout("r8") w4 => r4,
            inlateout("r9") w5 => r5,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    (status, [r0, r1, r2, r3, r4, r5])
}

/// The current stack pointer.
#[inline(always)]
pub(crate) fn stack_pointer() -> usize {
    let pointer;
    // SAFETY: only reads a register.
    unsafe { asm!("mov {}, rsp", out(reg) pointer, options(nomem, nostack, preserves_flags)) };
    pointer
}

/// The time-stamp counter.
#[inline(always)]
pub(crate) fn time_stamp() -> u64 {
    // SAFETY: only reads a counter, which the kernel leaves readable to domains.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// How often the processor's generators are asked again when they have nothing (SDM 1 7.3.17 wants ten times).
const RANDOM_TRIES: usize = 10;

/// A number from the processor's own source of entropy, or of the generator that it feeds; `None` without either, or if
/// they have nothing.
pub(crate) fn hardware_random() -> Option<u64> {
    const RDRAND: u32 = 1 << 30;
    const RDSEED: u32 = 1 << 18;
    let has_seed = __cpuid(0).eax >= 7 && __cpuid_count(7, 0).ebx & RDSEED != 0;
    let has_random = __cpuid(1).ecx & RDRAND != 0;
    let tries = |has_it: bool| core::iter::repeat_n((), if has_it { RANDOM_TRIES } else { 0 });
    let seed = || {
        let (number, is_there): (u64, u8);
        // SAFETY: the processor has RDSEED, by `has_seed`; it changes the register and the flags only.
        unsafe { asm!("rdseed {}", "setc {}", out(reg) number, out(reg_byte) is_there, options(nomem, nostack)) };
        (is_there != 0).then_some(number)
    };
    let random = || {
        let (number, is_there): (u64, u8);
        // SAFETY: the processor has RDRAND, by `has_random`; it changes the register and the flags only.
        unsafe { asm!("rdrand {}", "setc {}", out(reg) number, out(reg_byte) is_there, options(nomem, nostack)) };
        (is_there != 0).then_some(number)
    };
    tries(has_seed).find_map(|()| seed()).or_else(|| tries(has_random).find_map(|()| random()))
}

/// Ends the thread by a fault, so that whoever handles the domain's faults learns of it.
pub(crate) fn stop() -> ! {
    // SAFETY: UD2 raises an exception and nothing else.
    unsafe { asm!("ud2", options(noreturn, nomem, nostack)) }
}

/// Where the domain's first thread starts, with the address of [`StartInfo`](dragonfly_abi::StartInfo) in RDI and RSP
/// at the end of its stack.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn _start() -> ! {
    // A zero frame pointer ends back-traces; the call aligns the stack as the System V ABI 3.2.2 wants it.
    naked_asm!("xor ebp, ebp", "mov rsi, rsp", "call {start}", "ud2", start = sym crate::start::start)
}

/// Where the other threads start, with the address of their [`Start`](crate::thread) in RDI.
#[unsafe(naked)]
unsafe extern "C" fn start_thread() -> ! {
    naked_asm!("xor ebp, ebp", "call {run}", "ud2", run = sym crate::thread::run)
}

/// Address where the domain's further threads start.
pub(crate) fn thread_entry() -> u64 {
    start_thread as *const () as u64
}
