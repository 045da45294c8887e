//! SVM, virtualization of AMD processors (APM 2, chapter 15, appendices B and C).
//!
//! [`Vmcb`] is the page that VMRUN takes: controls, which say what makes the guest leave ([`intercept`]) and what is
//! injected ([`event`]), and the guest's state. On exit it tells why ([`exit`]). Ports and model-specific registers
//! are intercepted one by one through bit maps ([`permission`]). The features are `cpuid::ExtendedAEdx`, the registers
//! `msr::VM_CR`, `msr::VM_HSAVE_PA` and `msr::Efer::SVME`.

pub mod control;
pub mod event;
pub mod exit;
pub mod intercept;
pub mod permission;
mod vmcb;

pub use vmcb::{ControlArea, SegmentAttributes, StateSaveArea, Vmcb, VmcbSegment};
