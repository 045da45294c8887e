//! From a vCPU's exit to the registers after the instruction.

use dragonfly_hw::x86::control::Rflags;
use iced_x86::Instruction;

use crate::cpu::Cpu;
use crate::fetch::{Code, fetch, offset_of};
use crate::memory::{Memory, Ports};
use crate::operand::Execution;
use crate::outcome::{EmulateError, MAX_INSTRUCTION_BYTES, Outcome, Stop};
use crate::strings::StringInstruction;

/// Why the instruction has to be emulated.
///
/// The processor has checked the right to use a port before it left the guest. Were another port instruction emulated, a
/// guest's program could put it there in between and so reach ports that its kernel denies.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Cause {
    /// An access to memory that the guest does not have.
    Memory,
    /// IN, OUT, INS or OUTS.
    Port {
        /// The port that the exit named.
        port: u16,
        /// Bytes of the access: 1, 2 or 4.
        bytes: u8,
    },
}

/// Executes the instruction at RIP; of a repeated string instruction at most `max_iterations` iterations (0 counts as 1).
///
/// The registers change as the outcome says. Interrupts are not looked at: they come before or after, and between two calls
/// for the same repeated instruction.
///
/// # Errors
/// [`EmulateError`]: the guest cannot go on.
pub fn emulate<B: Memory + Ports>(
    cpu: &mut Cpu,
    bus: &mut B,
    cause: Cause,
    max_iterations: u32,
) -> Result<Outcome, EmulateError> {
    execute(cpu, bus, cause, max_iterations, &mut Seen::default())
}

/// What was seen of the instruction, as far as it came.
#[derive(Debug, Default)]
pub struct Seen {
    /// The bytes that were fetched.
    pub code: Code,
    /// What they are.
    pub instruction: Option<Instruction>,
    /// Whether registers have changed before its end.
    has_changed: bool,
}

/// As [`emulate`].
pub fn execute<B: Memory + Ports>(
    cpu: &mut Cpu,
    bus: &mut B,
    cause: Cause,
    max_iterations: u32,
    seen: &mut Seen,
) -> Result<Outcome, EmulateError> {
    match step(cpu, bus, cause, max_iterations, seen) {
        Ok(outcome) => Ok(outcome),
        Err(Stop::Fault(fault)) => Ok(Outcome::Fault(fault)),
        Err(Stop::Retry) if seen.has_changed => Ok(Outcome::Partial),
        Err(Stop::Retry) => Ok(Outcome::Retry),
        Err(Stop::Miss(address)) => Err(EmulateError::Miss(address)),
        Err(Stop::Unsupported) => {
            let mut bytes = [0; MAX_INSTRUCTION_BYTES];
            bytes.iter_mut().zip(&seen.code).for_each(|(to, from)| *to = *from);
            Err(EmulateError::Unsupported { bytes, length: seen.code.len() })
        }
    }
}

/// The length in bytes of the instruction at RIP, for exits that do not tell.
///
/// # Errors
/// Any [`Stop`]; after [`Stop::Fault`] the guest is to get the exception, after [`Stop::Retry`] to run the instruction again.
pub fn instruction_length(cpu: &Cpu, memory: &mut impl Memory) -> Result<usize, Stop> {
    fetch(cpu, memory, &mut Code::new()).map(|instruction| instruction.len())
}

/// Executes the instruction, or so many iterations of it.
fn step<B: Memory + Ports>(
    cpu: &mut Cpu,
    bus: &mut B,
    cause: Cause,
    max_iterations: u32,
    seen: &mut Seen,
) -> Result<Outcome, Stop> {
    let instruction = *seen.instruction.insert(fetch(cpu, bus, &mut seen.code)?);
    let string = StringInstruction::decode(&instruction);
    let mut execution = Execution { cpu: cpu.clone(), memory: bus, instruction: &instruction };
    let cause_now = match string {
        Some(string) => string.port(&execution.cpu),
        None => execution.port(),
    };
    if cause_now.map_or(Cause::Memory, |(port, width)| Cause::Port { port, bytes: width.bytes() as u8 }) != cause {
        return Err(Stop::Retry);
    }
    match string {
        None => execution.execute()?,
        Some(string) if execution.is_string_over(string) => {}
        Some(string) => {
            let is_single_step = cpu.flags().contains(Rflags::TF);
            let mut left = if is_single_step { 1 } else { max_iterations.max(1) };
            while !execution.string_iteration(string)? {
                // What is done stays done, whatever becomes of the next iteration.
                cpu.clone_from(&execution.cpu);
                seen.has_changed = true;
                left -= 1;
                if left == 0 {
                    return Ok(Outcome::Partial);
                }
            }
        }
    }
    execution.cpu.rip = offset_of(&execution.cpu, instruction.len());
    execution.cpu.set_flags(Rflags::RF, Rflags::empty());
    *cpu = execution.cpu;
    Ok(Outcome::Done)
}
