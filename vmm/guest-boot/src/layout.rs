//! What lies where in guest-physical memory, and the map of it that a kernel is given.

use core::ops::Range;

use arrayvec::ArrayVec;

use crate::GuestPhys;

/// RAM that does not fit below the devices goes on here: 4 GiB.
pub const HIGH_RAM_BASE: GuestPhys = GuestPhys(1 << 32);

/// End of conventional memory: 640 KiB.
const CONVENTIONAL_END: u64 = 640 << 10;
/// First byte of extended memory: 1 MiB.
const EXTENDED_BASE: u64 = 1 << 20;

/// Most entries that a [`MemoryMap`] has.
pub const MAX_MAP_ENTRIES: usize = 16;

/// Where the machine has RAM and what else a kernel must know of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MemoryLayout {
    /// Bytes of RAM from address 0 on; at most 4 GiB, in practice less, as the devices are there. What lies from 640 KiB to
    /// 1 MiB is not RAM to the kernel.
    pub low_ram_bytes: u64,
    /// Bytes of RAM from [`HIGH_RAM_BASE`] on.
    pub high_ram_bytes: u64,
    /// The ACPI tables, which the machine writes itself.
    pub acpi_tables: Range<GuestPhys>,
    /// The ACPI root pointer.
    pub rsdp: GuestPhys,
    /// The memory-mapped PCI configuration space (ECAM). Kernels use it only if the map reserves it.
    pub ecam: Range<GuestPhys>,
}

/// What a range of the map is. Other addresses are devices or nothing.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MemoryKind {
    /// RAM that the kernel may use.
    Ram,
    /// Not to be used.
    Reserved,
    /// ACPI tables; RAM once they have been read.
    AcpiReclaimable,
}

impl MemoryKind {
    /// The number that E820, PVH and Multiboot all give it (ACPI 6.5, "Address Range Types").
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::Ram => 1,
            Self::Reserved => 2,
            Self::AcpiReclaimable => 3,
        }
    }
}

/// One range of the map; never empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MapEntry {
    /// First byte, and the one after the last.
    pub range: Range<u64>,
    /// What it is.
    pub kind: MemoryKind,
}

/// The map: ascending, without overlap.
pub type MemoryMap = ArrayVec<MapEntry, MAX_MAP_ENTRIES>;

impl MemoryLayout {
    /// The map that a kernel is given, however the ranges overlap: ACPI tables come before what is reserved, that before RAM.
    #[must_use]
    pub fn map(&self) -> MemoryMap {
        let low_end = self.low_ram_bytes.min(HIGH_RAM_BASE.0);
        let high_end = HIGH_RAM_BASE.0.saturating_add(self.high_ram_bytes);
        let ranges = [
            (self.acpi_tables.start.0..self.acpi_tables.end.0, MemoryKind::AcpiReclaimable),
            (self.ecam.start.0..self.ecam.end.0, MemoryKind::Reserved),
            (CONVENTIONAL_END..EXTENDED_BASE, MemoryKind::Reserved),
            (0..low_end, MemoryKind::Ram),
            (HIGH_RAM_BASE.0..high_end, MemoryKind::Ram),
        ];
        // Between two neighbouring edges the kind is constant.
        let mut edges: ArrayVec<u64, { 2 * 5 }> = ArrayVec::new();
        edges.extend(ranges.iter().flat_map(|(range, _)| [range.start, range.end]));
        edges.sort_unstable();
        let mut map = MemoryMap::new();
        for (start, end) in edges.iter().zip(edges.iter().skip(1)).filter(|(start, end)| start < end) {
            let Some((_, kind)) = ranges.iter().find(|(range, _)| range.contains(start)) else { continue };
            match map.last_mut() {
                Some(last) if last.range.end == *start && last.kind == *kind => last.range.end = *end,
                // Ten edges have at most nine ranges between them.
                _ => map.push(MapEntry { range: *start..*end, kind: *kind }),
            }
        }
        map
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout() -> MemoryLayout {
        MemoryLayout {
            low_ram_bytes: 256 << 20,
            high_ram_bytes: 0,
            acpi_tables: GuestPhys(0xe_0000)..GuestPhys(0xf_0000),
            rsdp: GuestPhys(0xe_0000),
            ecam: GuestPhys(0xe000_0000)..GuestPhys(0xe010_0000),
        }
    }

    fn entries(layout: &MemoryLayout) -> Vec<(u64, u64, u32)> {
        layout.map().iter().map(|entry| (entry.range.start, entry.range.end, entry.kind.number())).collect()
    }

    #[test]
    fn the_map_leaves_the_hole_below_1_mib_out_of_ram_and_shows_tables_and_ecam() {
        assert_eq!(
            entries(&layout()),
            [
                (0, 0xa_0000, 1),
                (0xa_0000, 0xe_0000, 2),
                (0xe_0000, 0xf_0000, 3),
                (0xf_0000, 0x10_0000, 2),
                (0x10_0000, 0x1000_0000, 1),
                (0xe000_0000, 0xe010_0000, 2),
            ]
        );
    }

    #[test]
    fn ram_above_the_devices_is_an_entry_of_its_own() {
        let layout = MemoryLayout { low_ram_bytes: 3 << 30, high_ram_bytes: 1 << 30, ..layout() };
        assert_eq!(entries(&layout).last(), Some(&(1 << 32, 5 << 30, 1)));
    }

    #[test]
    fn tables_within_ram_are_cut_out_of_it() {
        let layout = MemoryLayout { acpi_tables: GuestPhys(0x20_0000)..GuestPhys(0x20_1000), ..layout() };
        assert_eq!(
            entries(&layout)[1..5],
            [(0xa_0000, 0x10_0000, 2), (0x10_0000, 0x20_0000, 1), (0x20_0000, 0x20_1000, 3), (0x20_1000, 1 << 28, 1)]
        );
    }
}
