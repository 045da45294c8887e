//! A disk of the machine file as a virtio-blk device.

use alloc::{string::String, vec::Vec};
use core::fmt;

use dragonfly_storage::blk::{BlockDevice, ID_BYTES, RequestQueue, Settings};
use dragonfly_vhost_user::{ConfigError, Device, RingConfig};
use dragonfly_virtqueue::{GuestMemory, QueueError};

use crate::{
    contents::SharedDisk,
    ring::{self, Ring},
    serve::{Serve, Service},
    tables::Disk,
};

/// Requests served of one ring before the next one's turn.
const BATCH: u32 = 64;

/// A disk and its queues.
pub struct DiskDevice {
    name: String,
    device: BlockDevice<SharedDisk>,
    features: u64,
    queues: Vec<Slot>,
}

/// A queue: what serves it, and its ring while it runs.
#[derive(Default)]
struct Slot {
    requests: RequestQueue,
    ring: Ring,
    /// The request taken last waits for the limits.
    is_waiting: bool,
}

impl DiskDevice {
    /// A device with these contents.
    #[must_use]
    pub fn new(disk: &Disk, contents: SharedDisk) -> Self {
        let mut id = [0; ID_BYTES];
        id.iter_mut().zip(disk.serial.bytes()).for_each(|(to, from)| *to = from);
        let settings = Settings { id, queues: disk.queues, limits: disk.limits };
        Self {
            name: disk.name.clone(),
            device: BlockDevice::new(contents, settings, 0),
            features: 0,
            queues: (0..disk.queues).map(|_| Slot::default()).collect(),
        }
    }

    fn slot(&mut self, index: u16) -> Option<&mut Slot> {
        self.queues.get_mut(usize::from(index))
    }
}

impl fmt::Debug for DiskDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("DiskDevice").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Device for DiskDevice {
    type RingError = QueueError;

    fn features(&self) -> u64 {
        self.device.offered().bits() | ring::OFFERED.bits()
    }

    fn set_features(&mut self, features: u64) {
        self.features = features;
        self.device.negotiate(features);
    }

    fn queues(&self) -> u16 {
        // As many as a machine file's number has bits for.
        self.queues.len() as u16
    }

    fn read_config(&self, offset: usize, into: &mut [u8]) {
        self.device.read_config(offset, into);
    }

    fn write_config(&mut self, offset: usize, from: &[u8]) -> Result<(), ConfigError> {
        self.device.write_config(offset, from);
        Ok(())
    }

    fn start_ring(&mut self, index: u16, config: RingConfig) -> Result<(), QueueError> {
        let features = self.features;
        self.slot(index).map_or(Ok(()), |slot| slot.ring.start(config, features))
    }

    /// Requests are completed in their order, so all but one that waits are, and that one is taken again later.
    fn stop_ring(&mut self, index: u16) -> u32 {
        let Some(slot) = self.slot(index) else { return 0 };
        slot.requests.reset();
        slot.is_waiting = false;
        slot.ring.stop()
    }

    fn reset(&mut self) {
        self.device.reset();
    }

    fn inflight_len(&self, queue_size: u16) -> Option<u64> {
        ring::in_flight_len(queue_size, self.features)
    }
}

impl Serve for DiskDevice {
    type Shared = ();

    fn name(&self) -> &str {
        &self.name
    }

    fn serve<M: GuestMemory>(
        &mut self,
        (): &mut (),
        index: u16,
        memory: &M,
        now_ns: u64,
    ) -> Result<Service, QueueError> {
        let Some(slot) = self.queues.get_mut(usize::from(index)) else { return Ok(Service::default()) };
        let Some(queue) = slot.ring.queue(memory)? else { return Ok(Service::default()) };
        let served = slot.requests.serve(queue, memory, &self.device, now_ns, BATCH)?;
        if served.completed > 0 {
            queue.disable_kicks(memory);
        }
        slot.is_waiting = served.wait_until_ns.is_some();
        Ok(Service {
            has_worked: served.completed > 0,
            notify: served.needs_notification,
            wait_until_ns: served.wait_until_ns,
        })
    }

    fn runs(&self, index: u16) -> bool {
        self.queues.get(usize::from(index)).is_some_and(|slot| slot.ring.runs())
    }

    fn enable_kicks<M: GuestMemory>(&mut self, index: u16, memory: &M) -> bool {
        self.slot(index).is_some_and(|slot| !slot.is_waiting && slot.ring.enable_kicks(memory))
    }
}
