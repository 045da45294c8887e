//! Commands to a server, several at a time, over one connection after another.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;

use zerocopy::{FromBytes, IntoBytes};

use super::error::NbdError;
use super::handshake::{Export, Handshake};
use super::wire::{
    COMMAND_FLAG_FUA, COMMAND_FLAG_NO_HOLE, COMMAND_FLUSH, COMMAND_READ, COMMAND_TRIM, COMMAND_WRITE,
    COMMAND_WRITE_ZEROES, ENOSPC, EPERM, ESHUTDOWN, REPLY_MAGIC, REQUEST_MAGIC, Reply, RequestHeader,
};
use crate::backend::BlockError;

/// Commands under way at a time.
const MAX_COMMANDS: usize = 64;
/// Bytes of data in a command, at most; fewer if the server says so ([`Export::max_data_bytes`]).
pub const MAX_DATA_BYTES: u32 = 128 << 10;

/// What a server is to do. Positions are bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Command {
    /// Reads.
    Read {
        /// From where.
        offset: u64,
        /// How many, at most [`MAX_DATA_BYTES`].
        bytes: u32,
    },
    /// Writes.
    Write {
        /// To where.
        offset: u64,
        /// What, at most [`MAX_DATA_BYTES`].
        data: Vec<u8>,
        /// Whether it must be safe when the command ends; only for servers that can.
        is_safe: bool,
    },
    /// Makes safe all that commands wrote which ended before.
    Flush,
    /// Tells that the content is no longer needed.
    Trim {
        /// From where.
        offset: u64,
        /// How many bytes.
        bytes: u32,
    },
    /// Fills with zeros.
    WriteZeroes {
        /// From where.
        offset: u64,
        /// How many bytes.
        bytes: u32,
        /// Whether their space may be given up.
        may_unmap: bool,
    },
}

impl Command {
    /// The command as it is sent.
    fn message(self, cookie: u64) -> Vec<u8> {
        let (kind, flags, offset, bytes, data) = match self {
            Self::Read { offset, bytes } => (COMMAND_READ, 0, offset, bytes, Vec::new()),
            Self::Write { offset, data, is_safe } => {
                (COMMAND_WRITE, if is_safe { COMMAND_FLAG_FUA } else { 0 }, offset, data.len() as u32, data)
            }
            Self::Flush => (COMMAND_FLUSH, 0, 0, 0, Vec::new()),
            Self::Trim { offset, bytes } => (COMMAND_TRIM, 0, offset, bytes, Vec::new()),
            Self::WriteZeroes { offset, bytes, may_unmap } => {
                let flags = if may_unmap { 0 } else { COMMAND_FLAG_NO_HOLE };
                (COMMAND_WRITE_ZEROES, flags, offset, bytes, Vec::new())
            }
        };
        let header = RequestHeader {
            magic: REQUEST_MAGIC.into(),
            flags: flags.into(),
            kind: kind.into(),
            cookie: cookie.into(),
            offset: offset.into(),
            bytes: bytes.into(),
        };
        let mut message = Vec::with_capacity(size_of::<RequestHeader>() + data.len());
        message.extend(header.as_bytes());
        message.extend(data);
        message
    }
}

/// A command that ended.
#[derive(PartialEq, Eq, Debug)]
pub struct Done<T> {
    /// What [`Client::submit`] was given with it.
    pub token: T,
    /// What was read, nothing for other commands; or why it failed.
    pub outcome: Result<Vec<u8>, BlockError>,
}

/// A command under way.
struct UnderWay<T> {
    token: T,
    message: Vec<u8>,
    /// Bytes that a reply brings if all is well.
    read_bytes: u32,
    /// When it fails if nothing comes.
    deadline_ns: u64,
    /// Nobody waits for it any more, but the server may be doing it.
    is_abandoned: bool,
}

/// Where the conversation is.
enum Phase {
    /// There is no connection.
    Down,
    Handshake(Handshake),
    /// The next is a reply.
    Replies,
    /// The next is what this command has read.
    Data {
        cookie: u64,
        bytes: usize,
    },
    /// The server broke the protocol.
    Failed(NbdError),
}

/// A client of one export. Its owner moves bytes between it and a connection, and makes another when that is lost; commands
/// that had no reply are then sent anew. `T` is what the owner knows a command by.
///
/// A command that is sent anew may be done twice by the server. That is harmless, as nothing that depends on it is sent
/// before its reply has come.
pub struct Client<T> {
    export_name: String,
    /// As the first connection had it.
    export: Option<Export>,
    timeout_ns: u64,
    phase: Phase,
    /// Bytes of what comes next, as far as they have come.
    received: Vec<u8>,
    /// Bytes of the handshake to be sent.
    greeting: Vec<u8>,
    commands: BTreeMap<u64, UnderWay<T>>,
    /// Commands to be sent, in their order.
    to_send: VecDeque<u64>,
    /// How much of the first of these, or of the handshake, was sent.
    sent: usize,
    abandoned: usize,
    next_cookie: u64,
    done: VecDeque<Done<T>>,
}

