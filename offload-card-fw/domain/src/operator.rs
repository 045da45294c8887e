//! What the machine's operator orders while the card runs: new rules for security groups.
//!
//! Orders and answers go over the card's own console of the console server. An order is a line, a text and the byte [`END`]:
//!
//! | line | text | what is done |
//! | --- | --- | --- |
//! | `rules N` | machine file N as it is now | its rules take the place of the old ones |
//! | `hang` | none | the card stops in the middle of its work, with its devices locked: for tests of what comes of that |
//!
//! The answer is a line, and it comes when what was ordered is done and [kept](crate::kept) for the next card.

use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use dragonfly_abi::{HandleTransfer, Rights, Status};
use dragonfly_card_devices::tables::Devices;
use dragonfly_console::protocol::{CARD, GATE_NAME, MAX_BYTES, OK, READ, REGISTER, WRITE};
use dragonfly_rt::sync::Mutex;
use dragonfly_rt::sys::{Gate, Message, Notification, Object, Owned};
use dragonfly_rt::{named, time};
use log::{info, warn};

use crate::card::{Card, Client};
use crate::kept::{Kept, KeptOrders};
use crate::machines;

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
                    let outcome = obey(&order, |number, devices| card.lock().change_rules(number, devices));
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

/// Does what an order says, and gives the answer. `change` changes the rules of the machine with this number and says how many
/// rules of how many groups are in force then; none if there is no such machine.
///
/// # Errors
/// The answer to an order that was not done.
pub(crate) fn obey(order: &[u8], change: impl FnOnce(u32, &Devices) -> Option<Changed>) -> Result<String, String> {
    if order.len() > MAX_ORDER {
        return Err(format!("an order is longer than {MAX_ORDER} bytes: nothing has changed"));
    }
    let (number, text) = split(order).ok_or("an order is not known: nothing has changed")?;
    let machine = machines::parse(number, &format!("machines/{number}.toml"), text)
        .map_err(|fault| format!("{fault}: the rules stay as they are"))?;
    let none = || format!("there is no machine {number}: nothing has changed");
    let Changed { rules, groups, differs_in_more } = change(number, &machine.devices).ok_or_else(none)?;
    if differs_in_more {
        warn!("machines/{number}.toml differs in more than its rules: the rest takes effect at the next start");
    }
    let answer = format!("machine {number}: {rules} rules of {groups} groups are in force");
    info!("{answer}");
    Ok(answer)
}

/// What a change has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Changed {
    pub(crate) rules: usize,
    pub(crate) groups: usize,
    /// Whether there is more that is for the next start.
    pub(crate) differs_in_more: bool,
}

/// The machine's number and the text of an order for new rules.
fn split(order: &[u8]) -> Option<(u32, &str)> {
    let (line, text) = core::str::from_utf8(order).ok()?.split_once('\n')?;
    Some((line.strip_prefix("rules ")?.parse().ok()?, text))
}
