//! Descriptor table and page tables of the first vCPU.

use dragonfly_hw::x86::descriptor::{KERNEL_CODE, KERNEL_DATA};
use dragonfly_hw::x86::paging::{ENTRIES, Entry};
use zerocopy::IntoBytes;

use crate::start_state::{DescriptorTable, Selectors};
use crate::{GuestMemory, GuestPhys, LoadError, Loader, room};

/// Selector of the code segment, `__BOOT_CS` (boot.rst, "64-bit Boot Protocol").
const BOOT_CS: u16 = 0x10;
/// Selector of the data segments, `__BOOT_DS`.
const BOOT_DS: u16 = 0x18;

/// Descriptor of a code segment for ring 0, 32 bit: that of 64-bit mode with D in place of L.
const CODE_32: u64 = KERNEL_CODE ^ (1 << 53 | 1 << 54);

/// Bytes that a table's page takes, and its alignment.
const TABLE_SIZE: u64 = 4096;
/// Bytes that the page tables map: all that has a 32-bit address.
const MAPPED: u64 = 1 << 32;
const LARGE_PAGE: u64 = 2 << 20;
/// Page directories, each of which maps 1 GiB.
const DIRECTORIES: u64 = MAPPED >> 30;

/// What a kernel's first segments are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodeKind {
    /// 32-bit code.
    Protected,
    /// 64-bit code.
    Long,
}

/// Writes the descriptor table with [`BOOT_CS`] and [`BOOT_DS`].
pub fn put_gdt(loader: &mut Loader<'_, impl GuestMemory>, code: CodeKind) -> Result<Selectors, LoadError> {
    let code = match code {
        CodeKind::Protected => CODE_32,
        CodeKind::Long => KERNEL_CODE,
    };
    let table = [0, 0, code, KERNEL_DATA];
    let base = loader.put_low(table.as_bytes(), 8)?;
    let gdtr = DescriptorTable { base, limit: (size_of_val(&table) - 1) as u16 };
    Ok(Selectors { code: BOOT_CS, data: BOOT_DS, gdtr })
}

/// Writes page tables that map the first 4 GiB at their own addresses in pages of 2 MiB; gives their root.
pub fn put_page_tables(loader: &mut Loader<'_, impl GuestMemory>) -> Result<GuestPhys, LoadError> {
    let size = (2 + DIRECTORIES) * TABLE_SIZE;
    let root = loader.room.lowest(size, TABLE_SIZE, room::LOW).ok_or(LoadError::NoLowMemory)?;
    let pointers = root + TABLE_SIZE;
    let directories = pointers + TABLE_SIZE;

    let table = (Entry::P | Entry::RW).bits();
    write_table(loader, root, |index| if index == 0 { pointers | table } else { 0 })?;
    write_table(
        loader,
        pointers,
        |index| {
            if index < DIRECTORIES { (directories + index * TABLE_SIZE) | table } else { 0 }
        },
    )?;
    let page = (Entry::P | Entry::RW | Entry::PS).bits();
    for directory in 0..DIRECTORIES {
        let first = directory * ENTRIES as u64;
        write_table(loader, directories + directory * TABLE_SIZE, |index| ((first + index) * LARGE_PAGE) | page)?;
    }
    Ok(GuestPhys(root))
}

fn write_table(
    loader: &mut Loader<'_, impl GuestMemory>,
    address: u64,
    entry: impl Fn(u64) -> u64,
) -> Result<(), LoadError> {
    let entries: [u64; ENTRIES] = core::array::from_fn(|index| entry(index as u64).to_le());
    Ok(loader.memory.write(GuestPhys(address), entries.as_bytes())?)
}

const _: () = assert!(CODE_32 == 0x00cf_9b00_0000_ffff);
