use super::*;
use crate::host::{HostMemory, proptest_config, proptest_steps};
use proptest::prelude::*;
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;

type Allocator<'a> = FrameAllocator<&'a HostMemory>;

/// An allocator of all of `memory`, in zone 0.
fn allocator(memory: &HostMemory) -> Allocator<'_> {
    let mut frames = FrameAllocator::new(memory);
    // SAFETY: The memory is the test's and used for nothing else.
    unsafe { frames.add_range(memory.start(), memory.bytes(), 0) }.unwrap();
    frames
}

fn memory(bytes: u64) -> HostMemory {
    HostMemory::new(HostPhys::new(0x100_0000), bytes)
}

#[test]
fn all_frames_but_those_of_the_table_are_free() {
    let memory = memory(4 * MIB);
    let frames = allocator(&memory);
    assert_eq!((frames.free_pages(), frames.managed_pages()), (1023, 1023));
    assert_eq!((frames.free_pages_in(0), frames.free_pages_in(1), frames.free_pages_in(MAX_ZONES)), (1023, 0, 0));
}

#[test]
fn every_frame_is_given_out_once() {
    let memory = memory(MIB);
    let mut frames = allocator(&memory);
    let mut given: Vec<_> = core::iter::from_fn(|| frames.alloc(0, 0, FrameUse::Object)).collect();
    assert_eq!((given.len(), frames.free_pages()), (255, 0));
    given.sort();
    given.dedup();
    assert_eq!(given.len(), 255);
    given.iter().for_each(|&frame| frames.free(frame, 0).unwrap());
    assert_eq!((frames.free_pages(), frames.alloc(7, 0, FrameUse::Object).is_some()), (255, true));
}

#[test]
fn blocks_are_aligned_to_their_size() {
    let memory = memory(4 * MIB);
    let mut frames = allocator(&memory);
    assert!(frames.alloc(0, 0, FrameUse::Object).is_some());
    for order in 0..9 {
        let block = frames.alloc(order, 0, FrameUse::Object).unwrap();
        assert_eq!(block.as_u64() % (PAGE_SIZE << order), 0);
    }
}

#[test]
#[cfg(not(miri))] // Miri would need the gigabytes.
fn the_largest_block_is_a_gibibyte() {
    let memory = HostMemory::new(HostPhys::new(1023 * MIB), 2049 * MIB);
    let mut frames = allocator(&memory);
    let blocks: Vec<_> = core::iter::from_fn(|| frames.alloc(MAX_ORDER, 0, FrameUse::Object)).collect();
    // The table of states takes the end that is part of no such block.
    assert_eq!(blocks.len(), 2);
    assert_eq!(frames.alloc(MAX_ORDER + 1, 0, FrameUse::Object), None);
    assert_eq!(frames.alloc(u32::MAX, 0, FrameUse::Object), None);
    blocks.into_iter().for_each(|block| frames.free(block, MAX_ORDER).unwrap());
    assert_eq!(frames.free_pages(), frames.managed_pages());
}

#[test]
fn a_block_cannot_be_freed_twice_nor_while_part_of_it_is_free() {
    let memory = memory(MIB);
    let mut frames = allocator(&memory);
    let block = frames.alloc(3, 0, FrameUse::Object).unwrap();
    assert!(frames.free(block, 4).is_err());
    assert_eq!(frames.free(block, 0), Ok(()));
    assert_eq!(frames.free(block, 3), Err(FreeError::NotAllocated));
    assert_eq!(frames.free(block, 0), Err(FreeError::NotAllocated));
    for frame in 1..8 {
        assert_eq!(frames.free(block.wrapping_add(frame * PAGE_SIZE), 0), Ok(()));
    }
    assert_eq!(frames.free_pages(), frames.managed_pages());
}

#[test]
fn what_is_not_a_managed_block_cannot_be_freed() {
    let memory = memory(MIB);
    let mut frames = allocator(&memory);
    let block = frames.alloc(1, 0, FrameUse::Object).unwrap();
    let table = memory.start().wrapping_add(memory.bytes() - PAGE_SIZE);
    for (address, order) in [
        (HostPhys::new(0), 0),
        (table, 0),
        (memory.start().wrapping_add(memory.bytes()), 0),
        (HostPhys::new(u64::MAX), 0),
        (block.wrapping_add(1), 0),
        (block.wrapping_add(PAGE_SIZE), 1),
        (block, MAX_ORDER + 1),
        (block, u32::MAX),
    ] {
        assert_eq!(frames.free(address, order), Err(FreeError::Foreign), "{address} {order}");
    }
    assert_eq!(frames.free(block, 1), Ok(()));
}

