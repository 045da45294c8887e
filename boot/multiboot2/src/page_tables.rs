//! The page tables that the kernel starts with: x86-64, four levels (SDM 3A, 4.5; APM 2, 5.3).

use dragonfly_handoff::{PhysAddr, SegmentFlags, VirtAddr};

use crate::arena::Arena;

const PRESENT: u64 = 1 << 0;
const WRITABLE: u64 = 1 << 1;
/// In an entry of level 2 or 3: maps a large page.
const LARGE: u64 = 1 << 7;
const NO_EXECUTE: u64 = 1 << 63;
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Size of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageSize {
    /// 4 KiB.
    Size4K,
    /// 2 MiB.
    Size2M,
    /// 1 GiB; only where CPUID reports it.
    Size1G,
}

impl PageSize {
    /// The size in bytes.
    pub const fn bytes(self) -> u64 {
        1 << shift(self.level())
    }

    /// Level of the tables whose entries map such pages; 1 is the last.
    const fn level(self) -> u32 {
        match self {
            Self::Size4K => 1,
            Self::Size2M => 2,
            Self::Size1G => 3,
        }
    }
}

/// Lowest bit of the virtual address that selects an entry of a table of `level`.
const fn shift(level: u32) -> u32 {
    12 + 9 * (level - 1)
}

/// Why a page could not be mapped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PageTableError {
    /// The arena is used up.
    #[error("not enough memory for the tables")]
    OutOfMemory,
    /// Address and size do not go together.
    #[error("{0} is not where a page of that size can be")]
    Misaligned(VirtAddr),
    /// There is a page already.
    #[error("{0} is mapped twice")]
    AlreadyMapped(VirtAddr),
}

/// Page tables in memory of the arena.
pub struct PageTables {
    root: PhysAddr,
    /// Bits that pages which are no code get.
    data: u64,
}

impl PageTables {
    /// Tables that map nothing. Without `no_execute` all pages can be executed: the bit is reserved then.
    ///
    /// # Errors
    /// [`PageTableError::OutOfMemory`].
    pub fn new(arena: &mut Arena<'_>, no_execute: bool) -> Result<Self, PageTableError> {
        let root = arena.take(PageSize::Size4K.bytes()).ok_or(PageTableError::OutOfMemory)?.base();
        Ok(Self { root, data: if no_execute { NO_EXECUTE } else { 0 } })
    }

    /// What CR3 is to hold.
    pub fn root(&self) -> PhysAddr {
        self.root
    }

    /// Maps `size` bytes from `virtual_base` on to those from `physical_base` on, in pages of one size, for the kernel only.
    ///
    /// # Errors
    /// Any of [`PageTableError`]; pages before the one that failed stay mapped.
    pub fn map(
        &self,
        arena: &mut Arena<'_>,
        virtual_base: VirtAddr,
        physical_base: PhysAddr,
        size: u64,
        page: PageSize,
        flags: SegmentFlags,
    ) -> Result<(), PageTableError> {
        let step = page.bytes();
        if !(virtual_base.0 | physical_base.0 | size).is_multiple_of(step) {
            return Err(PageTableError::Misaligned(virtual_base));
        }
        let mut leaf = PRESENT;
        if flags.contains(SegmentFlags::WRITE) {
            leaf |= WRITABLE;
        }
        if !flags.contains(SegmentFlags::EXECUTE) {
            leaf |= self.data;
        }
        if page != PageSize::Size4K {
            leaf |= LARGE;
        }
        for offset in (0..size).step_by(step as usize) {
            let virt = VirtAddr(virtual_base.0.checked_add(offset).ok_or(PageTableError::Misaligned(virtual_base))?);
            let phys = physical_base.0.checked_add(offset).filter(|phys| phys & !ADDRESS == 0);
            self.map_page(arena, virt, phys.ok_or(PageTableError::Misaligned(virt))? | leaf, page.level())?;
        }
        Ok(())
    }

    fn map_page(&self, arena: &mut Arena<'_>, virt: VirtAddr, leaf: u64, level: u32) -> Result<(), PageTableError> {
        let mut table = self.root.0;
        for upper in (level + 1..=4).rev() {
            let slot = entry_address(table, virt, upper);
            let mut entry = read(arena, slot)?;
            if entry == 0 {
                let new = arena.take(PageSize::Size4K.bytes()).ok_or(PageTableError::OutOfMemory)?;
                // What a table allows is narrowed by the entries below it.
                entry = new.base().0 | PRESENT | WRITABLE;
                write(arena, slot, entry)?;
            }
            if entry & LARGE != 0 {
                return Err(PageTableError::AlreadyMapped(virt));
            }
            table = entry & ADDRESS;
        }
        let slot = entry_address(table, virt, level);
        if read(arena, slot)? != 0 {
            return Err(PageTableError::AlreadyMapped(virt));
        }
        write(arena, slot, leaf)
    }
}

fn entry_address(table: u64, virt: VirtAddr, level: u32) -> PhysAddr {
    PhysAddr(table | ((virt.0 >> shift(level)) & 0x1ff) << 3)
}

/// Tables are in the arena, so neither of these fails but for a table that was damaged.
fn read(arena: &Arena<'_>, slot: PhysAddr) -> Result<u64, PageTableError> {
    let bytes = arena.bytes(slot, size_of::<u64>()).and_then(|bytes| bytes.try_into().ok());
    bytes.map(u64::from_le_bytes).ok_or(PageTableError::OutOfMemory)
}

fn write(arena: &mut Arena<'_>, slot: PhysAddr, entry: u64) -> Result<(), PageTableError> {
    arena.write(slot, &entry.to_le_bytes()).ok_or(PageTableError::OutOfMemory)
}
