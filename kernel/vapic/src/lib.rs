//! A guest's local APIC as pure logic (SDM 3A, "Advanced Programmable Interrupt Controller (APIC)").
//!
//! - `local`: [`LocalApic`], and what its owner delivers to the guest. `posting`: what is posted to it.
//! - `lending`: what a processor that delivers interrupts itself has meanwhile.
//! - `register`: the guest's registers, as MSRs (x2APIC) and as a page (xAPIC).
//! - `mode`: `IA32_APIC_BASE`, and which messages are for this APIC.
//! - `message`: what interrupt commands and message-signalled interrupts ask for.
//! - `timer`: the timer in its three modes. `clock`: what it counts.
//! - `state`: all of it as a plain structure.
//! - `vectors`, `owned`: sets of vectors, and values that only the owner changes.
//!
//! Each APIC has one owner at a time: the CPU that runs its vCPU. Functions that are the owner's are correct only there;
//! called elsewhere they lose interrupts of this guest, and harm nobody else.
#![no_std]
#![forbid(unsafe_code)]

mod clock;
mod lending;
mod local;
mod message;
mod mode;
mod owned;
mod posting;
mod register;
mod state;
mod timer;
mod vectors;

pub use clock::{Clock, Ratio};
pub use lending::VectorSet;
pub use local::LocalApic;
pub use message::{BROADCAST, DeliveryMode, Message, Shorthand, Trigger};
pub use posting::Requests;
pub use register::{Effect, Fault};
pub use state::{ApicState, StateError};