#[test]
fn frames_of_the_kernel_are_not_freed_as_those_of_objects() {
    let memory = memory(MIB);
    let mut frames = allocator(&memory);
    let kernel = frames.alloc(1, 0, FrameUse::Kernel).unwrap();
    let object = frames.alloc(0, 0, FrameUse::Object).unwrap();
    let inside = kernel.wrapping_add(PAGE_SIZE);
    assert_eq!(frames.free(kernel, 1), Err(FreeError::OtherUse));
    assert_eq!(frames.free(inside, 0), Err(FreeError::OtherUse));
    assert_eq!(
        [kernel, inside, object].map(|frame| frames.frame_use(frame)),
        [Some(FrameUse::Kernel), Some(FrameUse::Kernel), Some(FrameUse::Object)]
    );
    // SAFETY: The blocks are the test's.
    unsafe {
        assert_eq!(frames.free_kernel(object, 0), Err(FreeError::OtherUse));
        assert_eq!(frames.free_kernel(kernel, 1), Ok(()));
    }
    assert_eq!([kernel, HostPhys::new(0)].map(|frame| frames.frame_use(frame)), [None, None]);
}

#[test]
fn a_zone_is_preferred_and_others_step_in() {
    let memory = memory(2 * MIB);
    let mut frames = FrameAllocator::new(&memory);
    let upper = memory.start().wrapping_add(MIB);
    // SAFETY: The memory is the test's.
    unsafe {
        assert_eq!(frames.add_range(memory.start(), MIB, 0), Ok(255));
        assert_eq!(frames.add_range(upper, MIB, 3), Ok(255));
    }
    assert!(frames.alloc(0, 3, FrameUse::Object).unwrap() >= upper);
    assert!(frames.alloc(0, 0, FrameUse::Object).unwrap() < upper);
    while frames.alloc_in(0, 3, FrameUse::Object).is_some() {}
    assert!(frames.alloc(0, 3, FrameUse::Object).unwrap() < upper);
    assert_eq!((frames.free_pages_in(0), frames.free_pages_in(3)), (253, 0));
    assert_eq!(frames.alloc_in(0, MAX_ZONES, FrameUse::Object), None);
    assert!(frames.alloc(0, usize::MAX, FrameUse::Object).is_some());
}

#[test]
fn ranges_are_cut_to_whole_frames_and_may_not_overlap() {
    let memory = memory(MIB);
    let mut frames = FrameAllocator::new(&memory);
    let at = |page: u64| memory.start().wrapping_add(page * PAGE_SIZE);
    // SAFETY: The memory is the test's; ranges that reach elsewhere are refused or have no whole frame.
    unsafe {
        assert_eq!(frames.add_range(at(10).wrapping_add(1), 5 * PAGE_SIZE, 0), Ok(3));
        assert_eq!(frames.add_range(at(14), PAGE_SIZE * 2, 0), Err(RangeError::Overlap));
        assert_eq!(frames.add_range(at(8), PAGE_SIZE * 4, 0), Err(RangeError::Overlap));
        assert_eq!(frames.add_range(at(8), PAGE_SIZE * 20, 0), Err(RangeError::Overlap));
        assert_eq!(frames.add_range(at(9), PAGE_SIZE * 2, 0), Ok(1));
        assert_eq!(frames.add_range(at(15), PAGE_SIZE * 2, 0), Ok(1));
        assert_eq!(frames.add_range(at(30), PAGE_SIZE, 0), Ok(0));
        assert_eq!(frames.add_range(at(30).wrapping_add(1), 10, 0), Ok(0));
        assert_eq!(frames.add_range(at(30), u64::MAX, 0), Err(RangeError::Wraps));
        assert_eq!(frames.add_range(at(30), PAGE_SIZE * 2, MAX_ZONES), Err(RangeError::NoSuchZone));
    }
    assert_eq!((frames.free_pages(), frames.managed_pages()), (5, 5));
}

#[test]
fn more_ranges_than_fit_are_refused() {
    let memory = memory(2 * MIB);
    let mut frames = FrameAllocator::new(&memory);
    // SAFETY: The memory is the test's.
    let mut add =
        |index: u64| unsafe { frames.add_range(memory.start().wrapping_add(index * 3 * PAGE_SIZE), 2 * PAGE_SIZE, 0) };
    assert!((0..MAX_RANGES as u64).rev().all(|index| add(index) == Ok(1)));
    assert_eq!(add(MAX_RANGES as u64), Err(RangeError::TooMany));
}

#[derive(Clone, Debug)]
enum Step {
    Alloc { order: u32, kernel: bool },
    Free { which: usize },
    FreePart { which: usize, order: u32, part: u64 },
    FreeWrong { page: u64, order: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..7_u32, any::<bool>()).prop_map(|(order, kernel)| Step::Alloc { order, kernel }),
        3 => any::<usize>().prop_map(|which| Step::Free { which }),
        1 => (any::<usize>(), 0..7_u32, any::<u64>())
            .prop_map(|(which, order, part)| Step::FreePart { which, order, part }),
        1 => (0..400_u64, 0..8_u32).prop_map(|(page, order)| Step::FreeWrong { page, order }),
    ]
}

