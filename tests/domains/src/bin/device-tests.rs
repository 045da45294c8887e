//! Tests of the card's drivers on the emulator's devices; `tests/bundles/devices.toml` gives it the devices.
//!
//! `xtask/src/test/devices.rs` makes the disks, and afterwards finds on them what is written here.
#![cfg_attr(target_os = "none", no_std, no_main)]

extern crate alloc;

use alloc::vec;
use alloc::vec::Vec;
use core::time::Duration;

use dragonfly_physical::{PhysicalDisk, Uplink, Wake, open_disks, open_uplinks};
use dragonfly_rt::abi::Status;
use dragonfly_rt::sync::Mutex;
use dragonfly_rt::sys::Notification;
use dragonfly_rt::{println, time};
use dragonfly_storage::{BlockBackend, BlockError, Extent, SECTOR_BYTES, Sector};
use dragonfly_test_domains::check::{Failure, Outcome, equal, refused, that};
use dragonfly_test_domains::list::{self, Test};

dragonfly_rt::main!(run);

/// When an answer from the network is late.
const LATE: Duration = Duration::from_secs(10);

/// The station that QEMU's user-mode network has, and an address in that network for this one.
const GATEWAY: [u8; 4] = [10, 0, 2, 2];
const OWN_ADDRESS: [u8; 4] = [10, 0, 2, 15];

/// A sector that says that this domain has died once.
const MARK: u64 = 5500;

/// How many stations ask; those after them do so in the life before.
const STATIONS: u8 = 200;

/// Opened once: drivers do not give a device back.
static DISKS: Mutex<Vec<PhysicalDisk>> = Mutex::new(Vec::new());
static UPLINKS: Mutex<Vec<(Uplink, Wake)>> = Mutex::new(Vec::new());

/// Where this program runs, and what a frame sets in the uplink's notification.
const CPU: u32 = 0;
const FRAMES: u64 = 4;

const TESTS: [Test; 7] = [
    ("devices/disks are known by their serial numbers and have their sizes", shapes),
    ("devices/what is written to a disk is read back", write_and_read),
    ("devices/ranges of a disk are zeroed and discarded", ranges),
    ("devices/a disk holds what the host put there", read),
    ("devices/the network answers", ask),
    ("devices/the network answers many frames at once, in their order", ask_often),
    ("devices/a frame that comes wakes who waits for it", wake),
];

fn run() {
    *DISKS.lock() = open_disks("disk", CPU);
    match Notification::create() {
        Ok(notification) => {
            let wake = Wake { notification: notification.keep(), bits: FRAMES, cpu: CPU };
            *UPLINKS.lock() = open_uplinks("net", Some(wake)).into_iter().map(|uplink| (uplink, wake)).collect();
        }
        Err(status) => println!("there is no notification: {status}"),
    }
    assert!(is_second_life(), "as it should, with devices at work");
    list::run(&TESTS);
}

/// Whether this domain has been here before and died. If not, it leaves a mark on the disk, and the network with answers to
/// give: the drivers of its next life find devices that are at work.
fn is_second_life() -> bool {
    let disks = DISKS.lock();
    // Without the disk the tests fail.
    let Some(disk) = disks.iter().find(|disk| disk.serial() == "g0d0") else { return true };
    let mark = content(MARK, 1);
    let mut found = vec![0; SECTOR_BYTES];
    let is_there = disk.read(Sector(MARK), &mut found).is_ok() && found == mark;
    if !is_there && disk.write(Sector(MARK), &mark).is_ok() && disk.flush().is_ok() {
        let _ = with_uplink(|uplink, mac, _| {
            (STATIONS..STATIONS + 40).for_each(|station| _ = uplink.send(&question(mac, station)));
            uplink.flush();
            Ok(())
        });
    }
    is_there
}

fn with_disk(serial: &str, test: impl FnOnce(&PhysicalDisk) -> Outcome) -> Outcome {
    let disks = DISKS.lock();
    let disk = disks.iter().find(|disk| disk.serial() == serial);
    test(disk.ok_or_else(|| Failure::new(format_args!("there is no disk {serial}")))?)
}

fn done(done: Result<(), BlockError>) -> Outcome {
    done.map_err(|error| Failure::new(format_args!("{error}")))
}

/// What the sectors from `first` on hold; the host knows it too.
fn content(first: u64, sectors: usize) -> Vec<u8> {
    let byte =
        |sector: u64, at: usize| (sector as usize).wrapping_mul(7).wrapping_add(at.wrapping_mul(13) + at / 256) as u8;
    (first..).take(sectors).flat_map(|sector| (0..SECTOR_BYTES).map(move |at| byte(sector, at))).collect()
}

fn shapes() -> Outcome {
    equal("the number of disks", DISKS.lock().len(), 2)?;
    for (serial, mib) in [("g0d0", 8), ("g0d1", 1)] {
        with_disk(serial, |disk| {
            let geometry = disk.geometry();
            equal("sectors", geometry.capacity_sectors, mib * 2048)?;
            equal("bytes of a block", geometry.block_bytes, 512)?;
            equal("read-only", geometry.is_read_only, false)
        })?;
    }
    Ok(())
}

