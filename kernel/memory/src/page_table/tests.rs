use super::*;
use crate::address::{HostVirt, ObjectOffset};
use crate::frames::{Frames, NodeFrames};
use crate::host::{HostMemory, HostRelax};
use proptest::prelude::*;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ptr::NonNull;

mod dirty;
mod second_stage;

const HOST: HostFormat = HostFormat::new(true, PageSize::Size1G);
const DATA: Access = Access { is_writable: true, ..Access::NONE };
const CODE: Access = Access { is_executable: true, is_user: true, ..Access::NONE };
const EVERYTHING: Range<HostVirt> = HostVirt::new(0)..HostVirt::new(0);

/// A machine's memory, and a source that runs dry after `left` frames.
struct Machine<'a> {
    frames: &'a Frames<&'a HostMemory, HostRelax>,
    left: Cell<u64>,
}

fn with_machine(test: impl FnOnce(&Machine<'_>)) {
    let memory = HostMemory::new(HostPhys::new(0x10_0000), 8 << 20);
    let frames = Frames::new(&memory);
    // SAFETY: The memory is used through this allocator only.
    unsafe { frames.lock().add_range(memory.start(), memory.bytes(), 0) }.unwrap();
    test(&Machine { frames: &frames, left: Cell::new(u64::MAX) });
}

impl Machine<'_> {
    fn free(&self) -> u64 {
        self.frames.lock().free_pages()
    }
}

// SAFETY: It is the view of the machine.
unsafe impl PhysicalMemory for Machine<'_> {
    fn pointer(&self, address: HostPhys) -> NonNull<u8> {
        self.frames.memory().pointer(address)
    }

    fn address(&self, pointer: NonNull<u8>) -> HostPhys {
        self.frames.memory().address(pointer)
    }
}

// SAFETY: It passes on frames of a source.
unsafe impl FrameSource for Machine<'_> {
    fn take_frame(&self) -> Option<HostPhys> {
        self.left.set(self.left.get().checked_sub(1)?);
        NodeFrames::new(self.frames, 0).take_frame()
    }

    unsafe fn give_frame(&self, frame: HostPhys) {
        // SAFETY: The frame came from that source.
        unsafe { NodeFrames::new(self.frames, 0).give_frame(frame) };
    }
}

fn virt(address: u64) -> HostVirt {
    HostVirt::new(address)
}

fn phys(address: u64) -> HostPhys {
    HostPhys::new(address)
}

/// Unmaps in one go and gives what was mapped.
fn unmap<F: PageFormat>(
    table: &mut PageTable<F>,
    machine: &Machine<'_>,
    range: Range<F::Input>,
) -> Vec<Mapping<F::Input>> {
    let mut pages = Vec::new();
    let mut at = Some(range.start);
    while let Some(start) = at {
        let mut slice = table.unmap_range(machine, start..range.end, &mut { u32::MAX }, |page| pages.push(page));
        slice.free_tables(machine);
        at = slice.next();
    }
    pages
}

fn leaves<F: PageFormat>(table: &PageTable<F>, machine: &Machine<'_>) -> Vec<Mapping<F::Input>> {
    let mut pages = Vec::new();
    let done = table.for_each_leaf(machine, F::Input::new(0), &mut { u32::MAX }, |page| pages.push(page));
    assert!(done.is_none());
    pages
}

#[test]
fn entries_are_as_the_processor_wants_them() {
    let (p, rw, us, pwt, pcd, ps, xd) = (1, 1 << 1, 1 << 2, 1 << 3, 1 << 4, 1 << 7, 1 << 63);
    let device = Access { is_device: true, ..DATA };
    for (entry, expected) in [
        (HOST.leaf(phys(0x1000), PageSize::Size4K, Access::NONE), 0x1000 | p | xd),
        (HOST.leaf(phys(0x1000), PageSize::Size4K, CODE), 0x1000 | p | us),
        (HOST.leaf(phys(0x20_0000), PageSize::Size2M, DATA), 0x20_0000 | p | rw | ps | xd),
        (HOST.leaf(phys(0x4000_0000), PageSize::Size1G, device), 0x4000_0000 | p | rw | pwt | pcd | ps | xd),
        (HOST.table(phys(0x1000), 512), 0x1000 | p | rw | us | 512 << 52),
        (HostFormat::new(false, PageSize::Size2M).leaf(phys(0x1000), PageSize::Size4K, DATA), 0x1000 | p | rw),
    ] {
        assert_eq!(entry, expected, "{entry:#x} {expected:#x}");
    }
}