/// An allocator of ranges of so many pages after so large gaps, in two zones.
fn allocator_of<'a>(memory: &'a HostMemory, lengths: &[(u64, u64)]) -> Allocator<'a> {
    let mut frames = FrameAllocator::new(memory);
    let mut page = 0;
    for (index, &(pages, gap)) in lengths.iter().enumerate() {
        let start = memory.start().wrapping_add((page + gap) * PAGE_SIZE);
        // SAFETY: The memory is the test's, large enough for all ranges and used through one allocator at a time.
        unsafe { frames.add_range(start, pages * PAGE_SIZE, index % 2) }.unwrap();
        page += gap + pages;
    }
    frames
}

fn free(frames: &mut Allocator<'_>, block: HostPhys, order: u32, frame_use: FrameUse) -> Result<(), FreeError> {
    match frame_use {
        FrameUse::Object => frames.free(block, order),
        // SAFETY: The block is the test's.
        FrameUse::Kernel => unsafe { frames.free_kernel(block, order) },
    }
}

/// Takes everything, in blocks as large as possible, and gives their orders.
fn drain(frames: &mut Allocator<'_>) -> Vec<u32> {
    let largest_first = (0..=MAX_ORDER).rev();
    largest_first
        .flat_map(|order| {
            core::iter::from_fn(|| frames.alloc(order, 0, FrameUse::Object)).map(move |_| order).collect::<Vec<_>>()
        })
        .collect()
}

proptest! {
    #![proptest_config(proptest_config(300))]

    #[test]
    fn blocks_never_overlap_and_counts_are_exact(
        lengths in proptest::collection::vec((1..90_u64, 0..20_u64), 1..5),
        steps in proptest::collection::vec(step(), 1..proptest_steps(80)),
    ) {
        let memory = memory(2 * MIB);
        let mut frames = allocator_of(&memory, &lengths);
        let all = frames.free_pages();
        // Frame number to the use of each allocated frame.
        let mut model: BTreeMap<u64, FrameUse> = BTreeMap::new();
        let mut blocks: Vec<(HostPhys, u32, FrameUse)> = Vec::new();
        for step in steps {
            match step {
                Step::Alloc { order, kernel } => {
                    let frame_use = if kernel { FrameUse::Kernel } else { FrameUse::Object };
                    if let Some(block) = frames.alloc(order, 1, frame_use) {
                        prop_assert_eq!(block.as_u64() % (PAGE_SIZE << order), 0);
                        for frame in 0..1 << order {
                            prop_assert_eq!(model.insert(block.page_number() + frame, frame_use), None);
                        }
                        // Whatever its owner writes there leaves the books intact.
                        // SAFETY: The block is the test's.
                        unsafe { memory.pointer(block).write_bytes(0xa5, (PAGE_SIZE << order) as usize) };
                        blocks.push((block, order, frame_use));
                    }
                }
                Step::Free { which } => {
                    if blocks.is_empty() { continue }
                    let (block, order, frame_use) = blocks.swap_remove(which % blocks.len());
                    prop_assert_eq!(free(&mut frames, block, order, frame_use), Ok(()));
                    (0..1 << order).for_each(|frame| { model.remove(&(block.page_number() + frame)); });
                }
                Step::FreePart { which, order: part_order, part } => {
                    if blocks.is_empty() { continue }
                    let index = which % blocks.len();
                    let (block, order, frame_use) = blocks[index];
                    if frame_use == FrameUse::Kernel || part_order >= order { continue }
                    blocks.swap_remove(index);
                    let parts = 1 << (order - part_order);
                    for number in 0..parts {
                        let address = block.wrapping_add((number * PAGE_SIZE) << part_order);
                        if number == part % parts {
                            prop_assert_eq!(frames.free(address, part_order), Ok(()));
                            (0..1 << part_order).for_each(|frame| { model.remove(&(address.page_number() + frame)); });
                        } else {
                            blocks.push((address, part_order, frame_use));
                        }
                    }
                }
                Step::FreeWrong { page, order } => {
                    let address = memory.start().wrapping_add(page * PAGE_SIZE);
                    let aligned = address.as_u64().is_multiple_of(PAGE_SIZE << order);
                    let mut block = address.page_number()..address.page_number() + (1 << order);
                    let owned = block.all(|frame| model.get(&frame) == Some(&FrameUse::Object));
                    if !(aligned && owned) {
                        prop_assert!(frames.free(address, order).is_err());
                    }
                }
            }
            prop_assert_eq!(frames.free_pages(), all - model.len() as u64);
            prop_assert_eq!(frames.free_pages_in(0) + frames.free_pages_in(1), frames.free_pages());
        }
        for page in 0..512 {
            let frame = memory.start().page_number() + page;
            prop_assert_eq!(frames.frame_use(HostPhys::new(frame << PAGE_SHIFT)), model.get(&frame).copied());
        }
        for (block, order, frame_use) in blocks {
            prop_assert_eq!(free(&mut frames, block, order, frame_use), Ok(()));
        }
        prop_assert_eq!(frames.free_pages(), all);
        // Everything has merged again, as it was in the beginning.
        let orders = drain(&mut frames);
        prop_assert_eq!(orders, drain(&mut allocator_of(&memory, &lengths)));
    }
}
