//! Behaviour of the device.