#[test]
fn a_mapped_page_is_found_by_every_address_in_it() {
    with_machine(|machine| {
        let mut table = PageTable::new(HOST, machine).unwrap();
        let base = virt(0xffff_8000_4020_0000);
        table.map(machine, base, phys(0x60_0000), PageSize::Size2M, DATA).unwrap();
        let page = Mapping { base, phys: phys(0x60_0000), size: PageSize::Size2M, access: DATA };
        for (offset, expected) in [(0, Some(page)), (0x1f_ffff, Some(page)), (0x20_0000, None)] {
            assert_eq!(table.query(machine, base.wrapping_add(offset)), expected);
        }
        assert_eq!(table.query(machine, virt(0x0000_8000_4020_0000)), None, "no canonical address");
        assert_eq!(table.query(machine, virt(0x4020_0000)), None);
        assert!(table.destroy(machine, &mut { u32::MAX }, |_| ()));
    });
}

#[test]
fn what_does_not_fit_is_refused() {
    with_machine(|machine| {
        let mut table = PageTable::new(HostFormat::new(true, PageSize::Size2M), machine).unwrap();
        for (input, frame, size) in [
            (0x1001, 0x1000, PageSize::Size4K),
            (0x1000, 0x1001, PageSize::Size4K),
            (0x1000, 0x20_0000, PageSize::Size2M),
            (0x20_0000, 0x1000, PageSize::Size2M),
            (0x4000_0000, 0x4000_0000, PageSize::Size1G),
            (0x0000_8000_0000_0000, 0x1000, PageSize::Size4K),
            (0x1000, 1 << 52, PageSize::Size4K),
        ] {
            assert_eq!(table.map(machine, virt(input), phys(frame), size, DATA), Err(MapError::Misaligned));
        }
        assert_eq!(table.split(machine, virt(1)), Err(MapError::Misaligned));
        assert_eq!(leaves(&table, machine), []);
        let mut index = PageTable::empty(FrameIndex::for_size(PAGE_SIZE));
        let (beyond, none) = (ObjectOffset::new(PAGE_SIZE), Access::NONE);
        assert_eq!(index.map(machine, beyond, phys(0), PageSize::Size4K, none), Err(MapError::Misaligned));
        assert_eq!(
            index.map(machine, ObjectOffset::new(0), phys(0), PageSize::Size2M, none),
            Err(MapError::Misaligned)
        );
        assert!(matches!(PageTable::new(FrameIndex::for_size(1), machine), Err(MapError::Misaligned)));
        assert!(table.destroy(machine, &mut { u32::MAX }, |_| ()));
    });
}

#[test]
fn an_index_is_no_larger_than_its_object_needs() {
    with_machine(|machine| {
        let before = machine.free();
        for (bytes, size, frames) in [
            (PAGE_SIZE, PageSize::Size4K, 0),
            (2 * PAGE_SIZE, PageSize::Size4K, 1),
            (2 << 20, PageSize::Size4K, 1),
            (2 << 20, PageSize::Size2M, 0),
            (3 << 20, PageSize::Size2M, 1),
            (1 << 30, PageSize::Size1G, 0),
            (1 << 40, PageSize::Size4K, 4),
        ] {
            let mut index = PageTable::empty(FrameIndex::for_size(bytes));
            index.map(machine, ObjectOffset::new(0), phys(0), size, Access::NONE).unwrap();
            assert_eq!(before - machine.free(), frames, "{bytes:#x} {size:?}");
            assert_eq!(
                index.map(machine, ObjectOffset::new(0), phys(0), size, Access::NONE),
                Err(MapError::AlreadyMapped)
            );
            let mut pages = Vec::new();
            assert!(index.destroy(machine, &mut { u32::MAX }, |page| pages.push(page.size)));
            assert_eq!((pages, machine.free()), (vec![size], before));
        }
    });
}

