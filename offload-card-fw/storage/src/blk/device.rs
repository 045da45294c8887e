//! What the queues of a device share.

use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use spin::Mutex;
use zerocopy::IntoBytes;

use super::config::{CONFIG_BYTES, Config, Features, WRITEBACK_OFFSET, offered};
use crate::backend::{BlockBackend, Geometry};
use crate::limit::{Limiter, Limits, WaitUntil};

/// Bytes of a device's serial number (virtio 1.2 5.2.6).
pub const ID_BYTES: usize = 20;

/// How a device presents itself.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Serial number, padded with zeros.
    pub id: [u8; ID_BYTES],
    /// Number of queues, at least 1.
    pub queues: u16,
    /// What the guest may do.
    pub limits: Limits,
}

/// A virtio block device but for its queues. Each queue may be served by a thread of its own.
pub struct BlockDevice<B> {
    pub(super) disk: B,
    pub(super) geometry: Geometry,
    pub(super) id: [u8; ID_BYTES],
    queues: u16,
    limiter: Mutex<Limiter>,
    negotiated: AtomicU64,
    /// The field `writeback`.
    is_write_back: AtomicBool,
}

impl<B: BlockBackend> BlockDevice<B> {
    /// A device with `disk`, as it is after a reset. Its limits count from `now_ns`.
    #[must_use]
    pub fn new(disk: B, settings: Settings, now_ns: u64) -> Self {
        let geometry = disk.geometry();
        Self::of(disk, geometry, settings, now_ns)
    }
}

impl BlockDevice<()> {
    /// A device for a disk of this shape that others drive, through the steps of [`Request`](super::Request).
    #[must_use]
    pub fn without_disk(geometry: Geometry, settings: Settings, now_ns: u64) -> Self {
        Self::of((), geometry, settings, now_ns)
    }
}

impl<B> BlockDevice<B> {
    fn of(disk: B, geometry: Geometry, settings: Settings, now_ns: u64) -> Self {
        Self {
            disk,
            geometry,
            id: settings.id,
            queues: settings.queues.max(1),
            limiter: Mutex::new(Limiter::new(settings.limits, now_ns)),
            negotiated: AtomicU64::new(0),
            is_write_back: AtomicBool::new(true),
        }
    }

    /// The disk.
    pub fn disk(&self) -> &B {
        &self.disk
    }

    /// The serial number, padded with zeros.
    #[must_use]
    pub const fn id(&self) -> &[u8; ID_BYTES] {
        &self.id
    }

    /// What the device offers. The transport adds the bits of rings and its own.
    #[must_use]
    pub fn offered(&self) -> Features {
        offered(&self.geometry, self.queues)
    }

    /// Takes note of what the driver accepted; unknown bits are others' to judge.
    pub fn negotiate(&self, features: u64) {
        let features = Features::from_bits_truncate(features) & self.offered();
        self.negotiated.store(features.bits(), Relaxed);
        // virtio 1.2 5.2.5.2: without FLUSH the cache starts switched off.
        self.is_write_back.store(features.contains(Features::FLUSH), Relaxed);
    }

    /// Forgets what the driver negotiated.
    pub fn reset(&self) {
        self.negotiated.store(0, Relaxed);
        self.is_write_back.store(true, Relaxed);
    }

    /// Reads `into.len()` bytes of the configuration space from `offset` on; zeros beyond its end.
    pub fn read_config(&self, offset: usize, into: &mut [u8]) {
        let config = Config::new(&self.geometry, self.queues, self.is_write_back.load(Relaxed));
        into.fill(0);
        let bytes = config.as_bytes().get(offset..).unwrap_or_default();
        for (to, from) in into.iter_mut().zip(bytes) {
            *to = *from;
        }
    }

    /// Writes to the configuration space. All but the switch of the cache is read-only and stays as it is.
    pub fn write_config(&self, offset: usize, from: &[u8]) {
        let byte = WRITEBACK_OFFSET.checked_sub(offset).and_then(|index| from.get(index));
        if let Some(byte) = byte
            && self.has(Features::CONFIG_WCE)
        {
            self.is_write_back.store(byte & 1 != 0, Relaxed);
        }
    }

    /// Bytes of the configuration space.
    #[must_use]
    pub const fn config_bytes(&self) -> usize {
        CONFIG_BYTES
    }

    /// Changes the limits at once.
    pub fn set_limits(&self, limits: Limits, now_ns: u64) {
        self.limiter.lock().set_limits(limits, now_ns);
    }

    pub(super) fn has(&self, feature: Features) -> bool {
        self.negotiated.load(Relaxed) & feature.bits() != 0
    }

    /// Whether each write must be safe from power loss when it ends (virtio 1.2 5.2.6.2).
    #[must_use]
    pub fn is_write_through(&self) -> bool {
        let is_write_back =
            if self.has(Features::CONFIG_WCE) { self.is_write_back.load(Relaxed) } else { self.has(Features::FLUSH) };
        !is_write_back
    }

    /// Lets a request that moves so many bytes pass, or says when to ask again.
    ///
    /// # Errors
    /// The time before which it cannot pass.
    pub fn admit(&self, bytes: u64, now_ns: u64) -> Result<(), WaitUntil> {
        self.limiter.lock().admit(bytes, now_ns)
    }
}
