//! All that reaches memory by pointer: small, for the interpreter that checks it takes its time.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::{GuestAddress, GuestMemory, GuestSlice, HostMemory, MAX_REGIONS, MemoryError, MemoryMap, RegionError};

const BASE: u64 = 0x10_0000;

/// Two regions that follow each other, and one apart.
fn memory() -> HostMemory {
    HostMemory::new(&[(BASE, 48), (BASE + 48, 16), (BASE + 0x1000, 600)])
}

fn all(memory: &HostMemory) -> GuestSlice<'_> {
    memory.slice(GuestAddress(BASE), 48).unwrap()
}

#[test]
fn integers_are_little_endian_and_lie_where_they_were_written() {
    let memory = memory();
    let slice = all(&memory);
    slice.store_u64(8, 0x1122_3344_5566_7788, Release).unwrap();
    assert_eq!(slice.load_u64(8, Acquire), Ok(0x1122_3344_5566_7788));
    assert_eq!(slice.load_u32(8, Acquire), Ok(0x5566_7788));
    assert_eq!(slice.load_u16(14, Acquire), Ok(0x1122));
    assert_eq!(slice.load_u8(9, Acquire), Ok(0x77));
    slice.store_u32(12, 1, Relaxed).unwrap();
    slice.store_u16(8, 2, Relaxed).unwrap();
    slice.store_u8(10, 3, Relaxed).unwrap();
    assert_eq!(slice.load_u64(8, Acquire), Ok(0x0000_0001_5503_0002));
}

#[test]
fn fields_outside_or_across_the_end_or_not_aligned_are_refused() {
    let memory = memory();
    let slice = all(&memory);
    for (offset, error) in [
        (47, MemoryError::OutOfBounds),
        (48, MemoryError::OutOfBounds),
        (usize::MAX, MemoryError::OutOfBounds),
        (1, MemoryError::Misaligned),
    ] {
        assert_eq!(slice.load_u16(offset, Relaxed), Err(error));
        assert_eq!(slice.store_u16(offset, 1, Relaxed), Err(error));
    }
    assert_eq!(slice.load_u8(47, Relaxed), Ok(0));
    assert_eq!(slice.load_u32(46, Relaxed), Err(MemoryError::OutOfBounds));
    assert_eq!(slice.load_u64(44, Relaxed), Err(MemoryError::OutOfBounds));
    assert_eq!(slice.load_u64(36, Relaxed), Err(MemoryError::Misaligned));
}

#[test]
fn copies_of_any_length_and_alignment_are_exact() {
    let memory = memory();
    let slice = memory.slice(GuestAddress(BASE + 0x1000), 310).unwrap();
    let bytes: Vec<u8> = (0..310_u32).map(|at| (at * 7 + 1) as u8).collect();
    for len in (0..20).chain([255, 256, 257, 300]) {
        for offset in [0, 3] {
            slice.zero();
            slice.write(offset, &bytes[..len]).unwrap();
            let mut all = [0xff; 310];
            slice.read(0, &mut all).unwrap();
            assert_eq!(all[offset..offset + len], bytes[..len]);
            assert!(all[..offset].iter().chain(&all[offset + len..]).all(|byte| *byte == 0), "{len} bytes at {offset}");
            let mut back = vec![0; len];
            slice.read(offset, &mut back).unwrap();
            assert_eq!(back, bytes[..len]);
        }
    }
}

#[test]
fn copies_across_the_end_are_refused_as_a_whole() {
    let memory = memory();
    let slice = all(&memory);
    assert_eq!(slice.write(40, &[1; 9]), Err(MemoryError::OutOfBounds));
    assert_eq!(slice.write(usize::MAX, &[1; 2]), Err(MemoryError::OutOfBounds));
    assert_eq!(slice.read(49, &mut []), Err(MemoryError::OutOfBounds));
    assert_eq!(slice.load_u64(40, Relaxed), Ok(0));
}

#[test]
fn parts_keep_to_their_bounds() {
    let memory = memory();
    let slice = all(&memory);
    let part = slice.part(8, 4).unwrap();
    assert_eq!((part.len(), part.is_empty()), (4, false));
    part.write(0, &[1, 2, 3, 4]).unwrap();
    assert_eq!(slice.load_u32(8, Relaxed), Ok(0x0403_0201));
    assert_eq!(part.load_u32(4, Relaxed), Err(MemoryError::OutOfBounds));
    assert!(slice.part(48, 0).unwrap().is_empty());
    assert!(slice.part(48, 1).is_err() && slice.part(49, 0).is_err() && slice.part(1, usize::MAX).is_err());
    let (first, rest) = slice.split_at(20);
    assert_eq!((first.len(), rest.len()), (20, 28));
    assert_eq!(slice.split_at(49).0.len(), 48);
}

