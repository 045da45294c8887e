//! From segment and offset to a linear address (SDM 3A, "Limit Checking", "Type Checking"; APM 2, 4.12 and 5.3.1).

use dragonfly_hw::x86::control::Cr4;

use crate::cpu::{CodeSize, Cpu, SegmentName};
use crate::outcome::Fault;
use crate::paging::Access;

/// The linear address of `size` bytes at an offset, if the segment may be accessed there in that way.
pub fn linear_address(cpu: &Cpu, name: SegmentName, offset: u64, size: u64, access: Access) -> Result<u64, Fault> {
    let fault = if name == SegmentName::Ss { Fault::STACK } else { Fault::GENERAL_PROTECTION };
    let segment = cpu.segment(name);
    let last_byte = size.saturating_sub(1);
    if cpu.code_size() == CodeSize::Bits64 {
        let base = if matches!(name, SegmentName::Fs | SegmentName::Gs) { segment.base } else { 0 };
        let first = base.wrapping_add(offset);
        let is_canonical = is_canonical(cpu, first) && is_canonical(cpu, first.wrapping_add(last_byte));
        return if is_canonical { Ok(first) } else { Err(fault) };
    }
    if segment.is_unusable() {
        return Err(fault);
    }
    let is_allowed = match access {
        _ if !cpu.has_segment_types() => true,
        Access::Read => segment.is_readable(),
        Access::Write => segment.is_writable(),
        Access::Execute => segment.is_code(),
    };
    if !is_allowed {
        return Err(Fault::GENERAL_PROTECTION);
    }
    let limit = u64::from(segment.limit);
    let last = offset.checked_add(last_byte).ok_or(fault)?;
    let is_inside = if segment.expands_down() {
        let top = if segment.is_big() { 0xffff_ffff } else { 0xffff };
        offset > limit && last <= top
    } else {
        last <= limit
    };
    if is_inside { Ok(segment.base.wrapping_add(offset) & 0xffff_ffff) } else { Err(fault) }
}

/// Whether all bits above the width of linear addresses are equal.
fn is_canonical(cpu: &Cpu, address: u64) -> bool {
    let unused = if cpu.cr4().contains(Cr4::LA57) { 64 - 57 } else { 64 - 48 };
    ((address << unused) as i64 >> unused) as u64 == address
}
