//! Devices as the kernel sees them: port ranges and interrupts. Device memory is a [`Memory`] object.
//!
//! [`Memory`]: crate::memory_object::Memory

use dragonfly_abi::Status;
use dragonfly_memory::Charge;

use crate::arch::{Arch, Trigger};
use crate::notification::Notification;
use crate::{Lock, Ref};

/// A range of I/O ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// The first port.
    pub first: u16,
    /// How many there are.
    pub count: u32,
}

impl PortRange {
    /// The port, if an access of `width` bytes there stays in the range.
    pub fn check(self, port: u64, width: u64) -> Result<(u16, u8), Status> {
        let offset = port.checked_sub(u64::from(self.first)).ok_or(Status::BadArgument)?;
        let end = offset.checked_add(width).ok_or(Status::BadArgument)?;
        match (u16::try_from(port), width) {
            (Ok(port), 1 | 2 | 4) if end <= u64::from(self.count) => Ok((port, width as u8)),
            _ => Err(Status::BadArgument),
        }
    }
}

/// An interrupt line or a message-signalled interrupt, and where its interrupts go.
pub struct InterruptLine<A: Arch> {
    /// Its number: of a line the global system interrupt of ACPI, of a message one from [`LINES`](crate::LINES) on, which
    /// is its alone as long as it lives.
    pub line: u32,
    /// How it signals; nothing for messages.
    pub trigger: Option<Trigger>,
    /// What it sets.
    pub target: Lock<Option<InterruptTarget<A>>, A>,
    _charge: Charge<A::Heap>,
}

/// Where a line is bound, if it is.
pub type LineSlot<A> = Lock<Option<Ref<InterruptLine<A>, A>>, A>;

/// What an interrupt sets.
pub struct InterruptTarget<A: Arch> {
    /// The notification.
    pub notification: Ref<Notification<A>, A>,
    /// The bits.
    pub bits: u64,
}

impl<A: Arch> InterruptLine<A> {
    /// A line that is bound to nothing.
    pub fn new(line: u32, trigger: Option<Trigger>, charge: Charge<A::Heap>) -> Self {
        Self { line, trigger, target: Lock::<_, A>::new(None), _charge: charge }
    }
}

#[cfg(test)]
mod tests {
    use super::PortRange;

    #[test]
    fn an_access_must_lie_in_the_range_as_a_whole() {
        let ports = PortRange { first: 0x70, count: 2 };
        assert!(ports.check(0x70, 1).is_ok());
        assert!(ports.check(0x70, 2).is_ok());
        assert!(ports.check(0x71, 2).is_err());
        assert!(ports.check(0x6f, 1).is_err());
        assert!(ports.check(0x70, 3).is_err());
        assert!(ports.check(u64::MAX, 1).is_err());
        let all = PortRange { first: 0, count: 0x1_0000 };
        assert!(all.check(0xfffc, 4).is_ok());
        assert!(all.check(0xfffd, 4).is_err());
        assert!(all.check(0x1_0000, 1).is_err());
    }
}