#[test]
fn guest_memory_is_copied_to_guest_memory_as_far_as_both_reach() {
    let memory = memory();
    let slice = all(&memory);
    slice.write(0, b"0123456789").unwrap();
    let target = slice.part(20, 6).unwrap();
    assert_eq!(slice.part(0, 10).unwrap().copy_to(&target), 6);
    let mut bytes = [0; 7];
    slice.read(20, &mut bytes).unwrap();
    assert_eq!(&bytes, b"012345\0");
    // Overlapping: what arrives is unspecified, but nothing goes wrong.
    assert_eq!(slice.part(0, 40).unwrap().copy_to(&slice.part(4, 40).unwrap()), 40);
}

#[test]
fn a_piece_ends_with_its_region_and_a_copy_goes_on_in_the_next() {
    let memory = memory();
    assert_eq!(memory.piece(GuestAddress(BASE + 40), 100).unwrap().len(), 8);
    assert_eq!(memory.slice(GuestAddress(BASE + 40), 100).unwrap_err(), MemoryError::OutOfBounds);
    memory.write(GuestAddress(BASE + 40), b"across both ends").unwrap();
    let mut bytes = [0; 16];
    memory.read(GuestAddress(BASE + 40), &mut bytes).unwrap();
    assert_eq!(&bytes, b"across both ends");
    assert_eq!(memory.read(GuestAddress(BASE + 60), &mut bytes), Err(MemoryError::Unmapped(GuestAddress(BASE + 64))));
    for address in [0, BASE - 1, BASE + 64, BASE + 0x1000 + 600, u64::MAX] {
        let error = Err(MemoryError::Unmapped(GuestAddress(address)));
        assert_eq!(memory.load_u16(GuestAddress(address), Relaxed), error);
        assert_eq!(memory.store_u16(GuestAddress(address), 1, Relaxed).err(), error.err());
        assert!(memory.piece(GuestAddress(address), 0).unwrap().is_empty());
    }
}

#[test]
fn regions_that_wrap_overlap_or_are_too_many_are_refused() {
    // Never accessed: a region of one byte at most is looked at by address only.
    let somewhere = core::ptr::NonNull::dangling();
    let mut map = MemoryMap::new();
    // SAFETY: No slice of this map is made.
    let mut add = |base, len| unsafe { map.add(GuestAddress(base), len, somewhere) };
    assert_eq!(add(0x1000, 0), Err(RegionError::Empty));
    assert_eq!(add(u64::MAX, 2), Err(RegionError::Wraps));
    assert_eq!(add(0, 1 << 63), Err(RegionError::Wraps));
    assert_eq!(add(0x2000, 0x1000), Ok(()));
    for (base, len) in [(0x2000, 1), (0x2fff, 1), (0x1fff, 2), (0x1000, 0x4000)] {
        assert_eq!(add(base, len), Err(RegionError::Overlaps));
    }
    assert_eq!(add(0x1000, 0x1000), Ok(()));
    assert_eq!(add(0x3000, 0x1000), Ok(()));
    for number in 3..MAX_REGIONS as u64 {
        assert_eq!(add(0x10_0000 + 0x1000 * number, 0x1000), Ok(()));
    }
    assert_eq!(add(0x8000, 1), Err(RegionError::TooMany));
    assert_eq!(map.remove(GuestAddress(0x2000)).map(|(_, len)| len), Some(0x1000));
    assert!(map.remove(GuestAddress(0x2000)).is_none());
    let bases: Vec<_> = map.regions().take(2).map(|(base, _)| base.0).collect();
    assert_eq!(bases, [0x1000, 0x3000]);
}

#[test]
fn two_threads_pass_bytes_on_by_a_field() {
    let memory = memory();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let slice = all(&memory);
            slice.write(16, b"sixteen bytes ok").unwrap();
            slice.store_u16(2, 1, Release).unwrap();
        });
        let slice = all(&memory);
        while slice.load_u16(2, Acquire).unwrap() == 0 {
            std::thread::yield_now();
        }
        let mut bytes = [0; 16];
        slice.read(16, &mut bytes).unwrap();
        assert_eq!(&bytes, b"sixteen bytes ok");
    });
}
