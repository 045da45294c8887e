//! The other side of the card's domain: starts it, and is a VMM and a guest's drivers to it.

mod driver;
mod machine;

pub use driver::{Buffer, Driver};
pub use machine::{GateTransport, Session, Vmm, start};
