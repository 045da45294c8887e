use super::*;
use crate::address::GuestPhys;

/// Bytes of the guest's memory, in pages of 4 KiB and one of 2 MiB behind them.
const SMALL: u64 = 3 << 21;
const LARGE: u64 = SMALL;
/// From one small page to the next: Miri is slow.
const STEP: u64 = if cfg!(miri) { 64 * PAGE_SIZE } else { PAGE_SIZE };

fn formats() -> [EptFormat; 3] {
    [EptTracking::Protection, EptTracking::Flags, EptTracking::Log]
        .map(|tracking| EptFormat::new(PageSize::Size2M, tracking))
}

fn guest(address: u64) -> GuestPhys {
    GuestPhys::new(address)
}

/// What the processor does at a write: sets the flag of the leaf. Where clean pages cannot be written that is the fault's
/// work.
fn write(table: &mut PageTable<EptFormat>, machine: &Machine<'_>, address: u64) {
    let format = table.format;
    let mut level = format.levels();
    let mut slot = &table.top;
    while let Entry::Table { frame, .. } = format.decode(slot.load(Ordering::Relaxed), level) {
        level -= 1;
        // SAFETY: The frame comes from an entry of this page table.
        slot = unsafe { entry(machine, frame, index(address, level)) };
    }
    assert_ne!(slot.load(Ordering::Relaxed), 0);
    slot.fetch_or(format.dirty(), Ordering::Relaxed);
}

/// Takes what is dirty in a range, in slices; gives the pages.
fn take(
    table: &mut PageTable<EptFormat>,
    machine: &Machine<'_>,
    (start, end): (u64, u64),
    how: (u64, bool),
    budget: u32,
) -> Vec<u64> {
    let (mut pages, mut at) = (Vec::new(), Some(guest(start)));
    while let Some(from) = at {
        let before = pages.len();
        at = table.clean_range(machine, from..guest(end), how, &mut budget.clone(), |page| {
            pages.push(page.base.as_u64());
        });
        if let Some(at) = at {
            assert!(at > from && at < guest(end));
        }
        if let [first, .., last] = &pages[before..] {
            assert!(last - first < how.0, "a slice reaches too far");
        }
    }
    pages
}

