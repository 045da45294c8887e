//! Structures in memory that a VMCS leads to.

use core::mem::offset_of;
use core::sync::atomic::AtomicU64;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// VMXON region or VMCS (SDM 3C, "Format of the VMCS Region"). What follows the header is the processor's own, to be
/// reached by VMREAD and VMWRITE only.
#[derive(Clone, FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C, align(4096))]
pub struct Region {
    /// `Basic::revision`; of a VMCS also [`SHADOW`](Self::SHADOW).
    pub revision: u32,
    /// Why the processor shut down: VMX-abort indicator, of a VMCS.
    pub abort: u32,
    /// The processor's own.
    pub data: [u8; 4088],
}

impl Region {
    /// In [`revision`](Self::revision): the VMCS is a shadow VMCS.
    pub const SHADOW: u32 = 1 << 31;
}

/// Entry of a list of MSRs to load or store, on a boundary of 16 bytes (SDM 3C, "VM-Exit Controls for MSRs").
#[derive(Clone, Copy, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Debug)]
#[repr(C, align(16))]
pub struct MsrEntry {
    /// Number of the register.
    pub index: u32,
    /// Reserved.
    pub reserved: u32,
    /// Its value.
    pub value: u64,
}

/// Posted-interrupt descriptor (SDM 3C, "Posted-Interrupt Processing"; VT-d, "Posted Interrupt Descriptor"). Other
/// processors and devices change it at any time. The manual wants a boundary of 64 bytes; Bochs refuses one that is not
/// at the start of a page.
#[derive(Debug, Default)]
#[repr(C, align(64))]
pub struct PostedInterruptDescriptor {
    /// Requests, a bit for each vector.
    pub requests: [AtomicU64; 4],
    /// [`ON`](Self::ON) and the fields beside it.
    pub control: AtomicU64,
    /// For software.
    pub software: [AtomicU64; 3],
}

impl PostedInterruptDescriptor {
    /// Outstanding notification: requests have been posted since it was last clear, and the notification been sent.
    pub const ON: u64 = 1 << 0;
    /// Suppress notification: devices send none.
    pub const SN: u64 = 1 << 1;
    /// Lowest bit of the notification vector, of eight, for devices.
    pub const NOTIFICATION_VECTOR_SHIFT: u32 = 16;
    /// Lowest bit of the notification's destination, of 32, for devices: an x2APIC ID; in xAPIC mode the ID is in bits
    /// 15:8.
    pub const NOTIFICATION_DESTINATION_SHIFT: u32 = 32;
}

/// Entries of the page-modification log: guest-physical addresses of 4 KiB pages, the first one at the end (SDM 3C,
/// "Page-Modification Logging").
pub const PML_ENTRIES: u16 = 512;

/// Bytes of each of the two I/O bit maps, on a 4 KiB boundary (SDM 3C, "I/O-Bitmap Addresses").
pub const IO_BITMAP_SIZE: usize = 0x1000;

/// Bytes of the MSR bit maps, on a 4 KiB boundary: reads of low, reads of high, writes of low, writes of high registers
/// (SDM 3C, "MSR-Bitmap Address").
pub const MSR_BITMAP_SIZE: usize = 0x1000;

/// Bits from that for reads of a register to that for writes.
pub const MSR_BITMAP_WRITE: u32 = 0x800 * 8;

/// The number of the bit in the MSR bit maps that makes reads of `msr` an exit; that for writes is
/// [`MSR_BITMAP_WRITE`] further on. `None` if the maps do not cover the register: it is always an exit then.
#[must_use]
pub const fn msr_bitmap_bit(msr: u32) -> Option<u32> {
    match msr & !0x1fff {
        0x0000_0000 => Some(msr),
        0xc000_0000 => Some(0x400 * 8 + (msr & 0x1fff)),
        _ => None,
    }
}

const _: () = {
    assert!(size_of::<Region>() == 4096 && align_of::<Region>() == 4096 && size_of::<MsrEntry>() == 16);
    assert!(size_of::<PostedInterruptDescriptor>() == 64);
    assert!(offset_of!(PostedInterruptDescriptor, control) == 32);
    assert!(matches!(msr_bitmap_bit(0x1fff), Some(0x1fff)) && matches!(msr_bitmap_bit(0xc000_0080), Some(0x2080)));
    assert!(msr_bitmap_bit(0x2000).is_none() && msr_bitmap_bit(0xc001_0000).is_none());
};
