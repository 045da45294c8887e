//! Emulates the instructions of a guest that touch devices: accesses to memory where a device is, and string I/O.
//!
//! [`emulate`] executes the one instruction at RIP as the processor would: it walks the guest's page tables
//! ([`translate`]), fetches and decodes the instruction, checks segments, rights and alignment, performs the accesses
//! through [`Memory`] and [`Ports`] in the instruction's order, and changes the registers in [`Cpu`]. Either all of an
//! instruction happens or nothing but the exception that it raises; a repeated string instruction stops between two
//! iterations.
//!
//! Code, tables and registers are a hostile guest's. Whatever they hold, the work of a call is bounded and its outcome is
//! that of the manual, or [`EmulateError::Unsupported`] with the instruction's bytes.
//!
//! Supported: the moves between general registers and memory (MOV, MOVZX, MOVSX, MOVSXD, MOVBE, MOVNTI, CMOVcc, SETcc, XCHG,
//! PUSH, POP), integer arithmetic and logic, shifts and rotations, bit tests, XADD, CMPXCHG, CMPXCHG8B and CMPXCHG16B, the
//! string instructions with their repeat prefixes, INS and OUTS among them. Not supported, as devices are not accessed that
//! way: anything with vector or x87 registers, loads of segment registers, far and near branches through memory.
//!
//! Protection keys, shadow stacks and linear-address masking are not modelled: the machine must not offer PKU, PKS, CET and
//! LAM to its guests.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

mod alu;
mod atomic;
mod bits;
mod cpu;
mod emulate;
mod emulator;
mod execute;
mod fetch;
mod linear;
mod memory;
mod moves;
mod operand;
mod outcome;
mod paging;
mod segmentation;
mod shift;
mod stack;
mod strings;
mod tables;
mod walk;
mod width;

pub use cpu::{Cpu, Segment, SegmentName};
pub use emulate::{Cause, emulate, instruction_length};
pub use emulator::{Emulator, Registers, Translated};
pub use memory::{GuestPhys, Memory, Miss, Ports};
pub use outcome::{EmulateError, Fault, MAX_INSTRUCTION_BYTES, Outcome, Stop};
pub use paging::{Access, Paging, translate};
