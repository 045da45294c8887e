//! What the machine's operator orders while the card runs: new rules for security groups, links that are down.
//!
//! Orders and answers go over the card's own console of the console server. An order is a line, a text and the byte [`END`]:
//!
//! | line | text | what is done |
//! | --- | --- | --- |
//! | `rules N` | machine file N as it is now | its rules take the place of the old ones |
//! | `link N NAME` | `up` or `down` | machine N's network device NAME is plugged in or out, and its driver told |
//! | `hang` | none | the card stops in the middle of its work, with its devices locked: for tests of what comes of that |
//!
//! The answer is a line, and it comes when what was ordered is done and [kept](crate::kept) for the next card.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use dragonfly_abi::{HandleTransfer, Rights, Status};
use dragonfly_console::protocol::{CARD, GATE_NAME, MAX_BYTES, OK, READ, REGISTER, WRITE};
use dragonfly_rt::sync::Mutex;
use dragonfly_rt::sys::{Gate, Message, Notification, Object, Owned};
use dragonfly_rt::{named, time};
use log::{info, warn};

use crate::card::{Card, Client};
use crate::kept::{Kept, KeptOrders};
use crate::machines::{self, Machine};

/// Ends an order: "end of transmission".
pub(crate) const END: u8 = 4;

/// The order to hang.
const HANG: &[u8] = b"hang\n";

/// The longest order, in bytes.
const MAX_ORDER: usize = 60 << 10;

/// How often, and with what pauses, a line that takes nothing is tried again.
const TRIES: u32 = 1000;
const PAUSE: Duration = Duration::from_millis(1);

/// The card's console.
pub(crate) struct Operator {
    gate: Gate,
    input: Owned<Notification>,
}

impl Operator {
    /// Takes the card's console; none if the domain has no console server, or the server has no such console.
    pub(crate) fn find() -> Result<Option<Self>, Status> {
        let Some(gate) = named::<Gate>(GATE_NAME) else { return Ok(None) };
        let input = Notification::create()?;
        let handle = input.copy(Rights::SEND | Rights::COPY, 1)?;
        let transfer = [HandleTransfer::copy(handle.handle(), Rights::SEND)];
        let reply = gate.call(Message::with(REGISTER, [CARD, 0, 0, 0], &[], &transfer)?)?;
        Ok((reply.tag.label() == OK).then_some(Self { gate, input }))
    }

    /// Does what is ordered, for as long as there is a console server.
    pub(crate) fn serve<P: Client>(
        &self,
        card: &Arc<Mutex<Card<P>>>,
        mut kept: KeptOrders<Kept>,
    ) -> Result<(), Status> {
        let mut orders = Orders::default();
        let mut bytes = [0; MAX_BYTES];
        loop {
            self.input.wait()?;
            while let size @ 1.. = self.call(READ, &[])?.read(&mut bytes) {
                for byte in bytes.get(..size).unwrap_or_default() {
                    let Some(order) = orders.push(*byte) else { continue };
                    if order == HANG {
                        return self.hang(card);
                    }
                    // The worker waits for the card, but not for a machine file to be read.
                    let outcome = Order::parse(&order).and_then(|order| order.obey(&mut card.lock()));
                    if outcome.is_ok() && !kept.keep(order) {
                        warn!("there is no room to keep the order: if the card is started anew it is forgotten");
                    }
                    let (Ok(answer) | Err(answer)) = outcome;
                    self.answer(&answer)?;
                }
            }
        }
    }

    /// Keeps the devices locked for ever.
    fn hang<P: Client>(&self, card: &Mutex<Card<P>>) -> Result<(), Status> {
        let _locked = card.lock();
        warn!("the card hangs, as was ordered");
        loop {
            self.input.wait()?;
        }
    }

