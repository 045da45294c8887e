//! The kernel as a program for the machine.
#![no_std]
#![no_main]

#[cfg(not(target_os = "none"))]
compile_error!("the kernel's image is built for a bare target: cargo xtask build");

// All code is in the library, its entry point included.
use dragonfly_kernel as _;

#[cfg(target_os = "none")]
#[panic_handler]
fn panic(info: &core::panic::PanicInfo) -> ! {
    dragonfly_kernel::arch::x86_64::panic::panic(info)
}