#[test]
fn a_user_table_shows_the_shared_half_and_changes_only_its_own() {
    with_machine(|machine| {
        let before = machine.free();
        let mut kernel = PageTable::new(HOST, machine).unwrap();
        let (upper, lower) = (virt(0xffff_ffff_8000_0000), virt(0x7fff_ffff_f000));
        kernel.map(machine, upper, phys(0x1000), PageSize::Size4K, DATA).unwrap();
        let half = kernel.share().unwrap();
        assert_eq!(half.root(), kernel.root());
        let of_kernel = before - machine.free();
        let mut user = PageTable::new_user(HOST, machine, half).unwrap();
        user.map(machine, lower, phys(0x2000), PageSize::Size4K, CODE).unwrap();
        let bases = |pages: Vec<Mapping<HostVirt>>| pages.into_iter().map(|page| page.base).collect::<Vec<_>>();
        assert_eq!(bases(leaves(&user, machine)), [lower, upper]);
        assert_eq!(bases(leaves(&kernel, machine)), [upper]);
        let next = upper.wrapping_add(PAGE_SIZE);
        assert_eq!(user.map(machine, next, phys(0), PageSize::Size4K, DATA), Err(MapError::Misaligned));
        assert_eq!(bases(unmap(&mut user, machine, EVERYTHING)), [lower]);
        assert_eq!(user.query(machine, upper).map(|page| page.access), Some(DATA));
        // A page that comes to the kernel later is seen, too.
        kernel.map(machine, next, phys(0x3000), PageSize::Size4K, DATA).unwrap();
        assert!(user.query(machine, next).is_some());
        assert!(user.destroy(machine, &mut { u32::MAX }, |_| ()));
        assert_eq!(user.root(), phys(0));
        assert_eq!(user.map(machine, lower, phys(0x2000), PageSize::Size4K, CODE), Err(MapError::Misaligned));
        assert!(kernel.destroy(machine, &mut { u32::MAX }, |_| ()));
        assert_eq!((before - machine.free(), kernel.query(machine, upper).is_some()), (of_kernel, true));
        assert!(user.share().is_none());
    });
}

#[test]
fn an_unmapped_range_takes_pages_that_reach_beyond_it_unless_they_were_split() {
    with_machine(|machine| {
        let mut table = PageTable::new(HOST, machine).unwrap();
        let map = |table: &mut PageTable<HostFormat>| {
            table.map(machine, virt(0x20_0000), phys(0x20_0000), PageSize::Size2M, DATA).unwrap();
        };
        let middle = virt(0x30_0000)..virt(0x30_1000);
        map(&mut table);
        assert_eq!(unmap(&mut table, machine, middle.clone())[0].size, PageSize::Size2M);
        map(&mut table);
        table.split(machine, middle.start).unwrap();
        table.split(machine, middle.end).unwrap();
        let pages = unmap(&mut table, machine, middle.clone());
        let expected = Mapping { base: middle.start, phys: phys(0x30_0000), size: PageSize::Size4K, access: DATA };
        assert_eq!(pages, [expected]);
        assert_eq!(leaves(&table, machine).len(), 511);
        assert!(table.has_table_at(machine, virt(0x20_0000), PageSize::Size2M));
        assert!(!table.has_table_at(machine, virt(0x40_0000), PageSize::Size2M));
        assert!(table.destroy(machine, &mut { u32::MAX }, |_| ()));
    });
}

#[test]
fn every_slice_gets_further_with_any_budget_and_keeps_its_tables_for_the_caller() {
    with_machine(|machine| {
        let before = machine.free();
        let mut table = PageTable::new(HOST, machine).unwrap();
        // Each page has three tables of its own, so that slices are full before the range is done.
        let pages = 40;
        for index in 0..pages {
            table.map(machine, virt(index << 39), phys(0), PageSize::Size4K, DATA).unwrap();
        }
        let mut at = Some(virt(0));
        let mut slices = 0;
        while let Some(start) = at {
            let used = before - machine.free();
            let mut slice = table.unmap_range(machine, start..virt(0), &mut { u32::MAX }, |_| ());
            assert_eq!(before - machine.free(), used, "no table goes back before the flush");
            slice.free_tables(machine);
            at = slice.next();
            slices += 1;
        }
        assert!(slices > 3);
        assert_eq!(before - machine.free(), 1);
        for page in [0, 511] {
            table.map(machine, virt(page << 12), phys(0), PageSize::Size4K, DATA).unwrap();
        }
        let calls = (1..).find(|_| table.destroy(machine, &mut 1, |_| ())).unwrap();
        // The entries between, too; but nothing beyond tables that are empty.
        assert_eq!((calls, machine.free()), (512, before));
    });
}

