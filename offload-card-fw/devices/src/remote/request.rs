//! A request of a guest's, made into commands to a server.

use alloc::{boxed::Box, vec, vec::Vec};

use dragonfly_storage::{
    BlockError, DataUnit, Extent, SECTOR_BYTES,
    blk::{Action, ID_BYTES, Request, Status},
    nbd::{Command, MAX_DATA_BYTES, TransmissionFlags},
};
use dragonfly_virtqueue::{Chain, GuestMemory};

use super::Remote;

/// A request that was taken and not given back.
pub(super) struct Pending {
    chain: Box<Chain>,
    request: Result<Request, Status>,
    is_admitted: bool,
    /// How much of it was submitted: bytes, ranges, or the flush.
    begun: u64,
    /// Commands that were submitted and have not ended.
    under_way: usize,
    /// What was written must be made safe, and that was submitted.
    is_flush_begun: bool,
    status: Status,
}

/// What is to be done for a request next.
pub(super) enum Next {
    /// This, which is about data from so many bytes on.
    Command(Command, u64),
    /// Nothing before a command ends.
    Wait,
    /// Nothing at all.
    Finish,
}

impl Pending {
    pub(super) fn new(chain: Box<Chain>, request: Result<Request, Status>) -> Self {
        let status = request.as_ref().err().copied().unwrap_or(Status::Ok);
        Self { chain, request, is_admitted: false, begun: 0, under_way: 0, is_flush_begun: false, status }
    }

    pub(super) const fn is_admitted(&self) -> bool {
        self.is_admitted
    }

    pub(super) fn chain(&self) -> &Chain {
        &self.chain
    }

    pub(super) fn into_chain(self) -> Box<Chain> {
        self.chain
    }

    /// Lets it begin, or says when to ask again.
    pub(super) fn admit(&mut self, remote: &Remote, now_ns: u64) -> Result<(), u64> {
        if !self.is_admitted {
            // What cannot be is work too, and counts as a request.
            let cost_bytes = self.request.as_ref().map_or(0, Request::cost_bytes);
            remote.device.admit(cost_bytes, now_ns).map_err(|until| until.ns)?;
            self.is_admitted = true;
        }
        Ok(())
    }

    /// What to submit next; the caller does.
    pub(super) fn next<M: GuestMemory>(&mut self, remote: &Remote, memory: &M) -> Next {
        if let Some((command, offset)) = self.command(remote, memory) {
            self.under_way += 1;
            return Next::Command(command, offset);
        }
        if self.under_way > 0 {
            return Next::Wait;
        }
        if self.needs_flush(remote) {
            self.is_flush_begun = true;
            self.under_way = 1;
            return Next::Command(Command::Flush, 0);
        }
        Next::Finish
    }

    /// Whether all was done for it.
    pub(super) fn is_finished(&self, remote: &Remote) -> bool {
        let is_begun = self.status != Status::Ok || self.begun >= self.end(remote);
        self.is_admitted && self.under_way == 0 && is_begun && !self.needs_flush(remote)
    }

    /// Takes what came of a command about data from `offset` on.
    pub(super) fn take<M: GuestMemory>(
        &mut self,
        outcome: Result<Vec<u8>, BlockError>,
        offset: u64,
        remote: &Remote,
        memory: &M,
    ) {
        self.under_way = self.under_way.saturating_sub(1);
        match (outcome, &self.request) {
            (Ok(mut data), Ok(Request { action: Action::Read(extent) })) => {
                if let Some(key) = &remote.key {
                    key.decrypt(unit(*extent, offset), DataUnit::Bytes512, &mut data);
                }
                let mut writer = Request::data_writer(&self.chain, memory);
                if writer.skip(offset).and_then(|()| writer.write_all(&data)).is_err() {
                    self.status = Status::IoError;
                }
            }
            (Ok(_), _) => {}
            (Err(error), _) => self.status = error.into(),
        }
    }

    /// Writes the status, and what the card itself knows: how many bytes the chain has of it.
    pub(super) fn finish<M: GuestMemory>(&mut self, remote: &Remote, memory: &M) -> u32 {
        let mut written = 0;
        match &self.request {
            Ok(Request { action: Action::Read(extent) }) if self.status == Status::Ok => written = bytes(*extent),
            Ok(Request { action: Action::GetId }) => {
                let mut writer = Request::data_writer(&self.chain, memory);
                let room = usize::try_from(writer.remaining()).unwrap_or(ID_BYTES).min(ID_BYTES);
                match writer.write_all(remote.device.id().get(..room).unwrap_or_default()) {
                    Ok(()) => written = room as u64,
                    Err(_) => self.status = Status::IoError,
                }
            }
            _ => {}
        }
        Request::complete(&self.chain, memory, self.status, written)
    }

