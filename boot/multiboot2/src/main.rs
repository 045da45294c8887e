//! The Multiboot2 loader's program; see the library for what it does.

#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod metal;

/// On the host there is nothing to load; the library's tests stand for the program.
#[cfg(not(target_os = "none"))]
fn main() {}
