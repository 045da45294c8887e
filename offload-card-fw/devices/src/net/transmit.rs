//! What the guest sends.

use core::iter;

use dragonfly_virtqueue::{Access, Burst, GuestMemory, GuestSlice, QueueError, Reader};

use super::{
    BATCH, Fabric, Features, LINK_HEADER, LONGEST_FRAME, NetDevice,
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
        let rules = Rules { features, longest };
        let mut bytes = 0;
        let mut burst = Burst::new();
        ring.pop_burst(BATCH, Access::Read, &mut burst)?;
        let mut taken = 0;
        for single in &burst {
            if bytes >= MAX_TURN_BYTES {
                break;
            }
            taken += 1;
            if is_link_up && let Some(frame) = rules.read_single(single.buffer(), fabric.pool()) {
                bytes += cost(&frame);
                self.frames.push(frame);
            }
        }
        ring.unpop_burst(&mut burst, taken)?;
        ring.stage_burst(&burst, iter::repeat(0))?;
        // What is no single buffer has the turn when it is the next one.
        while burst.is_empty() && taken < BATCH && bytes < MAX_TURN_BYTES && ring.pop_into(&mut self.chain)? {
            taken += 1;
            if is_link_up && let Some(frame) = rules.read(self.chain.reader(memory), fabric.pool()) {
                bytes += cost(&frame);
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

/// Time that a frame takes, as bytes.
fn cost(frame: &Buffered) -> usize {
    frame.bytes.len() + PACKET_BYTES * frame.offload.packets(frame.bytes.len())
}

/// What frames may be.
struct Rules {
    /// As negotiated.
    features: Features,
    /// Bytes of one that is not to be cut.
    longest: usize,
}

impl Rules {
    /// Copies a frame. One whose header or length is wrong is the driver's loss.
    fn read<M: GuestMemory>(&self, mut from: Reader<'_, M>, pool: &mut Pool) -> Option<Buffered> {
        let mut header = [0; HEADER];
        from.read_exact(header.get_mut(..header::len(self.features))?).ok()?;
        let mut frame = self.begin(&header, usize::try_from(from.remaining()).ok()?, pool)?;
        if from.read_exact(&mut frame.bytes).is_err() {
            pool.put(frame);
            return None;
        }
        Some(frame)
    }

    /// The same of a frame in one buffer.
    #[inline]
    fn read_single(&self, from: &GuestSlice<'_>, pool: &mut Pool) -> Option<Buffered> {
        let header_len = header::len(self.features);
        let mut header = [0; HEADER];
        from.read(0, header.get_mut(..header_len)?).ok()?;
        let mut frame = self.begin(&header, from.len().checked_sub(header_len)?, pool)?;
        if from.read(header_len, &mut frame.bytes).is_err() {
            pool.put(frame);
            return None;
        }
        Some(frame)
    }

    /// A frame of so many bytes, which are to be copied.
    #[inline]
    fn begin(&self, header: &[u8; HEADER], len: usize, pool: &mut Pool) -> Option<Buffered> {
        let offload = header::parse(header, self.features)?;
        let longest = if offload.segmentation.is_some() { LONGEST_FRAME } else { self.longest };
        if !(1..=longest).contains(&len) || offload.packets(len) > MAX_PACKETS {
            return None;
        }
        Some(pool.take(len, offload))
    }
}
