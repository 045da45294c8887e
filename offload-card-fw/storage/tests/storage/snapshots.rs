//! Snapshots, as their users see them.

use std::sync::Arc;

use dragonfly_storage::snapshot::{Format, MAX_SNAPSHOTS, SnapshotDisk, SnapshotError};
use dragonfly_storage::{BlockBackend, BlockError, Extent, RamDisk, Sector};
use proptest::prelude::*;

use crate::cases;
use crate::recorder::{Image, Recorder};

const FORMAT: Format = Format { capacity_sectors: 2048, chunk_bytes: 8192 };

fn volume(disk_sectors: u64) -> Arc<SnapshotDisk<RamDisk>> {
    Arc::new(SnapshotDisk::format(RamDisk::new(disk_sectors), FORMAT).expect("it is formatted"))
}

fn read(disk: &impl BlockBackend, first: u64, bytes: usize) -> Vec<u8> {
    let mut content = vec![0xee; bytes];
    disk.read(Sector(first), &mut content).expect("it is read");
    content
}

#[test]
fn a_snapshot_keeps_what_the_volume_was() {
    let volume = volume(4096);
    volume.write(Sector(3), &[1; 1024]).expect("it is written");
    let id = volume.create_snapshot("first").expect("it is made");
    volume.write(Sector(4), &[2; 512]).expect("it is written");
    let snapshot = volume.snapshot(id).expect("it is there");
    assert_eq!(read(&snapshot, 3, 1536), [[1; 512], [1; 512], [0; 512]].concat());
    assert_eq!(read(&*volume, 3, 1536), [[1; 512], [2; 512], [0; 512]].concat());
}

#[test]
fn a_snapshot_cannot_be_written() {
    let volume = volume(4096);
    let id = volume.create_snapshot("first").expect("it is made");
    let snapshot = volume.snapshot(id).expect("it is there");
    assert!(snapshot.geometry().is_read_only);
    let extent = Extent { first: Sector(0), count: 8 };
    assert_eq!(snapshot.write(Sector(0), &[0; 512]), Err(BlockError::ReadOnly));
    assert_eq!(snapshot.discard(extent), Err(BlockError::ReadOnly));
    assert_eq!(snapshot.write_zeroes(extent, true), Err(BlockError::ReadOnly));
}

#[test]
fn a_deleted_snapshot_is_gone_for_those_who_read_it() {
    let volume = volume(4096);
    let id = volume.create_snapshot("first").expect("it is made");
    let snapshot = volume.snapshot(id).expect("it is there");
    volume.delete_snapshot(id).expect("it is deleted");
    assert_eq!(snapshot.read(Sector(0), &mut [0; 512]), Err(BlockError::Deleted));
    assert_eq!(volume.delete_snapshot(id), Err(SnapshotError::NoSuchSnapshot));
    assert!(matches!(volume.snapshot(id), Err(SnapshotError::NoSuchSnapshot)));
}

#[test]
fn snapshots_are_found_again_with_their_names_in_their_order() {
    let disk = RamDisk::new(4096);
    let volume = SnapshotDisk::format(&disk, FORMAT).expect("it is formatted");
    let names = ["one", "zwei", "zweiunddreißig Bytes, und wahr"];
    let ids = names.map(|name| volume.create_snapshot(name).expect("it is made"));
    drop(volume);
    let volume = SnapshotDisk::open(&disk).expect("it is opened");
    let found: Vec<_> = volume.snapshots().into_iter().map(|found| (found.id, found.name.to_string())).collect();
    assert_eq!(found, ids.into_iter().zip(names.map(str::to_string)).collect::<Vec<_>>());
}

#[test]
fn names_that_cannot_be_kept_are_refused() {
    let volume = volume(4096);
    for name in ["", "a\0b", "33 bytes are one more than can be."] {
        assert_eq!(volume.create_snapshot(name), Err(SnapshotError::Name));
    }
}

