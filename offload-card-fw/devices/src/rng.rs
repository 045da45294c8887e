//! A source of random numbers of the machine file as a virtio entropy device (virtio 1.2 5.4).

use alloc::{boxed::Box, string::String};
use core::fmt;

use dragonfly_rate::TokenBucket;
use dragonfly_vhost_user::{ConfigError, Device, RingConfig};
use dragonfly_virtqueue::{Chain, GuestMemory, QueueError};

use crate::{
    ring::{self, Ring},
    serve::{Serve, Service},
    tables::Rng,
};

/// Buffers filled in one turn.
const BATCH: usize = 16;
/// Bytes that a buffer gets at most, however large it is (5.4.6.1 wants one at least).
const MAX_BYTES: u64 = 1024;
/// Bytes asked of the source at once.
const CHUNK: usize = 256;
/// When a source that had nothing is asked again.
const RETRY_NS: u64 = 1_000_000_000;

/// Numbers that nobody can guess.
pub trait Entropy {
    /// Fills `into`; false if there are no such numbers now, then what it holds means nothing.
    fn fill(&mut self, into: &mut [u8]) -> bool;
}

/// Where a device has its numbers from.
pub type AnyEntropy = Box<dyn Entropy + Send>;

/// A source of random numbers and its queue.
pub struct RngDevice {
    name: String,
    source: AnyEntropy,
    limit: Option<TokenBucket>,
    features: u64,
    ring: Ring,
    chain: Chain,
    /// There are no numbers for what the guest asks, for the time being.
    is_waiting: bool,
}

impl RngDevice {
    /// A device that has its numbers from `source`.
    #[must_use]
    pub fn new(rng: &Rng, source: AnyEntropy) -> Self {
        Self {
            name: rng.name.clone(),
            source,
            limit: rng.rate.map(|rate| TokenBucket::new(rate, 0)),
            features: 0,
            ring: Ring::default(),
            chain: Chain::new(),
            is_waiting: false,
        }
    }
}

impl fmt::Debug for RngDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("RngDevice").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Fills a buffer; gives how many bytes, none for one that is not in the guest's memory, or `None` if the source is dry.
fn fill<M: GuestMemory>(chain: &Chain, memory: &M, source: &mut AnyEntropy) -> Option<u32> {
    let mut writer = chain.writer(memory);
    let mut left = chain.writable_len().min(MAX_BYTES) as usize;
    let mut bytes = [0; CHUNK];
    while left > 0 {
        let part = bytes.get_mut(..left.min(CHUNK))?;
        if !source.fill(part) {
            return None;
        }
        if writer.write_all(part).is_err() {
            return Some(0);
        }
        left -= part.len();
    }
    Some(writer.written())
}

impl Device for RngDevice {
    type RingError = QueueError;

    fn features(&self) -> u64 {
        ring::OFFERED.bits()
    }

    fn set_features(&mut self, features: u64) {
        self.features = features;
    }

    fn queues(&self) -> u16 {
        1
    }

    /// It has no configuration space (5.4.4).
    fn read_config(&self, _offset: usize, into: &mut [u8]) {
        into.fill(0);
    }

    fn write_config(&mut self, _offset: usize, _from: &[u8]) -> Result<(), ConfigError> {
        Err(ConfigError)
    }

    fn start_ring(&mut self, _index: u16, config: RingConfig) -> Result<(), QueueError> {
        self.ring.start(config, self.features)
    }

    fn stop_ring(&mut self, _index: u16) -> u32 {
        self.is_waiting = false;
        self.ring.stop()
    }

    fn reset(&mut self) {
        self.features = 0;
    }

    /// A buffer that was not given back is filled anew.
    fn inflight_len(&self, _queue_size: u16) -> Option<u64> {
        None
    }
}

impl Serve for RngDevice {
    type Shared = ();

    fn name(&self) -> &str {
        &self.name
    }

    fn serve<M: GuestMemory>(
        &mut self,
        (): &mut (),
        _index: u16,
        memory: &M,
        now_ns: u64,
    ) -> Result<Service, QueueError> {
        self.is_waiting = false;
        let mut service = Service::default();
        let Some(queue) = self.ring.queue(memory)? else { return Ok(service) };
        let mut ring = queue.attach(memory)?;
        for _ in 0..BATCH {
            if !ring.pop_into(&mut self.chain)? {
                break;
            }
            let ready_ns = self.limit.as_mut().map_or(now_ns, |limit| limit.ready_at_ns(now_ns));
            let filled =
                if ready_ns > now_ns { Err(ready_ns) } else { Ok(fill(&self.chain, memory, &mut self.source)) };
            match filled.and_then(|filled| filled.ok_or(now_ns.saturating_add(RETRY_NS))) {
                Ok(bytes) => {
                    ring.stage(self.chain.id(), bytes)?;
                    service.has_worked = true;
                    if let Some(limit) = &mut self.limit {
                        limit.take(bytes.into());
                    }
                }
                Err(until_ns) => {
                    ring.unpop(self.chain.id())?;
                    service.wait_until_ns = Some(until_ns);
                    self.is_waiting = true;
                    break;
                }
            }
        }
        if service.has_worked {
            ring.publish()?;
            service.notify = ring.needs_notification();
            ring.disable_kicks();
        }
        Ok(service)
    }

    fn runs(&self, _index: u16) -> bool {
        self.ring.runs()
    }

    fn enable_kicks<M: GuestMemory>(&mut self, _index: u16, memory: &M) -> bool {
        !self.is_waiting && self.ring.enable_kicks(memory)
    }
}
