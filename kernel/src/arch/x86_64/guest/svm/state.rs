//! A guest's registers, as the control block and as others have them.

use dragonfly_abi::arch::guest::Segment;
use dragonfly_hw::x86::svm::{SegmentAttributes, VmcbSegment};

/// Bit of a segment's attributes in the state page: unusable.
const UNUSABLE: u32 = 1 << 16;

/// A segment as the state page has it.
pub fn shown(segment: &VmcbSegment) -> Segment {
    let bits = u32::from(segment.attributes.bits());
    let unusable = if segment.attributes.contains(SegmentAttributes::P) { 0 } else { UNUSABLE };
    Segment {
        selector: segment.selector.into(),
        attributes: bits & 0xff | (bits & 0xf00) << 4 | unusable,
        limit: segment.limit,
        reserved: 0,
        base: segment.base,
    }
}

/// A segment as the control block has it.
pub fn stored(segment: Segment) -> VmcbSegment {
    let bits = segment.attributes & 0xff | segment.attributes >> 4 & 0xf00;
    let present = if segment.attributes & UNUSABLE != 0 { !0x80 } else { !0 };
    VmcbSegment {
        selector: segment.selector as u16,
        attributes: SegmentAttributes::from_bits_retain((bits & present) as u16),
        limit: segment.limit,
        base: segment.base,
    }
}