#[test]
fn there_are_no_more_snapshots_than_the_header_has_room_for() {
    let volume = volume(4096);
    let ids: Vec<_> = (0..MAX_SNAPSHOTS).map(|_| volume.create_snapshot("one of many").expect("it is made")).collect();
    assert_eq!(volume.create_snapshot("one too many"), Err(SnapshotError::TooMany));
    volume.delete_snapshot(ids[5]).expect("it is deleted");
    assert!(volume.create_snapshot("another").is_ok());
}

#[test]
fn a_volume_larger_than_its_disk_becomes_full_and_loses_nothing() {
    let volume = volume(1024);
    let mut written = 0;
    while volume.write(Sector(written * 16), &[written as u8; 8192]).is_ok() {
        written += 1;
    }
    assert!((30..64).contains(&written), "{written} chunks fit");
    assert_eq!(volume.write(Sector(2032), &[1; 512]), Err(BlockError::NoSpace));
    // What is there can be overwritten, read, flushed and discarded.
    volume.write(Sector(16), &[0xaa; 512]).expect("it has its place");
    volume.flush().expect("it is flushed");
    assert_eq!(read(&*volume, 32, 8192), [2; 8192]);
    volume.discard(Extent { first: Sector(0), count: 16 }).expect("it is discarded");
    volume.write(Sector(2032), &[1; 512]).expect("there is space again");
    assert_eq!(read(&*volume, 0, 512), [0; 512]);
    assert_eq!(read(&*volume, 2032, 512), [1; 512]);
}

#[test]
fn a_full_disk_is_freed_by_deleting_a_snapshot() {
    let volume = volume(1024);
    for chunk in 0..25 {
        volume.write(Sector(chunk * 16), &[1; 8192]).expect("it is written");
    }
    let id = volume.create_snapshot("costly").expect("it is made");
    let full = (0..25).find(|chunk| volume.write(Sector(chunk * 16), &[2; 8192]).is_err());
    let full = full.expect("twice as many chunks do not fit");
    volume.delete_snapshot(id).expect("it is deleted");
    volume.write(Sector(full * 16), &[2; 8192]).expect("there is space again");
}

proptest! {
    #![proptest_config(cases(32))]

    #[test]
    fn once_all_snapshots_are_deleted_in_whatever_order_all_that_only_they_had_is_free(
        writes in proptest::collection::vec((0..128u64, any::<bool>()), 0..60),
        order in proptest::collection::vec(any::<usize>(), 8),
    ) {
        let volume = volume(8192);
        let mut ids = Vec::new();
        for (index, (chunk, is_discard)) in writes.iter().enumerate() {
            if index % 8 == 3 {
                ids.push(volume.create_snapshot("one").expect("it is made"));
            }
            let extent = Extent { first: Sector(chunk * 16), count: 16 };
            if *is_discard {
                volume.discard(extent).expect("it is discarded");
            } else {
                volume.write(extent.first, &[index as u8 + 1; 8192]).expect("it is written");
            }
        }
        let content = read(&*volume, 0, 2048 * 512);
        for choice in order {
            if !ids.is_empty() {
                volume.delete_snapshot(ids.swap_remove(choice % ids.len())).expect("it is deleted");
            }
        }
        volume.flush().expect("it is flushed");
        prop_assert!(read(&*volume, 0, 2048 * 512) == content);
        // As much is used as by a volume that never had snapshots.
        let fresh = self::volume(8192);
        for chunk in 0..128 {
            let bytes = chunk as usize * 8192..(chunk as usize + 1) * 8192;
            if content[bytes.clone()].iter().any(|byte| *byte != 0) {
                fresh.write(Sector(chunk * 16), &content[bytes]).expect("it is written");
            }
        }
        fresh.flush().expect("it is flushed");
        // But for the one node, which stays when all of its chunks are gone.
        let difference = fresh.free_bytes() - volume.free_bytes();
        prop_assert!(difference <= 4096, "{difference} bytes are lost");
    }
}

