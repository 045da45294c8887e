//! Permission maps: which ports (APM 2, 15.10.1) and model-specific registers (APM 2, 15.11) of a guest are
//! intercepted. A bit that is set intercepts.

/// Bytes of the I/O permissions map, on a 4 KiB boundary: a bit for each port, and at the end bits for the ports behind
/// 0xffff that an access of several bytes touches.
pub const IOPM_SIZE: usize = 0x3000;

/// Bytes of the MSR permissions map, on a 4 KiB boundary: two bits for each register.
pub const MSRPM_SIZE: usize = 0x2000;

/// Bits for registers 0 to 0x1fff start at this byte.
pub const MSRPM_LOW: u32 = 0x0000;
/// Bits for registers 0xc000_0000 to 0xc000_1fff start at this byte.
pub const MSRPM_SYSCALL: u32 = 0x0800;
/// Bits for registers 0xc001_0000 to 0xc001_1fff start at this byte.
pub const MSRPM_AMD: u32 = 0x1000;

/// The number of the bit in the MSR permissions map that intercepts reads of `msr`; the next intercepts writes. `None`
/// if the map does not cover the register: it is always intercepted then.
#[must_use]
pub const fn msrpm_bit(msr: u32) -> Option<u32> {
    let start = match msr & !0x1fff {
        0x0000_0000 => MSRPM_LOW,
        0xc000_0000 => MSRPM_SYSCALL,
        0xc001_0000 => MSRPM_AMD,
        _ => return None,
    };
    Some(start * 8 + (msr & 0x1fff) * 2)
}

const _: () = {
    assert!(matches!(msrpm_bit(0x10), Some(0x20)) && matches!(msrpm_bit(0x1fff), Some(0x3ffe)));
    assert!(matches!(msrpm_bit(0xc000_0080), Some(0x4100)) && matches!(msrpm_bit(0xc001_0117), Some(0x822e)));
    assert!(msrpm_bit(0x2000).is_none() && msrpm_bit(0xc000_2000).is_none() && msrpm_bit(0x4b56_4d00).is_none());
};
