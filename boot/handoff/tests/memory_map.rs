//! The memory map against a model that looks at every page on its own.

use dragonfly_handoff::{MemoryKind, MemoryMap, MemoryMapError, MemoryRegion, PAGE_SIZE, PhysAddr};
use proptest::prelude::*;

const LIMIT: PhysAddr = PhysAddr(64 * PAGE_SIZE);

/// The known kinds from least to most restrictive.
const BY_RESTRICTION: [MemoryKind; 9] = [
    MemoryKind::USABLE,
    MemoryKind::BOOTLOADER,
    MemoryKind::ACPI_RECLAIMABLE,
    MemoryKind::BUNDLE,
    MemoryKind::KERNEL_IMAGE,
    MemoryKind::ACPI_NVS,
    MemoryKind::RESERVED,
    MemoryKind::MMIO,
    MemoryKind::UNUSABLE,
];

fn region(base: u64, size: u64, kind: MemoryKind) -> MemoryRegion {
    MemoryRegion::new(PhysAddr(base), size, kind)
}

fn normalise(regions: &[MemoryRegion]) -> Result<MemoryMap, MemoryMapError> {
    MemoryMap::normalise(regions.iter().copied(), LIMIT)
}

fn listed(map: &MemoryMap) -> Vec<(u64, u64, MemoryKind)> {
    map.iter().map(|(range, kind)| (range.base().0, range.end().0, kind)).collect()
}

/// What the page is used for, by the rules as the documentation words them.
fn expected_kind(regions: &[MemoryRegion], page: u64) -> Option<MemoryKind> {
    let (start, end) = (page, page + PAGE_SIZE);
    let rank = |region: &MemoryRegion| {
        let first = region.base.0;
        let past = region.base.0 + region.size;
        let touches = region.size > 0 && first < end && start < past;
        let covers = first <= start && end <= past;
        let kind = if BY_RESTRICTION.contains(&region.kind) { region.kind } else { MemoryKind::RESERVED };
        let counts = if kind == MemoryKind::USABLE { covers } else { touches };
        counts.then(|| BY_RESTRICTION.iter().position(|k| *k == kind).unwrap())
    };
    regions.iter().filter_map(rank).max().map(|rank| BY_RESTRICTION[rank])
}

fn any_kind() -> impl Strategy<Value = MemoryKind> {
    prop_oneof![
        4 => Just(MemoryKind::USABLE),
        4 => prop::sample::select(BY_RESTRICTION.to_vec()),
        1 => any::<u32>().prop_map(MemoryKind),
    ]
}

fn any_region() -> impl Strategy<Value = MemoryRegion> {
    let byte = || prop_oneof![0..80 * PAGE_SIZE, (0..80u64).prop_map(|page| page * PAGE_SIZE)];
    (byte(), byte(), any_kind()).prop_map(|(base, size, kind)| region(base, size / 4, kind))
}

proptest! {
    #[test]
    fn every_page_has_the_most_restrictive_kind_that_touches_it(
        regions in prop::collection::vec(any_region(), 0..12),
    ) {
        let pages = (0..LIMIT.0).step_by(PAGE_SIZE as usize);
        let expected: Vec<_> = pages.map(|page| (page, expected_kind(&regions, page))).collect();
        match normalise(&regions) {
            Ok(map) => for (page, kind) in expected {
                prop_assert_eq!(map.kind_at(PhysAddr(page)), kind, "page {:#x}", page);
            },
            Err(error) => {
                prop_assert_eq!(error, MemoryMapError::NoUsableMemory);
                prop_assert!(expected.iter().all(|(_, kind)| *kind != Some(MemoryKind::USABLE)));
            }
        }
    }

    #[test]
    fn a_map_is_sorted_whole_pages_without_neighbours_of_one_kind(
        regions in prop::collection::vec(any_region(), 0..12),
    ) {
        let Ok(map) = normalise(&regions) else { return Ok(()) };
        let list = listed(&map);
        for (start, end, _) in &list {
            prop_assert!(start < end && *end <= LIMIT.0);
            prop_assert!(start % PAGE_SIZE == 0 && end % PAGE_SIZE == 0);
        }
        for pair in list.windows(2) {
            prop_assert!(pair[0].1 < pair[1].0 || pair[0].1 == pair[1].0 && pair[0].2 != pair[1].2);
        }
    }

    #[test]
    fn the_order_of_the_entries_does_not_matter(
        (regions, shuffled) in prop::collection::vec(any_region(), 0..12)
            .prop_flat_map(|regions| (Just(regions.clone()), Just(regions).prop_shuffle())),
    ) {
        prop_assert_eq!(normalise(&regions), normalise(&shuffled));
    }

    #[test]
    fn a_map_that_is_written_and_read_again_is_the_same(
        regions in prop::collection::vec(any_region(), 0..12),
    ) {
        let Ok(map) = normalise(&regions) else { return Ok(()) };
        prop_assert_eq!(MemoryMap::parse(map.as_bytes(), LIMIT), Ok(map.clone()));
    }
}

