//! Frames that have passed the switch and wait for whoever is at a port.

use alloc::{collections::VecDeque, vec::Vec};

use dragonfly_vswitch::offload::{self, Features};

use super::{frame::Buffered, pool::Pool};

/// Frames that wait for one pair of queues, and bytes of their memory; more are dropped.
const MAX_FRAMES: usize = 512;
const MAX_BYTES: usize = 1 << 20;

/// Who is at a port.
#[derive(Debug, Default)]
pub struct Receiver {
    /// What frames may leave to it.
    pub features: Features,
    queues: Vec<Waiting>,
}

/// Frames for one pair of queues, or for what is outside.
#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Buffered>,
    /// Bytes of memory that the frames take up.
    bytes: usize,
    /// Whether somebody takes them: a guest's receive queue runs.
    runs: bool,
}

impl Receiver {
    /// Somebody with so many pairs of queues, none of which runs.
    pub fn new(pairs: u16) -> Self {
        Self { features: Features::default(), queues: (0..pairs).map(|_| Waiting::default()).collect() }
    }

    /// Whether any queue runs.
    pub fn runs(&self) -> bool {
        self.queues.iter().any(|queue| queue.runs)
    }

    /// Lets a frame wait; those of a flow wait in one queue, in their order. Without a queue, or without room, it is lost.
    pub fn put(&mut self, mut frame: Buffered, flow_hash: u64, pool: &mut Pool) {
        if let Some(checksum) = frame.offload.checksum
            && !self.features.checksum
        {
            frame.offload.checksum = None;
            if offload::complete(&mut frame.bytes, checksum).is_err() {
                return pool.put(frame.bytes);
            }
        }
        let running = self.queues.iter().filter(|queue| queue.runs).count() as u64;
        // Below the number of queues. The high half is mixed best.
        let choice = (flow_hash >> 32).checked_rem(running).unwrap_or(0) as usize;
        match self.queues.iter_mut().filter(|queue| queue.runs).nth(choice) {
            Some(queue) if queue.frames.len() < MAX_FRAMES && queue.bytes < MAX_BYTES => {
                queue.bytes += frame.bytes.capacity();
                queue.frames.push_back(frame);
            }
            _ => pool.put(frame.bytes),
        }
    }

    /// The frame that a queue gives next.
    pub fn peek(&self, pair: u16) -> Option<&Buffered> {
        self.queues.get(usize::from(pair))?.frames.front()
    }

    /// Takes the frame that a queue gives next.
    pub fn take(&mut self, pair: u16) -> Option<Buffered> {
        let queue = self.queues.get_mut(usize::from(pair))?;
        let frame = queue.frames.pop_front()?;
        queue.bytes = queue.bytes.saturating_sub(frame.bytes.capacity());
        Some(frame)
    }

    /// Says whether a queue runs. What waits for one that does not is lost.
    pub fn set_running(&mut self, pair: u16, runs: bool, pool: &mut Pool) {
        if let Some(queue) = self.queues.get_mut(usize::from(pair)) {
            queue.runs = runs;
            if !runs {
                queue.clear(pool);
            }
        }
    }

    /// Drops what waits.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.queues.iter_mut().for_each(|queue| queue.clear(pool));
    }
}

impl Waiting {
    fn clear(&mut self, pool: &mut Pool) {
        self.bytes = 0;
        self.frames.drain(..).for_each(|frame| pool.put(frame.bytes));
    }
}
