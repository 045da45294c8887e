//! Finishing frames for receivers that cannot: missing checksums, and frames that are to be cut into segments.
//!
//! What [`Offload`] says comes from the sender; it is held against the frame here, and a frame that contradicts it is
//! refused.

mod segment;

pub use self::segment::Segments;
use crate::{
    address::Family,
    bytes,
    checksum::Checksum,
    frame::{Edit, MAX_PREFIX, Offload, PartialChecksum, SegmentKind},
    packet::Packet,
};

/// What a receiver can do itself.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
pub struct Features {
    /// Takes frames with partial checksums (VIRTIO_NET_F_GUEST_CSUM).
    pub checksum: bool,
    /// Takes TCP over IPv4 to be cut (VIRTIO_NET_F_GUEST_TSO4).
    pub tcp_v4: bool,
    /// Takes TCP over IPv6 to be cut (VIRTIO_NET_F_GUEST_TSO6).
    pub tcp_v6: bool,
    /// Takes UDP to be cut (VIRTIO_NET_F_GUEST_USO4 and USO6).
    pub udp: bool,
}

/// Why a frame cannot be finished: its sender's mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OffloadError {
    /// The checksum's place is not within the frame.
    Checksum,
    /// The frame does not hold what is to be cut, or the segments would have no data.
    Segmentation,
    /// The room given is too small for the result.
    Room,
}

/// Writes what a receiver gets for a frame, piece by piece: `emit` is called for each resulting frame with what is
/// still left to do about it.
///
/// `scratch` must have room for the frame and [`MAX_PREFIX`] bytes. A frame that needs nothing is emitted as it is.
///
/// # Errors
/// See [`OffloadError`]; frames may have been emitted before.
pub fn finish(
    frame: &[u8],
    offload: &Offload,
    edit: &Edit<'_>,
    features: Features,
    scratch: &mut [u8],
    mut emit: impl FnMut(&[u8], Offload),
) -> Result<(), OffloadError> {
    let strip = usize::from(edit.strip);
    let frame = frame.get(strip..).ok_or(OffloadError::Checksum)?;
    let offload = &offload.inner(strip);
    let edit = Edit { strip: 0, ..*edit };
    // Inner frames are finished before they go into a tunnel: receivers of the outer one complete at most that.
    let features = if edit.tunnel.is_some() { Features::default() } else { features };
    if passes_whole(frame, offload, features) {
        let mut emit_one = |frame: &[u8], offload: Offload| emit(frame, offload);
        return pass_whole(frame, offload, &edit, features, scratch, &mut emit_one);
    }
    let mut segments = Segments::new(frame, offload)?;
    loop {
        let (prefix_room, segment_room) = scratch.split_at_mut_checked(MAX_PREFIX).ok_or(OffloadError::Room)?;
        let Some(length) = segments.write_next(segment_room)? else { return Ok(()) };
        let prefix_room: &mut [u8; MAX_PREFIX] = prefix_room.first_chunk_mut().ok_or(OffloadError::Room)?;
        let start = join(prefix_room.len(), length, &edit, scratch)?;
        let whole = scratch.get_mut(start..MAX_PREFIX + length).ok_or(OffloadError::Room)?;
        complete_outer(whole, &edit)?;
        emit(whole, Offload::default());
    }
}

/// Whether a frame need not be cut for a receiver. It may still have to be given its checksum ([`complete`]).
#[must_use]
pub fn passes_whole(frame: &[u8], offload: &Offload, features: Features) -> bool {
    offload.segmentation.is_none() || can_cut(frame, offload, features)
}

