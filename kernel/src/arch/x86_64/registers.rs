//! Privileged instructions that `x86_64` has no safe form of, each with the reason why it is sound here.
#![expect(unsafe_code, reason = "privileged instructions")]

use core::arch::asm;

use dragonfly_memory::HostPhys;
use x86_64::registers::model_specific::Msr;

/// Reads a model-specific register.
///
/// The caller names registers that exist: a read of another one would be a #GP in the kernel, a panic, but no
/// unsoundness.
#[inline]
pub fn read_msr(msr: u32) -> u64 {
    // SAFETY: Reading a register that exists has no effect on memory.
    unsafe { Msr::new(msr).read() }
}

/// Writes a model-specific register.
///
/// # Safety
/// The register exists, and its new value breaks nothing the kernel relies on.
#[inline]
pub unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: The caller's contract.
    unsafe { Msr::new(msr).write(value) }
}

/// The time-stamp counter.
#[inline]
pub fn read_tsc() -> u64 {
    // SAFETY: RDTSC reads a counter.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// Root of the active page tables.
#[inline]
pub fn read_cr3() -> HostPhys {
    let value: u64;
    // SAFETY: Reading CR3 has no effect.
    unsafe { asm!("mov {}, cr3", out(reg) value, options(nomem, nostack, preserves_flags)) };
    HostPhys::new(value & dragonfly_hw::x86::control::CR3_ADDRESS)
}

/// Makes page tables active, and forgets all translations that are not global.
///
/// # Safety
/// The tables map the kernel as the active ones do, and live until others are active.
#[inline]
pub unsafe fn write_cr3(root: HostPhys) {
    // SAFETY: The caller's contract.
    unsafe { asm!("mov cr3, {}", in(reg) root.as_u64(), options(nostack, preserves_flags)) };
}

/// Reads from an I/O port.
#[inline]
pub fn port_in(port: u16, width: u8) -> u32 {
    let value: u32;
    // SAFETY: Ports reach devices, not memory; which ports may be used is decided by who holds a capability. DMA set
    // off through a device is the device's danger until there is an IOMMU (docs/CAVEATS).
    unsafe {
        match width {
            1 => {
                let byte: u8;
                asm!("in al, dx", in("dx") port, out("al") byte, options(nostack, preserves_flags));
                value = u32::from(byte);
            }
            2 => {
                let word: u16;
                asm!("in ax, dx", in("dx") port, out("ax") word, options(nostack, preserves_flags));
                value = u32::from(word);
            }
            _ => asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags)),
        }
    }
    value
}

/// Writes to an I/O port.
#[inline]
pub fn port_out(port: u16, width: u8, value: u32) {
    // SAFETY: As in `port_in`.
    unsafe {
        match width {
            1 => asm!("out dx, al", in("dx") port, in("al") value as u8, options(nostack, preserves_flags)),
            2 => asm!("out dx, ax", in("dx") port, in("ax") value as u16, options(nostack, preserves_flags)),
            _ => asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)),
        }
    }
}

/// Stops this CPU for good.
pub fn halt() -> ! {
    loop {
        // SAFETY: Nothing wakes the CPU but an NMI, after which it halts again.
        unsafe { asm!("cli", "hlt", options(nomem, nostack)) };
    }
}
