//! The memory map: from whatever firmware and loader list, to sorted whole pages without overlap.

use arrayvec::ArrayVec;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{PAGE_SIZE, PhysAddr, PhysRange};

/// Most entries that a list handed over may have; firmware of large servers lists a few hundred.
pub const MAX_MEMORY_ENTRIES: usize = 1024;

/// Most regions that are left when overlaps are resolved and neighbours joined.
pub const MAX_MEMORY_REGIONS: usize = 256;

/// What memory is used for. An open enumeration: a value that is none of the constants counts as [`Self::RESERVED`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(transparent)]
pub struct MemoryKind(pub u32);

impl MemoryKind {
    /// RAM that is free.
    pub const USABLE: Self = Self(1);
    /// Not to be touched: firmware's, or no RAM at all.
    pub const RESERVED: Self = Self(2);
    /// ACPI tables: RAM that is free once they have been read.
    pub const ACPI_RECLAIMABLE: Self = Self(3);
    /// ACPI non-volatile storage, firmware's for good.
    pub const ACPI_NVS: Self = Self(4);
    /// RAM with errors.
    pub const UNUSABLE: Self = Self(5);
    /// The loader's code, tables, stack and handoff: RAM that is free once the kernel stands on its own.
    pub const BOOTLOADER: Self = Self(0x1000);
    /// The kernel's segments.
    pub const KERNEL_IMAGE: Self = Self(0x1001);
    /// The bundle.
    pub const BUNDLE: Self = Self(0x1002);
    /// Device registers.
    pub const MMIO: Self = Self(0x1003);

    /// How much the kind forbids: where entries overlap, the highest wins. None for a value that is not known.
    const fn restriction(self) -> Option<u8> {
        Some(match self {
            Self::USABLE => 0,
            Self::BOOTLOADER => 1,
            Self::ACPI_RECLAIMABLE => 2,
            Self::BUNDLE => 3,
            Self::KERNEL_IMAGE => 4,
            Self::ACPI_NVS => 5,
            Self::RESERVED => 6,
            Self::MMIO => 7,
            Self::UNUSABLE => 8,
            _ => return None,
        })
    }

    /// Whether there is RAM that holds, or may hold, something for the kernel.
    pub const fn is_ram(self) -> bool {
        matches!(
            self,
            Self::USABLE
                | Self::BOOTLOADER
                | Self::ACPI_RECLAIMABLE
                | Self::BUNDLE
                | Self::KERNEL_IMAGE
                | Self::ACPI_NVS
        )
    }
}

/// One entry of the list in memory, as a loader writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct MemoryRegion {
    /// First byte.
    pub base: PhysAddr,
    /// Length in bytes.
    pub size: u64,
    /// What it is used for.
    pub kind: MemoryKind,
    /// Zero; readers ignore it.
    pub reserved: u32,
}

const _: () = assert!(size_of::<MemoryRegion>() == 24 && align_of::<MemoryRegion>() == 8);

impl MemoryRegion {
    /// An entry from its parts.
    pub const fn new(base: PhysAddr, size: u64, kind: MemoryKind) -> Self {
        Self { base, size, kind, reserved: 0 }
    }
}

/// Why a memory map was refused. Each of them is firmware's or the loader's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MemoryMapError {
    /// The bytes are not whole entries.
    #[error("memory map: {0} bytes are not a whole number of entries")]
    PartialEntry(usize),
    /// More than [`MAX_MEMORY_ENTRIES`].
    #[error("memory map: more than {MAX_MEMORY_ENTRIES} entries")]
    TooManyEntries,
    /// An entry goes beyond the last address.
    #[error("memory map: the entry at {base} of {size:#x} bytes wraps around")]
    WrapsAround {
        /// First byte of the entry.
        base: PhysAddr,
        /// Its length in bytes.
        size: u64,
    },
    /// More than [`MAX_MEMORY_REGIONS`].
    #[error("memory map: more than {MAX_MEMORY_REGIONS} separate regions")]
    TooManyRegions,
    /// Not a single usable page.
    #[error("memory map: no usable memory")]
    NoUsableMemory,
}

/// A checked memory map.
///
/// The regions are sorted, whole pages, do not overlap, and end at or below the limit given; neighbours differ in kind;
/// each kind is one of [`MemoryKind`]'s constants; there is at least one usable page. Addresses in no region are to be taken
/// as [`MemoryKind::RESERVED`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemoryMap {
    regions: ArrayVec<MemoryRegion, MAX_MEMORY_REGIONS>,
}

impl MemoryMap {
    /// Reads the list that a handoff points at and makes it a map; see [`Self::normalise`] for `limit`.
    ///
    /// # Errors
    /// Any of [`MemoryMapError`].
    pub fn parse(bytes: &[u8], limit: PhysAddr) -> Result<Self, MemoryMapError> {
        let entries = bytes.chunks_exact(size_of::<MemoryRegion>());
        if !entries.remainder().is_empty() {
            return Err(MemoryMapError::PartialEntry(bytes.len()));
        }
        Self::normalise(entries.filter_map(|entry| MemoryRegion::read_from_bytes(entry).ok()), limit)
    }

