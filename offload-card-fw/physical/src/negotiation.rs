//! Setting a device up (virtio 1.2 3.1.1).

use bitflags::Flags;
use virtio_drivers::transport::{DeviceStatus, Transport};

use crate::Clock;
use crate::error::OpenError;
use crate::hal::quiesce;
use crate::transport::OnBus;

/// VIRTIO_F_VERSION_1 (virtio 1.2 6).
pub(crate) const VERSION_1: u64 = 1 << 32;

/// How often a configuration is read until it holds still.
const READS: usize = 8;

/// Resets a device and agrees on those of its features that the driver knows.
///
/// # Errors
/// It cannot be reset, is of before virtio 1.0, or does not stand by what it offers.
pub(crate) fn negotiate<T: Transport + OnBus, F: Flags<Bits = u64>>(
    transport: &mut T,
    clock: Clock,
) -> Result<F, OpenError> {
    if !quiesce(transport, clock) {
        return Err(OpenError::Reset);
    }
    transport.admit();
    transport.set_status(DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER);
    let common = transport.read_device_features() & F::all().bits();
    if common & VERSION_1 == 0 {
        return Err(OpenError::Features);
    }
    transport.write_driver_features(common);
    let agreed = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER | DeviceStatus::FEATURES_OK;
    transport.set_status(agreed);
    if !transport.get_status().contains(DeviceStatus::FEATURES_OK) {
        return Err(OpenError::Features);
    }
    Ok(F::from_bits_truncate(common))
}

/// Reads fields of a device's configuration that belong together.
///
/// # Errors
/// They are not there, or change all the time.
pub(crate) fn read_config<T: Transport, R>(
    transport: &T,
    read: impl Fn(&T) -> virtio_drivers::Result<R>,
) -> Result<R, OpenError> {
    for _ in 0..READS {
        let generation = transport.read_config_generation();
        let fields = read(transport).map_err(|_| OpenError::Configuration("it is too short"))?;
        if transport.read_config_generation() == generation {
            return Ok(fields);
        }
    }
    Err(OpenError::Configuration("it never holds still"))
}
