//! What the guest receives.

use alloc::{boxed::Box, vec::Vec};

use arrayvec::ArrayVec;
use dragonfly_virtqueue::{Access, Attached, Burst, Chain, ChainError, GuestMemory, MAX_BURST, QueueError};
use zerocopy::IntoBytes;

use super::{BATCH, Fabric, Features, NetDevice, control::ControlState, frame::Buffered, header};
use crate::serve::Service;

/// The most buffers that a frame may fill. Linux makes them of 1,500 bytes at least, so that it needs 44.
const MAX_BUFFERS: usize = 64;
/// Buffers after which no more frames are given in a turn: each that is taken has some memory.
const MAX_TURN_BUFFERS: usize = 2 * MAX_BUFFERS;

/// Receive buffers that were taken. Those too few for the next frame are kept until there are more.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// In boxes, since they are large and change places.
    chains: Vec<Box<Chain>>,
    /// So many of the chains are taken, the others are memory for more.
    taken: usize,
    /// Bytes written to those that are about to be given back.
    lens: Vec<u32>,
    /// Of the frames of a turn, how many buffers each gets: none if the driver does not want it.
    counts: Vec<usize>,
}

impl NetDevice {
    /// Gives the guest frames that wait for it.
    ///
    /// A CPU has room for some dozens of stores that wait, and all wait for one to a line that the guest's CPU had last. So a
    /// turn has passes: one takes buffers, one does nothing but write to them, one gives them back.
    pub(super) fn receive<M: GuestMemory>(
        &mut self,
        fabric: &mut Fabric,
        index: u16,
        pair: u16,
        memory: &M,
    ) -> Result<Service, QueueError> {
        let features = self.state.features;
        let header_len = header::len(features);
        let most = if features.contains(Features::MRG_RXBUF) { MAX_BUFFERS } else { 1 };
        let Some(slot) = self.queues.get_mut(usize::from(index)) else { return Ok(Service::default()) };
        slot.is_starved = false;
        let Some((waiting, pool)) = fabric.waiting(self.port, pair) else { return Ok(Service::default()) };
        let most_frames = waiting.len().min(BATCH);
        if most_frames == 0 {
            return Ok(Service::default());
        }
        let Some(queue) = slot.ring.queue(memory)? else { return Ok(Service::default()) };
        let mut ring = queue.attach(memory)?;
        let buffers = &mut slot.buffers;
        if buffers.taken == 0 {
            let mut burst = Burst::new();
            ring.pop_burst(most_frames, Access::Write, &mut burst)?;
            let Written { frames, lens } =
                write_singles(&burst, waiting.frames().take(most_frames), header_len, &self.state);
            ring.unpop_burst(&mut burst, lens.len())?;
            if frames > 0 {
                ring.stage_burst(&burst, lens)?;
                ring.publish()?;
                waiting.discard(frames, pool);
                let notify = !burst.is_empty() && ring.needs_notification();
                return Ok(Service { has_worked: true, notify, wait_until_ns: None });
            }
        }
        buffers.counts.clear();
        let mut given = 0;
        for frame in waiting.frames().take(most_frames) {
            let mut count = 0;
            if self.state.wants(&frame.bytes) {
                let Some(taken) = buffers.take(&mut ring, given, (header_len + frame.bytes.len()) as u64, most)? else {
                    slot.is_starved = true;
                    break;
                };
                count = taken;
            }
            buffers.counts.push(count);
            given += count;
            if given >= MAX_TURN_BUFFERS {
                break;
            }
        }
        buffers.write(waiting.frames(), memory, header_len);
        buffers.give_back(&mut ring, given)?;
        let done = buffers.counts.len();
        waiting.discard(done, pool);
        if given > 0 {
            ring.publish()?;
        }
        Ok(Service { has_worked: done > 0, notify: given > 0 && ring.needs_notification(), wait_until_ns: None })
    }
}

