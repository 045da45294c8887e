//! Definitions of the hardware: registers, their fields, descriptor and table formats. Data only.
//!
//! Names are the manuals' own, in the manuals' order, in columns. Nothing here reads or writes hardware; the only
//! functions are constant ones that put fields together or take them apart. Sizes, offsets and encodings are asserted
//! at compile time.
//!
//! Manuals, by the short names that the files use:
//!
//! | short | manual |
//! |---|---|
//! | SDM 2A, 3A, 4, … | Intel 64 and IA-32 Architectures Software Developer's Manual, by volume |
//! | APM 2, APM 3 | AMD64 Architecture Programmer's Manual, 24593 and 24594 |
//! | PPR | Processor Programming Reference of an AMD family |
//! | ACPI | Advanced Configuration and Power Interface Specification 6.5 |
//!
//! Chapter numbers of the SDM change from edition to edition, so it is cited by the title of the section or table.

#![no_std]
#![forbid(unsafe_code)]

#[macro_use]
mod columns;

pub mod x86;
