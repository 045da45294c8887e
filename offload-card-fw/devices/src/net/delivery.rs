//! What the switch decides about a batch of frames, noted while it looks at them and done afterwards.
//!
//! A frame that goes to one port as it came is not copied: its memory goes there.

use alloc::vec::Vec;

use dragonfly_vswitch::{Edit, MAX_PREFIX, Offload, Output, PortId, offload};

use super::{frame::Buffered, pool::Pool, receiver::Receiver};

/// A frame's way to a port.
#[derive(Debug)]
pub struct Route {
    port: PortId,
    flow_hash: u64,
    frame: Source,
}

#[derive(Debug)]
enum Source {
    /// This one of the batch.
    Batch(usize),
    Made(Buffered),
}

/// Notes where frames go.
pub struct Delivery<'a> {
    pub frames: &'a [Buffered],
    pub receivers: &'a [Receiver],
    pub pool: &'a mut Pool,
    pub routes: &'a mut Vec<Route>,
    /// Room for frames while they are changed.
    pub scratch: &'a mut Vec<u8>,
    /// The frame of the batch that is to be moved last; the switch decides about one after the other.
    pub last_moved: Option<usize>,
}

/// Moves frames where they go; those that go nowhere are given back to the pool.
pub fn deliver(frames: &mut Vec<Buffered>, routes: &mut Vec<Route>, receivers: &mut [Receiver], pool: &mut Pool) {
    // The switch has decided about one after the other, and moves each once.
    let mut rest = frames.drain(..).enumerate();
    for Route { port, flow_hash, frame } in routes.drain(..) {
        let frame = match frame {
            Source::Batch(wanted) => loop {
                match rest.next() {
                    Some((number, frame)) if number == wanted => break Some(frame),
                    Some((_, dropped)) => pool.put(dropped),
                    None => break None,
                }
            },
            Source::Made(frame) => Some(frame),
        };
        if let (Some(frame), Some(receiver)) = (frame, receivers.get_mut(usize::from(port.0))) {
            receiver.put(frame, flow_hash, pool);
        }
    }
    rest.for_each(|(_, dropped)| pool.put(dropped));
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
        let flow_hash = edit.flow_hash;
        if edit.is_none() && offload::passes_whole(&frame.bytes, &frame.offload, features) {
            let source = if self.last_moved.replace(number) == Some(number) {
                Source::Made(self.pool.copy(&frame.bytes, frame.offload))
            } else {
                Source::Batch(number)
            };
            return self.routes.push(Route { port, flow_hash, frame: source });
        }
        let needed = frame.bytes.len() + MAX_PREFIX;
        if self.scratch.len() < needed {
            self.scratch.resize(needed, 0);
        }
        let (routes, pool) = (&mut *self.routes, &mut *self.pool);
        let emit = |bytes: &[u8], offload| {
            routes.push(Route { port, flow_hash, frame: Source::Made(pool.copy(bytes, offload)) });
        };
        // A frame that contradicts its header ends here, maybe after some segments: its sender's loss.
        let _ = offload::finish(&frame.bytes, &frame.offload, edit, features, self.scratch, emit);
    }

    fn originate(&mut self, port: PortId, frame: &[u8]) {
        if self.receiver(port).is_some() {
            let frame = Source::Made(self.pool.copy(frame, Offload::default()));
            self.routes.push(Route { port, flow_hash: 0, frame });
        }
    }
}