#[test]
fn usable_memory_shrinks_to_whole_pages_and_reserved_memory_grows() {
    let map = normalise(&[region(0x1800, 0x4000, MemoryKind::USABLE), region(0x7801, 1, MemoryKind::RESERVED)]);
    assert_eq!(listed(&map.unwrap()), [(0x2000, 0x5000, MemoryKind::USABLE), (0x7000, 0x8000, MemoryKind::RESERVED)]);
}

#[test]
fn the_loaders_memory_is_cut_out_of_usable_memory() {
    let map = normalise(&[region(0x1000, 0xf000, MemoryKind::USABLE), region(0x4000, 0x2000, MemoryKind::BOOTLOADER)]);
    assert_eq!(
        listed(&map.unwrap()),
        [
            (0x1000, 0x4000, MemoryKind::USABLE),
            (0x4000, 0x6000, MemoryKind::BOOTLOADER),
            (0x6000, 0x10000, MemoryKind::USABLE)
        ]
    );
}

#[test]
fn an_unknown_kind_is_reserved() {
    let map = normalise(&[region(0, 0x1000, MemoryKind::USABLE), region(0x3000, 0x1000, MemoryKind(77))]).unwrap();
    assert_eq!(map.kind_at(PhysAddr(0x3000)), Some(MemoryKind::RESERVED));
    assert_eq!(map.kind_at(PhysAddr(0x2000)), None);
}

#[test]
fn memory_above_the_limit_is_left_out() {
    let map = normalise(&[
        region(LIMIT.0 - 0x1000, 0x8000, MemoryKind::USABLE),
        region(LIMIT.0 + 0x9000, 0x1000, MemoryKind::USABLE),
    ])
    .unwrap();
    assert_eq!(listed(&map), [(LIMIT.0 - 0x1000, LIMIT.0, MemoryKind::USABLE)]);
}

#[test]
fn the_end_of_ram_does_not_count_reserved_memory() {
    let map = normalise(&[
        region(0, 0x4000, MemoryKind::USABLE),
        region(0x8000, 0x1000, MemoryKind::ACPI_NVS),
        region(0x20000, 0x1000, MemoryKind::RESERVED),
    ])
    .unwrap();
    assert_eq!(map.ram_end(), PhysAddr(0x9000));
}

#[test]
fn an_entry_may_reach_the_last_address_but_not_go_around_it() {
    let usable = region(0, 0x1000, MemoryKind::USABLE);
    assert!(normalise(&[usable, region(u64::MAX - 0xfff, 0x1000, MemoryKind::RESERVED)]).is_ok());
    assert_eq!(
        normalise(&[usable, region(u64::MAX - 0xfff, 0x1001, MemoryKind::RESERVED)]),
        Err(MemoryMapError::WrapsAround { base: PhysAddr(u64::MAX - 0xfff), size: 0x1001 })
    );
}

#[test]
fn a_map_without_a_usable_page_is_refused() {
    let too_small = region(0x1800, 0x1000, MemoryKind::USABLE);
    assert_eq!(normalise(&[too_small]), Err(MemoryMapError::NoUsableMemory));
    assert_eq!(normalise(&[]), Err(MemoryMapError::NoUsableMemory));
}

#[test]
fn more_entries_than_the_maximum_are_refused() {
    let entries = [region(0, 0x1000, MemoryKind::USABLE); 1025];
    assert!(normalise(&entries[..1024]).is_ok());
    assert_eq!(normalise(&entries), Err(MemoryMapError::TooManyEntries));
}

#[test]
fn more_separate_regions_than_the_maximum_are_refused() {
    let apart: Vec<_> = (0..257).map(|index| region(index * 0x2000, 0x1000, MemoryKind::USABLE)).collect();
    let limit = PhysAddr(1 << 40);
    assert!(MemoryMap::normalise(apart[..256].iter().copied(), limit).is_ok());
    assert_eq!(MemoryMap::normalise(apart.into_iter(), limit), Err(MemoryMapError::TooManyRegions));
}

#[test]
fn bytes_that_are_not_whole_entries_are_refused() {
    assert_eq!(MemoryMap::parse(&[0; 25], LIMIT), Err(MemoryMapError::PartialEntry(25)));
}
