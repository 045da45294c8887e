//! What the guest receives.

use alloc::{boxed::Box, vec::Vec};

use dragonfly_virtqueue::{Attached, Chain, ChainError, GuestMemory, QueueError};

use super::{BATCH, Fabric, Features, NetDevice, PREFETCHED, header};
use crate::serve::Service;

/// The most buffers that a frame may fill. Linux makes them of 1,500 bytes at least, so that it needs 44.
const MAX_BUFFERS: usize = 64;

/// Receive buffers that were taken. Those too few for the next frame are kept until there are more.
#[derive(Debug, Default)]
pub(super) struct Buffers {
    /// In boxes, since they are large and change places.
    chains: Vec<Box<Chain>>,
    /// So many of the chains are taken, the others are memory for more.
    taken: usize,
}

impl NetDevice {
    /// Gives the guest frames that wait for it.
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
        ring.prefetch(most_frames as u16, PREFETCHED)?;
        let (mut done, mut given) = (0, 0);
        while done < most_frames
            && let Some(frame) = waiting.peek()
        {
            if self.state.wants(&frame.bytes) {
                let Some(count) = slot.buffers.take(&mut ring, (header_len + frame.bytes.len()) as u64, most)? else {
                    slot.is_starved = true;
                    break;
                };
                // At most `MAX_BUFFERS`.
                let header = header::of(frame, count as u16);
                let header = header.get(..header_len).unwrap_or(&header);
                let chains = slot.buffers.chains.get(..count).unwrap_or_default();
                give(chains, memory, header, &frame.bytes, &mut ring)?;
                slot.buffers.give_back(count);
                given += 1;
            }
            if let Some(frame) = waiting.take() {
                pool.put(frame.bytes);
            }
            done += 1;
        }
        if given > 0 {
            ring.publish()?;
        }
        Ok(Service { has_worked: done > 0, notify: given > 0 && ring.needs_notification(), wait_until_ns: None })
    }
}

impl Buffers {
    /// How many of the chains taken first have room for `len` bytes, or are as many as may be; takes more if they do not.
    /// `None` if the driver has too few.
    fn take<M: GuestMemory>(
        &mut self,
        ring: &mut Attached<'_, '_, M>,
        len: u64,
        most: usize,
    ) -> Result<Option<usize>, QueueError> {
        let (mut count, mut room) = (0, 0_u64);
        loop {
            if self.chains.len() == count {
                self.chains.push(Box::default());
            }
            let Some(chain) = self.chains.get_mut(count) else { return Ok(None) };
            if self.taken == count {
                if !ring.pop_into(chain)? {
                    return Ok(None);
                }
                self.taken += 1;
            }
            room = room.saturating_add(chain.writable_len());
            count += 1;
            if room >= len || count == most {
                return Ok(Some(count));
            }
        }
    }

    /// The first of the chains were given back.
    fn give_back(&mut self, count: usize) {
        if let Some(taken) = self.chains.get_mut(..self.taken)
            && count < taken.len()
        {
            taken.rotate_left(count);
        }
        self.taken = self.taken.saturating_sub(count);
    }

    /// The queue was stopped, and goes on behind what was given back.
    pub(super) fn forget(&mut self) {
        self.taken = 0;
    }
}

/// Writes header and frame to chains, and gives them back. Buffers that are too short or not there cost the guest the frame.
fn give<M: GuestMemory>(
    chains: &[Box<Chain>],
    memory: &M,
    header: &[u8],
    frame: &[u8],
    ring: &mut Attached<'_, '_, M>,
) -> Result<(), QueueError> {
    // Nearly all frames: the lengths of many buffers are not cleared for one.
    if let [chain] = chains {
        let mut len = [0];
        let is_written = write(chains, memory, header, frame, &mut len).is_ok();
        return ring.stage(chain.id(), if is_written { len[0] } else { 0 });
    }
    let mut lens = [0; MAX_BUFFERS];
    if write(chains, memory, header, frame, &mut lens).is_err() {
        lens.fill(0);
    }
    chains.iter().zip(lens).try_for_each(|(chain, len)| ring.stage(chain.id(), len))
}

/// Writes header and frame to chains, one full after the other, and how much to each.
fn write<M: GuestMemory>(
    chains: &[Box<Chain>],
    memory: &M,
    header: &[u8],
    frame: &[u8],
    lens: &mut [u32],
) -> Result<(), ChainError> {
    let (mut header, mut rest) = (header, frame);
    for (chain, len) in chains.iter().zip(lens) {
        let mut writer = chain.writer(memory);
        // All of it goes into the first one (virtio 1.2 5.1.6.3.1).
        writer.write_all(core::mem::take(&mut header))?;
        let room = usize::try_from(writer.remaining()).unwrap_or(usize::MAX);
        let (now, later) = rest.split_at(rest.len().min(room));
        writer.write_all(now)?;
        *len = writer.written();
        rest = later;
    }
    if rest.is_empty() { Ok(()) } else { Err(ChainError::TooShort) }
}
