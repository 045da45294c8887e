//! Validating reader of the static ACPI tables that the kernel needs.
//!
//! [`Acpi::discover`] follows RSDP → XSDT (or RSDT) → tables, through a [`TableMemory`] that the platform owner
//! provides. Firmware is not trusted: every table is bounded and checksummed before any field is read, every field
//! is read through a bounds check, every list has a fixed capacity. A corrupt table is reported by name as a
//! [`Problem`] and then counts as absent, so the platform boots without what that table describes. Whatever the
//! bytes, discovery ends without a panic after work that is bounded by [`MAX_TABLE_SIZE`] and [`MAX_TABLES`].
//!
//! One file per table; `aml.rs` holds the one value that is needed from a definition block. Numbers of tables and
//! sections are those of ACPI 6.5 unless a file says otherwise.
//!
//! Why not the `acpi` crate: its version 5.2 trusts lengths (a zero-length MADT entry is an endless loop) and lacks
//! SRAT, SLIT, DMAR and IVRS; versions 6 and later need a nightly compiler.

#![no_std]
#![forbid(unsafe_code)]

mod address;
mod aml;
mod discover;
mod dmar;
mod fadt;
mod fields;
mod hpet;
mod ivrs;
mod list;
mod madt;
mod mcfg;
mod memory;
mod problem;
mod rsdp;
mod slit;
mod spcr;
mod srat;
mod subtables;
mod table;

pub use address::{AddressSpace, GenericAddress};
pub use aml::{SleepType, sleep_type_s5};
pub use discover::{Acpi, MAX_TABLES};
pub use dmar::{Dmar, RemappingUnit};
pub use fadt::{Fadt, PmTimer, ResetRegister};
pub use hpet::Hpet;
pub use ivrs::{Ivrs, VirtualizationUnit};
pub use madt::{
    ALL_PROCESSORS, InterruptOverride, InterruptSource, IoApic, LocalApicNmi, Madt, Polarity, Processor,
    ProcessorState, Trigger,
};
pub use mcfg::{Mcfg, Segment};
pub use memory::TableMemory;
pub use problem::{AcpiError, Problem, Signature, TableFault};
pub use slit::{LOCAL_DISTANCE, Slit, UNREACHABLE};
pub use spcr::SerialConsole;
pub use srat::{CpuAffinity, MemoryAffinity, Srat};
pub use table::MAX_TABLE_SIZE;
