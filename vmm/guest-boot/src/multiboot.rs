//! Multiboot 1 (Multiboot Specification 0.6.96).

use core::ops::Range;

use zerocopy::little_endian::U32;
use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::elf_image::ElfImage;
use crate::layout::MemoryKind;
use crate::tables::{self, CodeKind};
use crate::{GuestMemory, GuestPhys, LoadError, Loader, MAX_MAP_ENTRIES, StartState, room};

const HEADER_MAGIC: u32 = 0x1bad_b002;
/// What EAX says to the kernel.
const LOADER_MAGIC: u32 = 0x2bad_b002;
/// The header lies within the file's first bytes (3.1.1).
const SEARCHED_BYTES: usize = 8192;

/// Flags of the header: modules on page boundaries, which they always are.
const PAGE_ALIGN: u32 = 1 << 0;
/// Flags of the header: the kernel wants to know the memory, which it always is told.
const MEMORY_INFO: u32 = 1 << 1;
/// Flags of the header: the header says where to load the file.
const ADDRESSES: u32 = 1 << 16;
/// Flags that a loader must know or refuse (3.1.2).
const REQUIRED: u32 = 0xffff;

/// Flags of the information: memory sizes, command line, modules, memory map, name of the loader.
const INFO_MEMORY: u32 = 1 << 0;
const INFO_COMMAND_LINE: u32 = 1 << 2;
const INFO_MODULES: u32 = 1 << 3;
const INFO_MEMORY_MAP: u32 = 1 << 6;
const INFO_LOADER_NAME: u32 = 1 << 9;

const LOADER_NAME: &[u8] = b"Dragonfly\0";
const PAGE: u64 = 4096;
/// The longest command line: what fits into a page with its NUL.
const MAX_COMMAND_LINE: usize = 4095;

/// The header, up to the addresses.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: U32,
    flags: U32,
    checksum: U32,
}

/// The header's addresses; only with [`ADDRESSES`].
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Addresses {
    header: U32,
    load: U32,
    load_end: U32,
    bss_end: U32,
    entry: U32,
}

/// The information structure, up to the loader's name (3.3).
#[derive(Clone, Copy, Debug, FromZeros, IntoBytes, Immutable)]
#[repr(C)]
struct Info {
    flags: U32,
    mem_lower_kib: U32,
    mem_upper_kib: U32,
    boot_device: U32,
    command_line: U32,
    module_count: U32,
    modules: U32,
    symbols: [U32; 4],
    memory_map_bytes: U32,
    memory_map: U32,
    drives_bytes: U32,
    drives: U32,
    config_table: U32,
    loader_name: U32,
}

/// An entry of the list of modules.
#[derive(Clone, Copy, Debug, IntoBytes, Immutable)]
#[repr(C)]
struct Module {
    start: U32,
    end: U32,
    string: U32,
    reserved: U32,
}

/// An entry of the memory map. Its size does not count the field of the size.
#[derive(Clone, Copy, Debug, FromZeros, IntoBytes, Immutable)]
#[repr(C)]
struct MemoryMapEntry {
    size: U32,
    base: [U32; 2],
    length: [U32; 2],
    kind: U32,
}

const _: () = assert!(size_of::<Info>() == 68 && size_of::<Module>() == 16 && size_of::<MemoryMapEntry>() == 24);

/// A file with a header.
#[derive(Clone, Debug)]
pub struct Multiboot<'f> {
    /// Where the header says that the file belongs; else it must be ELF.
    flat: Option<Flat<'f>>,
}

/// A file that is loaded as its header says.
#[derive(Clone, Debug)]
struct Flat<'f> {
    memory: Range<u64>,
    contents: &'f [u8],
    entry: u64,
}

impl<'f> Multiboot<'f> {
    /// Looks for the header; `None` if there is none.
    pub fn find(file: &'f [u8]) -> Result<Option<Self>, LoadError> {
        let searched = file.get(..SEARCHED_BYTES).unwrap_or(file);
        for offset in (0..searched.len()).step_by(4) {
            let Some((header, rest)) = searched.get(offset..).and_then(|bytes| Header::read_from_prefix(bytes).ok())
            else {
                break;
            };
            let flags = header.flags.get();
            let sum = header.magic.get().wrapping_add(flags).wrapping_add(header.checksum.get());
            if header.magic.get() != HEADER_MAGIC || sum != 0 {
                continue;
            }
            let unknown = flags & REQUIRED & !(PAGE_ALIGN | MEMORY_INFO);
            if unknown != 0 {
                return Err(LoadError::MultibootFeatures(unknown));
            }
            let flat = if flags & ADDRESSES == 0 {
                None
            } else {
                let (addresses, _) = Addresses::read_from_prefix(rest).map_err(|_| LoadError::CutOff)?;
                Some(Flat::new(file, offset, &addresses)?)
            };
            return Ok(Some(Self { flat }));
        }
        Ok(None)
    }

