//! A driver that lies, and metadata that lies, for `DRAGONFLY_FUZZ_SECONDS` (2 if unset).
//!
//! Whatever is in a ring, a request, or on a disk, nothing panics, and work is bounded.

#[path = "storage/guest.rs"]
mod guest;
#[expect(dead_code, reason = "the other tests use the rest")]
#[path = "storage/recorder.rs"]
mod recorder;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Instant;

use dragonfly_random::{Random, fuzz_end};
use dragonfly_storage::blk::{BlockDevice, RequestQueue, Settings};
use dragonfly_storage::snapshot::{Format, SnapshotDisk, SnapshotError};
use dragonfly_storage::volumes::{VolumeError, VolumeTable};
use dragonfly_storage::{BlockBackend, BlockError, Extent, Limits, RamDisk, Sector};
use guest::{BUFFERS, Guest, MEMORY_BYTES, Piece, SIZE};
use recorder::{Image, Recorder};

/// Three targets share the time.
fn end() -> Instant {
    let now = Instant::now();
    now + fuzz_end().duration_since(now) / 3
}

/// Mostly what could be, at times anything.
fn number(random: &mut Random, likely: &[u64]) -> u64 {
    match random.index(8) {
        0 => random.number(),
        1 => random.number() >> random.index(64),
        2 => likely[random.index(likely.len())].wrapping_sub(1),
        _ => likely[random.index(likely.len())],
    }
}