/// What a page table should hold, by address bits.
struct Model<F: PageFormat> {
    format: F,
    pages: BTreeMap<u64, (PageSize, HostPhys, Access)>,
}

impl<F: PageFormat> Model<F> {
    fn overlaps(&self, base: u64, bytes: u64) -> bool {
        self.pages.range(..base + bytes).next_back().is_some_and(|(&other, page)| other + page.0.bytes() > base)
    }

    fn split(&mut self, at: u64) {
        while let Some((&base, &(size, frame, access))) = self.pages.range(..=at).next_back() {
            if base == at || base + size.bytes() <= at {
                return;
            }
            let smaller = if size == PageSize::Size1G { PageSize::Size2M } else { PageSize::Size4K };
            for offset in (0..size.bytes()).step_by(smaller.bytes() as usize) {
                self.pages.insert(base + offset, (smaller, frame.wrapping_add(offset), access));
            }
        }
    }

    /// The pages of which a range, given by its first and last byte, holds a part.
    fn touched(&self, first: u64, last: u64) -> Vec<u64> {
        let bases = self.pages.range(..=last).rev();
        bases.take_while(|(base, page)| *base + page.0.bytes() > first).map(|(&base, _)| base).collect()
    }

    /// How many tables the pages need.
    fn tables(&self) -> usize {
        let levels = |size: PageSize| size.level() + 1..=self.format.levels();
        let entries = |(&base, page): (&u64, &(PageSize, HostPhys, Access))| {
            levels(page.0).map(move |level| (level, base >> span_shift(level)))
        };
        self.pages.iter().flat_map(entries).collect::<BTreeSet<_>>().len()
    }

