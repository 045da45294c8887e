use super::*;
use crate::frames::FrameUse;
use crate::host::{HostMachine, proptest_config, proptest_steps};
use crate::reference::{Ref, Vacant};
use proptest::prelude::*;

fn machine() -> HostMachine {
    HostMachine::new(256 << 10)
}

fn layout(size: usize, align: usize) -> Layout {
    Layout::from_size_align(size, align).unwrap()
}

#[test]
fn every_piece_is_the_smallest_that_fits() {
    for size in 1..=LARGEST_PIECE {
        let piece = PIECES.iter().copied().find(|&piece| piece >= size).unwrap() as u64;
        assert_eq!(footprint(layout(size, 8)), piece, "{size}");
    }
    assert_eq!(footprint(layout(LARGEST_PIECE + 1, 8)), PAGE_SIZE);
    assert_eq!(footprint(layout(32, 128)), PAGE_SIZE);
}

#[test]
fn objects_have_their_alignment() {
    let machine = machine();
    for align in [8, 16, 32, 64, 128, 4096] {
        for size in [1, 40, 48, 90, 96, 600, 1900, 4096].map(|size: usize| size.next_multiple_of(align)) {
            let layout = layout(size, align);
            let pieces: Vec<_> = (0..3).map(|_| machine.pool.allocate(layout).unwrap()).collect();
            assert!(pieces.iter().all(|piece| piece.addr().get().is_multiple_of(align)), "{layout:?}");
            // SAFETY: The pieces are the test's.
            pieces.into_iter().for_each(|piece| unsafe { machine.pool.deallocate(piece, layout) });
        }
    }
}

#[test]
fn what_does_not_fit_into_a_frame_is_refused() {
    let machine = machine();
    let before = machine.frames.lock().free_pages();
    assert_eq!(machine.pool.allocate(layout(4097, 8)), None);
    assert_eq!(machine.pool.allocate(layout(8192, 8192)), None);
    assert_eq!(machine.frames.lock().free_pages(), before);
}

#[test]
fn a_page_goes_back_with_its_last_object() {
    let machine = machine();
    let free = || machine.frames.lock().free_pages();
    let (before, layout) = (free(), layout(960, 8));
    let pieces: Vec<_> = (0..5).map(|_| machine.pool.allocate(layout).unwrap()).collect();
    assert_eq!(free(), before - 2);
    for (piece, pages) in pieces.into_iter().zip([2, 2, 2, 1, 0]) {
        // SAFETY: The piece is the test's.
        unsafe { machine.pool.deallocate(piece, layout) };
        assert_eq!(free(), before - pages);
    }
}

#[test]
fn without_frames_there_are_no_new_pages_but_the_old_ones_are_filled() {
    let machine = machine();
    let layout = layout(1984, 8);
    let first = machine.pool.allocate(layout).unwrap();
    let mut frames = machine.frames.lock();
    while frames.alloc(0, 0, FrameUse::Object).is_some() {}
    drop(frames);
    let second = machine.pool.allocate(layout).unwrap();
    assert_eq!(machine.pool.allocate(layout), None);
    assert_eq!(machine.pool.allocate(Layout::new::<[u8; 4096]>()), None);
    // SAFETY: The pieces are the test's.
    unsafe {
        machine.pool.deallocate(first, layout);
        machine.pool.deallocate(second, layout);
    }
    assert_eq!(machine.frames.lock().free_pages(), 1);
}

#[test]
fn references_live_in_the_pool() {
    let machine = machine();
    let before = machine.frames.lock().free_pages();
    let small = Ref::try_new(machine.pool, 1_u64).unwrap();
    let large = Ref::try_new(machine.pool, [7_u8; 3000]).unwrap();
    assert_eq!(footprint(Vacant::<u64, &'static crate::host::HostPool>::LAYOUT), 32);
    assert_eq!((*small, large.iter().map(|&byte| u64::from(byte)).sum::<u64>()), (1, 21000));
    assert!(Ref::try_new(machine.pool, [0_u8; 4096]).is_err());
    drop((small, large));
    assert_eq!(machine.frames.lock().free_pages(), before);
}

#[test]
fn threads_may_allocate_and_free_at_once() {
    let machine = machine();
    let before = machine.frames.lock().free_pages();
    let rounds = if cfg!(miri) { 5 } else { 300 };
    std::thread::scope(|scope| {
        for thread in 0..3_u64 {
            scope.spawn(move || {
                for round in 0..rounds {
                    let objects: Vec<_> =
                        (0..7).map(|index| Ref::try_new(machine.pool, [thread, round, index]).unwrap()).collect();
                    assert!(objects.iter().zip(0..).all(|(object, index)| **object == [thread, round, index]));
                }
            });
        }
    });
    assert_eq!(machine.frames.lock().free_pages(), before);
}

proptest! {
    #![proptest_config(proptest_config(200))]

    #[test]
    fn pieces_never_overlap_and_all_frames_come_back(
        steps in proptest::collection::vec((any::<bool>(), 1..2600_usize, 0..5_u32), 1..proptest_steps(150)),
    ) {
        let machine = machine();
        let before = machine.frames.lock().free_pages();
        let mut pieces: Vec<(NonNull<u8>, Layout, u8)> = Vec::new();
        for (number, (allocate, size, align)) in steps.into_iter().enumerate() {
            let layout = layout(size.next_multiple_of(8 << align), 8 << align);
            if allocate || pieces.is_empty() {
                let Some(piece) = machine.pool.allocate(layout) else { continue };
                // SAFETY: The piece is the test's and this large.
                unsafe { piece.write_bytes(number as u8, layout.size()) };
                pieces.push((piece, layout, number as u8));
            } else {
                let (piece, layout, content) = pieces.swap_remove(size % pieces.len());
                // SAFETY: The piece is the test's, this large and initialised.
                let bytes = unsafe { core::slice::from_raw_parts(piece.as_ptr(), layout.size()) };
                prop_assert!(bytes.iter().all(|&byte| byte == content));
                // SAFETY: The slice is gone.
                unsafe { machine.pool.deallocate(piece, layout) };
            }
        }
        for (piece, layout, content) in pieces {
            // SAFETY: As above.
            let bytes = unsafe { core::slice::from_raw_parts(piece.as_ptr(), layout.size()) };
            prop_assert!(bytes.iter().all(|&byte| byte == content));
            // SAFETY: As above.
            unsafe { machine.pool.deallocate(piece, layout) };
        }
        prop_assert_eq!(machine.frames.lock().free_pages(), before);
    }
}
