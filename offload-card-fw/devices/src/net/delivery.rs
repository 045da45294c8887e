//! What the switch decides about a batch of frames, noted while it looks at them and done afterwards.
//!
//! A frame that goes to one port as it came is not copied: its memory goes there.

use alloc::vec::{Drain, Vec};
use core::iter::Peekable;

use dragonfly_vswitch::{Edit, MAX_PREFIX, Offload, Output, PortId, offload};

use super::{frame::Buffered, pool::Pool, receiver::Receiver};

/// A frame's way to a port.
#[derive(Clone, Copy, Debug)]
struct Route {
    port: PortId,
    flow_hash: u64,
}

/// Where the frames of a batch go.
#[derive(Debug, Default)]
pub struct Routes {
    /// Of each frame, if its memory goes somewhere.
    moved: Vec<Option<Route>>,
    /// Frames that were made of one of the batch, with its number; in order.
    made: Vec<(usize, Route, Buffered)>,
}

/// Notes where frames go.
pub struct Delivery<'a> {
    pub frames: &'a [Buffered],
    pub receivers: &'a [Receiver],
    pub pool: &'a mut Pool,
    pub routes: &'a mut Routes,
    /// Room for frames while they are changed.
    pub scratch: &'a mut Vec<u8>,
}

impl Routes {
    /// Begins with a batch of so many frames, which go nowhere yet.
    pub fn begin(&mut self, frames: usize) {
        self.moved.clear();
        self.moved.resize(frames, None);
    }

    /// Moves frames where they go, in their order; those that go nowhere are given back to the pool.
    pub fn deliver(&mut self, frames: &mut Vec<Buffered>, receivers: &mut [Receiver], pool: &mut Pool) {
        let mut made = self.made.drain(..).peekable();
        for (number, (frame, route)) in frames.drain(..).zip(self.moved.drain(..)).enumerate() {
            if made.len() > 0 {
                deliver_made(&mut made, number, receivers, pool);
            }
            match route.and_then(|route| Some((receivers.get_mut(usize::from(route.port.0))?, route.flow_hash))) {
                Some((receiver, flow_hash)) => receiver.put(frame, flow_hash, pool),
                None => pool.put(frame),
            }
        }
    }

    /// The frame of the batch of which something was made last.
    fn latest(&self) -> usize {
        self.made.last().map_or(0, |(number, ..)| *number)
    }

    fn add(&mut self, number: usize, route: Route, frame: Buffered) {
        self.made.push((number, route, frame));
    }
}

/// Moves the frames that were made of one of the batch, or of one before it.
#[cold]
fn deliver_made(
    made: &mut Peekable<Drain<'_, (usize, Route, Buffered)>>,
    number: usize,
    receivers: &mut [Receiver],
    pool: &mut Pool,
) {
    while let Some((_, Route { port, flow_hash }, frame)) = made.next_if(|(of, ..)| *of <= number) {
        if let Some(receiver) = receivers.get_mut(usize::from(port.0)) {
            receiver.put(frame, flow_hash, pool);
        }
    }
}

impl Delivery<'_> {
    fn receiver(&self, port: PortId) -> Option<&Receiver> {
        self.receivers.get(usize::from(port.0)).filter(|receiver| receiver.runs())
    }
}

impl Output for Delivery<'_> {
    #[inline]
    fn forward(&mut self, number: usize, port: PortId, edit: &Edit<'_>) {
        let Some(frame) = self.frames.get(number) else { return };
        let Some(features) = self.receiver(port).map(|receiver| receiver.features) else { return };
        let route = Route { port, flow_hash: edit.flow_hash };
        if edit.is_none() && offload::passes_whole(&frame.bytes, &frame.offload, features) {
            match self.routes.moved.get_mut(number) {
                Some(place @ None) => *place = Some(route),
                _ => self.routes.add(number, route, self.pool.copy(&frame.bytes, frame.offload)),
            }
            return;
        }
        let needed = frame.bytes.len() + MAX_PREFIX;
        if self.scratch.len() < needed {
            self.scratch.resize(needed, 0);
        }
        let (routes, pool) = (&mut *self.routes, &mut *self.pool);
        let emit = |bytes: &[u8], offload| routes.add(number, route, pool.copy(bytes, offload));
        // A frame that contradicts its header ends here, maybe after some segments: its sender's loss.
        let _ = offload::finish(&frame.bytes, &frame.offload, edit, features, self.scratch, emit);
    }

    fn originate(&mut self, port: PortId, frame: &[u8]) {
        if self.receiver(port).is_some() {
            let frame = self.pool.copy(frame, Offload::default());
            self.routes.add(self.routes.latest(), Route { port, flow_hash: 0 }, frame);
        }
    }
}
