//! The driver against the card's own virtio-blk device, and against devices that lie.

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use dragonfly_storage::blk::{BlockDevice, CONFIG_BYTES, ID_BYTES, RequestQueue, Settings};
use dragonfly_storage::{BlockBackend, BlockError, Extent, Geometry, Limits, RamDisk, SECTOR_BYTES, Sector};
use dragonfly_virtqueue::{Chain, MemoryMap};

use super::PhysicalDisk;
use crate::error::{Fault, OpenError};
use crate::testing::{FakeDevice, Ring, Work, clock};

const SECTORS: u64 = 4096;

/// Masks of features that a test takes away from the device.
const DISCARD_AND_ZEROES: u64 = 1 << 13 | 1 << 14;

fn id() -> [u8; ID_BYTES] {
    let mut id = [0; ID_BYTES];
    id[..4].copy_from_slice(b"g0d1");
    id
}

/// A device with this disk, but without some features.
fn device(disk: impl BlockBackend + 'static, without: u64) -> FakeDevice {
    let device = BlockDevice::new(disk, Settings { id: id(), queues: 1, limits: Limits::default() }, 0);
    let mut config = vec![0; CONFIG_BYTES];
    device.read_config(0, &mut config);
    let features = device.offered().bits() & !without;
    device.negotiate(features);
    let mut requests = RequestQueue::new();
    let work = move |_, ring: &mut Ring, memory: &MemoryMap| {
        requests.serve(&mut ring.queue, memory, &device, 0, u32::MAX).unwrap();
    };
    FakeDevice::new(features, config, Box::new(work))
}

fn open(device: &FakeDevice) -> PhysicalDisk<FakeDevice> {
    PhysicalDisk::open("disk0", device.clone(), None, clock).unwrap()
}

/// A device that answers the question for its serial number, and does `work` with each later request.
fn device_that(mut work: impl FnMut(&mut Ring, &MemoryMap, &mut Chain) + 'static) -> FakeDevice {
    let fake = device(RamDisk::new(SECTORS), 0);
    let mut first = fake.0.borrow_mut().work.take();
    let mut chain = Chain::new();
    let both: Work = Box::new(move |index, ring, memory| match first.take() {
        Some(mut honest) => honest(index, ring, memory),
        None => work(ring, memory, &mut chain),
    });
    fake.0.borrow_mut().work = Some(both);
    fake
}

fn pattern(bytes: usize, seed: u8) -> Vec<u8> {
    (0..bytes).map(|at| (at / SECTOR_BYTES) as u8 ^ at as u8 ^ seed).collect()
}

#[test]
fn a_disk_tells_its_shape_and_serial_number() {
    let disk = open(&device(RamDisk::new(SECTORS), 0));
    let geometry = Geometry { capacity_sectors: SECTORS, block_bytes: 512, is_read_only: false };
    assert_eq!((disk.serial(), disk.geometry(), disk.fault()), ("g0d1", geometry, None));
}

#[test]
fn what_is_written_is_on_the_disk_and_read_back() {
    let ram = Arc::new(RamDisk::new(SECTORS));
    let disk = open(&device(ram.clone(), 0));
    // One request, several at a time, more than there are slots; not at the start.
    for (first, sectors) in [(0, 1), (7, 128), (9, 129), (100, 1500)] {
        let bytes = pattern(sectors * SECTOR_BYTES, first as u8);
        disk.write(Sector(first), &bytes).unwrap();
        let (mut behind, mut back) = (vec![0; bytes.len()], vec![0; bytes.len()]);
        ram.read(Sector(first), &mut behind).unwrap();
        disk.read(Sector(first), &mut back).unwrap();
        assert!(behind == bytes && back == bytes, "{sectors} sectors from {first} on");
    }
    disk.flush().unwrap();
}

