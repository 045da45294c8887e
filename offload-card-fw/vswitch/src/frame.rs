//! Frames as they come and go: the traits between the switch and whoever moves the bytes.

use crate::{
    capture::Record,
    packet::{Packet, protocol},
    port::PortId,
    tunnel::Tunnel,
    vlan::TagEdit,
};

/// A frame that came from a port.
///
/// The switch reads the first bytes and never touches the rest, so that whoever moves frames copies each once, from
/// the sender's memory to the receiver's.
pub trait Frame {
    /// The first [`HEAD`](crate::packet::HEAD) bytes, or all of a shorter frame, from the destination address on. They
    /// must lie where the sender cannot change them any more.
    fn head(&self) -> &[u8];

    /// Bytes of the whole frame.
    fn length(&self) -> usize;

    /// What its sender left to the card.
    fn offload(&self) -> Offload {
        Offload::default()
    }
}

impl Frame for &[u8] {
    fn head(&self) -> &[u8] {
        self
    }

    fn length(&self) -> usize {
        self.len()
    }
}

/// What is left to do about a frame: the meaning of virtio-net's packet header (virtio 1.2 5.1.6). It is the sender's
/// claim: the switch drops frames whose headers it does not fit.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Offload {
    /// The transport checksum holds the pseudo header's sum only and is to be completed.
    pub checksum: Option<PartialChecksum>,
    /// The frame is to be cut into segments.
    pub segmentation: Option<Segmentation>,
    /// Somebody has seen that the checksum is right (VIRTIO_NET_HDR_F_DATA_VALID).
    pub is_valid: bool,
}

/// Where a checksum is missing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PartialChecksum {
    /// Where the bytes to be summed begin.
    pub start: u16,
    /// Where the sum goes, from `start` on.
    pub offset: u16,
}

/// How a frame is to be cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Segmentation {
    /// What it carries.
    pub kind: SegmentKind,
    /// Bytes of data in each segment but the last.
    pub size: u16,
}

/// What a frame that is to be cut carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SegmentKind {
    /// A TCP stream's next data (TSO).
    Tcp,
    /// UDP datagrams of equal length (USO).
    Udp,
}

impl SegmentKind {
    /// The IP protocol that is cut so.
    #[must_use]
    pub const fn protocol(self) -> u8 {
        match self {
            Self::Tcp => protocol::TCP,
            Self::Udp => protocol::UDP,
        }
    }
}

impl Offload {
    /// Into how many frames one of `length` bytes will be cut, roughly: headers count as data.
    #[inline]
    #[must_use]
    pub fn packets(&self, length: usize) -> usize {
        self.segmentation.map_or(1, |cut| length.div_ceil(usize::from(cut.size.max(1))))
    }

    /// Whether the claims fit a frame's headers.
    ///
    /// A checksum is written after the frame was judged: were its place not checked, it could change an address or
    /// a port. It goes into the transport header's own field, or somewhere in that header's data.
    #[inline]
    #[must_use]
    pub fn fits(&self, packet: &Packet) -> bool {
        self.checksum.is_none() & self.segmentation.is_none() || self.claims_fit(packet)
    }

    fn claims_fit(&self, packet: &Packet) -> bool {
        let (header, field) = match packet.key.protocol() {
            protocol::TCP => (20, Some(16)),
            protocol::UDP => (8, Some(6)),
            _ => (8, None),
        };
        let is_own = |checksum: &PartialChecksum| {
            let start = usize::from(checksum.start);
            let transport = usize::from(packet.transport);
            start == transport && Some(checksum.offset) == field || start >= transport + header
        };
        let has_transport = packet.family().is_some() && packet.fragment.is_none();
        self.checksum.as_ref().is_none_or(|checksum| has_transport && is_own(checksum))
            && self
                .segmentation
                .is_none_or(|cut| has_transport && cut.size > 0 && packet.key.protocol() == cut.kind.protocol())
    }

    /// What is left to do about the frame that begins behind `strip` bytes of a tunnel's headers. An outer checksum that was
    /// left partial stayed within this host, and is not needed any more.
    #[must_use]
    pub fn inner(self, strip: usize) -> Self {
        let checksum = self.checksum.filter(|checksum| usize::from(checksum.start) >= strip);
        Self { checksum, ..self }.moved(strip, 0)
    }

    /// The same once `removed` bytes are taken from the frame's begin and `added` put there.
    #[must_use]
    pub fn moved(mut self, removed: usize, added: usize) -> Self {
        self.checksum = self.checksum.and_then(|checksum| {
            let start = (usize::from(checksum.start) + added).checked_sub(removed)?;
            Some(PartialChecksum { start: u16::try_from(start).ok()?, ..checksum })
        });
        self
    }
}

/// The longest run of bytes that an [`Edit`] puts before a frame.
pub const MAX_PREFIX: usize = crate::tunnel::MAX_HEADER + 16;

/// What a port gets in place of the bytes that came in.
#[derive(Clone, Copy, Debug)]
pub struct Edit<'a> {
    /// Bytes at the frame's begin that were a tunnel's, not to be forwarded.
    pub strip: u16,
    /// What becomes of the tag behind them.
    pub tag: TagEdit,
    /// The tunnel that the frame goes into.
    pub tunnel: Option<&'a Tunnel>,
    /// The same for all frames of a flow in one direction, and secret: for choosing one of the receiver's queues.
    pub flow_hash: u64,
}

impl Edit<'_> {
    /// Whether the frame goes out as it came in.
    #[inline]
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.strip == 0 && self.tag == TagEdit::Keep && self.tunnel.is_none()
    }

    /// Writes what goes before the frame, of which `skip` first bytes are left out: what is sent is `prefix[..written]`
    /// and `frame[skip..]`. `frame` has `length` bytes, and `head` holds its first ones. A checksum in an outer UDP
    /// header is left partial ([`Edit::outer_checksum`]). `None` if the frame is shorter than when it was forwarded, or
    /// too long for a tunnel.
    #[must_use]
    pub fn write(&self, head: &[u8], length: usize, prefix: &mut [u8; MAX_PREFIX]) -> Option<Splice> {
        let strip = usize::from(self.strip);
        let outer = self.tunnel.map_or(0, Tunnel::header_length);
        let (tag_length, tag_skip) = self.tag.write(head.get(strip..)?, prefix.get_mut(outer..)?)?;
        let skip = strip + tag_skip;
        let rest = length.checked_sub(skip)?;
        if let Some(tunnel) = self.tunnel {
            tunnel.write_header(tag_length + rest, self.flow_hash, prefix.get_mut(..outer)?)?;
        }
        Some(Splice { written: outer + tag_length, skip })
    }

    /// The checksum that the prefix leaves to be completed.
    #[must_use]
    pub fn outer_checksum(&self) -> Option<PartialChecksum> {
        self.tunnel.and_then(Tunnel::partial_checksum)
    }
}

/// What [`Edit::write`] has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Splice {
    /// Bytes written, which go first.
    pub written: usize,
    /// Bytes of the frame that are left out.
    pub skip: usize,
}

/// Takes what the switch decides.
pub trait Output {
    /// Frame number `frame` of the batch goes to `port`, changed as `edit` says. Called once for each port that gets
    /// the frame; ports get a flow's frames in the order in which they came.
    fn forward(&mut self, frame: usize, port: PortId, edit: &Edit<'_>);

    /// A frame of the switch's own goes to `port`: an answer to one that was too long.
    fn originate(&mut self, port: PortId, frame: &[u8]);

    /// A frame passed a port that is captured.
    fn captured(&mut self, port: PortId, record: &Record<'_>) {
        let _ = (port, record);
    }
}
