//! VMX, virtualization of Intel processors (SDM 3C, "Introduction to Virtual Machine Extensions" and what follows it;
//! SDM 3D, appendices A to C).
//!
//! A VMCS ([`region`]) has [`field`]s, which VMREAD and VMWRITE reach one by one: [`control`]s, the guest's [`state`],
//! the host's, and on exit the reason ([`exit`]), a [`qualification`] and the [`event`] that was its cause or was
//! interrupted. [`capability`] tells what a processor can do, [`error`] why an instruction failed. [`ept`] translates
//! the guest's physical addresses.

pub mod capability;
pub mod control;
pub mod ept;
pub mod error;
pub mod event;
pub mod exit;
pub mod field;
pub mod qualification;
pub mod region;
pub mod state;
