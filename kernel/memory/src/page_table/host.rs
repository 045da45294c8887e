//! The processor's own page tables (SDM 3A 4.5, "4-Level Paging"; APM 2, 5.3).
#![expect(unsafe_code, reason = "it vouches for the format")]

use dragonfly_hw::x86::paging::{ADDRESS, Entry as Bits};

use super::format::{Access, Entry, PageFormat};
use crate::address::{HostPhys, HostVirt, PageSize};

/// Tables of four levels for x86-64, as the kernel and the domains use them.
#[derive(Clone, Copy, Debug)]
pub struct HostFormat {
    has_no_execute: bool,
    largest_page: PageSize,
}

/// Bits 61:52 of an entry that leads to a table: the processor ignores bits 62:52 there (SDM 3A 4.5.4).
const COUNT_SHIFT: u32 = 52;
const COUNT_MASK: u64 = 0x3ff;
/// The number of translated bits.
const INPUT_BITS: u32 = 48;

impl HostFormat {
    /// The format with the features of this machine: whether `IA32_EFER.NXE` is set, and 2 MiB or, if CPUID says that
    /// there are such pages, 1 GiB.
    #[must_use]
    pub const fn new(has_no_execute: bool, largest_page: PageSize) -> Self {
        Self { has_no_execute, largest_page }
    }
}

// SAFETY: The encoding is read back by the same bits. A leaf is at level 0, or at level 1 or 2 with PS.
unsafe impl PageFormat for HostFormat {
    type Input = HostVirt;

    #[inline]
    fn levels(self) -> u32 {
        4
    }

    #[inline]
    fn largest_page(self) -> PageSize {
        self.largest_page
    }

    #[inline]
    fn extend(self, bits: u64) -> u64 {
        // An address is canonical if bits 63:48 are copies of bit 47 (SDM 1, 3.3.7.1).
        ((bits << (64 - INPUT_BITS)).cast_signed() >> (64 - INPUT_BITS)).cast_unsigned()
    }

    #[inline]
    fn leaf(self, frame: HostPhys, size: PageSize, access: Access) -> u64 {
        let mut bits = Bits::P;
        bits.set(Bits::RW, access.is_writable);
        bits.set(Bits::US, access.is_user);
        bits.set(Bits::XD, !access.is_executable && self.has_no_execute);
        // Memory type 3, uncacheable, as the PAT has it after reset (SDM 3A 13.12.4).
        bits.set(Bits::PWT | Bits::PCD, access.is_device);
        bits.set(Bits::PS, size != PageSize::Size4K);
        frame.as_u64() | bits.bits()
    }

    #[inline]
    fn table(self, frame: HostPhys, count: u32) -> u64 {
        // What all levels allow is allowed, so the leaf decides.
        frame.as_u64() | (Bits::P | Bits::RW | Bits::US).bits() | u64::from(count) << COUNT_SHIFT
    }

    #[inline]
    fn decode(self, entry: u64, level: u32) -> Entry {
        let bits = Bits::from_bits_retain(entry);
        let frame = HostPhys::new(entry & ADDRESS);
        if !bits.contains(Bits::P) {
            Entry::Empty
        } else if level == 0 || (level <= 2 && bits.contains(Bits::PS)) {
            let access = Access {
                is_writable: bits.contains(Bits::RW),
                is_executable: !bits.contains(Bits::XD),
                is_user: bits.contains(Bits::US),
                is_device: bits.contains(Bits::PCD),
            };
            Entry::Leaf { frame, access }
        } else {
            Entry::Table { frame, count: (entry >> COUNT_SHIFT & COUNT_MASK) as u32 }
        }
    }
}
