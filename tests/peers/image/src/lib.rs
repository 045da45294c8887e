//! What a machine needs to measure KVM, beside a stock kernel: an initramfs, a command line, and the meaning of what it
//! prints.
//!
//! The machine boots the kernel with [`COMMAND_LINE`] and [`Initramfs`], prints [`Figures`] on its first serial port and
//! switches itself off. With [`RequestsImage`] it measures requests to virtual devices instead.
//!
//! Figures repeat exactly in QEMU with `-cpu max,x2apic=off,rdrand=off,rdseed=off -icount shift=0,sleep=off
//! -accel tcg,thread=single -rtc base=2025-01-01,clock=vm`: random numbers and the time of day reach into how Linux lays
//! its memory out. In Bochs the model must be one without posted interrupts, such as `corei7_haswell_4770`, as KVM does
//! not align their descriptors as Bochs 3.0 wants, and the machine has one CPU. Both emulators count each byte that
//! `rep stosb` clears, so that a fresh page costs KVM thousands of ticks there that hardware does not spend.
#![forbid(unsafe_code)]

mod figures;
mod initramfs;
mod qemu;
mod requests;

pub use figures::{Figure, Figures};
pub use initramfs::{COMMAND_LINE, Initramfs, LinuxGuest, MODULES};
pub use qemu::{Qemu, QemuBuild};
pub use requests::{REQUESTS_MODULES, REQUESTS_OPTION, RequestsImage};
