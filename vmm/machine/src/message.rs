//! Message-signalled interrupts: how every device of the machine interrupts a vCPU.

/// An interrupt as the write of `data` to `address` that a device would do (SDM 3A, "Message Signalled Interrupts").
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Message {
    /// Destination: an address in the local APICs' page.
    pub address: u64,
    /// Vector, delivery mode, trigger mode.
    pub data: u32,
}
