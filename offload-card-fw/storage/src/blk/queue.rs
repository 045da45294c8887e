//! Serves one queue of a device.

use alloc::boxed::Box;
use alloc::vec;

use dragonfly_virtqueue::{Chain, GuestMemory, Queue, QueueError};

use super::device::BlockDevice;
use super::request::{Request, Status};
use crate::backend::BlockBackend;

/// Bytes of data that are on their way at once.
const BUFFER_BYTES: usize = 128 << 10;

/// What came of serving a queue.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Served {
    /// Requests that ended.
    pub completed: u32,
    /// Whether the driver wants to be told of them.
    pub needs_notification: bool,
    /// When to serve the queue again even if the driver is silent, in nanoseconds: a request waits for its limits.
    pub wait_until_ns: Option<u64>,
}

/// The part of a device that belongs to one queue, and to the thread that serves it.
pub struct RequestQueue {
    chain: Box<Chain>,
    /// The request in `chain`, or how it fails, which waits for its limits. Those after it wait behind it.
    waiting: Option<Result<Request, Status>>,
    buffer: Box<[u8]>,
}

impl Default for RequestQueue {
    fn default() -> Self {
        Self::new()
    }
}

impl RequestQueue {
    /// For a queue from which nothing was taken.
    #[must_use]
    pub fn new() -> Self {
        Self { chain: Box::default(), waiting: None, buffer: vec![0; BUFFER_BYTES].into_boxed_slice() }
    }

    /// Serves at most `max_requests` requests of `queue`, in their order, as far as the limits allow at `now_ns`.
    ///
    /// # Errors
    /// Why the queue has stopped: the driver's fault. The requests that ended before are done all the same.
    pub fn serve<B: BlockBackend, M: GuestMemory>(
        &mut self,
        queue: &mut Queue,
        memory: &M,
        device: &BlockDevice<B>,
        now_ns: u64,
        max_requests: u32,
    ) -> Result<Served, QueueError> {
        let mut served = Served::default();
        let mut ring = queue.attach(memory)?;
        while served.completed < max_requests {
            let decoded = match self.waiting.take() {
                Some(decoded) => decoded,
                None => {
                    if !ring.pop_into(&mut self.chain)? {
                        break;
                    }
                    Request::decode(&self.chain, memory, device)
                }
            };
            // What cannot be is work too, and counts as a request.
            let cost_bytes = decoded.as_ref().map_or(0, Request::cost_bytes);
            if let Err(until) = device.admit(cost_bytes, now_ns) {
                self.waiting = Some(decoded);
                served.wait_until_ns = Some(until.ns);
                break;
            }
            let written = self.perform(decoded, memory, device);
            ring.stage(self.chain.id(), written)?;
            served.completed += 1;
        }
        if served.completed > 0 {
            ring.publish()?;
            served.needs_notification = ring.needs_notification();
        }
        Ok(served)
    }

    /// Ends the request that waits for its limits, if one does, without more waiting: before the queue is stopped, so that
    /// nothing of it is in flight.
    ///
    /// # Errors
    /// As [`serve`](Self::serve).
    pub fn drain<B: BlockBackend, M: GuestMemory>(
        &mut self,
        queue: &mut Queue,
        memory: &M,
        device: &BlockDevice<B>,
    ) -> Result<Served, QueueError> {
        let Some(decoded) = self.waiting.take() else { return Ok(Served::default()) };
        let written = self.perform(decoded, memory, device);
        let mut ring = queue.attach(memory)?;
        ring.push(self.chain.id(), written)?;
        Ok(Served { completed: 1, needs_notification: ring.needs_notification(), wait_until_ns: None })
    }

    /// Forgets the request that waits: the queue was reset, and with it the request.
    pub fn reset(&mut self) {
        self.waiting = None;
    }

    /// Ends the request in `chain`; returns how many bytes were written to it.
    fn perform<B: BlockBackend, M: GuestMemory>(
        &mut self,
        decoded: Result<Request, Status>,
        memory: &M,
        device: &BlockDevice<B>,
    ) -> u32 {
        let (status, data_written) = match decoded {
            Ok(request) => request.perform(&self.chain, memory, device, &mut self.buffer),
            Err(status) => (status, 0),
        };
        Request::complete(&self.chain, memory, status, data_written)
    }
}
