//! x86-64 processors and the devices that every PC has.

pub mod apic;
pub mod control;
pub mod cpuid;
pub mod descriptor;
pub mod exception;
pub mod hpet;
pub mod ioapic;
pub mod kvm;
pub mod msi;
pub mod msr;
pub mod paging;
pub mod pic;
pub mod pit;
pub mod pm1;
pub mod pmtimer;
pub mod svm;
pub mod vmx;
