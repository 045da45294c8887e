//! Features of network devices.

use bitflags::bitflags;
use dragonfly_vswitch::offload;

bitflags! {
    /// `VIRTIO_NET_F_*` that the card knows (virtio 1.2 5.1.3), and `VIRTIO_F_VERSION_1`.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub struct Features: u64 {
        /// The driver may leave checksums to the device.
        const CSUM = 1 << 0;
        /// The device may leave checksums to the driver.
        const GUEST_CSUM = 1 << 1;
        /// The driver can change its own offloads while it runs.
        const CTRL_GUEST_OFFLOADS = 1 << 2;
        /// The device tells its MTU.
        const MTU = 1 << 3;
        /// The device has an address.
        const MAC = 1 << 5;
        /// The driver takes TCP over IPv4 that is to be cut.
        const GUEST_TSO4 = 1 << 7;
        /// The driver takes TCP over IPv6 that is to be cut.
        const GUEST_TSO6 = 1 << 8;
        /// The device cuts TCP over IPv4.
        const HOST_TSO4 = 1 << 11;
        /// The device cuts TCP over IPv6.
        const HOST_TSO6 = 1 << 12;
        /// A frame may fill several receive buffers.
        const MRG_RXBUF = 1 << 15;
        /// The device tells whether the link is up.
        const STATUS = 1 << 16;
        /// There is a control queue.
        const CTRL_VQ = 1 << 17;
        /// What is received can be chosen.
        const CTRL_RX = 1 << 18;
        /// VLANs can be chosen.
        const CTRL_VLAN = 1 << 19;
        /// What is received can be chosen more closely.
        const CTRL_RX_EXTRA = 1 << 20;
        /// The driver announces the station when asked.
        const GUEST_ANNOUNCE = 1 << 21;
        /// There are several pairs of queues.
        const MQ = 1 << 22;
        /// The address can be set by a command.
        const CTRL_MAC_ADDR = 1 << 23;
        /// The device is no legacy one.
        const VERSION_1 = 1 << 32;
        /// The driver takes UDP over IPv4 that is to be cut.
        const GUEST_USO4 = 1 << 54;
        /// The driver takes UDP over IPv6 that is to be cut.
        const GUEST_USO6 = 1 << 55;
        /// The device cuts UDP.
        const HOST_USO = 1 << 56;
        /// The driver says which pair receives what.
        const RSS = 1 << 60;
    }
}

impl Features {
    /// What the driver may leave to the card.
    pub const HOST_OFFLOADS: Self = Self::CSUM.union(Self::HOST_TSO4).union(Self::HOST_TSO6).union(Self::HOST_USO);

    /// What the card may leave to the driver.
    pub const GUEST_OFFLOADS: Self = Self::GUEST_CSUM
        .union(Self::GUEST_TSO4)
        .union(Self::GUEST_TSO6)
        .union(Self::GUEST_USO4)
        .union(Self::GUEST_USO6);

    /// What goes through the control queue, but for the number of pairs.
    pub const CONTROL: Self = Self::CTRL_VQ
        .union(Self::CTRL_RX)
        .union(Self::CTRL_RX_EXTRA)
        .union(Self::CTRL_VLAN)
        .union(Self::CTRL_MAC_ADDR)
        .union(Self::CTRL_GUEST_OFFLOADS)
        .union(Self::GUEST_ANNOUNCE);

    /// What frames to this driver may leave to it.
    #[must_use]
    pub const fn receiver(self) -> offload::Features {
        offload::Features {
            checksum: self.contains(Self::GUEST_CSUM),
            tcp_v4: self.contains(Self::GUEST_TSO4),
            tcp_v6: self.contains(Self::GUEST_TSO6),
            udp: self.contains(Self::GUEST_USO4.union(Self::GUEST_USO6)),
        }
    }
}
