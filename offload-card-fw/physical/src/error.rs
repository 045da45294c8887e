//! What can go wrong with a device.

use dragonfly_rt::abi::Status;
use thiserror::Error;

/// Why a device cannot be used. Others can.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The kernel's answer to mapping its registers or sharing memory.
    #[error("its registers cannot be mapped: {0}")]
    Registers(#[from] Status),
    /// It is another device than the driver is for.
    #[error("it is PCI device {device:#06x} of vendor {vendor:#06x}, not virtio device {wanted}")]
    OtherDevice {
        /// What it says that it is.
        vendor: u16,
        /// Likewise.
        device: u16,
        /// The virtio device number that was looked for.
        wanted: u16,
    },
    /// Its list of capabilities leads nowhere, or lacks a structure of virtio 1.2 4.1.4, or names one that is not in a
    /// memory BAR.
    #[error("its {0} is missing or not where it says")]
    Structure(&'static str),
    /// It does not finish a reset.
    #[error("it cannot be reset")]
    Reset,
    /// It offers only what came before virtio 1.0, or refuses what it offered itself.
    #[error("it does not agree on features")]
    Features,
    /// Its configuration contradicts itself.
    #[error("its configuration cannot be: {0}")]
    Configuration(&'static str),
    /// A queue is too small or missing.
    #[error("its queue cannot be used: {0}")]
    Queue(virtio_drivers::Error),
    /// The pool for devices is used up, or the domain lacks the grant `dma` or memory.
    #[error("there is no memory to share with it; has the domain the grant `dma`, and quota?")]
    NoMemory,
    /// It did not even tell its serial number.
    #[error("it does not answer: {0}")]
    Silent(Fault),
}

/// Why a device was stopped while it was used: it is never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Fault {
    /// It did not answer in time.
    #[error("it did not answer in time")]
    Timeout,
    /// It gave back what it did not have.
    #[error("it gave back a request that it did not have")]
    UnknownRequest,
    /// It says that it wrote more than there was room for, or less than it should.
    #[error("it wrote another number of bytes than it may")]
    Length,
    /// A status that does not exist.
    #[error("it ended a request with a status that does not exist")]
    Status,
    /// The driver's fault: a request was not made as it should.
    #[error("the driver made a request that cannot be")]
    Internal,
}
