//! The Multiboot2 loader: what it does, as far as that can be tested on the host.
//!
//! GRUB (or another Multiboot2 boot loader) puts the program, the kernel's file and the bundle below 4 GiB and starts the
//! program, `main.rs`, which enters long mode and then goes through the modules here in this order:
//! - [`boot_info`] reads what the boot loader tells: memory, modules, command line, ACPI root pointer;
//! - [`machine`] makes one memory map of it and chooses an [`arena`], free memory in one piece that all else is taken from;
//! - [`kernel_image`] checks the kernel's ELF file, whose segments are then copied to frames of the arena;
//! - [`page_tables`] maps them, physical memory and the loader's own code;
//! - [`load`] does these steps, writes the handoff and says where to jump.
//!
//! All input is checked; what is wrong ends in a [`LoadError`] with one line for the user.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod arena;
pub mod boot_info;
mod error;
pub mod kernel_image;
pub mod load;
pub mod machine;
pub mod page_tables;
pub mod rsdp;

pub use error::LoadError;
