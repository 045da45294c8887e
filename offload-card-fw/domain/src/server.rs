//! Receives the VMMs' calls.

use alloc::sync::Arc;
use alloc::vec::Vec;

use dragonfly_abi::{HandleTransfer, MessageKind, Rights, Status};
use dragonfly_card_gate::{Answer, KICK_HANDLE, LIFE_HANDLE, MAX_HANDLES, Request};
use dragonfly_rt::message;
use dragonfly_rt::sync::Mutex;
use dragonfly_rt::sys::{Gate, Message, Notification, Object, Owned, Received};
use dragonfly_vhost_user::{HEADER_LEN, MAX_PAYLOAD, Reply};

use crate::card::{self, Card};
use crate::faults::Faults;
use crate::platform::{GatePlatform, Resource};
use crate::port::Resources;

/// The server of the card's gate.
pub(crate) struct Server {
    gate: Gate,
    card: Arc<Mutex<Card<GatePlatform>>>,
    faults: Arc<Faults>,
    /// What the worker waits for.
    events: Notification,
    /// What each VMM has been given, so that it lives as long as the card.
    given: Vec<Given>,
}

/// Notifications of the VMM with this badge.
struct Given {
    badge: u64,
    /// The worker's, with the bits that tell that guest.
    kick: Owned<Notification>,
    /// Its own: what one VMM does to it is nothing to another.
    life: Owned<Notification>,
}

impl Server {
    /// A server of this gate, which kicks the worker by `events`.
    pub(crate) fn new(
        gate: Gate,
        card: Arc<Mutex<Card<GatePlatform>>>,
        faults: Arc<Faults>,
        events: Notification,
    ) -> Self {
        Self { gate, card, faults, events, given: Vec::new() }
    }

    /// Serves for as long as the gate works.
    pub(crate) fn serve(&mut self) -> Result<(), Status> {
        message::buffer().accept_handles(MAX_HANDLES);
        let mut received = self.gate.receive()?;
        loop {
            received = match received.message.tag.kind() {
                MessageKind::Call => {
                    let answer = self.request(&received)?;
                    self.gate.reply_receive(answer)?
                }
                // Nothing is bound to the gate, and no thread's faults come there.
                MessageKind::Notification | MessageKind::Fault => self.gate.receive()?,
            };
        }
    }

    fn request(&mut self, received: &Received) -> Result<Message, Status> {
        let message = &received.message;
        // Taken over in any case, so that those that were not asked for are closed.
        let resources: Resources<Resource> = (0..message.tag.handles())
            .filter_map(|index| message.handle(index))
            .map(|sent| Resource::new(sent.handle))
            .collect();
        let [word, ..] = message.words;
        let answered = match Request::decode(message.tag.label(), word) {
            Some(Request::Attach { machine }) => self.attach(machine, received.badge),
            Some(Request::Message { device }) => self.message(received, device, resources),
            Some(Request::Outcome { device }) => self.outcome(received.badge, device),
            None => {
                // For a check whether the card goes on: not if who serves the rings never lets go of them.
                drop(self.card.lock());
                Err(Failed::Answer(Answer::Refused))
            }
        };
        match answered {
            Ok(answer) => Ok(answer),
            Err(Failed::Answer(answer)) => Ok(Message::new(answer as u32, [0; 4])),
            Err(Failed::System(status)) => Err(status),
        }
    }

    fn attach(&mut self, machine: u32, badge: u64) -> Result<Message, Failed> {
        let devices = self.card.lock().attach(machine, badge)?;
        // A disk's thread may have been left something to do.
        self.events.signal(1)?;
        if !self.given.iter().any(|given| given.badge == badge) {
            // Which bits is nothing to the worker, which looks at all rings.
            let kick = self.events.copy(Rights::SEND | Rights::COPY, 1 << (machine % 32))?;
            self.given.push(Given { badge, kick, life: Notification::create()? });
        }
        let given = self.given.iter().find(|given| given.badge == badge).ok_or(Answer::Refused)?;
        let mut handles = [HandleTransfer::default(); 2];
        handles[KICK_HANDLE] = HandleTransfer::copy(given.kick.handle(), Rights::SEND | Rights::COPY);
        handles[LIFE_HANDLE] = HandleTransfer::copy(given.life.handle(), Rights::RECEIVE);
        Ok(Message::with(Answer::Done as u32, [devices.encode(), 0, 0, 0], &[], &handles)?)
    }

    fn message(&self, received: &Received, device: u32, resources: Resources<Resource>) -> Result<Message, Failed> {
        // One byte more than any message has, so that a longer one is not taken for a shorter.
        let mut bytes = [0; HEADER_LEN + MAX_PAYLOAD + 1];
        let size = received.message.read(&mut bytes);
        let bytes = bytes.get(..size).unwrap_or_default();
        let platform = || GatePlatform::new(&self.faults);
        let answered = card::message(&self.card, received.badge, device, bytes, resources, platform);
        // A ring may have been started with buffers in it already, or the message was left for a disk's thread.
        self.events.signal(1)?;
        answer(answered?.as_ref())
    }

    fn outcome(&self, badge: u64, device: u32) -> Result<Message, Failed> {
        answer(card::outcome(&self.card, badge, device)?.as_ref())
    }
}

/// The answer to a message that was done, with vhost-user's reply if there is one.
fn answer(reply: Option<&Reply<Resource>>) -> Result<Message, Failed> {
    Ok(Message::with(Answer::Done as u32, [0; 4], reply.map_or(&[], Reply::bytes), &[])?)
}

/// Why a request was not done.
enum Failed {
    /// The VMM is told.
    Answer(Answer),
    /// The card cannot go on.
    System(Status),
}

impl From<Answer> for Failed {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}

impl From<Status> for Failed {
    fn from(status: Status) -> Self {
        Self::System(status)
    }
}
