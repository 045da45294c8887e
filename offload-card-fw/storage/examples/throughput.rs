//! What one core of this machine does: bytes per second of AES-256-XTS, and requests per second of the block device.
//!
//! `cargo run --release -p dragonfly-storage --example throughput`

#[expect(dead_code, reason = "the tests use the rest")]
#[path = "../tests/storage/guest.rs"]
mod guest;

use std::hint::black_box;
use std::time::{Duration, Instant};

use dragonfly_storage::blk::{BlockDevice, RequestQueue, Settings};
use dragonfly_storage::snapshot::{Format, SnapshotDisk};
use dragonfly_storage::{BlockBackend, DataUnit, EncryptedDisk, Limits, NullDisk, RamDisk, Sector, XtsAes256};
use guest::{BUFFERS, Guest, Piece};

/// Requests that are available at once.
const BATCH: u16 = 32;

/// Sectors that requests go to.
const SECTORS: u64 = 1 << 16;

const KEY: [u8; 64] = {
    let mut key = [1; 64];
    key[0] = 2;
    key
};

/// The best of many short runs, per second: whatever else the machine does only ever makes a run slower. `work` returns how
/// much it did and in what time.
fn best_rate(mut work: impl FnMut() -> (usize, Duration)) -> f64 {
    let mut best: f64 = 0.0;
    for _ in 0..300 {
        let (mut done, mut time) = (0, Duration::ZERO);
        while time < Duration::from_millis(2) {
            let (more, taken) = work();
            (done, time) = (done + more, time + taken);
        }
        best = best.max(done as f64 / time.as_secs_f64());
    }
    best
}

fn measure_xts(unit: DataUnit, request_bytes: usize) {
    let cipher = XtsAes256::new(&KEY).expect("the halves differ");
    let mut data = vec![0x5a; request_bytes];
    let mut rate = |is_encryption: bool| {
        best_rate(|| {
            let start = Instant::now();
            if is_encryption {
                cipher.encrypt(black_box(7), unit, &mut data);
            } else {
                cipher.decrypt(black_box(7), unit, &mut data);
            }
            (request_bytes, start.elapsed())
        })
    };
    let (encrypt, decrypt) = (rate(true) / 1e9, rate(false) / 1e9);
    let unit_bytes = unit.bytes();
    println!("xts, units of {unit_bytes}, {request_bytes} bytes: {encrypt:.2} GB/s encrypt, {decrypt:.2} GB/s decrypt");
}

/// Requests of `bytes` bytes at sectors apart from each other; only the device's work is timed.
fn measure_blk(name: &str, disk: impl BlockBackend, is_write: bool, bytes: u32) {
    // So that reads find something, and writes its place.
    for first in (0..SECTORS).step_by(128) {
        disk.write(Sector(first), &[0x5a; 64 << 10]).expect("it is written");
    }
    let settings = Settings { id: [0; 20], queues: 1, limits: Limits::default() };
    let device = BlockDevice::new(disk, settings, 0);
    device.negotiate(u64::MAX);
    let (mut guest, mut queue, mut engine) = (Guest::new(), Guest::queue(), RequestQueue::new());
    let mut sector = 0u64;
    let rate = best_rate(|| {
        for index in 0..BATCH {
            let header = BUFFERS + 0x4000 * u64::from(index);
            sector = (sector + 8 * 1021) % SECTORS;
            guest.put(header, &[&u32::from(is_write).to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat());
            let pieces = [
                Piece { address: header, len: 16, is_writable: false },
                Piece { address: header + 0x1000, len: bytes, is_writable: !is_write },
                Piece { address: header + 0x800, len: 1, is_writable: true },
            ];
            guest.submit_at(index * 3, &pieces);
        }
        let start = Instant::now();
        let served = engine.serve(&mut queue, &guest.memory, &device, 0, BATCH.into()).expect("the ring is whole");
        let time = start.elapsed();
        assert_eq!((served.completed, guest.get(BUFFERS + 0x800, 1)[0]), (BATCH.into(), 0));
        (usize::from(BATCH), time)
    });
    let what = if is_write { "writes" } else { "reads" };
    println!("blk, {name}, {what} of {bytes} bytes: {:.2} M/s", rate / 1e6);
}

fn main() {
    for (unit, request_bytes) in [
        (DataUnit::Bytes512, 4096),
        (DataUnit::Bytes4096, 4096),
        (DataUnit::Bytes512, 128 << 10),
        (DataUnit::Bytes4096, 128 << 10),
    ] {
        measure_xts(unit, request_bytes);
    }
    for is_write in [false, true] {
        measure_blk("null disk", NullDisk::new(1 << 20), is_write, 512);
        measure_blk("null disk", NullDisk::new(1 << 20), is_write, 4096);
        measure_blk("RAM disk", RamDisk::new(1 << 20), is_write, 4096);
        let cipher = XtsAes256::new(&KEY).expect("the halves differ");
        let disk = EncryptedDisk::new(RamDisk::new(1 << 20), cipher, DataUnit::Bytes4096).expect("whole units");
        measure_blk("encrypted RAM disk", disk, is_write, 4096);
        let format = Format { capacity_sectors: 1 << 17, chunk_bytes: Format::CHUNK_BYTES };
        let disk = SnapshotDisk::format(RamDisk::new(1 << 20), format).expect("it fits");
        measure_blk("RAM disk with snapshots", disk, is_write, 4096);
    }
}
