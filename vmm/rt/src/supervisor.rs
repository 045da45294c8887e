//! What a domain may ask of the supervisor, over the gate that it is started with under the name `supervisor`.
//!
//! The badge of that gate's handle tells the supervisor which domain it is; the domain's faults go to it as well.

use dragonfly_abi::Status;

use crate::start::named;
use crate::sys::{Gate, Message};

/// Name of the supervisor's gate among a domain's handles.
pub const GATE_NAME: &str = "supervisor";

/// Label of a request: the domain is about to end, with the exit code in the first word.
pub const FINISH: u32 = 1;

/// Label of a request: the machine is to be stopped now, with the exit code in the first word. Needs the grant
/// `shutdown`.
pub const SHUT_DOWN: u32 = 2;

/// Label of a request: the domain with the name in the message's data is to be ended and started anew. Needs its name in
/// the domain's `restart`.
pub const RESTART: u32 = 3;

/// Label of a request: the domain that provides the gate with the name in the message's data does not answer. Needs the gate's
/// name in the domain's `use`. The supervisor sends a [`CHECK`] by itself, and starts the provider anew if that is not answered.
pub const HANGS: u32 = 4;

/// Label of a message by which the supervisor finds out whether a gate's provider answers: any answer will do. A provider
/// locks first what its work needs, so that it answers only if that goes on.
pub const CHECK: u32 = u32::MAX;

/// Label of the reply to a request that was carried out.
pub const DONE: u32 = 0;

/// Label of the reply to a request that the domain may not make, or that there is not.
pub const REFUSED: u32 = 1;

/// Tells the supervisor with which exit code this domain ends: 0 for success. Without it a domain that ends without a
/// fault has succeeded.
///
/// # Errors
/// [`Status::BadHandle`] without a supervisor, and what [`Gate::call`] gives.
pub fn finish(exit_code: u8) -> Result<(), Status> {
    request(FINISH, exit_code)
}

/// Stops the machine.
///
/// # Errors
/// [`Status::Denied`] without the grant `shutdown`, [`Status::BadHandle`] without a supervisor, and what
/// [`Gate::call`] gives.
pub fn shut_down(exit_code: u8) -> Result<(), Status> {
    request(SHUT_DOWN, exit_code)
}

/// Has another domain ended, whatever it does, and started anew; that does not count as a death of it.
///
/// # Errors
/// [`Status::Denied`] if the domain may not do that to the other, or that does not run or could not be started anew,
/// [`Status::BadHandle`] without a supervisor, and what [`Gate::call`] gives.
pub fn restart(name: &str) -> Result<(), Status> {
    ask(Message::with(RESTART, [0; 4], name.as_bytes(), &[])?)
}

/// Has the provider of a gate started anew, as by [`restart`], if it does not answer the supervisor either.
///
/// # Errors
/// [`Status::Denied`] if it answers or does not run, could not be started anew, or this domain does not use the gate,
/// [`Status::BadHandle`] without a supervisor, and what [`Gate::call`] gives.
pub fn report_hang(gate: &str) -> Result<(), Status> {
    ask(Message::with(HANGS, [0; 4], gate.as_bytes(), &[])?)
}

fn request(label: u32, exit_code: u8) -> Result<(), Status> {
    ask(Message::new(label, [exit_code.into(), 0, 0, 0]))
}

fn ask(message: Message) -> Result<(), Status> {
    let gate: Gate = named(GATE_NAME).ok_or(Status::BadHandle)?;
    let reply = gate.call(message)?;
    if reply.tag.label() == DONE { Ok(()) } else { Err(Status::Denied) }
}