impl<T> Client<T> {
    /// A client without a connection. Commands fail that have no reply for `timeout_ns` nanoseconds.
    #[must_use]
    pub fn new(export_name: String, timeout_ns: u64) -> Self {
        Self {
            export_name,
            export: None,
            timeout_ns,
            phase: Phase::Down,
            received: Vec::new(),
            greeting: Vec::new(),
            commands: BTreeMap::new(),
            to_send: VecDeque::new(),
            sent: 0,
            abandoned: 0,
            next_cookie: 0,
            done: VecDeque::new(),
        }
    }

    /// The export, once a server has told of it.
    #[must_use]
    pub const fn export(&self) -> Option<&Export> {
        self.export.as_ref()
    }

    /// Whether the server takes commands.
    #[must_use]
    pub const fn is_ready(&self) -> bool {
        matches!(self.phase, Phase::Replies | Phase::Data { .. })
    }

    /// Why all commands fail, if they do.
    #[must_use]
    pub const fn failure(&self) -> Option<NbdError> {
        if let Phase::Failed(error) = self.phase { Some(error) } else { None }
    }

    /// Whether an answer of the server is due.
    #[must_use]
    pub fn waits_for_server(&self) -> bool {
        matches!(self.phase, Phase::Handshake(_)) || self.is_ready() && !self.commands.is_empty()
    }