#[test]
fn no_request_harms_the_device() {
    let end = end();
    let mut random = Random::new(1);
    let format = Format { capacity_sectors: 1024, chunk_bytes: 8192 };
    let disk = SnapshotDisk::format(RamDisk::new(4096), format).expect("it is formatted");
    let settings = Settings { id: [b'x'; 20], queues: 1, limits: Limits::default() };
    let device = BlockDevice::new(&disk, settings, 0);
    let mut statuses = BTreeSet::new();
    while Instant::now() < end {
        let (mut guest, mut queue, mut engine) = (Guest::new(), Guest::queue(), RequestQueue::new());
        device.negotiate(random.number() | random.number());
        for _ in 0..50 {
            let kind = number(&mut random, &[0, 1, 4, 8, 11, 13]) as u32;
            let sector = number(&mut random, &[0, 1, 8, 1000, 1024]);
            guest.put(BUFFERS, &[&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat());
            for index in 0..4 {
                let first = number(&mut random, &[0, 16, 1008, 1024]);
                let count = number(&mut random, &[0, 1, 16, 1 << 16, 1 << 21]) as u32;
                let range =
                    [&first.to_le_bytes()[..], &count.to_le_bytes(), &[random.index(3) as u8, 0, 0, 0]].concat();
                guest.put(BUFFERS + 16 + 16 * index, &range);
            }
            let mut pieces = vec![Piece { address: BUFFERS, len: 16, is_writable: false }];
            if random.index(8) == 0 {
                pieces[0].len = random.index(17) as u32;
            }
            let is_read_first = random.index(2) == 0;
            for index in 0..random.index(5) {
                let address =
                    number(&mut random, &[BUFFERS + 16, BUFFERS + 0x2000, MEMORY_BYTES as u64 - 512, 1 << 40]);
                let len = number(&mut random, &[0, 16, 32, 512, 4096, 1 << 16]) as u32;
                pieces.push(Piece { address, len, is_writable: !is_read_first || index > 1 });
            }
            if random.index(8) > 0 {
                pieces.push(Piece { address: BUFFERS + 0x1000, len: 1, is_writable: true });
            }
            guest.put(BUFFERS + 0x1000, &[0xee]);
            guest.submit_at(random.index(SIZE.into()) as u16, &pieces);
            match engine.serve(&mut queue, &guest.memory, &device, 0, 4) {
                Ok(served) => {
                    let writable: u64 =
                        pieces.iter().filter(|piece| piece.is_writable).map(|piece| u64::from(piece.len)).sum();
                    assert_eq!(served.completed, 1);
                    assert!(guest.used().is_some_and(|(_, written)| u64::from(written) <= writable));
                    statuses.insert(guest.get(BUFFERS + 0x1000, 1)[0]);
                }
                // Only a ring that is wrong stops a queue.
                Err(_) => break,
            }
        }
    }
    assert!([0, 1, 2].iter().all(|status| statuses.contains(status)), "{statuses:?}");
}

/// A disk with a history, of which there is an image.
fn disk_with_snapshots(random: &mut Random) -> Image {
    let disk = Recorder::new(4096, Image::new());
    let format = Format { capacity_sectors: 8 * 600, chunk_bytes: 4096 };
    let volume = SnapshotDisk::format(&disk, format).expect("it is formatted");
    for _ in 0..4 {
        for _ in 0..8 {
            volume.write(Sector(8 * random.index(600) as u64), &[random.number() as u8; 4096]).expect("it is written");
        }
        volume.create_snapshot("a snapshot").expect("it is made");
    }
    volume.write(Sector(0), &[7; 4096]).expect("it is written");
    volume.flush().expect("it is flushed");
    drop(volume);
    disk.image.into_inner().expect("not poisoned")
}

/// Changes bytes of metadata; three times in four its checksum is then made right, so that it is believed.
fn mutate(image: &mut Image, random: &mut Random, units: &[(u64, usize, usize)]) {
    for _ in 0..=random.index(4) {
        let (first, sectors, checksum) = units[random.index(units.len())];
        let zeros = Arc::new([0; 512]);
        let last = first + sectors as u64;
        let mut bytes: Vec<u8> =
            (first..last).flat_map(|sector| *image.get(&sector).unwrap_or(&zeros).as_ref()).collect();
        // Where most fields are.
        let area = [128, 512, bytes.len()][random.index(3)];
        let position = random.index(area);
        match random.index(4) {
            0 => bytes[position] ^= 1 << random.index(8),
            1 => bytes[position] = random.number() as u8,
            2 => bytes[position] = [0, 1, 0x7f, 0xff][random.index(4)],
            _ => {
                let from = random.index(bytes.len() / 16) * 16;
                let to = random.index(bytes.len() / 16) * 16;
                bytes.copy_within(from..from + 16, to);
            }
        }
        if random.index(4) > 0 {
            bytes[checksum..checksum + 4].fill(0);
            let sum = crc32fast::hash(&bytes).to_le_bytes();
            bytes[checksum..checksum + 4].copy_from_slice(&sum);
        }
        for (sector, content) in (first..last).zip(bytes.chunks(512)) {
            image.insert(sector, Arc::new(content.try_into().expect("a sector")));
        }
    }
}

#[test]
fn no_metadata_of_snapshots_harms_who_reads_it() {
    let end = end();
    let mut random = Random::new(2);
    let whole = disk_with_snapshots(&mut random);
    let is_node =
        |sector: &u64| sector.is_multiple_of(8) && whole.get(sector).is_some_and(|bytes| bytes.starts_with(b"DFNd"));
    let mut units: Vec<(u64, usize, usize)> =
        whole.keys().copied().filter(is_node).map(|first| (first, 8, 4)).collect();
    assert!(units.len() > 8);
    units.extend([(0, 24, 12), (24, 24, 12), (0, 24, 12), (24, 24, 12)]);
    let (mut opened, mut refused) = (0, 0);
    while Instant::now() < end {
        let mut image = whole.clone();
        mutate(&mut image, &mut random, &units);
        let disk = Recorder::new(4096, image);
        let volume = match SnapshotDisk::open(&disk) {
            Ok(volume) => Arc::new(volume),
            Err(
                SnapshotError::Block(BlockError::Corrupt) | SnapshotError::NotFormatted | SnapshotError::Version(_),
            ) => {
                refused += 1;
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        opened += 1;
        // What was believed can be used.
        let capacity = volume.geometry().capacity_sectors;
        let mut bytes = [0; 4096];
        for chunk in (0..600).chain([capacity / 8 - 1]) {
            let _ = volume.read(Sector(chunk * 8), &mut bytes);
        }
        for snapshot in volume.snapshots() {
            let view = volume.snapshot(snapshot.id).expect("it is listed");
            let _ = view.read(Sector(random.index(600) as u64 * 8), &mut bytes);
        }
        for _ in 0..4 {
            let _ = volume.write(Sector(random.index(600) as u64 * 8), &bytes);
            let _ = volume.discard(Extent { first: Sector(random.index(600) as u64 * 8), count: 8 });
        }
        for snapshot in volume.snapshots() {
            let _ = volume.delete_snapshot(snapshot.id);
        }
        let is_flushed = volume.flush().is_ok();
        drop(volume);
        assert!(!is_flushed || SnapshotDisk::open(&disk).is_ok(), "what was written is not found again");
    }
    assert!(opened > 10 && refused > 10, "{opened} opened, {refused} refused");
}

#[test]
fn no_table_of_volumes_harms_who_reads_it() {
    let end = end();
    let mut random = Random::new(3);
    let disk = Recorder::new(1 << 16, Image::new());
    let table = VolumeTable::format(&disk).expect("it is formatted");
    for name in ["one", "two", "three", "four"] {
        // Zeros are not kept, so that the image stays small.
        table.create(name, 8).expect("it is made");
    }
    table.delete("two").expect("it is deleted");
    drop(table);
    let whole = disk.image.into_inner().expect("not poisoned");
    let (mut opened, mut refused) = (0, 0);
    while Instant::now() < end {
        let mut image = whole.clone();
        mutate(&mut image, &mut random, &[(0, 32, 12), (32, 32, 12)]);
        let disk = Recorder::new(1 << 16, image);
        let table = match VolumeTable::open(&disk) {
            Ok(table) => table,
            Err(VolumeError::Block(BlockError::Corrupt) | VolumeError::NotFormatted | VolumeError::Version(_)) => {
                refused += 1;
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        opened += 1;
        let volumes = table.volumes();
        for (index, volume) in volumes.iter().enumerate() {
            let end = volume.extent.end().expect("it was checked").0;
            assert!(end <= 1 << 16 && volume.extent.first.0 >= 2048);
            assert!(volumes.get(index + 1).is_none_or(|next| next.extent.first.0 >= end));
            let disk = table.volume(&volume.name).expect("it is listed");
            assert_eq!(disk.write(Sector(volume.extent.count), &[0; 512]), Err(BlockError::OutOfRange));
        }
        let _ = table.create("new", 16);
    }
    assert!(opened > 10 && refused > 10, "{opened} opened, {refused} refused");
}
