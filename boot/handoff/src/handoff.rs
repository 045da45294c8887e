//! The handoff in checked form, and both directions between it and the bytes in memory.

use core::fmt;

use arrayvec::ArrayVec;
use zerocopy::{FromBytes, FromZeros};

use crate::wire::{WireHandoff, WireRange, WireSegment};
use crate::{
    DIRECT_MAP_BASE, DIRECT_MAP_LIMIT, Field, HANDOFF_SIZE, HandoffError, HandoffFlags, KERNEL_BASE, MAGIC,
    MAX_COMMAND_LINE, MAX_MEMORY_ENTRIES, MemoryRegion, PAGE_SIZE, PhysAddr, PhysRange, SegmentFlags, VERSION,
    VirtAddr,
};

/// Most segments that the kernel may have.
pub const MAX_KERNEL_SEGMENTS: usize = 8;

/// Shortest root pointer, that of ACPI 1.0, in bytes (ACPI 6.5, 5.2.5.3).
const RSDP_SIZE: u64 = 20;

/// What a loader tells the kernel.
///
/// After [`Handoff::parse`], all of this holds: every range can be read through the direct map; [`Self::kernel`],
/// [`Self::bundle`] and [`Self::boot_memory`] begin at a page, are not empty and do not overlap; the kernel's segments are
/// whole pages at or above [`KERNEL_BASE`], do not overlap and are not both writable and executable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handoff {
    /// What the loader found and did.
    pub flags: HandoffFlags,
    /// The bytes of the memory map, for [`MemoryMap::parse`](crate::MemoryMap::parse).
    pub memory_map: PhysRange,
    /// The kernel's segments, in ascending order of their virtual addresses.
    pub kernel: ArrayVec<KernelSegment, MAX_KERNEL_SEGMENTS>,
    /// The bundle, exactly as long as its file.
    pub bundle: PhysRange,
    /// The bytes of the command line, for [`CommandLine::parse`](crate::CommandLine::parse); may be empty.
    pub command_line: PhysRange,
    /// The ACPI root pointer, or a copy of it in memory of the loader.
    pub acpi_rsdp: Option<PhysAddr>,
    /// The loader's page tables, stack and handoff, all of it [`MemoryKind::BOOTLOADER`](crate::MemoryKind::BOOTLOADER).
    pub boot_memory: PhysRange,
    /// The direct map.
    pub direct_map: DirectMap,
    /// The loader's name and version, for the log.
    pub loader_name: LoaderName,
}

/// Whole frames that hold one segment of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelSegment {
    /// Where the frames are mapped.
    pub virtual_base: VirtAddr,
    /// The frames, in one piece.
    pub frames: PhysRange,
    /// What the segment may be used for beside reading.
    pub flags: SegmentFlags,
}

/// Physical memory from address 0 as the kernel sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectMap {
    /// Where physical address 0 is mapped.
    pub base: VirtAddr,
    /// How many bytes are mapped.
    pub size: u64,
}

impl DirectMap {
    /// Where `range` is mapped; none if a part of it is not.
    pub fn virt(self, range: PhysRange) -> Option<VirtAddr> {
        let mapped = PhysRange::new(PhysAddr(0), self.size)?;
        mapped.contains(range).then_some(VirtAddr(self.base.0.checked_add(range.base().0)?))
    }
}

/// Up to 32 bytes of text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LoaderName([u8; 32]);

impl LoaderName {
    /// The first 32 bytes of `name`, less where that would cut a character.
    pub fn new(name: &str) -> Self {
        let mut bytes = [0; 32];
        let length = name.floor_char_boundary(bytes.len());
        for (to, from) in bytes.iter_mut().zip(name.as_bytes().iter().take(length)) {
            *to = *from;
        }
        Self(bytes)
    }

    /// The text, without the zero bytes after it.
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).unwrap_or_default().trim_end_matches('\0')
    }
}

