//! What the tables of each paging mode are like (SDM 3A, "Paging"; APM 2, 5).

use dragonfly_hw::x86::control::{Cr0, Cr4};
use dragonfly_hw::x86::paging::Entry;

use crate::paging::Paging;

/// Most levels of tables.
pub const MAX_LEVELS: usize = 5;

/// A paging mode: what its tables are like.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    pub levels: u32,
    /// Bytes of an entry.
    pub entry_bytes: usize,
    /// Bits of the linear address that a table below the root translates.
    pub index_bits: u32,
    /// Bits of CR3 that are the root's address.
    pub root: u64,
}

/// 32-bit paging.
const LEGACY: Format = Format { levels: 2, entry_bytes: 4, index_bits: 10, root: 0xffff_f000 };
/// PAE paging, whose root has four entries of 8 bytes.
const PAE: Format = Format { levels: 3, entry_bytes: 8, index_bits: 9, root: 0xffff_ffe0 };
/// 4-level paging.
const FOUR_LEVEL: Format = Format { levels: 4, entry_bytes: 8, index_bits: 9, root: ADDRESS };
/// 5-level paging.
const FIVE_LEVEL: Format = Format { levels: 5, entry_bytes: 8, index_bits: 9, root: ADDRESS };

/// Address bits of an 8-byte entry.
pub const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The bits that 4-level and 5-level paging ignore and PAE paging reserves, between address and XD.
const IGNORED_IN_LONG_MODE: u64 = 0x7ff0_0000_0000_0000;

impl Format {
    /// The mode that the control registers choose; `None` if paging is off.
    pub fn of(paging: &Paging) -> Option<Self> {
        if !paging.cr0().contains(Cr0::PG) {
            return None;
        }
        Some(match (paging.is_long_mode(), paging.cr4()) {
            (true, cr4) if cr4.contains(Cr4::LA57) => FIVE_LEVEL,
            (true, _) => FOUR_LEVEL,
            (false, cr4) if cr4.contains(Cr4::PAE) => PAE,
            (false, _) => LEGACY,
        })
    }

    pub fn is_pae_root(&self, level: u32) -> bool {
        self.levels == PAE.levels && level == PAE.levels
    }

    /// Whether the entry maps a page: always at the lowest level, above it where large pages exist and PS asks for one.
    pub fn is_leaf(&self, paging: &Paging, level: u32, entry: Entry) -> bool {
        match level {
            1 => true,
            2 if self.entry_bytes == 4 => entry.contains(Entry::PS) && paging.cr4().contains(Cr4::PSE),
            2 => entry.contains(Entry::PS),
            3 => self.levels >= 4 && entry.contains(Entry::PS),
            _ => false,
        }
    }

    /// Bits that must be clear in a present entry.
    pub fn reserved(&self, paging: &Paging, level: u32, is_leaf: bool) -> u64 {
        let width = u32::from(paging.physical_address_bits.clamp(32, 52));
        let above_width = !((1 << width) - 1);
        if self.entry_bytes == 4 {
            // A 4 MiB page has its address's bits 39:32 in bits 20:13 (PSE-36).
            let above = (above_width >> 32 << 13) & 0x001f_e000;
            return if is_leaf && level == 2 { 1 << 21 | above } else { 0 };
        }
        if self.is_pae_root(level) {
            // The processor has looked at their reserved bits when it loaded them, and raised #GP (SDM 3A, "PDPTE
            // Registers"); a walk does not. QEMU's emulation marks them accessed, in a bit that is reserved.
            return 0;
        }
        let mut reserved = above_width & ADDRESS;
        if !paging.has_no_execute() {
            reserved |= Entry::XD.bits();
        }
        if self.levels == PAE.levels {
            reserved |= IGNORED_IN_LONG_MODE;
        }
        match (level, is_leaf) {
            // Below the address of a large page, above its memory type's bit 12.
            (2, true) => reserved |= 0x001f_e000,
            (3, true) => reserved |= 0x3fff_e000,
            // PS, where no page is that large.
            (4.., _) => reserved |= Entry::PS.bits(),
            _ => {}
        }
        reserved
    }

    /// The table, or the page of 4 KiB, that an entry points at.
    pub fn next_table(&self, value: u64) -> u64 {
        value & if self.entry_bytes == 4 { 0xffff_f000 } else { ADDRESS }
    }

    /// The page's address, with bits below the page's size that the caller removes.
    pub fn page(&self, level: u32, value: u64) -> u64 {
        if self.entry_bytes == 4 && level == 2 {
            return (value & 0xffc0_0000) | (value >> 13 & 0xff) << 32;
        }
        self.next_table(value)
    }
}