#[test]
fn ranges_are_zeroed_by_a_command_or_by_writing() {
    for without in [0, DISCARD_AND_ZEROES] {
        let ram = Arc::new(RamDisk::new(SECTORS));
        let disk = open(&device(ram.clone(), without));
        disk.write(Sector(0), &pattern(1000 * SECTOR_BYTES, 0xff)).unwrap();
        disk.write_zeroes(Extent { first: Sector(3), count: 700 }, true).unwrap();
        disk.discard(Extent { first: Sector(900), count: 10 }).unwrap();
        let mut back = vec![0; 900 * SECTOR_BYTES];
        ram.read(Sector(0), &mut back).unwrap();
        let wanted = |sector: usize| if (3..703).contains(&sector) { 0 } else { sector as u8 ^ 0xff };
        for (sector, bytes) in back.chunks(SECTOR_BYTES).enumerate() {
            assert_eq!(bytes[0], wanted(sector), "sector {sector} without {without:#x}");
        }
    }
}

#[test]
fn what_cannot_be_does_not_reach_the_device() {
    let disk = open(&device_that(|_, _, _| panic!("a request that cannot be")));
    let mut sector = [0; SECTOR_BYTES];
    assert_eq!(disk.read(Sector(SECTORS), &mut sector), Err(BlockError::OutOfRange));
    assert_eq!(disk.read(Sector(u64::MAX), &mut sector), Err(BlockError::OutOfRange));
    assert_eq!(disk.write(Sector(0), &sector[..511]), Err(BlockError::Unaligned));
    assert_eq!(disk.discard(Extent { first: Sector(SECTORS), count: 1 }), Err(BlockError::OutOfRange));
    assert_eq!(disk.read(Sector(0), &mut []), Ok(()));
}

#[test]
fn a_read_only_disk_refuses_changes() {
    const RO: u64 = 1 << 5;
    let device = device(RamDisk::new(SECTORS), 0);
    device.0.borrow_mut().offered |= RO;
    let disk = open(&device);
    let all = Extent { first: Sector(0), count: SECTORS };
    assert!(disk.geometry().is_read_only);
    assert_eq!(disk.write(Sector(0), &[0; SECTOR_BYTES]), Err(BlockError::ReadOnly));
    assert_eq!(disk.write_zeroes(all, true), Err(BlockError::ReadOnly));
    assert_eq!(disk.discard(all), Err(BlockError::ReadOnly));
}

#[test]
fn the_rings_indices_wrap_around() {
    let disk = open(&device(RamDisk::new(SECTORS), 0));
    for number in 0..70_000_u32 {
        let bytes = [number as u8 ^ (number >> 8) as u8; SECTOR_BYTES];
        let mut back = [0; SECTOR_BYTES];
        let sector = Sector(u64::from(number) % SECTORS);
        disk.write(sector, &bytes).unwrap();
        disk.read(sector, &mut back).unwrap();
        assert_eq!(back, bytes, "request {number}");
    }
}

#[test]
fn an_error_of_the_medium_is_told_and_the_disk_goes_on() {
    struct Broken(RamDisk);
    impl BlockBackend for Broken {
        fn geometry(&self) -> Geometry {
            self.0.geometry()
        }
        fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
            if first.0 < 1000 { self.0.read(first, into) } else { Err(BlockError::Medium) }
        }
        fn write(&self, first: Sector, from: &[u8]) -> Result<(), BlockError> {
            self.0.write(first, from)
        }
        fn flush(&self) -> Result<(), BlockError> {
            Err(BlockError::Medium)
        }
        fn discard(&self, extent: Extent) -> Result<(), BlockError> {
            self.0.discard(extent)
        }
        fn write_zeroes(&self, extent: Extent, may_unmap: bool) -> Result<(), BlockError> {
            self.0.write_zeroes(extent, may_unmap)
        }
    }
    let disk = open(&device(Broken(RamDisk::new(SECTORS)), 0));
    let mut bytes = vec![0; 1200 * SECTOR_BYTES];
    assert_eq!(disk.read(Sector(0), &mut bytes), Err(BlockError::Medium));
    assert_eq!(disk.flush(), Err(BlockError::Medium));
    assert_eq!(disk.read(Sector(0), &mut bytes[..512_000]), Ok(()));
    assert_eq!(disk.fault(), None);
}

