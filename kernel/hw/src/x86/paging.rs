//! Page-table entries of 4-level and 5-level paging (SDM 3A, "4-Level Paging and 5-Level Paging"; APM 2, 5.3).

flags! {
    /// Bits of an entry, beside address and protection key. A leaf is an entry of the lowest level, or one with `PS`.
    Entry: u64 {
        P        0  "Present."
        RW       1  "Writable."
        US       2  "Accessible at ring 3."
        PWT      3  "Page-level Write-Through: bit 0 of the memory type's index."
        PCD      4  "Page-level Cache Disable: bit 1 of the memory type's index."
        A        5  "Accessed."
        D        6  "Dirty; leaves only."
        PS       7  "Page Size: a 1 GiB or 2 MiB page; not at the lowest level."
        G        8  "Global; leaves only."
        XD      63  "Execute Disable; only if IA32_EFER.NXE is set."
    }
}

/// Bit 2 of the memory type's index in a leaf of 4 KiB, where larger leaves have `PS`.
pub const PAT_4K: u64 = 1 << 7;
/// Bit 2 of the memory type's index in a leaf of 2 MiB or 1 GiB.
pub const PAT_LARGE: u64 = 1 << 12;

/// Host-physical address of the next table or of a 4 KiB page; bits above the processor's address width are reserved.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// Host-physical address of a 2 MiB page.
pub const ADDRESS_2M: u64 = 0x000f_ffff_ffe0_0000;
/// Host-physical address of a 1 GiB page.
pub const ADDRESS_1G: u64 = 0x000f_ffff_c000_0000;

/// Entries of a table.
pub const ENTRIES: usize = 512;
/// Bits of the linear address that a level translates.
pub const BITS_PER_LEVEL: u32 = 9;
/// Bits of the linear address within a 4 KiB page.
pub const PAGE_SHIFT: u32 = 12;