/// A frame that is not cut here.
fn pass_whole(
    frame: &[u8],
    offload: &Offload,
    edit: &Edit<'_>,
    features: Features,
    scratch: &mut [u8],
    emit: &mut dyn FnMut(&[u8], Offload),
) -> Result<(), OffloadError> {
    let missing = offload.checksum.filter(|_| !features.checksum);
    if edit.is_none() && missing.is_none() {
        emit(frame, *offload);
        return Ok(());
    }
    let end = MAX_PREFIX + frame.len();
    scratch.get_mut(MAX_PREFIX..end).ok_or(OffloadError::Room)?.copy_from_slice(frame);
    let mut left = *offload;
    if let Some(checksum) = missing {
        complete(scratch.get_mut(MAX_PREFIX..end).ok_or(OffloadError::Room)?, checksum)?;
        left.checksum = None;
    }
    let start = join(MAX_PREFIX, frame.len(), edit, scratch)?;
    let whole = scratch.get_mut(start..end).ok_or(OffloadError::Room)?;
    complete_outer(whole, edit)?;
    // How many bytes came and went at the begin, as one difference.
    let left = left.moved(start.saturating_sub(MAX_PREFIX), MAX_PREFIX.saturating_sub(start));
    emit(whole, left);
    Ok(())
}

/// Puts an edit's prefix right before the rest of the frame that lies at `at`; gives where the result begins.
fn join(at: usize, length: usize, edit: &Edit<'_>, scratch: &mut [u8]) -> Result<usize, OffloadError> {
    let mut prefix = [0; MAX_PREFIX];
    let frame = scratch.get(at..at + length).ok_or(OffloadError::Room)?;
    let splice = edit.write(frame, length, &mut prefix).ok_or(OffloadError::Segmentation)?;
    let start = (at + splice.skip).checked_sub(splice.written).ok_or(OffloadError::Room)?;
    let written = prefix.get(..splice.written).ok_or(OffloadError::Room)?;
    bytes::put(scratch, start, written).ok_or(OffloadError::Room)?;
    Ok(start)
}

fn complete_outer(frame: &mut [u8], edit: &Edit<'_>) -> Result<(), OffloadError> {
    edit.outer_checksum().map_or(Ok(()), |checksum| complete(frame, checksum))
}

/// Completes a checksum whose field holds the sum of the pseudo header: what the bytes from `start` on sum to goes
/// there (virtio 1.2 5.1.6.2.2).
///
/// # Errors
/// [`OffloadError::Checksum`].
pub fn complete(frame: &mut [u8], checksum: PartialChecksum) -> Result<(), OffloadError> {
    let start = usize::from(checksum.start);
    let covered = covered(frame, start).ok_or(OffloadError::Checksum)?;
    let mut sum = Checksum::default();
    sum.add(covered);
    // UDP's offset; elsewhere zero and its complement mean the same.
    let is_udp = checksum.offset == 6;
    let value = if is_udp { sum.finish_udp() } else { sum.finish() };
    let field = start + usize::from(checksum.offset);
    bytes::put(frame, field, &value.to_be_bytes()).ok_or(OffloadError::Checksum)
}

/// The bytes that a checksum covers: up to the end of the IP packet, since padding does not count.
fn covered(frame: &[u8], start: usize) -> Option<&[u8]> {
    let end = Packet::parse(frame, frame.len())
        .ok()
        .and_then(|packet| {
            let network = usize::from(packet.network);
            match packet.family()? {
                Family::V4 => Some(network + usize::from(bytes::get_u16(frame, network + 2)?)),
                Family::V6 => Some(network + 40 + usize::from(bytes::get_u16(frame, network + 4)?)),
            }
        })
        .unwrap_or(frame.len());
    frame.get(start..end)
}

/// Whether the receiver cuts the frame itself.
fn can_cut(frame: &[u8], offload: &Offload, features: Features) -> bool {
    let family = Packet::parse(frame, frame.len()).ok().and_then(|packet| packet.family());
    features.checksum
        && match (offload.segmentation.map(|cut| cut.kind), family) {
            (Some(SegmentKind::Tcp), Some(Family::V4)) => features.tcp_v4,
            (Some(SegmentKind::Tcp), Some(Family::V6)) => features.tcp_v6,
            (Some(SegmentKind::Udp), Some(_)) => features.udp,
            _ => false,
        }
}