    /// Writes kernel, module, command line and information.
    pub fn load(
        &self,
        elf: Option<&ElfImage<'_>>,
        loader: &mut Loader<'_, impl GuestMemory>,
    ) -> Result<StartState, LoadError> {
        let entry = match (&self.flat, elf) {
            (Some(flat), _) => flat.load(loader)?,
            (None, Some(elf)) => {
                elf.load(loader, elf.entry())?;
                elf.entry()
            }
            (None, None) => return Err(LoadError::MultibootAddresses),
        };
        let info = put_info(loader)?;
        let selectors = tables::put_gdt(loader, CodeKind::Protected)?;
        let mut state = StartState::protected_mode(GuestPhys(entry), selectors);
        state.registers.rax = LOADER_MAGIC.into();
        state.registers.rbx = info;
        Ok(state)
    }
}

impl<'f> Flat<'f> {
    /// Works out what the addresses mean (3.1.3).
    fn new(file: &'f [u8], header_offset: usize, addresses: &Addresses) -> Result<Self, LoadError> {
        let load = addresses.load.get();
        let before_header = addresses.header.get().checked_sub(load).ok_or(LoadError::MultibootAddresses)?;
        let start = usize::try_from(before_header).ok().and_then(|before| header_offset.checked_sub(before));
        let contents = start.and_then(|start| file.get(start..)).ok_or(LoadError::MultibootAddresses)?;
        let contents = match addresses.load_end.get() {
            0 => contents,
            end => {
                let size = end.checked_sub(load).and_then(|size| usize::try_from(size).ok());
                let size = size.ok_or(LoadError::MultibootAddresses)?;
                contents.get(..size).ok_or(LoadError::CutOff)?
            }
        };
        let load_end = u64::from(load) + contents.len() as u64;
        let end = load_end.max(addresses.bss_end.get().into());
        Ok(Self { memory: load.into()..end, contents, entry: addresses.entry.get().into() })
    }

    fn load(&self, loader: &mut Loader<'_, impl GuestMemory>) -> Result<u64, LoadError> {
        if !self.memory.contains(&self.entry) {
            return Err(LoadError::EntryOutside(GuestPhys(self.entry)));
        }
        if !loader.room.take(self.memory.clone()) {
            return Err(loader.why_not_ram(&self.memory));
        }
        let bss = self.memory.start + self.contents.len() as u64;
        loader.memory.write(GuestPhys(self.memory.start), self.contents)?;
        loader.memory.zero(GuestPhys(bss), self.memory.end - bss)?;
        Ok(self.entry)
    }
}

/// Writes what the kernel is told; gives the information's address. `Room` was told to look below 4 GiB for all of it, so
/// addresses have 32 bits.
fn put_info(loader: &mut Loader<'_, impl GuestMemory>) -> Result<u64, LoadError> {
    let low = |address: u64| U32::new(address as u32);
    // Low, as kernels may map no more than their neighbourhood at first.
    let module =
        loader.put_initrd(|room, size| room.lowest(size.checked_next_multiple_of(PAGE)?, PAGE, room::EXTENDED))?;
    let command_line = loader.put_command_line(MAX_COMMAND_LINE)?;
    let loader_name = loader.put_low(LOADER_NAME, 1)?;

    let mut memory_map = <[MemoryMapEntry; MAX_MAP_ENTRIES]>::new_zeroed();
    for (slot, entry) in memory_map.iter_mut().zip(loader.map) {
        let length = entry.range.end - entry.range.start;
        slot.size = ((size_of::<MemoryMapEntry>() - size_of::<U32>()) as u32).into();
        slot.base = halves(entry.range.start);
        slot.length = halves(length);
        slot.kind = entry.kind.number().into();
    }
    let memory_map = memory_map.get(..loader.map.len()).unwrap_or_default().as_bytes();
    let memory_map_bytes = memory_map.len() as u64;
    let memory_map = loader.put_low(memory_map, 4)?;

    let mut info = Info::new_zeroed();
    if let Some(start) = module {
        let end = start + loader.request.initrd.map_or(0, |initrd| initrd.len() as u64);
        let module = Module { start: low(start), end: low(end), string: low(command_line), reserved: U32::ZERO };
        info.modules = low(loader.put_low(module.as_bytes(), 4)?);
        info.module_count = 1.into();
    }
    let flags = INFO_MEMORY | INFO_COMMAND_LINE | INFO_MODULES | INFO_MEMORY_MAP | INFO_LOADER_NAME;
    info.flags = flags.into();
    info.mem_lower_kib = low(ram_from(loader, 0) >> 10);
    info.mem_upper_kib = low(ram_from(loader, room::EXTENDED.start) >> 10);
    info.command_line = low(command_line);
    info.memory_map_bytes = low(memory_map_bytes);
    info.memory_map = low(memory_map);
    info.loader_name = low(loader_name);
    loader.put_low(info.as_bytes(), 4)
}

/// Bytes of RAM from an address to the first hole.
fn ram_from<M>(loader: &Loader<'_, M>, start: u64) -> u64 {
    let entry = loader.map.iter().find(|entry| entry.kind == MemoryKind::Ram && entry.range.contains(&start));
    entry.map_or(0, |entry| entry.range.end - start)
}

fn halves(word: u64) -> [U32; 2] {
    [U32::new(word as u32), U32::new((word >> 32) as u32)]
}
