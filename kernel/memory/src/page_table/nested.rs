//! Nested page tables of SVM (APM 2, 15.25).
#![expect(unsafe_code, reason = "it vouches for the format")]

use dragonfly_hw::x86::paging::Entry as Bits;

use super::format::{Access, Entry, PageFormat};
use super::host::HostFormat;
use crate::address::{GuestPhys, HostPhys, PageSize};

/// Tables of the host's format, of four levels, that translate a guest's physical addresses. All pages are the guest's
/// to use, whatever `is_user` says: the processor makes most of its accesses as if from ring 3 (APM 2, 15.25.5).
#[derive(Clone, Copy, Debug)]
pub struct NestedFormat {
    host: HostFormat,
}

impl NestedFormat {
    /// The format with the features that the host's own tables have: the host's `IA32_EFER.NXE` is in force for nested
    /// tables, too.
    #[must_use]
    pub const fn new(host: HostFormat) -> Self {
        Self { host }
    }
}

// SAFETY: The encoding is the host's, which is read back by the same bits. It lacks pages that are not `is_user`.
unsafe impl PageFormat for NestedFormat {
    type Input = GuestPhys;

    #[inline]
    fn levels(self) -> u32 {
        self.host.levels()
    }

    #[inline]
    fn largest_page(self) -> PageSize {
        self.host.largest_page()
    }

    #[inline]
    fn leaf(self, frame: HostPhys, size: PageSize, access: Access) -> u64 {
        self.host.leaf(frame, size, Access { is_user: true, ..access })
    }

    #[inline]
    fn table(self, frame: HostPhys, count: u32) -> u64 {
        self.host.table(frame, count)
    }

    #[inline]
    fn decode(self, entry: u64, level: u32) -> Entry {
        self.host.decode(entry, level)
    }

    #[inline]
    fn dirty(self) -> u64 {
        Bits::D.bits()
    }
}