fn with_guest(format: EptFormat, test: impl FnOnce(&mut PageTable<EptFormat>, &Machine<'_>)) {
    with_machine(|machine| {
        let mut table = PageTable::new(format, machine).unwrap();
        for page in (0..SMALL).step_by(STEP as usize) {
            table.map(machine, guest(page), phys(page), PageSize::Size4K, DATA).unwrap();
        }
        table.map(machine, guest(LARGE), phys(LARGE), PageSize::Size2M, DATA).unwrap();
        take(&mut table, machine, (0, 1 << 30), (u64::MAX, true), u32::MAX);
        test(&mut table, machine);
        assert!(table.destroy(machine, &mut { u32::MAX }, |_| ()));
    });
}

#[test]
fn a_dirty_page_is_told_once() {
    for format in formats() {
        with_guest(format, |table, machine| {
            let everything = (0, 1 << 48);
            assert_eq!(take(table, machine, everything, (1 << 24, false), 5000), [0; 0]);
            for page in [3 * STEP, 0x20_0000, LARGE] {
                write(table, machine, page);
                table.note_dirty(machine, guest(page), false);
            }
            assert_eq!(take(table, machine, everything, (1 << 24, false), 5000), [3 * STEP, 0x20_0000, LARGE]);
            assert_eq!(take(table, machine, everything, (1 << 24, false), 5000), [0; 0]);
        });
    }
}

#[test]
fn a_page_that_faults_may_be_written_and_is_dirty() {
    with_guest(formats()[0], |table, machine| {
        let page = |table: &PageTable<_>| table.query(machine, guest(5 * STEP)).unwrap();
        assert!(!page(table).access.is_writable);
        table.note_dirty(machine, guest(5 * STEP + 0xfff), true);
        assert!(page(table).access.is_writable);
        assert_eq!(take(table, machine, (0, SMALL), (1 << 24, false), 5000), [5 * STEP]);
        assert!(!page(table).access.is_writable);
    });
}

#[test]
fn a_log_saves_the_look_at_pages_of_which_it_says_nothing() {
    with_guest(formats()[2], |table, machine| {
        let mut budget = 8;
        let next = table.clean_range(machine, guest(0)..guest(1 << 48), (1 << 24, false), &mut budget, |_| ());
        assert_eq!((next, budget), (None, 7), "one look finds that nothing is dirty");
        write(table, machine, 7 * STEP);
        assert_eq!(take(table, machine, (0, SMALL), (1 << 24, false), 5000), [0; 0], "nobody has told");
        assert_eq!(take(table, machine, (0, SMALL), (1 << 24, true), 5000), [7 * STEP]);
    });
}

#[test]
fn a_note_about_an_address_without_a_page_does_nothing() {
    for format in formats() {
        with_guest(format, |table, machine| {
            for address in [1 << 30, 1 << 47, 1 << 48, u64::MAX] {
                table.note_dirty(machine, guest(address), true);
            }
            assert_eq!(take(table, machine, (0, 1 << 48), (1 << 24, true), 5000), [0; 0]);
        });
    }
}

#[derive(Clone, Debug)]
enum Event {
    /// A processor writes to a page. Its log says so at the next `Tell`.
    Write(u64),
    /// Processors tell what is in their logs.
    Tell,
    /// Somebody takes what is dirty.
    Take {
        start: u64,
        end: u64,
        reach: u64,
        budget: u32,
    },
    /// Another page is mapped, or taken out again.
    Map(u64),
    Unmap(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let page = || (0..SMALL / STEP).prop_map(|page| page * STEP);
    let far = || (0..64_u64).prop_map(|page| (1 << 30) + page * 8 * PAGE_SIZE);
    prop_oneof![
        6 => page().prop_map(Event::Write),
        2 => Just(Event::Tell),
        2 => (page(), page(), 1..600_u64, 1..2000_u32).prop_map(|(start, end, reach, budget)| {
            let (start, end) = (start.min(end), start.max(end) + PAGE_SIZE);
            Event::Take { start, end, reach: reach * PAGE_SIZE, budget }
        }),
        1 => far().prop_map(Event::Map),
        1 => far().prop_map(Event::Unmap),
    ]
}

proptest! {
    #![proptest_config(crate::host::proptest_config(60))]

    #[test]
    fn no_write_is_lost_and_none_is_told_that_was_not(
        kind in 0..3_usize,
        events in proptest::collection::vec(event(), 1..STEPS),
    ) {
        with_guest(formats()[kind], |table, machine| {
            let (mut dirty, mut untold) = (BTreeSet::new(), Vec::new());
            for event in events {
                match event {
                    Event::Write(page) => {
                        write(table, machine, page);
                        dirty.insert(page);
                        untold.push(page);
                    }
                    Event::Tell => {
                        untold.drain(..).for_each(|page| table.note_dirty(machine, guest(page), false));
                    }
                    Event::Take { start, end, reach, budget } => {
                        let taken = take(table, machine, (start, end), (reach, false), budget);
                        for page in &taken {
                            assert!(dirty.remove(page), "{page:#x} was not written since");
                        }
                        let left = dirty.range(start..end).find(|page| !untold.contains(page));
                        assert_eq!(left, None, "a write that was told is lost");
                    }
                    Event::Map(page) => {
                        let _ = table.map(machine, guest(page), phys(page), PageSize::Size4K, DATA);
                    }
                    Event::Unmap(page) => {
                        unmap(table, machine, guest(page)..guest(page + PAGE_SIZE));
                    }
                }
            }
            untold.drain(..).for_each(|page| table.note_dirty(machine, guest(page), false));
            let taken = take(table, machine, (0, SMALL), (1 << 24, false), 700);
            assert_eq!(taken, dirty.into_iter().collect::<Vec<_>>());
        });
    }
}