#[test]
fn after_a_flush_that_failed_nothing_is_written_until_the_volume_is_opened_anew() {
    let disk = Recorder::new(4096, Image::new());
    let volume = SnapshotDisk::format(&disk, FORMAT).expect("it is formatted");
    volume.write(Sector(0), &[1; 512]).expect("it is written");
    volume.flush().expect("it is flushed");
    let commits = [
        // A failing write of a node, of the first flush, of the header, of the second flush.
        0, 1, 2, 3,
    ];
    for good_for in commits {
        let volume = SnapshotDisk::open(&disk).expect("it is opened");
        volume.write(Sector(100 + 16 * good_for), &[2; 512]).expect("it is written");
        *disk.good_for.lock().expect("not poisoned") = Some(good_for as u32);
        assert_eq!(volume.flush(), Err(BlockError::Medium));
        *disk.good_for.lock().expect("not poisoned") = None;
        assert_eq!(volume.write(Sector(0), &[3; 512]), Err(BlockError::Medium));
        assert_eq!(volume.flush(), Err(BlockError::Medium));
        assert_eq!(volume.create_snapshot("late"), Err(SnapshotError::Block(BlockError::Medium)));
        assert_eq!(read(&volume, 0, 512), [1; 512]);
    }
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    let format = |capacity_sectors, chunk_bytes, disk_sectors| {
        SnapshotDisk::format(RamDisk::new(disk_sectors), Format { capacity_sectors, chunk_bytes }).err()
    };
    for (capacity_sectors, chunk_bytes) in [(0, 4096), (7, 4096), (8, 0), (8, 4095), (8, 12288), (8, 2 << 20)] {
        assert_eq!(format(capacity_sectors, chunk_bytes, 1 << 20), Some(SnapshotError::Shape));
    }
    assert_eq!(format(u64::MAX - 7, 4096, 4096), Some(SnapshotError::Shape));
    assert_eq!(format(8, 65536, 8 * 39), Some(SnapshotError::TooSmall));
    assert_eq!(format(1 << 40, 4096, 4096), None);
}

#[test]
fn a_disk_without_a_volume_and_one_of_the_future_are_told_apart() {
    let disk = RamDisk::new(4096);
    assert_eq!(SnapshotDisk::open(&disk).err(), Some(SnapshotError::NotFormatted));
    drop(SnapshotDisk::format(&disk, FORMAT).expect("it is formatted"));
    let mut slot = vec![0; 24 * 512];
    disk.read(Sector(0), &mut slot).expect("it is read");
    slot[8] = 2;
    slot[12..16].fill(0);
    let checksum = crc32fast::hash(&slot).to_le_bytes();
    slot[12..16].copy_from_slice(&checksum);
    disk.write(Sector(0), &slot).expect("it is written");
    assert_eq!(SnapshotDisk::open(&disk).err(), Some(SnapshotError::Version(2)));
    slot[20] ^= 1;
    disk.write(Sector(0), &slot).expect("it is written");
    assert_eq!(SnapshotDisk::open(&disk).err(), Some(SnapshotError::Block(BlockError::Corrupt)));
}

#[test]
fn a_volume_that_was_there_before_is_not_found_after_formatting() {
    let disk = RamDisk::new(4096);
    let old = SnapshotDisk::format(&disk, FORMAT).expect("it is formatted");
    for _ in 0..5 {
        old.create_snapshot("old").expect("it is made");
    }
    drop(old);
    drop(SnapshotDisk::format(&disk, FORMAT).expect("it is formatted anew"));
    assert!(SnapshotDisk::open(&disk).expect("it is opened").snapshots().is_empty());
}

#[test]
fn a_header_that_power_loss_cut_short_is_wiped_so_that_it_never_becomes_whole() {
    let disk = RamDisk::new(4096);
    let volume = SnapshotDisk::format(&disk, FORMAT).expect("it is formatted");
    volume.create_snapshot("not quite safe").expect("it is made");
    drop(volume);
    // The second slot was written last: a sector of it is as before.
    let mut torn = read(&disk, 24, 512);
    torn[200] ^= 1;
    disk.write(Sector(24), &torn).expect("it is written");
    assert!(SnapshotDisk::open(&disk).expect("it is opened").snapshots().is_empty());
    assert_eq!(read(&disk, 24, 512)[..32], [0; 32]);
}
