//! Volumes on one disk.

use std::sync::Arc;

use dragonfly_storage::volumes::{MAX_VOLUMES, VolumeError, VolumeTable};
use dragonfly_storage::{BlockBackend, BlockError, Extent, RamDisk, Sector};

use crate::recorder::{Event, Image, Recorder, Survivors, Wreck};

const MIB: u64 = 2048;

/// Names, and where the volumes are in MiB.
fn places<B: BlockBackend + Clone>(table: &VolumeTable<B>) -> Vec<(String, u64, u64)> {
    let place = |extent: Extent| (extent.first.0 / MIB, extent.count.div_ceil(MIB));
    let volumes = table.volumes().into_iter();
    volumes.map(|volume| (volume.name.to_string(), place(volume.extent).0, place(volume.extent).1)).collect()
}

#[test]
fn volumes_are_found_again_and_lie_apart() {
    let disk = RamDisk::new(64 * MIB);
    let table = VolumeTable::format(&disk).expect("it is formatted");
    for (index, (name, sectors)) in [("root", 2 * MIB), ("home", 1), ("swap", 3 * MIB - 1)].into_iter().enumerate() {
        let volume = table.create(name, sectors).expect("it is made");
        volume.write(Sector(0), &vec![index as u8 + 1; sectors as usize * 512]).expect("it is written");
        assert_eq!(volume.geometry().capacity_sectors, sectors);
    }
    drop(table);
    let table = VolumeTable::open(&disk).expect("it is opened");
    assert_eq!(places(&table), [("root".into(), 1, 2), ("home".into(), 3, 1), ("swap".into(), 4, 3)]);
    for (index, name) in ["root", "home", "swap"].into_iter().enumerate() {
        let volume = table.volume(name).expect("it is there");
        let mut content = vec![0; volume.geometry().capacity_sectors as usize * 512];
        volume.read(Sector(0), &mut content).expect("it is read");
        assert!(content.iter().all(|byte| *byte == index as u8 + 1), "{name}");
    }
}

#[test]
fn a_volume_ends_where_it_ends() {
    let disk = RamDisk::new(64 * MIB);
    let table = VolumeTable::format(&disk).expect("it is formatted");
    let volume = table.create("small", 10).expect("it is made");
    let beyond = Extent { first: Sector(9), count: 2 };
    assert_eq!(volume.write(Sector(10), &[1; 512]), Err(BlockError::OutOfRange));
    assert_eq!(volume.read(Sector(9), &mut [1; 1024]), Err(BlockError::OutOfRange));
    assert_eq!(volume.read(Sector(u64::MAX - 2000), &mut [1; 512]), Err(BlockError::OutOfRange));
    assert_eq!(volume.discard(beyond), Err(BlockError::OutOfRange));
    assert_eq!(volume.write_zeroes(beyond, true), Err(BlockError::OutOfRange));
}

#[test]
fn a_place_that_was_given_up_is_used_again_and_shows_nothing_of_who_had_it() {
    let disk = RamDisk::new(16 * MIB);
    let table = VolumeTable::format(&disk).expect("it is formatted");
    for name in ["a", "b", "c"] {
        table.create(name, 2 * MIB).expect("it is made").write(Sector(5), &[9; 512]).expect("it is written");
    }
    table.delete("b").expect("it is deleted");
    table.create("large", 3 * MIB).expect("it is made");
    let reused = table.create("small", MIB + 1).expect("it is made");
    assert_eq!(
        places(&table),
        [("a".into(), 1, 2), ("small".into(), 3, 2), ("c".into(), 5, 2), ("large".into(), 7, 3)]
    );
    let mut content = [1; 512];
    reused.read(Sector(5), &mut content).expect("it is read");
    assert_eq!(content, [0; 512]);
}

#[test]
fn what_cannot_be_made_or_found_is_refused() {
    let disk = RamDisk::new(16 * MIB);
    let table = VolumeTable::format(&disk).expect("it is formatted");
    table.create("a", MIB).expect("it is made");
    let refused = |name: &str, sectors| table.create(name, sectors).err();
    assert_eq!(refused("a", MIB), Some(VolumeError::Exists));
    assert_eq!(refused("", MIB), Some(VolumeError::Invalid));
    assert_eq!(refused("a name of more than 32 bytes is too long", MIB), Some(VolumeError::Invalid));
    assert_eq!(refused("b", 0), Some(VolumeError::Invalid));
    assert_eq!(refused("b", 14 * MIB + 1), Some(VolumeError::NoRoom));
    assert_eq!(refused("b", u64::MAX), Some(VolumeError::NoRoom));
    assert_eq!(refused("b", 14 * MIB), None);
    assert_eq!(table.delete("c"), Err(VolumeError::NoSuchVolume));
    assert_eq!(table.volume("c").err(), Some(VolumeError::NoSuchVolume));
}

#[test]
fn there_are_no_more_volumes_than_the_table_has_room_for() {
    let disk = RamDisk::new(256 * MIB);
    let table = VolumeTable::format(&disk).expect("it is formatted");
    for index in 0..MAX_VOLUMES {
        table.create(&format!("volume {index}"), 1).expect("it is made");
    }
    assert_eq!(table.create("one too many", 1).err(), Some(VolumeError::TooMany));
    assert_eq!(VolumeTable::open(&disk).expect("it is opened").volumes().len(), MAX_VOLUMES);
}

#[test]
fn a_disk_that_was_never_partitioned_is_told_from_one_that_is_corrupt() {
    let disk = RamDisk::new(16 * MIB);
    assert_eq!(VolumeTable::open(&disk).err(), Some(VolumeError::NotFormatted));
    drop(VolumeTable::format(&disk).expect("it is formatted"));
    let mut sector = [0; 512];
    disk.read(Sector(0), &mut sector).expect("it is read");
    sector[40] ^= 1;
    disk.write(Sector(0), &sector).expect("it is written");
    assert_eq!(VolumeTable::open(&disk).err(), Some(VolumeError::Block(BlockError::Corrupt)));
}

#[test]
fn whenever_power_is_lost_the_table_is_the_one_before_or_after() {
    let disk = Arc::new(Recorder::new(64 * MIB, Image::new()));
    let table = VolumeTable::format(Arc::clone(&disk)).expect("it is formatted");
    // Enough for the table to take several sectors.
    for index in 0..20 {
        table.create(&format!("volume {index}"), 1).expect("it is made");
    }
    let start = disk.image.lock().expect("not poisoned").clone();
    disk.events.lock().expect("not poisoned").clear();
    let mut tables = vec![(0, places(&table))];
    let mut note = || tables.push((disk.events.lock().expect("not poisoned").len(), places(&table)));
    table.delete("volume 3").expect("it is deleted");
    note();
    table.create("another", 7).expect("it is made");
    note();
    table.delete("volume 15").expect("it is deleted");
    note();
    let events: Vec<Event> = disk.events.lock().expect("not poisoned").clone();
    let mut wreck = Wreck::new(start);
    for (index, event) in events.iter().enumerate() {
        wreck.after(event);
        let step = tables.iter().position(|(end, _)| index < *end).expect("a step");
        for survivors in
            [Survivors::None, Survivors::All, Survivors::Some(index as u64), Survivors::Some(!index as u64)]
        {
            let disk = Recorder::new(64 * MIB, wreck.image(survivors));
            let found = places(&VolumeTable::open(&disk).expect("it is opened"));
            assert!([&tables[step - 1].1, &tables[step].1].contains(&&found), "{index} {survivors:?}");
        }
    }
}
