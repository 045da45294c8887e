//! A guest's machine: the devices, ACPI tables and CPUID tables that its kernel finds, with no hypervisor in it.
//!
//! [`Machine`] is what the owner calls when a vCPU accesses a port or memory that is not RAM; it gives back interrupts as
//! [`Message`]s and what the guest did to the machine as [`Event`]s. [`platform`] is the map of addresses, [`acpi`] makes the
//! tables that tell a kernel of it. Each device is
//! a file: [`uart`], [`rtc`], [`ioapic`], [`pm`], [`reset`], [`debug_port`], [`pci`],
//! [`virtio`].
//!
//! All that a guest does is foreign: no access panics, takes more than bounded time or makes the machine grow.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

pub mod acpi;
pub mod bus;
pub mod cpuid;
pub mod debug_port;
pub mod ioapic;
mod machine;
mod message;
pub mod pci;
pub mod platform;
pub mod pm;
pub mod reset;
pub mod rtc;
mod state;
pub mod uart;
pub mod virtio;

pub use dragonfly_guest_boot::GuestPhys;
pub use machine::{Config, Event, Machine};
pub use message::Message;
pub use state::{SectionName, StateError};
