//! What ports and rules count.

/// Frames and their bytes.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Count {
    /// Frames.
    pub frames: u64,
    /// Bytes of these frames, from the destination address on, without the check sequence.
    pub bytes: u64,
}

impl Count {
    /// Counts one frame.
    #[inline]
    pub const fn add(&mut self, bytes: usize) {
        self.frames += 1;
        self.bytes += bytes as u64;
    }
}

macro_rules! drop_reasons {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Why a frame was not forwarded (to a certain port).
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum DropReason {
            $($(#[$doc])* $name,)*
        }

        impl DropReason {
            /// All reasons, in the order of their counters.
            pub const ALL: &[Self] = &[$(Self::$name,)*];
        }
    };
}

drop_reasons! {
    /// The headers are cut off or contradict themselves.
    Malformed,
    /// What the frame leaves to the card does not fit its headers.
    Offload,
    /// Longer than the port's MTU, and not to be cut by the card.
    TooLong,
    /// The port may not send into this VLAN.
    Vlan,
    /// Sender's Ethernet address is a group's, or not one of the port's.
    SpoofedMac,
    /// Sender's Internet address is not one of the port's, in an IP header, ARP or a neighbour message.
    SpoofedAddress,
    /// Sender's Ethernet address belongs to another port.
    StationElsewhere,
    /// Destination is the sending port, or a port that is kept apart from it.
    NoWay,
    /// More broadcast, multicast or flooded frames than allowed.
    Storm,
    /// More packets or bits than the port may send.
    SendLimit,
    /// More packets or bits than the port may receive.
    ReceiveLimit,
    /// Neither IP nor address resolution, on a port with security groups.
    NotIp,
    /// A rule denies it, or none allows it.
    Denied,
    /// A TCP segment of no connection that does not open one.
    NotOpening,
    /// A TCP segment that its connection's state forbids.
    OutOfState,
    /// All places for connections are taken by live ones.
    ConnectionsFull,
    /// A fragment whose first part was not seen.
    UnknownFragment,
    /// A tunnel's packet with wrong headers.
    TunnelHeader,
    /// A tunnel's packet of a peer or network that is not configured.
    TunnelUnknown,
    /// A tunnel's packet whose outer checksum is wrong.
    TunnelChecksum,
}

/// What a port counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PortCounters {
    /// From the port to the switch, whatever became of it.
    pub received: Count,
    /// From the switch to the port.
    pub sent: Count,
    /// Frames that were decided by the flow cache.
    pub cached: u64,
    drops: [u64; DropReason::ALL.len()],
}

impl Default for PortCounters {
    fn default() -> Self {
        Self { received: Count::default(), sent: Count::default(), cached: 0, drops: [0; _] }
    }
}

impl PortCounters {
    /// Counts a frame that is not forwarded.
    pub const fn add_drop(&mut self, reason: DropReason) {
        self.drops[reason as usize] += 1;
    }

    /// Frames dropped for a reason: counted at the port that sent them, or that would have received them for the
    /// reasons that concern the receiver.
    #[must_use]
    pub const fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }
}
