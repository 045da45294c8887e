//! Where the loader's memory comes from.

mod common;

use common::{MIB, range};
use dragonfly_handoff::{MemoryKind, MemoryMap, MemoryRegion, PhysAddr};
use dragonfly_multiboot2::arena::{Arena, choose};

fn map(usable: &[(u64, u64)]) -> MemoryMap {
    let regions = usable.iter().map(|(base, end)| MemoryRegion::new(PhysAddr(*base), end - base, MemoryKind::USABLE));
    MemoryMap::normalise(regions, PhysAddr(1 << 46)).unwrap()
}

#[test]
fn the_largest_piece_between_one_mebibyte_and_four_gibibytes_is_chosen() {
    let end = 4 << 30;
    assert_eq!(choose(&map(&[(0, MIB / 2), (2 * MIB, 3 * MIB), (4 * MIB, 9 * MIB)])), Some(range(4 * MIB, 5 * MIB)));
    assert_eq!(choose(&map(&[(0, 3 * MIB)])), Some(range(MIB, 2 * MIB)));
    assert_eq!(choose(&map(&[(end - MIB, end + 64 * MIB)])), Some(range(end - MIB, MIB)));
    assert_eq!(choose(&map(&[(0, MIB), (end, end + MIB)])), None);
}

#[test]
fn pieces_are_whole_zeroed_pages_from_the_end_downward() {
    let mut memory = vec![0xa5; 0x4800];
    let mut arena = Arena::new(PhysAddr(0x10_0000), &mut memory);
    assert_eq!(arena.take(1), Some(range(0x10_3000, 0x1000)));
    assert_eq!(arena.take(0x1001), Some(range(0x10_1000, 0x2000)));
    assert_eq!(arena.bytes(PhysAddr(0x10_1000), 0x3000), Some(&[0; 0x3000][..]));
    assert_eq!(arena.taken(), range(0x10_1000, 0x3800));
    assert_eq!(arena.take(0x1001), None);
    assert_eq!(arena.take(u64::MAX), None);
    assert_eq!(arena.take(0x1000), Some(range(0x10_0000, 0x1000)));
    assert_eq!(arena.take(1), None);
}

#[test]
fn nothing_outside_the_arena_is_read_or_written() {
    let mut memory = vec![0; 0x1000];
    let mut arena = Arena::new(PhysAddr(0x10_0000), &mut memory);
    assert_eq!(arena.write(PhysAddr(0x10_0ffc), &[1, 2, 3, 4]), Some(()));
    assert_eq!(arena.bytes(PhysAddr(0x10_0ffc), 4), Some(&[1, 2, 3, 4][..]));
    assert_eq!(arena.write(PhysAddr(0x10_0ffd), &[1, 2, 3, 4]), None);
    assert_eq!(arena.write(PhysAddr(0xf_ffff), &[1]), None);
    assert_eq!(arena.bytes(PhysAddr(u64::MAX), 1), None);
    assert_eq!(arena.bytes(PhysAddr(0x10_0000), usize::MAX), None);
}
