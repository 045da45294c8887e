//! What the guest sends.

use dragonfly_virtqueue::{Chain, GuestMemory, QueueError};

use super::{
    BATCH, Fabric, Features, LINK_HEADER, LONGEST_FRAME, NetDevice, PREFETCHED,
    frame::Buffered,
    header::{self, HEADER},
    pool::Pool,
};
use crate::serve::Service;

/// Bytes of frames after which no more are taken in a turn, so that other guests have theirs.
const MAX_TURN_BYTES: usize = 256 << 10;
/// As many bytes are copied and summed in the time that a packet takes besides.
const PACKET_BYTES: usize = 256;
/// The most packets that a frame is cut into: what Linux makes of the longest one with its smallest segments, of 48 bytes.
const MAX_PACKETS: usize = LONGEST_FRAME.div_ceil(48);

impl NetDevice {
    /// Takes frames from the guest and gives them to the switch.
    pub(super) fn transmit<M: GuestMemory>(
        &mut self,
        fabric: &mut Fabric,
        index: u16,
        memory: &M,
        now_ns: u64,
    ) -> Result<Service, QueueError> {
        let (features, is_link_up) = (self.state.features, self.is_link_up());
        let longest = usize::from(self.mtu) + LINK_HEADER;
        let Some(slot) = self.queues.get_mut(usize::from(index)) else { return Ok(Service::default()) };
        let Some(queue) = slot.ring.queue(memory)? else { return Ok(Service::default()) };
        let mut ring = queue.attach(memory)?;
        ring.prefetch(BATCH as u16, PREFETCHED)?;
        let (mut taken, mut bytes) = (0, 0);
        while taken < BATCH && bytes < MAX_TURN_BYTES && ring.pop_into(&mut self.chain)? {
            taken += 1;
            if is_link_up && let Some(frame) = read(&self.chain, memory, features, longest, fabric.pool()) {
                bytes += frame.bytes.len() + PACKET_BYTES * frame.offload.packets(frame.bytes.len());
                self.frames.push(frame);
            }
            ring.stage(self.chain.id(), 0)?;
        }
        if taken == 0 {
            return Ok(Service::default());
        }
        ring.publish()?;
        let notify = ring.needs_notification();
        ring.disable_kicks();
        fabric.receive(self.port, &mut self.frames, now_ns);
        Ok(Service { has_worked: true, notify, wait_until_ns: None })
    }
}

/// Copies a frame. One whose header or length is wrong is the driver's loss.
fn read<M: GuestMemory>(
    chain: &Chain,
    memory: &M,
    features: Features,
    longest: usize,
    pool: &mut Pool,
) -> Option<Buffered> {
    let mut reader = chain.reader(memory);
    let mut header = [0; HEADER];
    reader.read_exact(header.get_mut(..header::len(features))?).ok()?;
    let offload = header::parse(&header, features)?;
    let longest = if offload.segmentation.is_some() { LONGEST_FRAME } else { longest };
    let len = usize::try_from(reader.remaining()).ok().filter(|len| (1..=longest).contains(len))?;
    if offload.packets(len) > MAX_PACKETS {
        return None;
    }
    let mut frame = pool.take(len);
    if reader.read_exact(&mut frame.bytes).is_err() {
        pool.put(frame);
        return None;
    }
    frame.offload = offload;
    Some(frame)
}
