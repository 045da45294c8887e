//! The console server's client.

use alloc::vec::Vec;
use core::time::Duration;

use dragonfly_abi::{HandleTransfer, Rights, Status};
use dragonfly_console::protocol::{
    ENDED, EndStatus, GATE_NAME, MAX_BYTES, MOVE, OK, PENDING, READ, REGISTER, TIME, WRITE,
};
use dragonfly_rt::sys::{Gate, Message, Notification, Object, clock_now_ns};
use dragonfly_rt::{named, time};
use log::warn;

use crate::clock::TimeOfDay;

/// How long a full queue of the server takes at 115,200 baud, and half as long again.
const DRAIN_NS: u64 = 9_000_000_000;

/// How long to wait before the line is looked at again.
const DRAIN_STEP: Duration = Duration::from_millis(1);

/// A guest's console. Without a console server nothing is shown and nothing comes.
pub(crate) struct Console {
    gate: Option<Gate>,
    guest: u64,
    /// What the line has not taken yet.
    pending: Vec<u8>,
}

impl Console {
    /// Finds the console server.
    pub(crate) fn new(guest: u32) -> Self {
        let gate = named(GATE_NAME);
        if gate.is_none() {
            warn!("there is no console server: add `use = [\"console\"]` to the VMM in bundle.toml");
        }
        Self { gate, guest: guest.into(), pending: Vec::new() }
    }

    /// Lets input set these bits of a notification.
    pub(crate) fn register(&self, notification: Notification, bits: u64) -> Result<(), Status> {
        let Some(gate) = self.gate else { return Ok(()) };
        let handle = notification.copy(Rights::SEND | Rights::COPY, bits)?;
        let transfer = [HandleTransfer::copy(handle.handle(), Rights::SEND)];
        let reply = gate.call(Message::with(REGISTER, [self.guest, 0, 0, 0], &[], &transfer)?)?;
        if reply.tag.label() == OK { Ok(()) } else { Err(Status::Denied) }
    }

    /// Sends what the guest printed, after what is still to be sent. Whether all is sent.
    pub(crate) fn write(&mut self, bytes: impl Iterator<Item = u8>) -> bool {
        self.pending.extend(bytes);
        let mut sent = 0;
        while let Some(rest) = self.pending.get(sent..).filter(|rest| !rest.is_empty()) {
            let part = rest.get(..MAX_BYTES).unwrap_or(rest);
            match self.call(WRITE, 0, part).map(|reply| reply.words[0] as usize) {
                Some(taken) if taken < part.len() => {
                    sent += taken;
                    break;
                }
                Some(_) => sent += part.len(),
                // Nobody is there to read it.
                None => sent = self.pending.len(),
            }
        }
        self.pending.drain(..sent.min(self.pending.len()));
        self.pending.is_empty()
    }

    /// Whether nothing is left to be sent.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty()
    }

    /// Takes input that has come, as many bytes as fit; gives their number.
    pub(crate) fn read(&self, into: &mut [u8]) -> usize {
        self.call(READ, 0, &[]).map_or(0, |reply| reply.read(into))
    }

    /// Takes an order to let a vCPU go on on another CPU: their numbers.
    pub(crate) fn take_move(&self) -> Option<(u32, u32)> {
        let [is_there, vcpu, cpu, _] = self.call(MOVE, 0, &[])?.words;
        (is_there == 1).then_some((u32::try_from(vcpu).ok()?, u32::try_from(cpu).ok()?))
    }

    /// Says how the guest ended, or that it starts anew.
    pub(crate) fn ended(&self, status: EndStatus) {
        self.call(ENDED, status as u64, &[]);
    }

    /// Waits until all that was written has left the machine, which may be switched off after that. A line that nobody
    /// takes anything from is not waited for.
    pub(crate) fn drain(&self) {
        let last_ns = clock_now_ns().saturating_add(DRAIN_NS);
        while self.call(PENDING, 0, &[]).is_some_and(|reply| reply.words[0] > 0) && clock_now_ns() < last_ns {
            time::sleep(DRAIN_STEP);
        }
    }

    /// The time of day.
    pub(crate) fn time_of_day(&self) -> TimeOfDay {
        self.call(TIME, 0, &[]).map_or_else(TimeOfDay::default, |reply| {
            let [seconds, at_ns, ..] = reply.words;
            TimeOfDay { seconds, at_ns }
        })
    }

    /// The reply to a request that was carried out.
    fn call(&self, label: u32, word: u64, bytes: &[u8]) -> Option<Message> {
        let message = Message::with(label, [self.guest, word, 0, 0], bytes, &[]).ok()?;
        self.gate?.call(message).ok().filter(|reply| reply.tag.label() == OK)
    }
}