/// After a fault every call fails at once, and the device is reset.
fn assert_stopped(device: &FakeDevice, fault: Fault) {
    let disk = open(device);
    let mut bytes = [0; 3 * SECTOR_BYTES];
    assert_eq!(disk.read(Sector(0), &mut bytes), Err(BlockError::Medium));
    assert_eq!((disk.fault(), device.0.borrow().status), (Some(fault), 0));
    device.0.borrow_mut().work = Some(Box::new(|_, _, _| panic!("used after it was stopped")));
    assert_eq!(disk.write(Sector(0), &bytes), Err(BlockError::Medium));
    assert_eq!(disk.flush(), Err(BlockError::Medium));
}

#[test]
fn a_device_that_does_not_answer_is_stopped() {
    assert_stopped(&device_that(|_, _, _| ()), Fault::Timeout);
}

#[test]
fn a_device_that_writes_too_little_or_too_much_is_stopped() {
    for written in [0, 1, 3 * SECTOR_BYTES as u32, 3 * SECTOR_BYTES as u32 + 2, u32::MAX] {
        let device = device_that(move |ring, memory, chain| {
            assert!(ring.queue.pop_into(memory, chain).unwrap());
            let mut writer = chain.writer(memory);
            writer.skip(3 * SECTOR_BYTES as u64).unwrap();
            writer.write_all(&[0]).unwrap();
            ring.queue.push(memory, chain.id(), written).unwrap();
        });
        assert_stopped(&device, Fault::Length);
    }
}

#[test]
fn a_device_with_a_status_of_its_own_is_stopped() {
    for status in [3, 0xff] {
        let device = device_that(move |ring, memory, chain| {
            assert!(ring.queue.pop_into(memory, chain).unwrap());
            let mut writer = chain.writer(memory);
            writer.skip(3 * SECTOR_BYTES as u64).unwrap();
            writer.write_all(&[status]).unwrap();
            ring.queue.push(memory, chain.id(), writer.written()).unwrap();
        });
        assert_stopped(&device, Fault::Status);
    }
}

#[test]
fn a_device_that_gives_back_what_it_does_not_have_is_stopped() {
    for token in [1, 15, 16, 0xffff, u32::MAX] {
        let device = device_that(move |ring, memory, chain| {
            assert!(ring.queue.pop_into(memory, chain).unwrap());
            ring.queue.push(memory, chain.id(), 1).unwrap();
            ring.forge(memory, token);
        });
        assert_stopped(&device, Fault::UnknownRequest);
    }
}

#[test]
fn a_device_that_cannot_be_reset_is_cut_off_from_memory() {
    let device = device_that(|_, _, _| ());
    let disk = open(&device);
    device.0.borrow_mut().is_deaf = true;
    assert_eq!(disk.flush(), Err(BlockError::Medium));
    assert!(device.0.borrow().is_cut_off);
}

#[test]
fn devices_that_contradict_themselves_are_not_used() {
    type Change = fn(&FakeDevice);
    let cases: [(&str, Change); 7] = [
        ("before virtio 1.0", |device| device.0.borrow_mut().offered &= u64::from(u32::MAX)),
        ("no reset", |device| {
            let mut state = device.0.borrow_mut();
            (state.status, state.is_deaf) = (1, true);
        }),
        ("restless", |device| device.0.borrow_mut().is_restless = true),
        ("short", |device| device.0.borrow_mut().config.truncate(4)),
        ("no block", |device| device.0.borrow_mut().config[20..24].fill(0)),
        ("a block of 513 bytes", |device| device.0.borrow_mut().config[20] = 1),
        ("silent", |device| device.0.borrow_mut().work = Some(Box::new(|_, _, _| ()))),
    ];
    for (name, change) in cases {
        let device = device(RamDisk::new(SECTORS), 0);
        change(&device);
        assert!(PhysicalDisk::open("disk0", device, None, clock).is_err(), "{name}");
    }
    let device = device(RamDisk::new(SECTORS), 0);
    device.0.borrow_mut().is_deaf = true;
    assert!(matches!(PhysicalDisk::open("disk0", device, None, clock), Err(OpenError::Features)));
}
