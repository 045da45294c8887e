//! Power is lost after every single write of whole histories: what was flushed is there, snapshots are whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use dragonfly_random::Random;
use dragonfly_storage::snapshot::{Format, SnapshotDisk, SnapshotId};
use dragonfly_storage::{BlockBackend, BlockError, Extent, Sector};
use proptest::prelude::*;

use crate::cases;
use crate::recorder::{Event, Image, Recorder, Survivors, Wreck};

/// Chunks of one block, and more of them than a single node maps.
const FORMAT: Format = Format { capacity_sectors: 8 * 260, chunk_bytes: 4096 };

/// Chunks that are written: under the first node, and under the second.
const CHUNKS: [u64; 8] = [0, 1, 2, 253, 254, 255, 258, 259];

/// Disk below: small enough to become full now and then.
const DISK_SECTORS: u64 = 8 * 110;

#[derive(Clone, Debug)]
enum Step {
    /// Some sectors from the middle of the first chunk to that of the second.
    Write {
        chunk: usize,
        from: u64,
        count: u64,
    },
    Discard {
        chunk: usize,
        count: u64,
    },
    Zero {
        chunk: usize,
        may_unmap: bool,
    },
    Flush,
    Create,
    Delete(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let chunk = 0..CHUNKS.len();
    prop_oneof![
        6 => (chunk.clone(), 0..8u64, 1..12u64).prop_map(|(chunk, from, count)| Step::Write { chunk, from, count }),
        1 => (chunk.clone(), 1..3u64).prop_map(|(chunk, count)| Step::Discard { chunk, count }),
        1 => (chunk, any::<bool>()).prop_map(|(chunk, may_unmap)| Step::Zero { chunk, may_unmap }),
        2 => Just(Step::Flush),
        2 => Just(Step::Create),
        1 => any::<usize>().prop_map(Step::Delete),
    ]
}

/// What each sector holds: every byte of it is the low or high byte of one number.
type Content = BTreeMap<u64, u16>;

/// What is known at the end of a step.
#[derive(Clone, Default)]
struct Known {
    now: Content,
    flushed: Content,
    /// All that sectors held since they were flushed.
    since: BTreeMap<u64, Vec<u16>>,
    snapshots: BTreeMap<SnapshotId, Content>,
    /// Events that the disk below had seen.
    events: usize,
}

impl Known {
    fn set(&mut self, sector: u64, value: u16) {
        self.now.insert(sector, value);
        self.since.entry(sector).or_default().push(value);
    }