    /// Whether another command can be submitted.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.commands.len() < MAX_COMMANDS
    }

    /// Begins a conversation over a new connection.
    pub fn connected(&mut self) {
        self.disconnected();
        if !matches!(self.phase, Phase::Failed(_)) {
            self.phase = Phase::Handshake(Handshake::new());
        }
    }

    /// The connection is gone. What had no reply waits for the next.
    pub fn disconnected(&mut self) {
        if !matches!(self.phase, Phase::Failed(_)) {
            self.phase = Phase::Down;
        }
        self.received.clear();
        self.greeting.clear();
        self.sent = 0;
        // The new server is not told of what nobody waits for.
        self.commands.retain(|_, command| !command.is_abandoned);
        self.abandoned = 0;
        self.to_send = self.commands.keys().copied().collect();
    }

    /// Begins a command, at the time `now_ns`.
    pub fn submit(&mut self, command: Command, token: T, now_ns: u64) {
        if matches!(self.phase, Phase::Failed(_)) {
            self.done.push_back(Done { token, outcome: Err(BlockError::Medium) });
            return;
        }
        let cookie = self.next_cookie;
        // It takes centuries to come round.
        self.next_cookie = cookie.wrapping_add(1);
        let read_bytes = if let Command::Read { bytes, .. } = command { bytes } else { 0 };
        let deadline_ns = now_ns.saturating_add(self.timeout_ns);
        let message = command.message(cookie);
        self.commands.insert(cookie, UnderWay { token, message, read_bytes, deadline_ns, is_abandoned: false });
        self.to_send.push_back(cookie);
    }

    /// The next command that ended.
    pub fn take_done(&mut self) -> Option<Done<T>> {
        self.done.pop_front()
    }

    /// Forgets the commands that `is_meant` says. What is submitted later is not sent before the server has answered those
    /// that it may be doing: so it cannot do one of them after it.
    pub fn abandon(&mut self, is_meant: impl Fn(&T) -> bool) {
        let begun =
            self.to_send.front().filter(|_| self.is_ready() && self.greeting.is_empty() && self.sent > 0).copied();
        let unsent: Vec<u64> = self.to_send.iter().copied().filter(|cookie| Some(*cookie) != begun).collect();
        for cookie in unsent {
            if self.commands.get(&cookie).is_some_and(|command| is_meant(&command.token)) {
                self.commands.remove(&cookie);
            }
        }
        let commands = &self.commands;
        self.to_send.retain(|cookie| commands.contains_key(cookie));
        for command in self.commands.values_mut() {
            if !command.is_abandoned && is_meant(&command.token) {
                command.is_abandoned = true;
                self.abandoned += 1;
            }
        }
        self.done.retain(|done| !is_meant(&done.token));
    }

    /// Fails the commands whose time is over at `now_ns`. Whether there were any: the connection is then to be closed, as
    /// the server may do them yet.
    pub fn expire(&mut self, now_ns: u64) -> bool {
        let late = self.commands.extract_if(.., |_, command| command.deadline_ns <= now_ns);
        let late: Vec<_> = late.map(|(_, command)| command).collect();
        let was_late = !late.is_empty();
        self.end(late);
        if was_late {
            self.disconnected();
        }
        was_late
    }

    /// When to call [`expire`](Self::expire) next, in nanoseconds.
    #[must_use]
    pub fn next_deadline_ns(&self) -> Option<u64> {
        // All have as much time, so the oldest is the first.
        self.commands.first_key_value().map(|(_, command)| command.deadline_ns)
    }

    /// Bytes to send next, of which any number may be [`sent`](Self::sent).
    #[must_use]
    pub fn to_send(&self) -> &[u8] {
        let message = match self.phase {
            Phase::Handshake(_) => Some(&self.greeting),
            Phase::Replies | Phase::Data { .. } if !self.greeting.is_empty() => Some(&self.greeting),
            Phase::Replies | Phase::Data { .. } if self.abandoned == 0 || self.sent > 0 => {
                self.to_send.front().and_then(|cookie| self.commands.get(cookie)).map(|command| &command.message)
            }
            _ => None,
        };
        message.and_then(|message| message.get(self.sent..)).unwrap_or_default()
    }

    /// So many bytes of [`to_send`](Self::to_send) were sent.
    pub fn sent(&mut self, bytes: usize) {
        if bytes < self.to_send().len() {
            self.sent += bytes;
            return;
        }
        self.sent = 0;
        if self.greeting.is_empty() {
            self.to_send.pop_front();
        } else {
            self.greeting.clear();
        }
    }

    /// Takes what has come from the server.
    ///
    /// # Errors
    /// What the server says is no use: the connection is to be closed. Unless the error
    /// [is transient](NbdError::is_transient), all commands have failed, and all others will.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<(), NbdError> {
        while let Some(needed) = self.needs() {
            let missing = needed.saturating_sub(self.received.len());
            self.received.reserve(missing);
            let Some((now, rest)) = bytes.split_at_checked(missing) else {
                self.received.extend_from_slice(bytes);
                break;
            };
            self.received.extend_from_slice(now);
            bytes = rest;
            let piece = core::mem::take(&mut self.received);
            if let Err(error) = self.step(piece) {
                self.disconnected();
                if !error.is_transient() {
                    self.fail(error);
                }
                return Err(error);
            }
        }
        Ok(())
    }

    /// All commands fail from now on.
    fn fail(&mut self, error: NbdError) {
        self.phase = Phase::Failed(error);
        let commands = core::mem::take(&mut self.commands);
        self.to_send.clear();
        self.end(commands.into_values());
    }

    fn end(&mut self, commands: impl IntoIterator<Item = UnderWay<T>>) {
        for command in commands {
            if !command.is_abandoned {
                self.done.push_back(Done { token: command.token, outcome: Err(BlockError::Medium) });
            }
        }
    }

    /// Bytes of what comes next; nothing if nothing may come.
    fn needs(&self) -> Option<usize> {
        match &self.phase {
            Phase::Down | Phase::Failed(_) => None,
            Phase::Handshake(handshake) => Some(handshake.needs()),
            Phase::Replies => Some(size_of::<Reply>()),
            Phase::Data { bytes, .. } => Some(*bytes),
        }
    }

    fn step(&mut self, piece: Vec<u8>) -> Result<(), NbdError> {
        match &mut self.phase {
            Phase::Down | Phase::Failed(_) => {}
            Phase::Handshake(handshake) => {
                if let Some(export) = handshake.take(&piece, &self.export_name, &mut self.greeting)? {
                    if *self.export.get_or_insert(export) != export {
                        return Err(NbdError::Changed);
                    }
                    self.phase = Phase::Replies;
                }
            }
            Phase::Replies => {
                let reply = Reply::read_from_bytes(&piece).map_err(|_| NbdError::ReplyMagic(0))?;
                self.reply(&reply)?;
            }
            Phase::Data { cookie, .. } => {
                let cookie = *cookie;
                self.phase = Phase::Replies;
                self.complete(cookie, Ok(piece));
            }
        }
        Ok(())
    }

    fn reply(&mut self, reply: &Reply) -> Result<(), NbdError> {
        if reply.magic.get() != REPLY_MAGIC {
            return Err(NbdError::ReplyMagic(reply.magic.get()));
        }
        let cookie = reply.cookie.get();
        let command = self.commands.get(&cookie).ok_or(NbdError::UnknownReply(cookie))?;
        if self.to_send.contains(&cookie) {
            // Not even asked yet, or not wholly.
            return Err(NbdError::UnknownReply(cookie));
        }
        match reply.error.get() {
            0 if command.read_bytes > 0 => {
                self.phase = Phase::Data { cookie, bytes: command.read_bytes as usize };
            }
            0 => self.complete(cookie, Ok(Vec::new())),
            ESHUTDOWN => return Err(NbdError::ShuttingDown),
            ENOSPC => self.complete(cookie, Err(BlockError::NoSpace)),
            EPERM => self.complete(cookie, Err(BlockError::ReadOnly)),
            _ => self.complete(cookie, Err(BlockError::Medium)),
        }
        Ok(())
    }

    fn complete(&mut self, cookie: u64, outcome: Result<Vec<u8>, BlockError>) {
        let Some(command) = self.commands.remove(&cookie) else { return };
        if command.is_abandoned {
            self.abandoned = self.abandoned.saturating_sub(1);
        } else {
            self.done.push_back(Done { token: command.token, outcome });
        }
    }
}