/// Sector 0, one request, several, more than go at once, the last sector.
fn write_and_read() -> Outcome {
    with_disk("g0d0", |disk| {
        for (first, sectors) in [(0, 1), (9, 128), (200, 129), (1000, 4000), (8 * 2048 - 1, 1)] {
            let bytes = content(first, sectors);
            done(disk.write(Sector(first), &bytes))?;
            let mut back = vec![0; bytes.len()];
            done(disk.read(Sector(first), &mut back))?;
            that(back == bytes, format_args!("{sectors} sectors from {first} on differ"))?;
        }
        done(disk.flush())?;
        let end = disk.read(Sector(8 * 2048), &mut [0; SECTOR_BYTES]);
        equal("a read past the end", end, Err(BlockError::OutOfRange))
    })
}

fn ranges() -> Outcome {
    with_disk("g0d0", |disk| {
        done(disk.write(Sector(6000), &content(6000, 2000)))?;
        done(disk.write_zeroes(Extent { first: Sector(6100), count: 500 }, false))?;
        done(disk.write_zeroes(Extent { first: Sector(6700), count: 64 }, true))?;
        done(disk.discard(Extent { first: Sector(7900), count: 100 }))?;
        done(disk.flush())?;
        let mut back = vec![0; 1900 * SECTOR_BYTES];
        done(disk.read(Sector(6000), &mut back))?;
        let mut wanted = content(6000, 1900);
        for zeroed in [100..600, 700..764] {
            wanted[zeroed.start * SECTOR_BYTES..zeroed.end * SECTOR_BYTES].fill(0);
        }
        that(back == wanted, "other sectors are zero than should be")
    })
}

fn read() -> Outcome {
    with_disk("g0d1", |disk| {
        let mut back = vec![0; 2048 * SECTOR_BYTES];
        done(disk.read(Sector(0), &mut back))?;
        that(back == content(0, 2048), "the disk does not hold what the host put there")
    })
}

fn with_uplink(test: impl FnOnce(&mut Uplink, [u8; 6], Notification) -> Outcome) -> Outcome {
    let mut uplinks = UPLINKS.lock();
    let (uplink, wake) = uplinks.first_mut().ok_or_else(|| Failure::new("there is no network device"))?;
    let mac = uplink.mac().ok_or_else(|| Failure::new("the network device has no address"))?;
    test(uplink, mac, wake.notification)
}

/// Asks who has the gateway's address (RFC 826), in the name of a station.
fn question(mac: [u8; 6], station: u8) -> Vec<u8> {
    let own = [OWN_ADDRESS[0], OWN_ADDRESS[1], OWN_ADDRESS[2], OWN_ADDRESS[3] + station];
    let parts: [&[u8]; 8] =
        [&[0xff; 6], &mac, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1], &mac, &own, &[0; 6], &GATEWAY, &[0; 18]];
    parts.concat()
}

/// For which station a frame answers the question.
fn answered(frame: &[u8], mac: [u8; 6]) -> Option<u8> {
    let is_answer = frame.starts_with(&mac) && frame.get(12..22)? == [8, 6, 0, 1, 8, 0, 6, 4, 0, 2];
    let is_from_gateway = frame.get(28..32)? == GATEWAY;
    let station = frame.get(38..42)?.strip_prefix(&OWN_ADDRESS[..3])?.first()?.checked_sub(OWN_ADDRESS[3])?;
    (is_answer && is_from_gateway).then_some(station)
}

/// The stations whose questions were answered, in the order of the answers, until there are so many.
fn answers(uplink: &mut Uplink, mac: [u8; 6], count: usize) -> Result<Vec<u8>, Failure> {
    let mut frames = vec![Vec::new(); 16];
    let mut stations = Vec::new();
    let start = time::now();
    while stations.len() < count {
        let received = uplink.receive(&mut frames);
        stations.extend(
            frames.iter().take(received).filter_map(|frame| answered(frame, mac)).filter(|station| *station < STATIONS),
        );
        if time::now() - start > LATE {
            return Err(Failure::new(format_args!("{} of {count} answers came", stations.len())));
        }
    }
    Ok(stations)
}

fn ask() -> Outcome {
    with_uplink(|uplink, mac, _| {
        that(uplink.send(&question(mac, 0)), "the frame was dropped")?;
        uplink.flush();
        equal("the station", answers(uplink, mac, 1)?, vec![0])
    })
}

/// Several times around both rings.
fn ask_often() -> Outcome {
    with_uplink(|uplink, mac, _| {
        for stations in (0..STATIONS).collect::<Vec<u8>>().chunks(40) {
            for station in stations {
                that(uplink.send(&question(mac, *station)), "a frame was dropped")?;
            }
            uplink.flush();
            equal("the stations", &*answers(uplink, mac, stations.len())?, stations)?;
        }
        that(!uplink.send(&[0; 5]), "five bytes were sent")
    })
}

/// Sleeps, with no look at the device, until it interrupts.
fn wake() -> Outcome {
    with_uplink(|uplink, mac, notification| {
        that(!uplink.is_polled(), "the device does not interrupt")?;
        for station in 0..20 {
            that(!uplink.enable_interrupt(), "a frame came without a question")?;
            uplink.send(&question(mac, station));
            uplink.flush();
            equal("what woke the thread", notification.wait_timed(LATE.as_nanos() as u64)?, FRAMES)?;
            equal("the station", answers(uplink, mac, 1)?, vec![station])?;
        }
        // Without being asked for it the device is silent.
        uplink.send(&question(mac, 0));
        uplink.flush();
        equal("the station", answers(uplink, mac, 1)?, vec![0])?;
        refused("an interrupt that was not asked for", notification.wait_timed(0), Status::WouldBlock)
    })
}
