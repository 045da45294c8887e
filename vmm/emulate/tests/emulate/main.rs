//! What an emulated instruction does to registers, memory, devices and ports, and which exceptions it raises.

mod devices;
mod faults;
mod modes;
mod ports;
mod repeated;
mod strings;
mod support;
mod walk;

use dragonfly_emulate::{Cause, Cpu, EmulateError, Outcome, emulate};
use support::Bus;

/// Emulates an instruction that accessed memory.
fn run(cpu: &mut Cpu, bus: &mut Bus) -> Result<Outcome, EmulateError> {
    emulate(cpu, bus, Cause::Memory, u32::MAX)
}