    fn flush(&mut self) {
        self.flushed = self.now.clone();
        self.since.clear();
    }
}

fn pattern(value: u16) -> [u8; 512] {
    let mut sector = [0; 512];
    sector.chunks_mut(2).for_each(|pair| pair.copy_from_slice(&value.to_le_bytes()));
    sector
}

/// The sectors of the chunks that are written, as they are read from `disk`.
fn content(disk: &impl BlockBackend) -> Content {
    let mut content = Content::new();
    for chunk in CHUNKS {
        let mut bytes = [0; 4096];
        disk.read(Sector(chunk * 8), &mut bytes).expect("it is read");
        for (index, sector) in bytes.chunks(512).enumerate() {
            let value = u16::from_le_bytes([sector[0], sector[1]]);
            assert_eq!(sector, pattern(value), "sector {index} of chunk {chunk} is torn");
            if value != 0 {
                content.insert(chunk * 8 + index as u64, value);
            }
        }
    }
    content
}

fn without_zeros(content: &Content) -> Content {
    content.iter().filter(|(_, value)| **value != 0).map(|(sector, value)| (*sector, *value)).collect()
}

/// Does `step`; what the disk refuses for want of space has not happened, or in part.
fn perform(volume: &SnapshotDisk<&Recorder>, step: &Step, value: u16, known: &mut Known) {
    let may_be_full = |done: Result<(), BlockError>| match done {
        Ok(()) => {}
        Err(BlockError::NoSpace) => {}
        Err(error) => panic!("{error}"),
    };
    match *step {
        Step::Write { chunk, from, count } => {
            let first = CHUNKS[chunk] * 8 + from;
            let end = (first + count).min(FORMAT.capacity_sectors);
            let bytes: Vec<u8> = (first..end).flat_map(|_| pattern(value)).collect();
            may_be_full(volume.write(Sector(first), &bytes));
        }
        Step::Discard { chunk, count } => {
            let first = CHUNKS[chunk] * 8;
            let count = (count * 8).min(FORMAT.capacity_sectors - first);
            may_be_full(volume.discard(Extent { first: Sector(first), count }));
        }
        Step::Zero { chunk, may_unmap } => {
            let extent = Extent { first: Sector(CHUNKS[chunk] * 8), count: 8 };
            may_be_full(volume.write_zeroes(extent, may_unmap));
        }
        Step::Flush => {
            volume.flush().expect("it is flushed");
            known.flush();
        }
        Step::Create => {
            let id = volume.create_snapshot("before the flood").expect("it is made");
            known.snapshots.insert(id, without_zeros(&known.now));
        }
        Step::Delete(index) => {
            let ids: Vec<_> = known.snapshots.keys().copied().collect();
            if let Some(id) = ids.get(index % ids.len().max(1)) {
                volume.delete_snapshot(*id).expect("it is deleted");
                known.snapshots.remove(id);
            }
        }
    }
    // Reads see what was done.
    let now = content(volume);
    let sectors: Vec<u64> = CHUNKS.iter().flat_map(|chunk| chunk * 8..chunk * 8 + 8).collect();
    for sector in sectors {
        let value = now.get(&sector).copied().unwrap_or(0);
        if known.now.get(&sector).copied().unwrap_or(0) != value {
            known.set(sector, value);
        }
    }
}

/// What was on its way when power was lost in the step that led from `before` to `after`.
fn check_recovered(image: Image, before: &Known, after: &Known, seed: u64) {
    let disk = Recorder::new(DISK_SECTORS, image.clone());
    let volume = Arc::new(SnapshotDisk::open(&disk).expect("it is opened"));
    let now = content(&*volume);
    for sector in CHUNKS.iter().flat_map(|chunk| chunk * 8..chunk * 8 + 8) {
        let value = now.get(&sector).copied().unwrap_or(0);
        let flushed = before.flushed.get(&sector).copied().unwrap_or(0);
        let possible = [&before.since, &after.since].into_iter().filter_map(|since| since.get(&sector)).flatten();
        let is_possible = value == flushed || possible.clone().any(|possible| *possible == value);
        let possible: Vec<_> = possible.collect();
        assert!(is_possible, "sector {sector} is {value}, was flushed as {flushed}, then {possible:?}");
    }
    check_snapshots(&volume, before, after);
    // It goes on as if nothing had happened.
    let mut random = Random::new(seed);
    for value in 0..4 {
        let chunk = CHUNKS[random.index(CHUNKS.len())];
        match volume.write(Sector(chunk * 8 + 3), &pattern(60_000 + value)) {
            Ok(()) | Err(BlockError::NoSpace) => {}
            Err(error) => panic!("{error}"),
        }
        if value == 1 {
            volume.flush().expect("it is flushed");
        }
    }
    volume.flush().expect("it is flushed");
    let then = content(&*volume);
    drop(volume);
    let volume = Arc::new(SnapshotDisk::open(&disk).expect("it is opened again"));
    assert_eq!(content(&*volume), then);
    check_snapshots(&volume, before, after);
    drop(volume);
    // Power is lost a second time, before what the first time left behind was all overwritten.
    let events = disk.events.into_inner().expect("not poisoned");
    let mut wreck = Wreck::new(image);
    events[..random.index(events.len())].iter().for_each(|event| wreck.after(event));
    let disk = Recorder::new(DISK_SECTORS, wreck.image(Survivors::Some(seed)));
    check_snapshots(&Arc::new(SnapshotDisk::open(&disk).expect("it is opened again")), before, after);
}

/// The snapshots are those before the step, or those after it.
fn check_snapshots(volume: &Arc<SnapshotDisk<&Recorder>>, before: &Known, after: &Known) {
    let ids: Vec<_> = volume.snapshots().into_iter().map(|snapshot| snapshot.id).collect();
    let expected = [before, after].map(|known| known.snapshots.keys().copied().collect::<Vec<_>>());
    assert!(expected.contains(&ids), "{ids:?}, not {expected:?}");
    for id in ids {
        let expected = before.snapshots.get(&id).or(after.snapshots.get(&id)).expect("it was made");
        assert_eq!(&content(&volume.snapshot(id).expect("it is there")), expected);
    }
}

proptest! {
    #![proptest_config(cases(12))]

    #[test]
    fn whenever_power_is_lost_what_was_flushed_is_there_and_snapshots_are_whole(
        // With many, the header takes more than a sector, so that it can be torn.
        snapshots_before in prop_oneof![3 => Just(0), 1 => Just(10)],
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let disk = Recorder::new(DISK_SECTORS, Image::new());
        let volume = SnapshotDisk::format(&disk, FORMAT).expect("it is formatted");
        let mut known = Known::default();
        for _ in 0..snapshots_before {
            perform(&volume, &Step::Create, 0, &mut known);
        }
        let formatted = disk.image.lock().expect("not poisoned").clone();
        disk.events.lock().expect("not poisoned").clear();
        let mut history = vec![known];
        for (index, step) in steps.iter().enumerate() {
            let mut known = history.last().expect("the first").clone();
            perform(&volume, step, index as u16 + 1, &mut known);
            known.events = disk.events.lock().expect("not poisoned").len();
            history.push(known);
        }
        let events: Vec<Event> = disk.events.lock().expect("not poisoned").clone();
        let mut wreck = Wreck::new(formatted);
        let mut step = 0;
        for (index, event) in events.iter().enumerate() {
            wreck.after(event);
            while index >= history[step + 1].events {
                step += 1;
            }
            let seed = index as u64 * 7 + steps.len() as u64;
            // Neighbouring points lose different writes.
            let survivors = match index % 4 {
                0 => Survivors::None,
                1 => Survivors::All,
                _ => Survivors::Some(seed),
            };
            check_recovered(wreck.image(survivors), &history[step], &history[step + 1], seed);
        }
    }
}
