//! Handles, object types and rights.

use bitflags::bitflags;

/// Names an object in the table of the domain that holds it; means nothing elsewhere.
///
/// Bits 0 to 15 are the table's slot, the bits above a count of the slot's earlier uses, so that a stale handle is
/// recognised. Zero is never a handle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(transparent)]
pub struct Handle(pub u32);

impl Handle {
    /// No handle.
    pub const NULL: Self = Self(0);

    /// A handle for a slot and its use count.
    #[must_use]
    pub const fn new(slot: u16, generation: u16) -> Self {
        Self((generation as u32) << 16 | slot as u32)
    }

    /// The table's slot.
    #[must_use]
    pub const fn slot(self) -> u16 {
        self.0 as u16
    }

    /// The use count of the slot.
    #[must_use]
    pub const fn generation(self) -> u16 {
        (self.0 >> 16) as u16
    }

    /// Whether this is [`Handle::NULL`].
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.0 == 0
    }
}

/// What kind of object a handle names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ObjectType {
    /// Address space, handle table and account.
    Domain = 1,
    /// A thread with its scheduling context.
    Thread = 2,
    /// IPC end point.
    Gate = 3,
    /// A word of bits that can be waited for.
    Notification = 4,
    /// Frames that can be mapped.
    Memory = 5,
    /// A range of I/O ports.
    Ports = 6,
    /// An interrupt line, or a message-signalled interrupt.
    Interrupt = 7,
    /// The authority over the machine: devices, log, figures.
    System = 8,
    /// A virtual machine: guest-physical memory and interrupts.
    Vm = 9,
    /// A virtual CPU.
    Vcpu = 10,
}

impl ObjectType {
    /// The type with this number, if there is one.
    #[must_use]
    pub fn from_raw(raw: u64) -> Option<Self> {
        Some(match raw {
            1 => Self::Domain,
            2 => Self::Thread,
            3 => Self::Gate,
            4 => Self::Notification,
            5 => Self::Memory,
            6 => Self::Ports,
            7 => Self::Interrupt,
            8 => Self::System,
            9 => Self::Vm,
            10 => Self::Vcpu,
            _ => return None,
        })
    }
}

bitflags! {
    /// What the holder of a handle may do with its object.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct Rights: u32 {
        /// Any: copy it, to oneself or to others.
        const COPY     = 1 << 0;
        /// Memory: map readable. Domain, Thread: ask for figures. System: ask for figures.
        const READ     = 1 << 1;
        /// Memory: map writable, commit. Ports: write.
        const WRITE    = 1 << 2;
        /// Memory: map executable.
        const EXECUTE  = 1 << 3;
        /// Gate: call. Notification: signal. Vm: interrupt. Vcpu: kick.
        const SEND     = 1 << 4;
        /// Gate: receive. Notification: wait, bind.
        const RECEIVE  = 1 << 5;
        /// Domain: create threads and child domains, map and unmap. Thread: configure, start.
        /// Interrupt: bind, acknowledge. Vm: map, make vCPUs, set doorbells. Vcpu: run, change.
        const MANAGE   = 1 << 6;
        /// Domain: put handles into its table.
        const GRANT    = 1 << 7;
        /// Domain, Thread: destroy.
        const DESTROY  = 1 << 8;
        /// System: make device objects.
        const DEVICES  = 1 << 9;
        /// System: write to the log.
        const LOG      = 1 << 10;
        /// System: learn the physical addresses of memory, to give them to devices; make message-signalled interrupts.
        const DMA      = 1 << 11;
    }
}

/// What [`HandleInfo`](crate::Call::HandleInfo) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandleInfo {
    /// Type of the object.
    pub object: ObjectType,
    /// Rights of the handle.
    pub rights: Rights,
    /// Badge of the handle, 0 for none.
    pub badge: u64,
}