impl fmt::Debug for LoaderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl Handoff {
    /// Reads and checks the handoff at the beginning of `bytes`; what follows it is ignored.
    ///
    /// # Errors
    /// Any of [`HandoffError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, HandoffError> {
        let too_short = || HandoffError::TooShort(bytes.len());
        // Magic, version and size tell what the rest means, so they are judged before its length is.
        let (magic, rest) = u64::read_from_prefix(bytes).map_err(|_| too_short())?;
        let (version, rest) = u32::read_from_prefix(rest).map_err(|_| too_short())?;
        let (size, _) = u32::read_from_prefix(rest).map_err(|_| too_short())?;
        if magic != MAGIC {
            return Err(HandoffError::BadMagic(magic));
        }
        if version != VERSION {
            return Err(HandoffError::UnsupportedVersion(version));
        }
        if size as usize != HANDOFF_SIZE {
            return Err(HandoffError::BadSize(size));
        }
        let (wire, _) = WireHandoff::read_from_prefix(bytes).map_err(|_| too_short())?;
        let handoff = Self::from_wire(&wire)?;
        handoff.check()?;
        Ok(handoff)
    }

    /// The bytes that the loader puts at a multiple of 8.
    ///
    /// # Errors
    /// Those of [`HandoffError`] that [`Self::parse`] would give.
    pub fn encode(&self) -> Result<[u8; HANDOFF_SIZE], HandoffError> {
        self.check()?;
        let mut wire = WireHandoff::new_zeroed();
        wire.magic = MAGIC;
        wire.version = VERSION;
        wire.size = HANDOFF_SIZE as u32;
        wire.flags = self.flags.bits();
        wire.memory_map_address = self.memory_map.base();
        wire.memory_map_count = self.memory_map.size() / size_of::<MemoryRegion>() as u64;
        wire.bundle = self.bundle.into();
        wire.command_line = self.command_line.into();
        wire.acpi_rsdp = self.acpi_rsdp.unwrap_or_default();
        wire.boot_memory = self.boot_memory.into();
        wire.direct_map_base = self.direct_map.base;
        wire.direct_map_size = self.direct_map.size;
        wire.loader_name = self.loader_name.0;
        for (to, segment) in wire.kernel_segments.iter_mut().zip(&self.kernel) {
            wire.kernel_segment_count = wire.kernel_segment_count.saturating_add(1);
            *to = WireSegment {
                virtual_base: segment.virtual_base,
                frames: segment.frames.into(),
                flags: segment.flags.bits(),
                reserved: 0,
            };
        }
        Ok(zerocopy::transmute!(wire))
    }

    fn from_wire(wire: &WireHandoff) -> Result<Self, HandoffError> {
        let count = wire.kernel_segment_count as usize;
        let segments = wire.kernel_segments.get(..count).ok_or(HandoffError::TooLong(Field::KernelSegments))?;
        let mut kernel = ArrayVec::new();
        for segment in segments {
            kernel
                .try_push(KernelSegment {
                    virtual_base: segment.virtual_base,
                    frames: segment.frames.check(Field::KernelSegments)?,
                    flags: SegmentFlags::from_bits(segment.flags).ok_or(HandoffError::UnknownFlags(segment.flags))?,
                })
                .map_err(|_| HandoffError::TooLong(Field::KernelSegments))?;
        }
        str::from_utf8(&wire.loader_name).map_err(|_| HandoffError::NotText(Field::LoaderName))?;
        let memory_map_size = wire
            .memory_map_count
            .checked_mul(size_of::<MemoryRegion>() as u64)
            .ok_or(HandoffError::TooLong(Field::MemoryMap))?;
        Ok(Self {
            flags: HandoffFlags::from_bits(wire.flags).ok_or(HandoffError::UnknownFlags(wire.flags))?,
            memory_map: WireRange { base: wire.memory_map_address, size: memory_map_size }.check(Field::MemoryMap)?,
            kernel,
            bundle: wire.bundle.check(Field::Bundle)?,
            command_line: wire.command_line.check(Field::CommandLine)?,
            acpi_rsdp: (wire.acpi_rsdp != PhysAddr(0)).then_some(wire.acpi_rsdp),
            boot_memory: wire.boot_memory.check(Field::BootMemory)?,
            direct_map: DirectMap { base: wire.direct_map_base, size: wire.direct_map_size },
            loader_name: LoaderName(wire.loader_name),
        })
    }

    fn check(&self) -> Result<(), HandoffError> {
        let DirectMap { base, size } = self.direct_map;
        if base != DIRECT_MAP_BASE || size == 0 || size > DIRECT_MAP_LIMIT || !size.is_multiple_of(PAGE_SIZE) {
            return Err(HandoffError::BadDirectMap);
        }

        let entries = self.memory_map.size() / size_of::<MemoryRegion>() as u64;
        if entries > MAX_MEMORY_ENTRIES as u64 {
            return Err(HandoffError::TooLong(Field::MemoryMap));
        }
        if !self.memory_map.base().0.is_multiple_of(align_of::<MemoryRegion>() as u64) {
            return Err(HandoffError::Misaligned(Field::MemoryMap));
        }
        self.check_readable(self.memory_map, Field::MemoryMap)?;

        self.check_pages(self.bundle, Field::Bundle)?;
        self.check_pages(self.boot_memory, Field::BootMemory)?;
        if self.bundle.overlaps(self.boot_memory) {
            return Err(HandoffError::Overlap(Field::Bundle));
        }
        if self.command_line.size() > MAX_COMMAND_LINE as u64 {
            return Err(HandoffError::TooLong(Field::CommandLine));
        }
        if !self.command_line.is_empty() {
            self.check_readable(self.command_line, Field::CommandLine)?;
        }
        if let Some(rsdp) = self.acpi_rsdp {
            let range = PhysRange::new(rsdp, RSDP_SIZE).ok_or(HandoffError::OutsideDirectMap(Field::AcpiRsdp))?;
            self.check_readable(range, Field::AcpiRsdp)?;
        }
        self.check_segments()
    }

    fn check_segments(&self) -> Result<(), HandoffError> {
        if self.kernel.is_empty() {
            return Err(HandoffError::Empty(Field::KernelSegments));
        }
        let mut end_of_last = KERNEL_BASE.0;
        for (index, segment) in self.kernel.iter().enumerate() {
            self.check_pages(segment.frames, Field::KernelSegments)?;
            let whole_pages = segment.frames.size().is_multiple_of(PAGE_SIZE);
            if !whole_pages || !segment.virtual_base.is_page_aligned() {
                return Err(HandoffError::Misaligned(Field::KernelSegments));
            }
            let end = segment.virtual_base.0.checked_add(segment.frames.size());
            let Some(end) = end.filter(|_| segment.virtual_base >= KERNEL_BASE) else {
                return Err(HandoffError::SegmentOutsideKernelSpace);
            };
            if segment.flags.contains(SegmentFlags::WRITE | SegmentFlags::EXECUTE) {
                return Err(HandoffError::SegmentWritableAndExecutable);
            }
            let others = self.kernel.iter().take(index).map(|other| other.frames);
            let shared_frames =
                others.chain([self.bundle, self.boot_memory]).any(|other| other.overlaps(segment.frames));
            if segment.virtual_base.0 < end_of_last || shared_frames {
                return Err(HandoffError::Overlap(Field::KernelSegments));
            }
            end_of_last = end;
        }
        Ok(())
    }

    fn check_pages(&self, range: PhysRange, field: Field) -> Result<(), HandoffError> {
        if !range.base().is_page_aligned() {
            return Err(HandoffError::Misaligned(field));
        }
        self.check_readable(range, field)
    }

    fn check_readable(&self, range: PhysRange, field: Field) -> Result<(), HandoffError> {
        if range.is_empty() {
            return Err(HandoffError::Empty(field));
        }
        self.direct_map.virt(range).map(|_| ()).ok_or(HandoffError::OutsideDirectMap(field))
    }
}

impl WireRange {
    fn check(self, field: Field) -> Result<PhysRange, HandoffError> {
        PhysRange::new(self.base, self.size).ok_or(HandoffError::OutsideDirectMap(field))
    }
}

impl From<PhysRange> for WireRange {
    fn from(range: PhysRange) -> Self {
        Self { base: range.base(), size: range.size() }
    }
}