    fn answer(&self, text: &str) -> Result<(), Status> {
        let line = format!("{text}\n");
        let mut rest = line.as_bytes();
        for _ in 0..TRIES {
            let part = rest.get(..MAX_BYTES).unwrap_or(rest);
            let [taken, ..] = self.call(WRITE, part)?.words;
            rest = usize::try_from(taken).ok().and_then(|taken| rest.get(taken..)).unwrap_or_default();
            if rest.is_empty() {
                break;
            }
            time::sleep(PAUSE);
        }
        Ok(())
    }

    fn call(&self, label: u32, bytes: &[u8]) -> Result<Message, Status> {
        self.gate.call(Message::with(label, [CARD, 0, 0, 0], bytes, &[])?)
    }
}

/// Finds orders in what comes.
#[derive(Default)]
pub(crate) struct Orders {
    bytes: Vec<u8>,
}

impl Orders {
    /// Takes the next byte; gives the order that it ends. Of one that is too long only the beginning is kept, which is more than
    /// any order has.
    pub(crate) fn push(&mut self, byte: u8) -> Option<Vec<u8>> {
        if byte == END {
            return Some(core::mem::take(&mut self.bytes));
        }
        if self.bytes.len() <= MAX_ORDER {
            self.bytes.push(byte);
        }
        None
    }
}

/// What is ordered.
pub(crate) enum Order<'t> {
    /// These rules take the place of the machine's.
    Rules(Box<Machine>),
    /// A network device is plugged in or out.
    Link { machine: u32, name: &'t str, is_up: bool },
}

impl<'t> Order<'t> {
    /// Reads an order, without its end.
    ///
    /// # Errors
    /// The answer to what is none.
    pub(crate) fn parse(order: &'t [u8]) -> Result<Self, String> {
        if order.len() > MAX_ORDER {
            return Err(format!("an order is longer than {MAX_ORDER} bytes: nothing has changed"));
        }
        let unknown = || String::from("an order is not known: nothing has changed");
        let text = core::str::from_utf8(order).map_err(|_| unknown())?;
        let (line, text) = text.split_once('\n').ok_or_else(unknown)?;
        let (word, of) = line.split_once(' ').ok_or_else(unknown)?;
        match (word, of.split_once(' '), text) {
            ("rules", None, text) => {
                let number = of.parse().map_err(|_| unknown())?;
                let machine = machines::parse(number, &format!("machines/{number}.toml"), text);
                let machine = machine.map_err(|fault| format!("{fault}: the rules stay as they are"))?;
                Ok(Self::Rules(Box::new(machine)))
            }
            ("link", Some((number, name)), "up" | "down") => {
                let machine = number.parse().map_err(|_| unknown())?;
                Ok(Self::Link { machine, name, is_up: text == "up" })
            }
            _ => Err(unknown()),
        }
    }

    /// Does what is ordered, and gives the answer.
    ///
    /// # Errors
    /// The answer to an order that was not done.
    pub(crate) fn obey<P: Client>(&self, card: &mut Card<P>) -> Result<String, String> {
        let answer = match self {
            Self::Rules(machine) => {
                let number = machine.number;
                let none = || format!("there is no machine {number}: nothing has changed");
                let changed = card.change_rules(number, &machine.devices).ok_or_else(none)?;
                if changed.differs_in_more {
                    warn!(
                        "machines/{number}.toml differs in more than its rules: the rest takes effect at the next start"
                    );
                }
                format!("machine {number}: {} rules of {} groups are in force", changed.rules, changed.groups)
            }
            Self::Link { machine, name, is_up } => {
                let none = || format!("machine {machine} has no network device {name}: nothing has changed");
                card.set_link(*machine, name, *is_up).ok_or_else(none)?;
                format!("machine {machine}: the link of {name} is {}", if *is_up { "up" } else { "down" })
            }
        };
        info!("{answer}");
        Ok(answer)
    }
}

/// What a change of rules has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) rules: usize,
    pub(crate) groups: usize,
    /// Whether there is more that is for the next start.
    pub(crate) differs_in_more: bool,
}
