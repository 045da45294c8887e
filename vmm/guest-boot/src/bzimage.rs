//! Linux bzImage by its 64-bit entry (Linux, `Documentation/arch/x86/boot.rst`, "The 64-bit Boot Protocol", and
//! `zero-page.rst`).

use zerocopy::IntoBytes;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, FromZeros, Immutable, KnownLayout, Unaligned};

use crate::layout::MemoryMap;
use crate::tables::{self, CodeKind};
use crate::{GuestMemory, GuestPhys, LoadError, Loader, StartState, room};

/// Where the set-up header lies, in the file as in the zero page.
const HEADER_OFFSET: usize = 0x1f1;
/// Bytes of a disk sector; the real-mode part of the file is counted in them.
const SECTOR: usize = 512;
/// Sectors of the real-mode part if the header says 0.
const DEFAULT_SETUP_SECTORS: u8 = 4;
/// First protocol with `xloadflags`.
const OLDEST_VERSION: u16 = 0x020c;
/// `xloadflags`: the kernel has a 64-bit entry 0x200 behind its start.
const XLF_KERNEL_64: u16 = 1 << 0;
/// Offset of the 64-bit entry.
const ENTRY_64: u64 = 0x200;
/// `type_of_loader`: one without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// `loadflags`: the protected-mode part is at 1 MiB or above.
const LOADED_HIGH: u8 = 1 << 0;
/// Granularity of what the kernel reserves for the initrd.
const PAGE: u64 = 4096;

/// Set-up header: what the file tells the loader and what the loader answers, at the same place.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct SetupHeader {
    setup_sects: u8,
    root_flags: U16,
    syssize: U32,
    ram_size: U16,
    vid_mode: U16,
    root_dev: U16,
    boot_flag: U16,
    jump: [u8; 2],
    header: [u8; 4],
    version: U16,
    realmode_swtch: U32,
    start_sys_seg: U16,
    kernel_version: U16,
    type_of_loader: u8,
    loadflags: u8,
    setup_move_size: U16,
    code32_start: U32,
    ramdisk_image: U32,
    ramdisk_size: U32,
    bootsect_kludge: U32,
    heap_end_ptr: U16,
    ext_loader_ver: u8,
    ext_loader_type: u8,
    cmd_line_ptr: U32,
    initrd_addr_max: U32,
    kernel_alignment: U32,
    relocatable_kernel: u8,
    min_alignment: u8,
    xloadflags: U16,
    cmdline_size: U32,
    hardware_subarch: U32,
    hardware_subarch_data: U64,
    payload_offset: U32,
    payload_length: U32,
    setup_data: U64,
    pref_address: U64,
    init_size: U32,
    handover_offset: U32,
    kernel_info_offset: U32,
}

const _: () = assert!(HEADER_OFFSET + size_of::<SetupHeader>() == 0x26c);

/// Entries of the E820 table within the zero page.
const MAX_E820: usize = 128;

/// An entry of the memory map (zero-page.rst, `e820_table`).
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct E820Entry {
    address: U64,
    size: U64,
    kind: U32,
}

/// The zero page, `boot_params`, without what no loader but the real-mode code fills in.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct ZeroPage {
    screen_and_apm: [u8; 0x70],
    acpi_rsdp_addr: U64,
    unused_078: [u8; 0x1e8 - 0x78],
    e820_entries: u8,
    unused_1e9: [u8; HEADER_OFFSET - 0x1e9],
    header: SetupHeader,
    unused_26c: [u8; 0x2d0 - 0x26c],
    e820_table: [E820Entry; MAX_E820],
    unused_cd0: [u8; 4096 - 0xcd0],
}

const _: () = assert!(size_of::<ZeroPage>() == 4096);

/// A checked bzImage.
#[derive(Clone, Copy, Debug)]
pub struct BzImage<'f> {
    header: SetupHeader,
    /// The protected-mode part.
    kernel: &'f [u8],
}

impl<'f> BzImage<'f> {
    /// Whether the file claims to be one.
    pub fn is_one(file: &[u8]) -> bool {
        file.get(0x1fe..0x200) == Some(&[0x55, 0xaa]) && file.get(0x202..0x206) == Some(b"HdrS")
    }

