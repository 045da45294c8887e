//! Extended page tables of VMX (SDM 3C, "EPT Translation Mechanism").
#![expect(unsafe_code, reason = "it vouches for the format")]

use dragonfly_hw::x86::vmx::ept::{ADDRESS, Entry as Bits, LEAF_UC, LEAF_WB, MEMORY_TYPE_MASK};

use super::format::{Access, Entry, PageFormat};
use crate::address::{GuestPhys, HostPhys, PageSize};

/// Tables of four levels that translate a guest's physical addresses. All pages are the guest's to use, whatever
/// `is_user` says.
#[derive(Clone, Copy, Debug)]
pub struct EptFormat {
    largest_page: PageSize,
    tracking: EptTracking,
}

/// How it is known to which pages a guest has written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EptTracking {
    /// By what faults: clean pages cannot be written.
    Protection,
    /// By dirty flags (SDM 3C, "Accessed and Dirty Flags for EPT").
    Flags,
    /// By dirty flags, and the processor's log says below which tables to look for them (SDM 3C, "Page-Modification
    /// Logging").
    Log,
}

/// Bits 61:52 of an entry that leads to a table: the processor ignores bits 63:52 there (SDM 3C, tables "Format of an
/// EPT PML4 Entry", "… Page-Directory-Pointer-Table Entry", "… Page-Directory Entry").
const COUNT_SHIFT: u32 = 52;
const COUNT_MASK: u64 = 0x3ff;
/// Of an entry that leads to a table: pages below may be dirty. The processor ignores the bit there.
const DIRTY_BELOW: u64 = 1 << 11;

impl EptFormat {
    /// The format with the largest page and the flags of this machine, as `IA32_VMX_EPT_VPID_CAP` tells.
    #[must_use]
    pub const fn new(largest_page: PageSize, tracking: EptTracking) -> Self {
        Self { largest_page, tracking }
    }
}

// SAFETY: The encoding is read back by the same bits. A leaf is at level 0, or at level 1 or 2 with PS. It lacks pages
// that are not `is_user`.
unsafe impl PageFormat for EptFormat {
    type Input = GuestPhys;

    #[inline]
    fn levels(self) -> u32 {
        4
    }

    #[inline]
    fn largest_page(self) -> PageSize {
        self.largest_page
    }

    #[inline]
    fn leaf(self, frame: HostPhys, size: PageSize, access: Access) -> u64 {
        let mut bits = Bits::R;
        bits.set(Bits::W, access.is_writable);
        bits.set(Bits::X, access.is_executable);
        bits.set(Bits::PS, size != PageSize::Size4K);
        // Without IPAT, so that a guest may still map RAM uncached, as it has to for some devices' DMA.
        frame.as_u64() | bits.bits() | if access.is_device { LEAF_UC } else { LEAF_WB }
    }

    #[inline]
    fn table(self, frame: HostPhys, count: u32) -> u64 {
        // What all levels allow is allowed, so the leaf decides.
        frame.as_u64() | (Bits::R | Bits::W | Bits::X).bits() | u64::from(count) << COUNT_SHIFT
    }

    #[inline]
    fn decode(self, entry: u64, level: u32) -> Entry {
        let bits = Bits::from_bits_retain(entry);
        let frame = HostPhys::new(entry & ADDRESS);
        if !bits.intersects(Bits::R | Bits::W | Bits::X) {
            Entry::Empty
        } else if level == 0 || (level <= 2 && bits.contains(Bits::PS)) {
            let access = Access {
                is_writable: bits.contains(Bits::W),
                is_executable: bits.contains(Bits::X),
                is_user: true,
                is_device: entry & MEMORY_TYPE_MASK == LEAF_UC,
            };
            Entry::Leaf { frame, access }
        } else {
            Entry::Table { frame, count: (entry >> COUNT_SHIFT & COUNT_MASK) as u32 }
        }
    }

    #[inline]
    fn dirty(self) -> u64 {
        match self.tracking {
            EptTracking::Protection => Bits::W.bits(),
            EptTracking::Flags | EptTracking::Log => Bits::D.bits(),
        }
    }

    #[inline]
    fn dirty_below(self) -> u64 {
        if self.tracking == EptTracking::Log { DIRTY_BELOW } else { 0 }
    }
}
