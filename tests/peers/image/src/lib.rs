//! What a machine needs to measure KVM, beside a stock kernel: an initramfs, a command line, and the meaning of what it
//! prints.
//!
//! The machine boots the kernel with [`COMMAND_LINE`] and [`Initramfs`], prints [`Figures`] on its first serial port and
//! switches itself off.
#![forbid(unsafe_code)]

mod figures;
mod initramfs;
mod qemu;

pub use figures::{Figure, Figures};
pub use initramfs::{COMMAND_LINE, Initramfs, LinuxGuest, MODULES};
pub use qemu::QemuMicrovm;