    /// Checks what the loader relies on.
    pub fn parse(file: &'f [u8]) -> Result<Self, LoadError> {
        let rest = file.get(HEADER_OFFSET..).ok_or(LoadError::CutOff)?;
        let (mut header, _) = SetupHeader::read_from_prefix(rest).map_err(|_| LoadError::CutOff)?;
        // The header ends where its jump goes; what follows is the real-mode part's code.
        let known = (0x202 - HEADER_OFFSET) + usize::from(header.jump[1]);
        header.as_mut_bytes().iter_mut().skip(known).for_each(|byte| *byte = 0);
        if header.version.get() < OLDEST_VERSION {
            let [minor, major] = header.version.get().to_le_bytes();
            return Err(LoadError::OldProtocol { major, minor });
        }
        if header.xloadflags.get() & XLF_KERNEL_64 == 0 {
            return Err(LoadError::No64BitEntry);
        }

        let setup_sectors = if header.setup_sects == 0 { DEFAULT_SETUP_SECTORS } else { header.setup_sects };
        let kernel = file.get((usize::from(setup_sectors) + 1) * SECTOR..).ok_or(LoadError::CutOff)?;
        // The size is in paragraphs, of which the last may be cut.
        let promised = u64::from(header.syssize.get()) * 16;
        if kernel.len() as u64 + 15 < promised || (kernel.len() as u64) <= ENTRY_64 {
            return Err(LoadError::CutOff);
        }
        Ok(Self { header, kernel })
    }

    /// Writes kernel, initrd, command line, zero page and tables.
    pub fn load(&self, loader: &mut Loader<'_, impl GuestMemory>) -> Result<StartState, LoadError> {
        let base = self.place(loader)?;
        loader.memory.write(GuestPhys(base), self.kernel)?;

        let initrd_end = u64::from(self.header.initrd_addr_max.get()).saturating_add(1);
        let initrd_bounds = room::EXTENDED.start..room::EXTENDED.end.min(initrd_end);
        let initrd =
            loader.put_initrd(|room, size| room.highest(size.checked_next_multiple_of(PAGE)?, PAGE, initrd_bounds))?;

        let limit = usize::try_from(self.header.cmdline_size.get()).unwrap_or(usize::MAX);
        let command_line = loader.put_command_line(limit)?;
        let zero_page = self.zero_page(loader, base, initrd, command_line);
        let zero_page = loader.put_low(zero_page.as_bytes(), PAGE)?;

        let selectors = tables::put_gdt(loader, CodeKind::Long)?;
        let root = tables::put_page_tables(loader)?;
        let mut state = StartState::long_mode(GuestPhys(base + ENTRY_64), root, selectors);
        state.registers.rsi = zero_page;
        Ok(state)
    }

    /// Takes the kernel's memory. Loaded lower, it would move itself to its preferred address, so there is no other place.
    fn place(&self, loader: &mut Loader<'_, impl GuestMemory>) -> Result<u64, LoadError> {
        let base = self.header.pref_address.get();
        // While the kernel unpacks itself it uses `init_size` bytes, the file's among them.
        let size = u64::from(self.header.init_size.get()).max(self.kernel.len() as u64);
        let end = base.checked_add(size).ok_or(LoadError::OutsideMemory(GuestPhys(base)))?;
        loader.take_extended(base..end)?;
        Ok(base)
    }

    fn zero_page(
        &self,
        loader: &Loader<'_, impl GuestMemory>,
        base: u64,
        initrd: Option<u64>,
        command_line: u64,
    ) -> ZeroPage {
        // All these lie below 4 GiB, where `Room` was told to look for them.
        let low = |address: u64| U32::new(address as u32);
        let header = SetupHeader {
            type_of_loader: LOADER_UNDEFINED,
            loadflags: self.header.loadflags | LOADED_HIGH,
            code32_start: low(base),
            ramdisk_image: low(initrd.unwrap_or(0)),
            ramdisk_size: low(loader.request.initrd.map_or(0, |initrd| initrd.len() as u64)),
            cmd_line_ptr: low(command_line),
            setup_data: U64::ZERO,
            ..self.header
        };
        let mut page = ZeroPage::new_zeroed();
        page.header = header;
        page.acpi_rsdp_addr = loader.request.memory.rsdp.0.into();
        page.e820_entries = loader.map.len() as u8;
        fill_e820(&mut page.e820_table, loader.map);
        page
    }
}

fn fill_e820(table: &mut [E820Entry; MAX_E820], map: &MemoryMap) {
    for (slot, entry) in table.iter_mut().zip(map) {
        *slot = E820Entry {
            address: entry.range.start.into(),
            size: (entry.range.end - entry.range.start).into(),
            kind: entry.kind.number().into(),
        };
    }
}
