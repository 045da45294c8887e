//! Validating reader of the static ACPI tables that the kernel needs.
//!
//! [`Acpi::discover`] follows RSDP → XSDT (or RSDT) → tables, through a [`TableMemory`] that the platform owner
//! provides. Firmware is not trusted: every table is bounded and checksummed before any field is read, every field
//! is read through a bounds check, every list has a fixed capacity. A corrupt table is reported by name as a
//! [`Problem`] and then counts as absent, so the platform boots without what that table describes. Whatever the
//! bytes, discovery ends without a panic after work that is bounded by [`MAX_TABLE_SIZE`] and [`MAX_TABLES`].
//!
//! One file per table. Numbers of tables and sections are those of ACPI 6.5 unless a file says otherwise.
//!
//! Why not the `acpi` crate: its version 5.2 trusts lengths (a zero-length MADT entry is an endless loop); versions 6 and
//! later need a nightly compiler.

#![no_std]
#![forbid(unsafe_code)]

mod address;
mod discover;
mod fadt;
mod fields;
mod hpet;
mod list;
mod madt;
mod mcfg;
mod memory;
mod problem;
mod rsdp;
mod table;

pub use discover::{Acpi, MAX_TABLES};
pub use madt::{IoApic, Madt};
pub use mcfg::{Mcfg, Segment};
pub use memory::TableMemory;
pub use problem::{AcpiError, Problem, Signature, TableFault};
pub use table::MAX_TABLE_SIZE;