    /// What `begun` comes to.
    fn end(&self, remote: &Remote) -> u64 {
        let has = |flag| remote.export.flags.contains(flag);
        match self.request.as_ref().map(|request| &request.action) {
            Ok(Action::Read(extent) | Action::Write(extent) | Action::WriteZeroes { extent, .. }) => bytes(*extent),
            Ok(Action::Flush) if has(TransmissionFlags::SEND_FLUSH) => 1,
            Ok(Action::Discard(extents)) if has(TransmissionFlags::SEND_TRIM) => extents.len() as u64,
            Ok(Action::Flush | Action::Discard(_) | Action::GetId) | Err(_) => 0,
        }
    }

    /// The next command about data, with where that begins.
    fn command<M: GuestMemory>(&mut self, remote: &Remote, memory: &M) -> Option<(Command, u64)> {
        let end = self.end(remote);
        if self.status != Status::Ok || self.begun >= end {
            return None;
        }
        let begun = self.begun;
        let action = &self.request.as_ref().ok()?.action;
        let step = u64::from(MAX_DATA_BYTES.min(remote.export.max_data_bytes)).min(end - begun);
        let (command, step) = match action {
            Action::Read(extent) => (Command::Read { offset: position(*extent) + begun, bytes: step as u32 }, step),
            Action::Write(extent) => {
                let mut data = vec![0; step as usize];
                let mut reader = Request::data_reader(&self.chain, memory);
                if reader.skip(begun).and_then(|()| reader.read_exact(&mut data)).is_err() {
                    self.status = Status::IoError;
                    return None;
                }
                (remote.write(*extent, begun, data), step)
            }
            Action::WriteZeroes { extent, may_unmap } => {
                if remote.has_zeroes() {
                    // A request has 32 MiB at most.
                    let (offset, bytes) = (position(*extent), end as u32);
                    (Command::WriteZeroes { offset, bytes, may_unmap: *may_unmap }, end)
                } else {
                    (remote.write(*extent, begun, vec![0; step as usize]), step)
                }
            }
            Action::Discard(extents) => {
                let extent = extents.get(usize::try_from(begun).ok()?)?;
                // A range has 1 GiB at most.
                (Command::Trim { offset: position(*extent), bytes: bytes(*extent) as u32 }, 1)
            }
            Action::Flush => (Command::Flush, 1),
            Action::GetId => return None,
        };
        self.begun += step;
        Some((command, begun))
    }

    /// Whether what was changed is to be made safe by a command of its own, which was not submitted.
    fn needs_flush(&self, remote: &Remote) -> bool {
        let is_change = match self.request.as_ref().map(|request| &request.action) {
            Ok(Action::Write(_)) => !remote.export.flags.contains(TransmissionFlags::SEND_FUA),
            Ok(Action::WriteZeroes { .. } | Action::Discard(_)) => true,
            _ => false,
        };
        let can_flush = remote.export.flags.contains(TransmissionFlags::SEND_FLUSH);
        is_change && can_flush && self.status == Status::Ok && remote.device.is_write_through() && !self.is_flush_begun
    }
}

impl Remote {
    fn write(&self, extent: Extent, offset: u64, mut data: Vec<u8>) -> Command {
        if let Some(key) = &self.key {
            key.encrypt(unit(extent, offset), DataUnit::Bytes512, &mut data);
        }
        let is_safe = self.device.is_write_through() && self.export.flags.contains(TransmissionFlags::SEND_FUA);
        Command::Write { offset: position(extent) + offset, data, is_safe }
    }

    /// Whether zeros need not be sent. Encrypted, they are none.
    fn has_zeroes(&self) -> bool {
        self.key.is_none() && self.export.flags.contains(TransmissionFlags::SEND_WRITE_ZEROES)
    }
}

/// Where an extent begins, in bytes. It is on the disk, whose bytes a number of 64 bits counts, so nothing overflows here.
fn position(extent: Extent) -> u64 {
    extent.first.0 * SECTOR_BYTES as u64
}

fn bytes(extent: Extent) -> u64 {
    extent.count * SECTOR_BYTES as u64
}

/// The number of the data unit at a place of an extent, for encryption.
fn unit(extent: Extent, offset: u64) -> u64 {
    extent.first.0 + offset / SECTOR_BYTES as u64
}