    fn mappings(&self) -> Vec<Mapping<F::Input>> {
        let input = |bits| F::Input::new(self.format.extend(bits));
        let pages = self.pages.iter();
        pages.map(|(&base, &(size, phys, access))| Mapping { base: input(base), phys, size, access }).collect()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Map { at: u64, size: PageSize, frame: u64, access: Access },
    MapWithoutMemory { at: u64, size: PageSize, frames: u64 },
    Split { at: u64 },
    Unmap { at: u64, bytes: u64, budget: u32 },
    Query { at: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    // Addresses near the borders of all levels, and so few that they meet.
    let part = |shift: u32| {
        prop_oneof![4 => Just(0_u64), 2 => Just(1), 1 => Just(2), 1 => Just(511)].prop_map(move |n| n << shift)
    };
    let at = || (part(39), part(30), part(21), part(12)).prop_map(|(a, b, c, d)| a | b | c | d);
    let bytes = (1..700_u64, prop_oneof![4 => Just(12), 2 => Just(21), 1 => Just(30)]);
    let bytes = bytes.prop_map(|(count, shift)| count << shift);
    let largest = if cfg!(miri) { PageSize::Size2M } else { PageSize::Size1G };
    let size = || prop_oneof![3 => Just(PageSize::Size4K), 2 => Just(PageSize::Size2M), 1 => Just(largest)];
    let budget = prop_oneof![1..20_u32, 20..2000_u32];
    let access = any::<[bool; 4]>().prop_map(|[is_writable, is_executable, is_user, is_device]| Access {
        is_writable,
        is_executable,
        is_user,
        is_device,
    });
    prop_oneof![
        6 => (at(), size(), 0..9_u64, access)
            .prop_map(|(at, size, frame, access)| Step::Map { at, size, frame, access }),
        1 => (at(), size(), 0..4_u64).prop_map(|(at, size, frames)| Step::MapWithoutMemory { at, size, frames }),
        1 => at().prop_map(|at| Step::Split { at }),
        2 => (at(), bytes, budget).prop_map(|(at, bytes, budget)| Step::Unmap { at, bytes, budget }),
        1 => at().prop_map(|at| Step::Query { at }),
    ]
}

/// `seen` gives what the format keeps of an access.
fn check_against_model<F: PageFormat>(format: F, seen: fn(Access) -> Access, steps: Vec<Step>) {
    with_machine(|machine| {
        let before = machine.free();
        let mut table = PageTable::empty(format);
        let mut model = Model { format, pages: BTreeMap::new() };
        let limit = span_mask(format.levels());
        let input = |bits: u64| F::Input::new(format.extend(bits & limit));
        for step in steps {
            match step {
                Step::Map { at, size, frame, access } => {
                    let at = at & limit & !(size.bytes() - 1);
                    let frame = phys(frame << 30);
                    let mapped = table.map(machine, input(at), frame, size, access);
                    let expected = match size.bytes() - 1 > limit {
                        true if model.pages.is_empty() => Err(MapError::Misaligned),
                        true => Err(MapError::AlreadyMapped),
                        false if model.overlaps(at, size.bytes()) => Err(MapError::AlreadyMapped),
                        false => Ok(()),
                    };
                    assert_eq!(mapped, expected, "{step:x?}");
                    if mapped.is_ok() {
                        model.pages.insert(at, (size, frame, seen(access)));
                    }
                }
                Step::MapWithoutMemory { at, size, frames } => {
                    let at = at & limit & !(size.bytes() - 1);
                    if model.overlaps(at, size.bytes()) || size.bytes() - 1 > limit {
                        continue;
                    }
                    let mut larger = Model { format, pages: model.pages.clone() };
                    larger.pages.insert(at, (size, phys(0), seen(Access::NONE)));
                    machine.left.set(frames);
                    let mapped = table.map(machine, input(at), phys(0), size, Access::NONE);
                    machine.left.set(u64::MAX);
                    if larger.tables() - model.tables() <= frames as usize {
                        assert_eq!(mapped, Ok(()));
                        model = larger;
                    } else {
                        assert_eq!(mapped, Err(MapError::OutOfMemory));
                    }
                }
                Step::Split { at } => {
                    assert_eq!(table.split(machine, input(at)), Ok(()));
                    model.split(at & limit);
                }
                Step::Unmap { at, bytes, budget } => {
                    let (first, last) = (at & limit, (at & limit).saturating_add(bytes - 1).min(limit));
                    let mut removed = Vec::new();
                    let mut next = Some(input(first));
                    while let Some(start) = next {
                        let range = start..F::Input::new(format.extend(last).wrapping_add(1));
                        let mut slice =
                            table.unmap_range(machine, range, &mut budget.clone(), |page| removed.push(page.base));
                        slice.free_tables(machine);
                        next = slice.next();
                    }
                    let touched: Vec<_> = model.touched(first, last).into_iter().rev().collect();
                    assert_eq!(removed, touched.iter().map(|&base| input(base)).collect::<Vec<_>>(), "{step:x?}");
                    model.pages.retain(|base, _| !touched.contains(base));
                }
                Step::Query { at } => {
                    let at = at & limit;
                    let page = model.touched(at, at).first().copied();
                    assert_eq!(table.query(machine, input(at)).map(|page| page.base), page.map(input), "{step:x?}");
                }
            }
            assert_eq!(leaves(&table, machine), model.mappings());
            assert_eq!(before - machine.free(), model.tables() as u64, "tables that are needed, and no others");
        }
        let mut left = Vec::new();
        while !table.destroy(machine, &mut 50, |page| left.push(page)) {}
        assert_eq!(left, model.mappings());
        assert_eq!(machine.free(), before);
    });
}

/// Miri is slow.
const STEPS: usize = crate::host::proptest_steps(40);

proptest! {
    #![proptest_config(crate::host::proptest_config(150))]

    #[test]
    fn a_host_table_behaves_like_a_map(steps in proptest::collection::vec(step(), 1..STEPS)) {
        check_against_model(HOST, |access| access, steps);
    }

    #[test]
    fn a_frame_index_behaves_like_a_map(
        pages in 1..1_000_000_u64,
        steps in proptest::collection::vec(step(), 1..STEPS),
    ) {
        check_against_model(FrameIndex::for_size(pages * PAGE_SIZE), |_| Access::NONE, steps);
    }
}
