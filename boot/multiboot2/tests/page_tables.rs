//! The page tables against a list of what was mapped.

mod common;

use common::{Page, Ram};
use dragonfly_handoff::{PhysAddr, SegmentFlags, VirtAddr};
use dragonfly_multiboot2::arena::Arena;
use dragonfly_multiboot2::page_tables::{PageSize, PageTableError, PageTables};
use proptest::prelude::*;

const MEMORY: usize = 1 << 20;

/// Builds tables in RAM from address 0; returns the RAM and the root.
fn build(
    no_execute: bool,
    work: impl FnOnce(&PageTables, &mut Arena<'_>) -> Result<(), PageTableError>,
) -> (Ram, u64, Result<(), PageTableError>) {
    let mut memory = vec![0xa5; MEMORY];
    let mut arena = Arena::new(PhysAddr(0), &mut memory);
    let tables = PageTables::new(&mut arena, no_execute).unwrap();
    let result = work(&tables, &mut arena);
    (Ram(memory), tables.root().0, result)
}

fn any_page() -> impl Strategy<Value = Page> {
    let size = prop::sample::select(vec![PageSize::Size4K, PageSize::Size2M, PageSize::Size1G]);
    // Few places, so that pages meet.
    let virt = (0..3u64, 0..3u64, 0..3u64, 0..3u64);
    (size, virt, any::<bool>(), 0..1u64 << 18, 0..3u8).prop_map(|(size, (a, b, c, d), upper, phys, access)| {
        let size = size.bytes();
        let virt = (a << 39 | b << 30 | c << 21 | d << 12) & !(size - 1);
        Page {
            virt: if upper { virt | 0xffff_8000_0000_0000 } else { virt },
            phys: phys * size,
            size,
            writable: access == 1,
            executable: access == 2,
            user: false,
        }
    })
}

fn overlap(one: &Page, other: &Page) -> bool {
    one.virt <= other.virt + (other.size - 1) && other.virt <= one.virt + (one.size - 1)
}

fn page_size(page: &Page) -> PageSize {
    [PageSize::Size4K, PageSize::Size2M, PageSize::Size1G].into_iter().find(|size| size.bytes() == page.size).unwrap()
}

fn flags(page: &Page) -> SegmentFlags {
    let mut flags = SegmentFlags::empty();
    flags.set(SegmentFlags::WRITE, page.writable);
    flags.set(SegmentFlags::EXECUTE, page.executable);
    flags
}

proptest! {
    #[test]
    fn exactly_what_was_mapped_is_mapped(wanted in prop::collection::vec(any_page(), 0..20)) {
        let mut model: Vec<Page> = Vec::new();
        let (ram, root, result) = build(true, |tables, arena| {
            for page in &wanted {
                let virt = VirtAddr(page.virt);
                let phys = PhysAddr(page.phys);
                let result = tables.map(arena, virt, phys, page.size, page_size(page), flags(page));
                if model.iter().any(|other| overlap(page, other)) {
                    assert_eq!(result, Err(PageTableError::AlreadyMapped(virt)));
                } else {
                    result?;
                    model.push(*page);
                }
            }
            Ok(())
        });
        prop_assert_eq!(result, Ok(()));
        model.sort_by_key(|page| page.virt);
        prop_assert_eq!(ram.pages(root), model);
    }
}

#[test]
fn a_range_is_mapped_page_by_page() {
    let (ram, root, result) = build(true, |tables, arena| {
        let virt = VirtAddr(0xffff_ffff_801f_e000);
        tables.map(arena, virt, PhysAddr(0x1234_5000), 0x4000, PageSize::Size4K, SegmentFlags::EXECUTE)
    });
    assert_eq!(result, Ok(()));
    let places: Vec<_> = ram.pages(root).iter().map(|page| (page.virt, page.phys)).collect();
    let expected = [
        (0xffff_ffff_801f_e000, 0x1234_5000),
        (0xffff_ffff_801f_f000, 0x1234_6000),
        (0xffff_ffff_8020_0000, 0x1234_7000),
        (0xffff_ffff_8020_1000, 0x1234_8000),
    ];
    assert_eq!(places, expected);
}

#[test]
fn without_no_execute_its_bit_is_in_no_entry() {
    let (ram, root, result) = build(false, |tables, arena| {
        tables.map(arena, VirtAddr(0), PhysAddr(0), 0x1000, PageSize::Size4K, SegmentFlags::WRITE)
    });
    assert_eq!(result, Ok(()));
    assert!(ram.pages(root).iter().all(|page| page.executable));
}

#[test]
fn misaligned_pages_are_refused() {
    let map = |virt, phys, size| {
        build(true, |tables, arena| {
            tables.map(arena, VirtAddr(virt), PhysAddr(phys), size, PageSize::Size2M, SegmentFlags::empty())
        })
        .2
    };
    assert_eq!(map(0x20_0000, 0x40_0000, 0x20_0000), Ok(()));
    assert_eq!(map(0x20_1000, 0x40_0000, 0x20_0000), Err(PageTableError::Misaligned(VirtAddr(0x20_1000))));
    assert_eq!(map(0x20_0000, 0x40_1000, 0x20_0000), Err(PageTableError::Misaligned(VirtAddr(0x20_0000))));
    assert_eq!(map(0x20_0000, 0x40_0000, 0x20_1000), Err(PageTableError::Misaligned(VirtAddr(0x20_0000))));
}

#[test]
fn a_range_or_a_frame_beyond_the_last_address_is_refused() {
    let top = VirtAddr(0xffff_ffff_ffe0_0000);
    let (_, _, result) = build(true, |tables, arena| {
        tables.map(arena, top, PhysAddr(0), 0x40_0000, PageSize::Size2M, SegmentFlags::empty())
    });
    assert_eq!(result, Err(PageTableError::Misaligned(top)));
    let (_, _, result) = build(true, |tables, arena| {
        tables.map(arena, top, PhysAddr(1 << 52), 0x20_0000, PageSize::Size2M, SegmentFlags::empty())
    });
    assert_eq!(result, Err(PageTableError::Misaligned(top)));
}

#[test]
fn when_memory_is_used_up_that_is_the_error() {
    let mut memory = vec![0; 3 * 4096];
    let mut arena = Arena::new(PhysAddr(0x5000), &mut memory);
    let tables = PageTables::new(&mut arena, true).unwrap();
    let map = |arena: &mut Arena<'_>, page| {
        tables.map(arena, VirtAddr(0), PhysAddr(0), page, PageSize::Size4K, SegmentFlags::empty())
    };
    assert_eq!(map(&mut arena, 0x1000), Err(PageTableError::OutOfMemory));
    assert_eq!(arena.taken().size(), 3 * 4096);
}
