//! Frames that have passed the switch and wait for whoever is at a port.

use alloc::{collections::VecDeque, vec::Vec};

use dragonfly_vswitch::offload::{self, Features};

use super::{frame::Buffered, pool::Pool, steering::Steering};

/// Frames that wait for one pair of queues, and bytes of their memory; more are dropped.
const MAX_FRAMES: usize = 512;
const MAX_BYTES: usize = 1 << 20;

/// Who is at a port.
#[derive(Debug, Default)]
pub struct Receiver {
    /// What frames may leave to it.
    pub features: Features,
    /// How the guest wants frames to be spread, if it does.
    pub steering: Option<Steering>,
    queues: Vec<Waiting>,
    /// The queues that run.
    running: Vec<u16>,
}

/// Frames for one pair of queues, or for what is outside.
#[derive(Debug, Default)]
pub struct Waiting {
    frames: VecDeque<Buffered>,
    /// Bytes of memory that the frames take up.
    bytes: usize,
}

impl Receiver {
    /// Somebody with so many pairs of queues, none of which runs.
    pub fn new(pairs: u16) -> Self {
        Self {
            features: Features::default(),
            steering: None,
            queues: (0..pairs).map(|_| Waiting::default()).collect(),
            running: Vec::new(),
        }
    }

    /// Whether any queue runs.
    pub fn runs(&self) -> bool {
        !self.running.is_empty()
    }

    /// Lets a frame wait; those of a flow wait in one queue, in their order. Without a queue, or without room, it is lost.
    #[inline(always)]
    pub fn put(&mut self, mut frame: Buffered, flow_hash: u64, pool: &mut Pool) {
        if let Some(checksum) = frame.offload.checksum
            && !self.features.checksum
        {
            frame.offload.checksum = None;
            if offload::complete(&mut frame.bytes, checksum).is_err() {
                return pool.put(frame);
            }
        }
        let queue = match (self.running.as_slice(), &self.steering) {
            (running, Some(steering)) => Some(steering.pair(&frame.bytes)).filter(|pair| running.contains(pair)),
            (&[only], None) => Some(only),
            // Below the number of queues. The high half is mixed best.
            (all, None) => (flow_hash >> 32).checked_rem(all.len() as u64).and_then(|at| all.get(at as usize)).copied(),
        };
        match queue.and_then(|queue| self.queues.get_mut(usize::from(queue))) {
            Some(queue) if queue.frames.len() < MAX_FRAMES && queue.bytes < MAX_BYTES => {
                queue.bytes += frame.bytes.capacity();
                queue.frames.push_back(frame);
            }
            _ => pool.put(frame),
        }
    }

    /// What waits for a queue.
    pub fn queue(&mut self, pair: u16) -> Option<&mut Waiting> {
        self.queues.get_mut(usize::from(pair))
    }

    /// Says whether a queue runs. What waits for one that does not is lost.
    pub fn set_running(&mut self, pair: u16, runs: bool, pool: &mut Pool) {
        let Some(queue) = self.queues.get_mut(usize::from(pair)) else { return };
        self.running.retain(|running| *running != pair);
        if runs {
            self.running.push(pair);
            self.running.sort_unstable();
        } else {
            queue.clear(pool);
        }
    }

    /// Drops what waits.
    pub fn clear(&mut self, pool: &mut Pool) {
        self.queues.iter_mut().for_each(|queue| queue.clear(pool));
    }
}

impl Waiting {
    /// How many frames wait.
    pub fn len(&self) -> usize {
        self.frames.len()
    }

    /// The frames, the first one first.
    pub fn frames(&self) -> impl Iterator<Item = &Buffered> {
        self.frames.iter()
    }

    /// Takes the first frame.
    pub fn take(&mut self) -> Option<Buffered> {
        let frame = self.frames.pop_front()?;
        self.bytes = self.bytes.saturating_sub(frame.bytes.capacity());
        Some(frame)
    }

    /// Takes so many frames, and gives their memory back.
    pub fn discard(&mut self, count: usize, pool: &mut Pool) {
        for frame in self.frames.drain(..count.min(self.frames.len())) {
            self.bytes = self.bytes.saturating_sub(frame.bytes.capacity());
            pool.put(frame);
        }
    }

    fn clear(&mut self, pool: &mut Pool) {
        self.bytes = 0;
        self.frames.drain(..).for_each(|frame| pool.put(frame));
    }
}
