//! What a card says of a device when its session begins.

use alloc::vec;
use alloc::vec::Vec;

use dragonfly_machine::virtio::{DeviceKind, MAX_QUEUES};
use dragonfly_vhost_user::{FrontEnd, ProtocolFeatures, Transport};

use super::device::DeviceError;
use super::transport::CarryError;

/// Bytes of the configuration spaces (virtio 1.2, 5.1.4, 5.2.4, 5.3.4 and 5.10.4).
const NET_CONFIG_SIZE: u16 = 24;
const BLOCK_CONFIG_SIZE: u16 = 96;
/// Without the field for emergency writes, a feature that is not offered.
const CONSOLE_CONFIG_SIZE: u16 = 8;
const SOCKET_CONFIG_SIZE: u16 = 8;

/// Extensions that devices cannot do without.
const NEEDED: ProtocolFeatures = ProtocolFeatures::CONFIG.union(ProtocolFeatures::RESET_DEVICE);
/// All that are used where they are offered.
const USED: ProtocolFeatures =
    NEEDED.union(ProtocolFeatures::MQ).union(ProtocolFeatures::INFLIGHT_SHMFD).union(ProtocolFeatures::BACKEND_REQ);

/// A network device with a queue for control has one more than its pairs (virtio 1.2, 5.1.2).
const NET_F_CTRL_VQ: u64 = 1 << 17;

/// What a card says of a device when its session begins.
pub(super) struct Offer {
    /// Virtio features.
    pub(super) features: u64,
    /// Extensions of the protocol that are used.
    pub(super) extensions: ProtocolFeatures,
    /// Number of queues.
    pub(super) queues: u16,
    /// The configuration space.
    pub(super) config: Vec<u8>,
}

impl Offer {
    /// Begins a session.
    ///
    /// # Errors
    /// A message did not get through, or the card lacks what is needed.
    pub(super) fn ask<T: Transport<Error = CarryError>>(
        front_end: &mut FrontEnd<T>,
        kind: DeviceKind,
    ) -> Result<Self, DeviceError> {
        front_end.set_owner()?;
        let features = front_end.features()?;
        let offered = front_end.protocol_features()?;
        if !offered.contains(NEEDED) {
            return Err(DeviceError::Lacks(NEEDED - offered));
        }
        let extensions = offered & USED;
        front_end.set_protocol_features(extensions)?;
        let told = if extensions.contains(ProtocolFeatures::MQ) { front_end.queues()? } else { 1 };
        let (queues, config_size) = match kind {
            DeviceKind::Block => (told, BLOCK_CONFIG_SIZE),
            // It has no configuration space (virtio 1.2, 5.4.4).
            DeviceKind::Entropy => (told, 0),
            DeviceKind::Console => (told, CONSOLE_CONFIG_SIZE),
            DeviceKind::Socket => (told, SOCKET_CONFIG_SIZE),
            DeviceKind::Network => {
                let control = u64::from(features & NET_F_CTRL_VQ != 0);
                (told.saturating_mul(2).saturating_add(control), NET_CONFIG_SIZE)
            }
        };
        let queues = u16::try_from(queues).unwrap_or(u16::MAX).min(MAX_QUEUES);
        let mut config = vec![0; usize::from(config_size)];
        if !config.is_empty() {
            front_end.read_config(0, &mut config)?;
        }
        Ok(Self { features, extensions, queues, config })
    }
}