impl Buffers {
    /// How many chains, behind the first `begin`, have room for `len` bytes, or are as many as may be; takes more if those
    /// taken do not. `None` if the driver has too few.
    fn take<M: GuestMemory>(
        &mut self,
        ring: &mut Attached<'_, '_, M>,
        begin: usize,
        len: u64,
        most: usize,
    ) -> Result<Option<usize>, QueueError> {
        let (mut end, mut room) = (begin, 0_u64);
        loop {
            if self.chains.len() == end {
                self.chains.push(Box::default());
            }
            let Some(chain) = self.chains.get_mut(end) else { return Ok(None) };
            if self.taken == end {
                if !ring.pop_into(chain)? {
                    return Ok(None);
                }
                self.taken += 1;
            }
            room = room.saturating_add(chain.writable_len());
            end += 1;
            if room >= len || end - begin == most {
                return Ok(Some(end - begin));
            }
        }
    }

    /// Writes frames to as many chains each as was counted. Buffers that are too short or not there cost the guest the frame.
    fn write<'a, M: GuestMemory>(&mut self, frames: impl Iterator<Item = &'a Buffered>, memory: &M, header_len: usize) {
        let mut chains = self.chains.as_slice();
        self.lens.clear();
        for (frame, &count) in frames.zip(&self.counts) {
            let Some((own, rest)) = chains.split_at_checked(count) else { return };
            chains = rest;
            let first = self.lens.len();
            // At most `MAX_BUFFERS`.
            let header = header::words(frame, count as u16);
            let header = header.as_bytes().get(..header_len).unwrap_or_default();
            if write(own, memory, header, &frame.bytes, &mut self.lens).is_err() {
                self.lens.truncate(first);
                self.lens.resize(first + count, 0);
            }
        }
    }

    /// Gives the first chains back, of whose bytes so many were written.
    fn give_back<M: GuestMemory>(&mut self, ring: &mut Attached<'_, '_, M>, count: usize) -> Result<(), QueueError> {
        for (chain, len) in self.chains.iter().zip(&self.lens) {
            ring.stage(chain.id(), *len)?;
        }
        if let Some(taken) = self.chains.get_mut(..self.taken)
            && count < taken.len()
        {
            taken.rotate_left(count);
        }
        self.taken = self.taken.saturating_sub(count);
        Ok(())
    }

    /// The queue was stopped, and goes on behind what was given back.
    pub(super) fn forget(&mut self) {
        self.taken = 0;
    }
}

/// What became of frames.
struct Written {
    /// How many are done.
    frames: usize,
    /// Bytes of those that the driver wanted.
    lens: ArrayVec<u32, MAX_BURST>,
}

/// Writes frames to a buffer each, up to one that does not fit or has none.
#[inline]
fn write_singles<'a>(
    burst: &Burst<'_>,
    frames: impl Iterator<Item = &'a Buffered>,
    header_len: usize,
    state: &ControlState,
) -> Written {
    let mut written = Written { frames: 0, lens: ArrayVec::new() };
    let mut singles = burst.iter();
    for frame in frames {
        if state.wants(&frame.bytes) {
            let Some(single) = singles.next() else { break };
            let (buffer, len) = (single.buffer(), header_len + frame.bytes.len());
            // What follows the header in its second word is overwritten.
            if buffer.len() < len
                || buffer.write_pair(0, header::words(frame, 1)).is_err()
                || buffer.write(header_len, &frame.bytes).is_err()
            {
                break;
            }
            // A frame's length has 17 bits.
            written.lens.push(len as u32);
        }
        written.frames += 1;
    }
    written
}

/// Writes header and frame to chains, one full after the other, and adds how much to each. Nothing for no chains.
#[inline]
fn write<M: GuestMemory>(
    chains: &[Box<Chain>],
    memory: &M,
    header: &[u8],
    frame: &[u8],
    lens: &mut Vec<u32>,
) -> Result<(), ChainError> {
    let (mut header, mut rest) = (header, frame);
    for chain in chains {
        let mut writer = chain.writer(memory);
        // All of it goes into the first one (virtio 1.2 5.1.6.3.1).
        writer.write_all(core::mem::take(&mut header))?;
        let room = usize::try_from(writer.remaining()).unwrap_or(usize::MAX);
        let (now, later) = rest.split_at(rest.len().min(room));
        writer.write_all(now)?;
        lens.push(writer.written());
        rest = later;
    }
    if rest.is_empty() || chains.is_empty() { Ok(()) } else { Err(ChainError::TooShort) }
}
