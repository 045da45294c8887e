//! Instructions.

use core::arch::asm;
use core::arch::x86_64::__cpuid_count;

/// A value that IN, OUT and MOV have a form for.
pub trait Word: Copy {
    /// IN.
    fn read_port(port: u16) -> Self;
    /// OUT.
    fn write_port(port: u16, value: Self);
}

macro_rules! word {
    ($type:ty, $register:tt) => {
        impl Word for $type {
            fn read_port(port: u16) -> Self {
                let value;
                // SAFETY: what a device does with it is the guest's own affair.
                unsafe { asm!(concat!("in ", $register, ", dx"), in("dx") port, out($register) value, options(nostack)) };
                value
            }

            fn write_port(port: u16, value: Self) {
                // SAFETY: what a device does with it is the guest's own affair.
                unsafe { asm!(concat!("out dx, ", $register), in("dx") port, in($register) value, options(nostack)) };
            }
        }
    };
}

word!(u8, "al");
word!(u16, "ax");
word!(u32, "eax");

/// IN.
pub fn read_port<T: Word>(port: u16) -> T {
    T::read_port(port)
}

/// OUT.
pub fn write_port<T: Word>(port: u16, value: T) {
    T::write_port(port, value);
}

/// Reads memory by one instruction. The address must be mapped, or an exception follows.
#[inline(always)]
pub fn peek<T: Copy>(address: u64) -> T {
    // SAFETY: integers may have any content; the compiler knows of no object there that this would be an alias of.
    unsafe { core::ptr::with_exposed_provenance::<T>(address as usize).read_volatile() }
}

/// Writes memory by one instruction. The caller knows what is there.
#[inline(always)]
pub fn poke<T: Copy>(address: u64, value: T) {
    // SAFETY: as above; callers write to devices and to RAM that nothing else uses.
    unsafe { core::ptr::with_exposed_provenance_mut::<T>(address as usize).write_volatile(value) };
}

/// RDMSR.
pub fn read_msr(register: u32) -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading has no effect beyond an exception.
    unsafe { asm!("rdmsr", in("ecx") register, out("eax") low, out("edx") high, options(nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// WRMSR. The caller knows what the register is.
pub fn write_msr(register: u32, value: u64) {
    // SAFETY: callers write registers that the running code does not depend on, or that keep it running.
    unsafe {
        asm!("wrmsr", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack));
    };
}

/// CPUID: EAX, EBX, ECX, EDX.
pub fn cpuid(leaf: u32, subleaf: u32) -> [u32; 4] {
    let answer = __cpuid_count(leaf, subleaf);
    [answer.eax, answer.ebx, answer.ecx, answer.edx]
}

/// RDTSC, after all that is before it.
#[inline(always)]
pub fn tsc() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading has no effect.
    unsafe { asm!("lfence", "rdtsc", out("eax") low, out("edx") high, options(nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

macro_rules! control_register {
    ($read:ident, $write:ident, $name:tt) => {
        #[doc = concat!("Reads ", $name, ".")]
        pub fn $read() -> u64 {
            let value;
            // SAFETY: reading has no effect.
            unsafe { asm!(concat!("mov {}, ", $name), out(reg) value, options(nostack)) };
            value
        }

        #[doc = concat!("Writes ", $name, ". The caller keeps the running code mapped and legal.")]
        pub fn $write(value: u64) {
            // SAFETY: the callers' contract.
            unsafe { asm!(concat!("mov ", $name, ", {}"), in(reg) value, options(nostack)) };
        }
    };
}

control_register!(cr0, set_cr0, "cr0");
control_register!(cr2, set_cr2, "cr2");
control_register!(cr3, set_cr3, "cr3");
control_register!(cr4, set_cr4, "cr4");
control_register!(cr8, set_cr8, "cr8");
control_register!(dr0, set_dr0, "dr0");
control_register!(dr1, set_dr1, "dr1");
control_register!(dr2, set_dr2, "dr2");
control_register!(dr3, set_dr3, "dr3");
control_register!(dr6, set_dr6, "dr6");
control_register!(dr7, set_dr7, "dr7");

/// RFLAGS.
pub fn flags() -> u64 {
    let flags;
    // SAFETY: the stack pointer is as before.
    unsafe { asm!("pushfq", "pop {}", out(reg) flags) };
    flags
}

/// Sets RFLAGS.
pub fn set_flags(flags: u64) {
    // SAFETY: the stack pointer is as before; callers set flags that the running code can do with.
    unsafe { asm!("push {}", "popfq", in(reg) flags) };
}

/// STI.
#[inline(always)]
pub fn allow_interrupts() {
    // SAFETY: each vector has a handler.
    unsafe { asm!("sti") };
}

/// CLI.
#[inline(always)]
pub fn forbid_interrupts() {
    // SAFETY: nothing depends on interrupts.
    unsafe { asm!("cli") };
}

/// HLT.
#[inline(always)]
pub fn halt() {
    // SAFETY: the caller sees to it that something wakes the CPU.
    unsafe { asm!("hlt") };
}

/// Sleeps until an interrupt, which is handled before this returns with interrupts forbidden. None can come between the
/// two instructions (SDM 2B, STI).
#[inline(always)]
pub fn sleep() {
    // SAFETY: the caller sees to it that something wakes the CPU.
    unsafe { asm!("sti", "hlt", "cli") };
}

/// INVLPG.
pub fn flush(address: u64) {
    // SAFETY: forgets a translation.
    unsafe { asm!("invlpg [{}]", in(reg) address) };
}

/// XGETBV of register 0.
pub fn xcr0() -> u64 {
    let (low, high): (u32, u32);
    // SAFETY: reading has no effect beyond an exception.
    unsafe { asm!("xgetbv", in("ecx") 0, out("eax") low, out("edx") high, options(nostack)) };
    u64::from(high) << 32 | u64::from(low)
}

/// XSETBV.
pub fn set_xcr(register: u32, value: u64) {
    // SAFETY: compiled code uses none of the components.
    unsafe {
        asm!("xsetbv", in("ecx") register, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack));
    };
}

/// Whether the processor is Intel's: the makers have different instructions for a hypercall.
pub fn is_intel() -> bool {
    cpuid(0, 0)[1] == u32::from_le_bytes(*b"Genu")
}

/// A hypercall: what RAX was after it.
pub fn hypercall(number: u64, arguments: [u64; 4]) -> u64 {
    let result;
    let [first, second, third, fourth] = arguments;
    // RBX is the compiler's own.
    if is_intel() {
        // SAFETY: the hypercall changes RAX and what it was asked to.
        unsafe {
            asm!("xchg rbx, {0}", "vmcall", "xchg rbx, {0}", inout(reg) first => _, inout("rax") number => result,
                in("rcx") second, in("rdx") third, in("rsi") fourth);
        }
    } else {
        // SAFETY: as above.
        unsafe {
            asm!("xchg rbx, {0}", "vmmcall", "xchg rbx, {0}", inout(reg) first => _, inout("rax") number => result,
                in("rcx") second, in("rdx") third, in("rsi") fourth);
        }
    }
    result
}
