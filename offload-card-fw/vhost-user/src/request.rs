//! What a front end may ask for.

macro_rules! requests {
    ($($(#[$doc:meta])* $name:ident = $id:literal,)*) => {
        /// A request of the front end, by its number in the protocol.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u32)]
        pub enum Request {
            $($(#[$doc])* $name = $id,)*
        }

        impl Request {
            /// All requests, by ascending number.
            pub const ALL: &[Self] = &[$(Self::$name),*];
        }
    };
}

requests! {
    /// Which virtio features the device offers.
    GetFeatures = 1,
    /// Which of them driver and front end use.
    SetFeatures = 2,
    /// The front end owns the session from now on.
    SetOwner = 3,
    /// Stop all rings; deprecated.
    ResetOwner = 4,
    /// The guest's memory, all of it.
    SetMemTable = 5,
    /// Number of a ring's descriptors.
    SetVringNum = 8,
    /// Where a ring's parts are.
    SetVringAddr = 9,
    /// Where in a ring to go on.
    SetVringBase = 10,
    /// Stop a ring and say where it was.
    GetVringBase = 11,
    /// What tells of new buffers.
    SetVringKick = 12,
    /// What tells of used buffers.
    SetVringCall = 13,
    /// What tells that a ring is broken.
    SetVringErr = 14,
    /// Which extensions of the protocol there are here.
    GetProtocolFeatures = 15,
    /// Which of them are used.
    SetProtocolFeatures = 16,
    /// Number of queues.
    GetQueueNum = 17,
    /// Let a ring be served, or not.
    SetVringEnable = 18,
    /// What tells the front end of changes to the configuration space.
    SetBackendReqFd = 21,
    /// Read the device's configuration space.
    GetConfig = 24,
    /// Write to the device's configuration space.
    SetConfig = 25,
    /// Make memory for the state of requests under way.
    GetInflightFd = 31,
    /// Take that memory back after a new connection.
    SetInflightFd = 32,
    /// Stop all rings and reset the device.
    ResetDevice = 34,
    /// Number of regions that the guest's memory may have.
    GetMaxMemSlots = 36,
    /// One more region of the guest's memory.
    AddMemReg = 37,
    /// One region less.
    RemMemReg = 38,
    /// The virtio device's status.
    SetStatus = 39,
    /// The virtio device's status, back.
    GetStatus = 40,
}

impl Request {
    /// The request of a number.
    #[must_use]
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.iter().copied().find(|request| *request as u32 == id)
    }
}
