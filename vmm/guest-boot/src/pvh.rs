//! PVH: Xen's direct boot protocol for hardware-virtualised guests (Xen, `docs/misc/pvh.pandoc` and
//! `public/arch-x86/hvm/start_info.h`).

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromZeros, Immutable, IntoBytes};

use crate::elf_image::ElfImage;
use crate::tables::{self, CodeKind};
use crate::{GuestMemory, GuestPhys, LoadError, Loader, MAX_MAP_ENTRIES, StartState, room};

/// `XEN_ELFNOTE_PHYS32_ENTRY` (Xen, `public/elfnote.h`).
const PHYS32_ENTRY: u64 = 18;
const NOTE_NAME: &[u8] = b"Xen\0";

const START_INFO_MAGIC: u32 = 0x336e_c578;
/// First version with a memory map.
const START_INFO_VERSION: u32 = 1;

const PAGE: u64 = 4096;
/// The longest command line: what fits into a page with its NUL.
const MAX_COMMAND_LINE: usize = 4095;

/// `struct hvm_start_info`.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct StartInfo {
    magic: U32,
    version: U32,
    flags: U32,
    module_count: U32,
    modules: U64,
    command_line: U64,
    rsdp: U64,
    memory_map: U64,
    memory_map_entries: U32,
    reserved: U32,
}

/// `struct hvm_modlist_entry`.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Module {
    address: U64,
    size: U64,
    command_line: U64,
    reserved: U64,
}

/// `struct hvm_memmap_table_entry`.
#[derive(Clone, Copy, Debug, FromZeros, IntoBytes, Immutable)]
#[repr(C)]
struct MemoryMapEntry {
    address: U64,
    size: U64,
    kind: U32,
    reserved: U32,
}

const _: () = assert!(size_of::<StartInfo>() == 56 && size_of::<Module>() == 32 && size_of::<MemoryMapEntry>() == 24);

/// The entry point that the note gives, if there is the note.
pub fn entry(elf: &ElfImage<'_>) -> Result<Option<u64>, LoadError> {
    let Some(note) = elf.notes().find(|note| note.n_type == PHYS32_ENTRY && note.name == NOTE_NAME) else {
        return Ok(None);
    };
    // 4 bytes or, in 64-bit files, 8: an address of 32 bits either way.
    let address = match *note.desc {
        [a, b, c, d] | [a, b, c, d, 0, 0, 0, 0] => u32::from_le_bytes([a, b, c, d]),
        _ => return Err(LoadError::CutOff),
    };
    Ok(Some(address.into()))
}

/// Writes kernel, module, command line and start info.
pub fn load(
    elf: &ElfImage<'_>,
    entry: u64,
    loader: &mut Loader<'_, impl GuestMemory>,
) -> Result<StartState, LoadError> {
    elf.load(loader, entry)?;
    let module =
        loader.put_initrd(|room, size| room.highest(size.checked_next_multiple_of(PAGE)?, PAGE, room::EXTENDED))?;
    let command_line = loader.put_command_line(MAX_COMMAND_LINE)?;

    let mut memory_map = <[MemoryMapEntry; MAX_MAP_ENTRIES]>::new_zeroed();
    for (slot, entry) in memory_map.iter_mut().zip(loader.map) {
        slot.address = entry.range.start.into();
        slot.size = (entry.range.end - entry.range.start).into();
        slot.kind = entry.kind.number().into();
    }
    let map_entries = loader.map.len();
    let memory_map = loader.put_low(memory_map.get(..map_entries).unwrap_or_default().as_bytes(), 8)?;

    let modules = match module {
        Some(address) => {
            let size = loader.request.initrd.map_or(0, |initrd| initrd.len() as u64);
            let module =
                Module { address: address.into(), size: size.into(), command_line: U64::ZERO, reserved: U64::ZERO };
            loader.put_low(module.as_bytes(), 8)?
        }
        None => 0,
    };
    let start_info = StartInfo {
        magic: START_INFO_MAGIC.into(),
        version: START_INFO_VERSION.into(),
        flags: U32::ZERO,
        module_count: u32::from(module.is_some()).into(),
        modules: modules.into(),
        command_line: command_line.into(),
        rsdp: loader.request.memory.rsdp.0.into(),
        memory_map: memory_map.into(),
        memory_map_entries: (map_entries as u32).into(),
        reserved: U32::ZERO,
    };
    let start_info = loader.put_low(start_info.as_bytes(), 8)?;

    let selectors = tables::put_gdt(loader, CodeKind::Protected)?;
    let mut state = StartState::protected_mode(GuestPhys(entry), selectors);
    state.registers.rbx = start_info;
    Ok(state)
}
