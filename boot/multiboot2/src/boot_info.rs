//! What the boot loader tells, read from the tags of the Multiboot2 information (Multiboot2 Specification 2.0, 3.6).

use dragonfly_handoff::{CommandLine, HandoffError, MemoryKind, MemoryRegion, PAGE_SIZE, PhysAddr, PhysRange};
use multiboot2::TagType;
use zerocopy::{FromBytes, Immutable, KnownLayout};

use crate::rsdp::{RSDP_V1_SIZE, RSDP_V2_SIZE};

/// Why the information was refused. Each of them is a fault of the boot loader or of its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BootInfoError {
    /// The chain of tags is broken.
    #[error("the boot loader's information is damaged")]
    Damaged,
    /// A tag is shorter than its fields.
    #[error("the boot loader's information is damaged: tag {0} is too short")]
    ShortTag(u32),
    /// Neither the BIOS's nor UEFI's map.
    #[error("the boot loader gives no memory map")]
    NoMemoryMap,
    /// A module is not there.
    #[error("no module is named `{0}`: add `module2 FILE {0}` to the boot loader's configuration")]
    NoModule(&'static str),
    /// Two modules of one name.
    #[error("two modules are named `{0}`: the boot loader's configuration must load one")]
    TwoModules(&'static str),
    /// A module of no bytes, at address 0, or one that ends before it begins.
    #[error("the module `{0}` is empty")]
    EmptyModule(&'static str),
    /// The command line cannot be passed on.
    #[error(transparent)]
    CommandLine(HandoffError),
}

/// What the boot loader tells.
#[derive(Clone, Copy, Debug)]
pub struct BootInfo<'a> {
    /// The firmware's memory map.
    pub memory: FirmwareMap<'a>,
    /// The words after the loader's name in the boot loader's configuration.
    pub command_line: CommandLine<'a>,
    /// The kernel's ELF file.
    pub kernel: PhysRange,
    /// The bundle.
    pub bundle: PhysRange,
    /// The bytes of the ACPI root pointer, if the boot loader made a copy; not checked.
    pub rsdp: Option<&'a [u8]>,
    /// Whether the firmware is UEFI.
    pub uefi: bool,
}

impl<'a> BootInfo<'a> {
    /// Reads the tags, each given by its type and what follows its header.
    ///
    /// # Errors
    /// Any of [`BootInfoError`] but `Damaged`.
    pub fn read(tags: impl Iterator<Item = (u32, &'a [u8])> + Clone) -> Result<Self, BootInfoError> {
        let find = |kind: TagType| tags.clone().find(|(number, _)| *number == kind.val()).map(|(_, payload)| payload);
        let modules = tags.clone().filter(|(number, _)| *number == TagType::Module.val()).map(|(_, payload)| payload);
        let uefi = find(TagType::Efi64).is_some() || find(TagType::Efi32).is_some();
        // UEFI's own map tells more than the copy of it in the BIOS's form, but it is not to be trusted while boot services
        // still run.
        let efi_map = find(TagType::EfiMmap).filter(|_| find(TagType::EfiBs).is_none());
        let memory = match (efi_map, find(TagType::Mmap)) {
            (Some(map), _) => FirmwareMap::uefi(map)?,
            (None, Some(map)) => FirmwareMap::bios(map)?,
            (None, None) => return Err(BootInfoError::NoMemoryMap),
        };
        let v1 = find(TagType::AcpiV1).and_then(|copy| copy.get(..RSDP_V1_SIZE));
        let v2 = find(TagType::AcpiV2).and_then(|copy| copy.get(..RSDP_V2_SIZE));
        Ok(Self {
            memory,
            command_line: Self::command_line(tags.clone())?,
            kernel: find_module(modules.clone(), "kernel")?,
            bundle: find_module(modules, "bundle")?,
            rsdp: v2.or(v1),
            uefi,
        })
    }

    /// Reads only the command line, which tells what to do about errors in all else. Empty if there is none.
    ///
    /// # Errors
    /// [`BootInfoError::CommandLine`] if it is too long or no text.
    pub fn command_line(mut tags: impl Iterator<Item = (u32, &'a [u8])>) -> Result<CommandLine<'a>, BootInfoError> {
        let line = tags.find(|(number, _)| *number == TagType::Cmdline.val()).map_or(&[][..], |(_, payload)| payload);
        CommandLine::parse(until_zero(line)).map_err(BootInfoError::CommandLine)
    }
}

/// Head of a module's tag; its name follows (Multiboot2 3.6.6).
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct ModuleHead {
    start: u32,
    end: u32,
}

/// The module whose configured text begins with the word `name`.
fn find_module<'a>(modules: impl Iterator<Item = &'a [u8]>, name: &'static str) -> Result<PhysRange, BootInfoError> {
    let mut found = None;
    for module in modules {
        let short = BootInfoError::ShortTag(TagType::Module.val());
        let (head, text) = ModuleHead::read_from_prefix(module).map_err(|_| short)?;
        if until_zero(text).split(u8::is_ascii_whitespace).next() != Some(name.as_bytes()) {
            continue;
        }
        let size = head.end.checked_sub(head.start).filter(|size| *size > 0);
        let size = size.ok_or(BootInfoError::EmptyModule(name))?;
        let range = PhysRange::new(PhysAddr(head.start.into()), size.into());
        if found.is_some() {
            return Err(BootInfoError::TwoModules(name));
        }
        found = range;
    }
    found.ok_or(BootInfoError::NoModule(name))
}

fn until_zero(bytes: &[u8]) -> &[u8] {
    bytes.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// The memory map as firmware wrote it.
#[derive(Clone, Copy, Debug)]
pub struct FirmwareMap<'a> {
    entries: &'a [u8],
    /// Distance from one entry to the next, in bytes; not less than an entry's size.
    stride: usize,
    uefi: bool,
}

/// Head of both kinds of memory map's tags (Multiboot2 3.6.8 and 3.6.15).
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MapHead {
    entry_size: u32,
    version: u32,
}

/// Entry of the BIOS's map (ACPI 6.5, 15.1; Multiboot2 3.6.8).
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct BiosEntry {
    base: u64,
    size: u64,
    kind: u32,
    reserved: u32,
}

/// EFI_MEMORY_DESCRIPTOR (UEFI 2.10, 7.2.3).
#[derive(FromBytes, Immutable, KnownLayout)]
#[repr(C)]
struct UefiEntry {
    kind: u32,
    padding: u32,
    physical_start: u64,
    virtual_start: u64,
    page_count: u64,
    attributes: u64,
}

impl<'a> FirmwareMap<'a> {
    fn bios(tag: &'a [u8]) -> Result<Self, BootInfoError> {
        Self::new(tag, TagType::Mmap, size_of::<BiosEntry>(), false)
    }

    fn uefi(tag: &'a [u8]) -> Result<Self, BootInfoError> {
        Self::new(tag, TagType::EfiMmap, size_of::<UefiEntry>(), true)
    }

    fn new(tag: &'a [u8], kind: TagType, minimum: usize, uefi: bool) -> Result<Self, BootInfoError> {
        let short = BootInfoError::ShortTag(kind.val());
        let (head, entries) = MapHead::read_from_prefix(tag).map_err(|_| short)?;
        let stride = head.entry_size as usize;
        if stride < minimum { Err(short) } else { Ok(Self { entries, stride, uefi }) }
    }

    /// The entries, in the handoff's terms.
    pub fn regions(self) -> impl Iterator<Item = MemoryRegion> + Clone + 'a {
        self.entries.chunks_exact(self.stride).filter_map(move |entry| {
            if self.uefi {
                UefiEntry::read_from_prefix(entry).ok().map(|(entry, _)| entry.region())
            } else {
                BiosEntry::read_from_prefix(entry).ok().map(|(entry, _)| entry.region())
            }
        })
    }
}

impl BiosEntry {
    fn region(&self) -> MemoryRegion {
        // ACPI 6.5, table 15.4.
        let kind = match self.kind {
            1 => MemoryKind::USABLE,
            3 => MemoryKind::ACPI_RECLAIMABLE,
            4 => MemoryKind::ACPI_NVS,
            5 => MemoryKind::UNUSABLE,
            _ => MemoryKind::RESERVED,
        };
        MemoryRegion::new(PhysAddr(self.base), self.size, kind)
    }
}

impl UefiEntry {
    /// EFI_MEMORY_SP: memory for a specific purpose, to be left to that purpose's driver.
    const SPECIFIC_PURPOSE: u64 = 1 << 18;

    fn region(&self) -> MemoryRegion {
        // UEFI 2.10, table 7.10: what each type is after ExitBootServices().
        let kind = match self.kind {
            // Loader code and data, boot services code and data, conventional memory.
            1..=4 | 7 if self.attributes & Self::SPECIFIC_PURPOSE == 0 => MemoryKind::USABLE,
            8 => MemoryKind::UNUSABLE,
            9 => MemoryKind::ACPI_RECLAIMABLE,
            10 => MemoryKind::ACPI_NVS,
            11 | 12 => MemoryKind::MMIO,
            _ => MemoryKind::RESERVED,
        };
        // A size that does not fit is passed on as one that does not either, for the memory map to refuse.
        MemoryRegion::new(PhysAddr(self.physical_start), self.page_count.saturating_mul(PAGE_SIZE), kind)
    }
}
