//! Cutting a frame into segments, each a frame with headers of its own.

use super::OffloadError;
use crate::{
    address::Family,
    bytes::{self, add_u16, put},
    checksum::{self, Checksum},
    frame::{Offload, SegmentKind},
    packet::{Packet, tcp_flags},
};

const PUSH: u8 = 0x08;
/// The sender has slowed down because of congestion (RFC 3168 6.1.2): said once.
const WINDOW_REDUCED: u8 = 0x80;

/// The segments of a frame, one after the other.
pub struct Segments<'a> {
    headers: &'a [u8],
    data: &'a [u8],
    packet: Packet,
    family: Family,
    kind: SegmentKind,
    size: usize,
    /// Segments written.
    written: u16,
}

impl<'a> Segments<'a> {
    /// Prepares to cut a whole frame as `offload` says.
    ///
    /// # Errors
    /// [`OffloadError::Segmentation`] if the frame is not what `offload` says, or is fragmented.
    pub fn new(frame: &'a [u8], offload: &Offload) -> Result<Self, OffloadError> {
        Self::prepare(frame, offload).ok_or(OffloadError::Segmentation)
    }

    fn prepare(frame: &'a [u8], offload: &Offload) -> Option<Self> {
        let cut = offload.segmentation.filter(|cut| cut.size > 0)?;
        let packet = Packet::parse(frame, frame.len()).ok()?;
        let family = packet.family()?;
        if packet.fragment.is_some() || packet.key.protocol() != cut.kind.protocol() {
            return None;
        }
        let (network, transport) = (usize::from(packet.network), usize::from(packet.transport));
        let length = match family {
            Family::V4 => usize::from(bytes::get_u16(frame, network + 2)?),
            Family::V6 => 40 + usize::from(bytes::get_u16(frame, network + 4)?),
        };
        let header = match cut.kind {
            SegmentKind::Tcp => usize::from(bytes::get_u8(frame, transport + 12)? >> 4) * 4,
            SegmentKind::Udp => 8,
        };
        let (headers, data) = frame.get(..network + length)?.split_at_checked(transport + header)?;
        Some(Self { headers, data, packet, family, kind: cut.kind, size: cut.size.into(), written: 0 })
    }

    /// Writes the next segment and gives its length; `None` after the last one. A frame without data is one segment.
    ///
    /// # Errors
    /// [`OffloadError::Room`] if `segment` is shorter than the segment.
    pub fn write_next(&mut self, segment: &mut [u8]) -> Result<Option<usize>, OffloadError> {
        if self.written > 0 && self.data.is_empty() {
            return Ok(None);
        }
        let (data, rest) = self.data.split_at(self.size.min(self.data.len()));
        let length = self.headers.len() + data.len();
        let segment = segment.get_mut(..length).ok_or(OffloadError::Room)?;
        put(segment, 0, self.headers).ok_or(OffloadError::Room)?;
        put(segment, self.headers.len(), data).ok_or(OffloadError::Room)?;
        self.write_headers(segment, rest.is_empty()).ok_or(OffloadError::Segmentation)?;
        self.data = rest;
        self.written = self.written.wrapping_add(1);
        Ok(Some(length))
    }

    fn write_headers(&self, segment: &mut [u8], is_last: bool) -> Option<()> {
        let (network, transport) = (usize::from(self.packet.network), usize::from(self.packet.transport));
        let packet_length = segment.len() - network;
        match self.family {
            Family::V4 => {
                put(segment, network + 2, &u16::try_from(packet_length).ok()?.to_be_bytes())?;
                add_u16(segment, network + 4, self.written)?;
                put(segment, network + 10, &[0, 0])?;
                let sum = checksum::of(segment.get(network..network + header_length(segment, network)?)?);
                put(segment, network + 10, &sum.to_be_bytes())?;
            }
            Family::V6 => put(segment, network + 4, &u16::try_from(packet_length - 40).ok()?.to_be_bytes())?,
        }
        let field = match self.kind {
            SegmentKind::Tcp => {
                let before = u32::from(self.written).wrapping_mul(self.size as u32);
                let sequence = self.packet.tcp.sequence.wrapping_add(before);
                put(segment, transport + 4, &sequence.to_be_bytes())?;
                let mut flags = self.packet.tcp.flags;
                if !is_last {
                    flags &= !(tcp_flags::FIN | PUSH);
                }
                if self.written > 0 {
                    flags &= !WINDOW_REDUCED;
                }
                put(segment, transport + 13, &[flags])?;
                transport + 16
            }
            SegmentKind::Udp => {
                let length = u16::try_from(segment.len() - transport).ok()?;
                put(segment, transport + 4, &length.to_be_bytes())?;
                transport + 6
            }
        };
        put(segment, field, &[0, 0])?;
        let mut sum = Checksum::default();
        let covered = segment.get(transport..)?;
        let addresses = (self.packet.key.source(), self.packet.key.destination());
        sum.add_pseudo_header(self.family, addresses, self.kind.protocol(), covered.len());
        sum.add(covered);
        let value = match self.kind {
            SegmentKind::Tcp => sum.finish(),
            SegmentKind::Udp => sum.finish_udp(),
        };
        put(segment, field, &value.to_be_bytes())
    }
}

fn header_length(segment: &[u8], network: usize) -> Option<usize> {
    bytes::get_u8(segment, network).map(|byte| usize::from(byte & 0xf) * 4)
}