    /// Makes a map of entries in any order, that may overlap and need not be whole pages.
    ///
    /// A page is usable if one usable entry covers all of it and no entry of another kind touches it; a page that entries of
    /// several kinds touch is of the most restrictive one. What lies at or above `limit` (where the CPU's physical addresses
    /// or the direct map end) is left out.
    ///
    /// # Errors
    /// Any of [`MemoryMapError`] but `PartialEntry`.
    pub fn normalise(
        entries: impl Iterator<Item = MemoryRegion> + Clone,
        limit: PhysAddr,
    ) -> Result<Self, MemoryMapError> {
        for (index, entry) in entries.clone().enumerate() {
            if index >= MAX_MEMORY_ENTRIES {
                return Err(MemoryMapError::TooManyEntries);
            }
            if entry.base.0.checked_add(entry.size.saturating_sub(1)).is_none() {
                return Err(MemoryMapError::WrapsAround { base: entry.base, size: entry.size });
            }
        }
        let spans = entries.filter_map(|entry| Span::new(entry, limit));

        // From each boundary to the next one, a single kind is the most restrictive. That needs no memory to sort in; the
        // time is quadratic, for entries that are a few dozen.
        let mut regions = ArrayVec::new();
        let mut position = 0;
        loop {
            let mut kind: Option<MemoryKind> = None;
            let mut next: Option<u64> = None;
            for span in spans.clone() {
                if span.start <= position && position < span.end {
                    kind = Some(kind.map_or(span.kind, |kind| more_restrictive(kind, span.kind)));
                }
                for boundary in [span.start, span.end] {
                    if boundary > position && next.is_none_or(|next| boundary < next) {
                        next = Some(boundary);
                    }
                }
            }
            let Some(next) = next else { break };
            if let Some(kind) = kind {
                append(&mut regions, position, next, kind)?;
            }
            position = next;
        }
        let map = Self { regions };
        if map.usable().next().is_none() {
            return Err(MemoryMapError::NoUsableMemory);
        }
        Ok(map)
    }

    /// The regions, in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (PhysRange, MemoryKind)> + Clone + '_ {
        self.regions.iter().filter_map(|region| Some((PhysRange::new(region.base, region.size)?, region.kind)))
    }

    /// The usable regions, in ascending order.
    pub fn usable(&self) -> impl DoubleEndedIterator<Item = PhysRange> + Clone + '_ {
        self.of_kind(MemoryKind::USABLE)
    }

    /// The regions of one kind, in ascending order.
    pub fn of_kind(&self, kind: MemoryKind) -> impl DoubleEndedIterator<Item = PhysRange> + Clone + '_ {
        self.iter().filter(move |(_, k)| *k == kind).map(|(range, _)| range)
    }

    /// What `address` is used for; none where no region says.
    pub fn kind_at(&self, address: PhysAddr) -> Option<MemoryKind> {
        self.iter().find(|(range, _)| range.base() <= address && address < range.end()).map(|(_, kind)| kind)
    }

    /// The end of the highest region that [is RAM](MemoryKind::is_ram).
    pub fn ram_end(&self) -> PhysAddr {
        self.iter().rev().find(|(_, kind)| kind.is_ram()).map_or(PhysAddr(0), |(range, _)| range.end())
    }

    /// The list as a handoff points at it.
    pub fn as_bytes(&self) -> &[u8] {
        self.regions.as_slice().as_bytes()
    }
}

/// An entry cut to whole pages below the limit.
struct Span {
    start: u64,
    end: u64,
    kind: MemoryKind,
}

impl Span {
    /// None if nothing of the entry is left.
    fn new(entry: MemoryRegion, limit: PhysAddr) -> Option<Self> {
        let limit = align_down(limit.0);
        let last = entry.base.0.checked_add(entry.size.checked_sub(1)?)?.min(limit.checked_sub(1)?);
        let end = last.checked_add(1)?;
        let (start, end, kind) = match entry.kind {
            MemoryKind::USABLE => (align_up(entry.base.0)?, align_down(end), entry.kind),
            kind if kind.restriction().is_none() => (align_down(entry.base.0), align_up(end)?, MemoryKind::RESERVED),
            kind => (align_down(entry.base.0), align_up(end)?, kind),
        };
        (start < end).then_some(Self { start, end, kind })
    }
}

fn align_down(address: u64) -> u64 {
    address & !(PAGE_SIZE - 1)
}

fn align_up(address: u64) -> Option<u64> {
    address.checked_next_multiple_of(PAGE_SIZE)
}

fn more_restrictive(one: MemoryKind, other: MemoryKind) -> MemoryKind {
    if other.restriction() > one.restriction() { other } else { one }
}

/// Adds `start..end`, joined to the last region where that is of the same kind and ends at `start`.
fn append(
    regions: &mut ArrayVec<MemoryRegion, MAX_MEMORY_REGIONS>,
    start: u64,
    end: u64,
    kind: MemoryKind,
) -> Result<(), MemoryMapError> {
    let size = end.saturating_sub(start);
    if let Some(last) = regions.last_mut()
        && last.kind == kind
        && last.base.0.saturating_add(last.size) == start
    {
        last.size = last.size.saturating_add(size);
        return Ok(());
    }
    regions.try_push(MemoryRegion::new(PhysAddr(start), size, kind)).map_err(|_| MemoryMapError::TooManyRegions)
}
