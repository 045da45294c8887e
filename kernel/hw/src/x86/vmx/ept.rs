//! Extended page tables (SDM 3C, "The Extended Page Table Mechanism (EPT)").

use crate::x86::msr::{MEMORY_TYPE_UC, MEMORY_TYPE_WB};

flags! {
    /// Bits of an entry, beside address and memory type. An entry is present if one of the first three is set. A leaf
    /// is an entry of the lowest level, or one with `PS`; of the others only R, W, X, A and XU exist in entries that
    /// lead to a table.
    Entry: u64 {
        R        0  "Readable; writable pages have to be."
        W        1  "Writable."
        X        2  "Executable; at supervisor-mode addresses only, with mode-based execute control."
        IPAT     6  "Ignore the guest's PAT: the memory type is that of the entry."
        PS       7  "A 1 GiB or 2 MiB page; not at the lowest level."
        A        8  "Accessed, if the EPT pointer enables such flags."
        D        9  "Dirty, if the EPT pointer enables such flags."
        XU      10  "Executable at user-mode addresses, with mode-based execute control."
        VGP     57  "Verify guest paging."
        PWA     58  "Paging-write access."
        SSS     60  "Supervisor shadow stack, if the EPT pointer enables them."
        SPP     61  "Sub-page write permissions; 4 KiB pages only."
        SVE     63  "Suppress #VE: violations are VM exits, with EPT-violation #VE."
    }

    /// Bits of the EPT pointer, beside the root's address, memory type and number of levels (SDM 3C, "Extended-Page-
    /// Table Pointer (EPTP)").
    Eptp: u64 {
        AD       6  "Accessed and dirty flags are kept."
        SSS      7  "Supervisor shadow stack pages are told apart."
    }
}

/// Lowest bit of a leaf's memory type, of three.
pub const MEMORY_TYPE_SHIFT: u32 = 3;
/// A leaf's memory type.
pub const MEMORY_TYPE_MASK: u64 = 0b111 << MEMORY_TYPE_SHIFT;
/// Memory type of RAM in a leaf: the guest's PAT decides.
pub const LEAF_WB: u64 = (MEMORY_TYPE_WB as u64) << MEMORY_TYPE_SHIFT;
/// Memory type of devices in a leaf: uncacheable, but for the guest's write combining.
pub const LEAF_UC: u64 = (MEMORY_TYPE_UC as u64) << MEMORY_TYPE_SHIFT;

/// Host-physical address of the next table or of a 4 KiB page; bits above the processor's address width are reserved.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// The EPT pointer for the root at the 4 KiB aligned host-physical address `root`: four levels, which the processor
/// reads as write-back memory.
#[must_use]
pub const fn eptp(root: u64, flags: Eptp) -> u64 {
    const LEVELS: u64 = 4;
    (root & ADDRESS) | flags.bits() | (LEVELS - 1) << 3 | MEMORY_TYPE_WB as u64
}

const _: () = assert!(eptp(0x1234_5000, Eptp::AD) == 0x1234_505e && LEAF_WB == 0x30 && LEAF_UC == 0);

open_numbers! {
    /// What INVEPT invalidates (SDM 3C, "INVEPT"): guest-physical and combined mappings.
    InveptType: u64 {
        SINGLE_CONTEXT  1   "Those of the descriptor's EPT pointer."
        ALL_CONTEXTS    2   "All."
    }

    /// What INVVPID invalidates (SDM 3C, "INVVPID"): linear and combined mappings.
    InvvpidType: u64 {
        ADDRESS             0   "Those of one address of the descriptor's identifier."
        SINGLE_CONTEXT      1   "Those of the descriptor's identifier."
        ALL_CONTEXTS        2   "All but the host's."
        RETAINING_GLOBALS   3   "Those of the descriptor's identifier but for global pages."
    }
}

/// Operand of INVEPT.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct InveptDescriptor {
    /// EPT pointer.
    pub eptp: u64,
    /// Reserved, 0.
    pub reserved: u64,
}

/// Operand of INVVPID.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(C)]
pub struct InvvpidDescriptor {
    /// Virtual-processor identifier in the low 16 bits, not 0; the others are reserved.
    pub vpid: u64,
    /// Linear address, canonical.
    pub address: u64,
}

const _: () = assert!(size_of::<InveptDescriptor>() == 16 && size_of::<InvvpidDescriptor>() == 16);
