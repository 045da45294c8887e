//! Messages to a guest's disk that a thread of its own serves: who carries them does not wait for the disk.
//!
//! While requests are under way the thread has the disk to itself, for as long as the physical one takes, which may be for ever. A
//! message that comes then is left for the thread, which does what it says as soon as it has come to an end; the VMM is told
//! to ask for the outcome.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::mem;

use dragonfly_card_devices::{DiskDevice, Round};
use dragonfly_card_gate::Answer;
use dragonfly_rt::sync::{Mutex, MutexGuard};
use dragonfly_vhost_user::{Platform, Reply};

use crate::card::Client;
use crate::port::{Port, Resources};

/// A guest's disk with its session, and what was left for its thread.
pub(crate) type SharedPort<P> = Arc<DiskPort<P>>;

/// What became of a message: the reply if there is one, or why the session has been ended.
pub(crate) type Outcome<R> = Result<Option<Reply<R>>, String>;

pub(crate) struct DiskPort<P: Platform> {
    /// Who serves it holds the lock, until its requests are done.
    port: Mutex<Port<DiskDevice, P>>,
    /// Locked for moments only, by whoever has the port, too.
    letters: Mutex<Letters<P>>,
}

struct Letters<P: Platform> {
    /// The session is to be ended first.
    is_to_close: bool,
    mail: Mail<P>,
}

/// A message on its way.
enum Mail<P: Platform> {
    None,
    Left(Box<Letter<P>>),
    /// The thread does what it says.
    Taken,
    /// Nobody has asked yet.
    Done(Box<Outcome<P::Resource>>),
}

struct Letter<P: Platform> {
    bytes: Vec<u8>,
    resources: Resources<P::Resource>,
    platform: P,
}

impl<P: Client> DiskPort<P> {
    /// A disk without a session.
    pub(crate) fn new(device: DiskDevice) -> Self {
        let letters = Letters { is_to_close: false, mail: Mail::None };
        Self { port: Mutex::new(Port::new(device)), letters: Mutex::new(letters) }
    }

    /// Does what a message says, as [`Port::message`], or leaves it for the thread. One that comes before the outcome
    /// of another was asked for is of a VMM that has given that up: it begins a new session.
    ///
    /// # Errors
    /// [`Answer::Later`]: it was left.
    pub(crate) fn message(
        &self,
        bytes: &[u8],
        resources: Resources<P::Resource>,
        platform: impl FnOnce() -> P,
    ) -> Result<Outcome<P::Resource>, Answer> {
        {
            let mut letters = self.letters.lock();
            letters.is_to_close |= !matches!(letters.mail, Mail::None);
            letters.mail = Mail::None;
        }
        if let Some(mut port) = self.port() {
            return Ok(port.message(&mut (), bytes, resources, platform));
        }
        let letter = Letter { bytes: bytes.into(), resources, platform: platform() };
        self.letters.lock().mail = Mail::Left(Box::new(letter));
        Err(Answer::Later)
    }

    /// What became of the message that was left.
    ///
    /// # Errors
    /// [`Answer::Later`]: nothing yet. [`Answer::Refused`]: there is none.
    pub(crate) fn outcome(&self) -> Result<Outcome<P::Resource>, Answer> {
        // Maybe the thread is at rest by now.
        drop(self.port());
        let mut letters = self.letters.lock();
        match mem::replace(&mut letters.mail, Mail::None) {
            Mail::Done(outcome) => Ok(*outcome),
            Mail::None => Err(Answer::Refused),
            other => {
                letters.mail = other;
                Err(Answer::Later)
            }
        }
    }

    /// Ends the session, at once or when the disk has come to an end.
    pub(crate) fn close(&self) {
        *self.letters.lock() = Letters { is_to_close: true, mail: Mail::None };
        drop(self.port());
    }

    /// Serves all rings once, and does what was left.
    pub(crate) fn serve(&self, now_ns: u64) -> Round {
        let mut port = self.port.lock();
        self.read_letters(&mut port);
        let round = port.serve(&mut (), now_ns);
        if port.is_gone() {
            port.close(&mut ());
        }
        round
    }

    /// Asks for kicks of all rings, and says whether there is something to do already.
    pub(crate) fn enable_kicks(&self) -> bool {
        self.has_letters() | self.port.lock().enable_kicks()
    }

    /// Whether there is something to do, as far as one can say without waiting for whoever is at it.
    pub(crate) fn may_have_work(&self) -> bool {
        self.has_letters() || self.port.try_lock().is_none_or(|mut port| port.enable_kicks())
    }

    fn has_letters(&self) -> bool {
        let letters = self.letters.lock();
        letters.is_to_close || matches!(letters.mail, Mail::Left(_))
    }

    /// The port, if nobody is at it, with all done that was left.
    fn port(&self) -> Option<MutexGuard<'_, Port<DiskDevice, P>>> {
        let mut port = self.port.try_lock()?;
        self.read_letters(&mut port);
        Some(port)
    }

    fn read_letters(&self, port: &mut Port<DiskDevice, P>) {
        let (is_to_close, letter) = {
            let mut letters = self.letters.lock();
            let letter = match mem::replace(&mut letters.mail, Mail::Taken) {
                Mail::Left(letter) => Some(letter),
                other => {
                    letters.mail = other;
                    None
                }
            };
            (mem::take(&mut letters.is_to_close), letter)
        };
        if is_to_close {
            port.close(&mut ());
        }
        let Some(Letter { bytes, resources, platform }) = letter.map(|letter| *letter) else { return };
        let outcome = port.message(&mut (), &bytes, resources, || platform);
        let mut letters = self.letters.lock();
        // The VMM may have given it up meanwhile.
        if matches!(letters.mail, Mail::Taken) {
            letters.mail = Mail::Done(Box::new(outcome));
        }
    }
}

#[cfg(test)]
impl<P: Client> DiskPort<P> {
    /// As if a request were under way.
    pub(crate) fn hang(&self) -> MutexGuard<'_, Port<DiskDevice, P>> {
        self.port.lock()
    }
}
