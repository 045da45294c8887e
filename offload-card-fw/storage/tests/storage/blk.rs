//! The virtio block device as a driver sees it.

mod limits;

use std::sync::Arc;

use dragonfly_storage::blk::{BlockDevice, CONFIG_BYTES, Features, RequestQueue, Served, Settings};
use dragonfly_storage::snapshot::{Format, SnapshotDisk};
use dragonfly_storage::{BlockBackend, BlockError, Extent, Geometry, Limits, NullDisk, RamDisk, Sector};
use dragonfly_virtqueue::Queue;
use proptest::prelude::*;

use crate::cases;
use crate::guest::{BUFFERS, Guest, Piece};
use crate::recorder::{Event, Image, Recorder};

const IN: u32 = 0;
const OUT: u32 = 1;
const FLUSH: u32 = 4;
const GET_ID: u32 = 8;
const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;

const OK: u8 = 0;
const IO_ERROR: u8 = 1;
const UNSUPPORTED: u8 = 2;

/// What no device writes.
const UNTOUCHED: u8 = 0xee;

const HEADER: u64 = BUFFERS;
const DATA: u64 = BUFFERS + 0x1000;
const STATUS: u64 = BUFFERS + 0x800;

fn settings() -> Settings {
    Settings { id: *b"serial-number-0001\0\0", queues: 1, limits: Limits::default() }
}

/// A device with a driver that negotiated everything.
struct Bench<B> {
    guest: Guest,
    queue: Queue,
    device: Arc<BlockDevice<B>>,
    engine: RequestQueue,
    now_ns: u64,
}

impl<B: BlockBackend> Bench<B> {
    fn new(disk: B) -> Self {
        Self::with(disk, settings())
    }

    fn with(disk: B, settings: Settings) -> Self {
        let device = BlockDevice::new(disk, settings, 0);
        device.negotiate(u64::MAX);
        Self::of(Arc::new(device))
    }

    /// A queue of `device`, with memory of its own.
    fn of(device: Arc<BlockDevice<B>>) -> Self {
        Self { guest: Guest::new(), queue: Guest::queue(), device, engine: RequestQueue::new(), now_ns: 0 }
    }

    fn serve(&mut self) -> Served {
        let memory = &self.guest.memory;
        self.engine.serve(&mut self.queue, memory, &self.device, self.now_ns, 100).expect("the ring is whole")
    }

    fn header(&self, kind: u32, sector: u64) {
        let header = [&kind.to_le_bytes()[..], &[0; 4], &sector.to_le_bytes()].concat();
        self.guest.put(HEADER, &header);
        self.guest.put(STATUS, &[UNTOUCHED]);
    }

    /// A request with `sent` after its header and room for `room` bytes before the status: what came back and the length.
    fn request(&mut self, kind: u32, sector: u64, sent: &[u8], room: usize) -> (u8, Vec<u8>, u32) {
        self.header(kind, sector);
        self.guest.put(DATA, sent);
        self.guest.put(DATA + sent.len() as u64, &vec![UNTOUCHED; room]);
        let mut pieces = vec![read_only(HEADER, 16)];
        if !sent.is_empty() {
            pieces.push(read_only(DATA, sent.len()));
        }
        if room > 0 {
            pieces.push(writable(DATA + sent.len() as u64, room));
        }
        pieces.push(writable(STATUS, 1));
        self.guest.submit_at(0, &pieces);
        assert_eq!(self.serve().completed, 1);
        let (_, written) = self.guest.used().expect("it is given back");
        (self.guest.get(STATUS, 1)[0], self.guest.get(DATA + sent.len() as u64, room), written)
    }

    fn status(&mut self, kind: u32, sector: u64, sent: &[u8], room: usize) -> u8 {
        self.request(kind, sector, sent, room).0
    }
}

fn read_only(address: u64, bytes: usize) -> Piece {
    Piece { address, len: bytes as u32, is_writable: false }
}

fn writable(address: u64, bytes: usize) -> Piece {
    Piece { address, len: bytes as u32, is_writable: true }
}

fn range(sector: u64, sectors: u32, flags: u32) -> Vec<u8> {
    [&sector.to_le_bytes()[..], &sectors.to_le_bytes(), &flags.to_le_bytes()].concat()
}

#[test]
fn what_is_written_is_read_again() {
    let mut bench = Bench::new(RamDisk::new(4096));
    let data: Vec<u8> = (0..300 << 10).map(|index: usize| (index / 512) as u8 ^ index as u8).collect();
    assert_eq!(bench.request(OUT, 5, &data, 0), (OK, vec![], 1));
    let (status, read, written) = bench.request(IN, 5, &[], data.len());
    assert_eq!((status, written), (OK, data.len() as u32 + 1));
    assert!(read == data);
}

#[test]
fn a_chain_may_be_cut_up_in_any_way() {
    let mut bench = Bench::new(RamDisk::new(64));
    bench.device.disk().write(Sector(3), &[7; 1024]).expect("it is written");
    bench.header(IN, 3);
    let status = DATA + 1023;
    let pieces = [
        read_only(HEADER, 3),
        read_only(HEADER + 3, 13),
        writable(DATA, 1),
        writable(DATA + 0x5000, 600),
        // The status shares a piece with data.
        writable(status - 422, 424),
    ];
    bench.guest.submit_at(0, &pieces);
    assert_eq!(bench.serve().completed, 1);
    assert_eq!(bench.guest.used(), Some((0, 1025)));
    assert_eq!(bench.guest.get(DATA, 1), [7]);
    assert_eq!(bench.guest.get(DATA + 0x5000, 600), [7; 600]);
    assert_eq!(bench.guest.get(status - 422, 424), [&[7; 423][..], &[OK]].concat());
}

/// What it is, type, sector, what is sent, room for what comes back, status.
type Case<'a> = (&'a str, u32, u64, &'a [u8], usize, u8);

#[test]
fn requests_that_cannot_be_fail_and_change_nothing() {
    let sector = [1; 512];
    let cases: [Case<'_>; 16] = [
        ("read beyond the end", IN, 64, &[], 512, IO_ERROR),
        ("read across the end", IN, 63, &[], 1024, IO_ERROR),
        ("read of sectors whose end wraps", IN, u64::MAX, &[], 1024, IO_ERROR),
        ("read of a part of a sector", IN, 0, &[], 100, IO_ERROR),
        ("write beyond the end", OUT, 64, &sector, 0, IO_ERROR),
        ("write of a part of a sector", OUT, 0, &sector[..511], 0, IO_ERROR),
        ("unknown command", 0x1234, 0, &[], 0, UNSUPPORTED),
        ("lifetime", 10, 0, &[], 24, UNSUPPORTED),
        ("secure erase", 14, 0, &range(0, 8, 0), 0, UNSUPPORTED),
        ("discard with the flag to unmap", DISCARD, 0, &range(0, 8, 1), 0, UNSUPPORTED),
        ("discard with an unknown flag", DISCARD, 0, &range(0, 8, 1 << 31), 0, UNSUPPORTED),
        ("write zeroes with an unknown flag", WRITE_ZEROES, 0, &range(0, 8, 2), 0, UNSUPPORTED),
        ("discard of nothing", DISCARD, 0, &[], 0, IO_ERROR),
        ("discard of a part of a range", DISCARD, 0, &range(0, 8, 0)[..15], 0, IO_ERROR),
        ("discard beyond the end", DISCARD, 0, &[range(0, 8, 0), range(60, 5, 0)].concat(), 0, IO_ERROR),
        ("write zeroes of two ranges", WRITE_ZEROES, 0, &[range(0, 8, 0), range(0, 8, 0)].concat(), 0, IO_ERROR),
    ];
    for (name, kind, first, sent, room, status) in cases {
        let mut bench = Bench::new(RamDisk::new(64));
        bench.device.disk().write(Sector(0), &[9; 64 * 512]).expect("it is written");
        let (actual, read, written) = bench.request(kind, first, sent, room);
        assert_eq!(actual, status, "{name}");
        assert!(read.iter().all(|byte| *byte == UNTOUCHED), "{name}");
        // The length never covers what was not written.
        assert_eq!(written, if room == 0 { 1 } else { 0 }, "{name}");
        let mut content = vec![0; 64 * 512];
        bench.device.disk().read(Sector(0), &mut content).expect("it is read");
        assert!(content.iter().all(|byte| *byte == 9), "{name}");
    }
}

#[test]
fn more_ranges_and_sectors_than_the_configuration_allows_are_refused() {
    let mut bench = Bench::new(RamDisk::new(1 << 30));
    let mut config = [0; CONFIG_BYTES];
    bench.device.read_config(0, &mut config);
    let field = |at: usize| u32::from_le_bytes(config[at..at + 4].try_into().expect("4 bytes"));
    let (discard_sectors, discard_ranges, zero_sectors) = (field(36), field(40), field(48));
    let ranges = |count: u32| (0..count).flat_map(|index| range(index.into(), 1, 0)).collect::<Vec<_>>();
    assert_eq!(bench.status(DISCARD, 0, &ranges(discard_ranges), 0), OK);
    assert_eq!(bench.status(DISCARD, 0, &ranges(discard_ranges + 1), 0), IO_ERROR);
    assert_eq!(bench.status(DISCARD, 0, &range(0, discard_sectors, 0), 0), OK);
    assert_eq!(bench.status(DISCARD, 0, &range(0, discard_sectors + 1, 0), 0), IO_ERROR);
    assert_eq!(bench.status(WRITE_ZEROES, 0, &range(0, zero_sectors, 1), 0), OK);
    assert_eq!(bench.status(WRITE_ZEROES, 0, &range(0, zero_sectors + 1, 1), 0), IO_ERROR);
}

#[test]
fn zeroes_and_discards_reach_the_disk() {
    for (kind, flags) in [(WRITE_ZEROES, 0), (WRITE_ZEROES, 1), (DISCARD, 0)] {
        let mut bench = Bench::new(RamDisk::new(64));
        bench.device.disk().write(Sector(0), &[9; 64 * 512]).expect("it is written");
        assert_eq!(bench.status(kind, 0, &range(8, 16, flags), 0), OK);
        let read = bench.request(IN, 0, &[], 32 * 512).1;
        assert!(read[8 * 512..24 * 512].iter().all(|byte| *byte == 0));
        assert!(read[..8 * 512].iter().chain(&read[24 * 512..]).all(|byte| *byte == 9));
    }
}

#[test]
fn the_serial_number_is_twenty_bytes_or_as_many_as_there_is_room_for() {
    let mut bench = Bench::new(RamDisk::new(64));
    assert_eq!(bench.request(GET_ID, 0, &[], 20), (OK, b"serial-number-0001\0\0".to_vec(), 21));
    assert_eq!(bench.request(GET_ID, 0, &[], 6), (OK, b"serial".to_vec(), 7));
    let (status, read, written) = bench.request(GET_ID, 0, &[], 30);
    assert_eq!((status, &read[..20], &read[20..], written), (OK, &settings().id[..], &[UNTOUCHED; 10][..], 20));
}

#[test]
fn a_read_only_disk_offers_no_changes_and_fails_them() {
    let disk = ReadOnly(RamDisk::new(64));
    disk.0.write(Sector(0), &[3; 512]).expect("it is written");
    let mut bench = Bench::new(&disk as &dyn BlockBackend);
    let offered = bench.device.offered();
    assert!(offered.contains(Features::RO));
    assert!(!offered.intersects(Features::DISCARD | Features::WRITE_ZEROES | Features::CONFIG_WCE));
    assert_eq!(bench.status(OUT, 0, &[0; 512], 0), IO_ERROR);
    assert_eq!(bench.status(DISCARD, 0, &range(0, 1, 0), 0), UNSUPPORTED);
    assert_eq!(bench.status(WRITE_ZEROES, 0, &range(0, 1, 0), 0), UNSUPPORTED);
    assert_eq!(bench.request(IN, 0, &[], 512).1, [3; 512]);
}

struct ReadOnly(RamDisk);

impl BlockBackend for ReadOnly {
    fn geometry(&self) -> Geometry {
        Geometry { is_read_only: true, ..self.0.geometry() }
    }

    fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
        self.0.read(first, into)
    }

    fn write(&self, _: Sector, _: &[u8]) -> Result<(), BlockError> {
        panic!("it is never asked to")
    }

    fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }

    fn discard(&self, _: Extent) -> Result<(), BlockError> {
        panic!("it is never asked to")
    }

    fn write_zeroes(&self, _: Extent, _: bool) -> Result<(), BlockError> {
        panic!("it is never asked to")
    }
}

#[test]
fn a_failing_disk_is_an_error_of_the_request_and_not_of_the_queue() {
    let disk = Recorder::new(64, Image::new());
    let mut bench = Bench::new(&disk);
    *disk.good_for.lock().expect("not poisoned") = Some(0);
    assert_eq!(bench.status(OUT, 0, &[1; 512], 0), IO_ERROR);
    assert_eq!(bench.status(FLUSH, 0, &[], 0), IO_ERROR);
    *disk.good_for.lock().expect("not poisoned") = None;
    assert_eq!(bench.status(OUT, 0, &[1; 512], 0), OK);
}

#[test]
fn each_write_is_flushed_unless_the_driver_flushes() {
    let all = Features::all().bits();
    let without_flush = all & !(Features::FLUSH | Features::CONFIG_WCE).bits();
    let only_switch = all & !Features::FLUSH.bits();
    // Negotiated, what is then written to `writeback`, whether a write is flushed.
    for (negotiated, switch, is_flushed) in [
        (all, None, false),
        (all, Some(0), true),
        (all, Some(1), false),
        (without_flush, None, true),
        (without_flush, Some(1), true),
        (only_switch, None, true),
        (only_switch, Some(1), false),
    ] {
        let disk = Recorder::new(64, Image::new());
        let mut bench = Bench::new(&disk);
        bench.device.negotiate(negotiated);
        if let Some(switch) = switch {
            bench.device.write_config(32, &[switch]);
        }
        assert_eq!(bench.status(OUT, 0, &[1; 512], 0), OK);
        let is_last_a_flush = matches!(disk.events.lock().expect("not poisoned").last(), Some(Event::Flush));
        assert_eq!(is_last_a_flush, is_flushed, "{negotiated:#x} {switch:?}");
        assert_eq!(bench.status(FLUSH, 0, &[], 0), OK);
        assert!(matches!(disk.events.lock().expect("not poisoned").last(), Some(Event::Flush)));
    }
}

#[test]
fn the_configuration_space_is_that_of_the_specification() {
    let device = BlockDevice::new(NullDisk::new(0x12_3456_7890), Settings { queues: 4, ..settings() }, 0);
    let mut config = [0xff; CONFIG_BYTES];
    device.read_config(0, &mut config);
    let expected = [
        &0x12_3456_7890u64.to_le_bytes()[..], // capacity
        &(1u32 << 20).to_le_bytes(),          // size_max
        &126u32.to_le_bytes(),                // seg_max
        &[0; 4],                              // geometry
        &512u32.to_le_bytes(),                // blk_size
        &[3, 0, 8, 0, 0, 0, 0, 0],            // topology: 8 blocks of 512 bytes are a physical one
        &[1, 0],                              // writeback
        &4u16.to_le_bytes(),                  // num_queues
        &(1u32 << 21).to_le_bytes(),          // max_discard_sectors
        &16u32.to_le_bytes(),                 // max_discard_seg
        &1u32.to_le_bytes(),                  // discard_sector_alignment
        &(1u32 << 16).to_le_bytes(),          // max_write_zeroes_sectors
        &1u32.to_le_bytes(),                  // max_write_zeroes_seg
        &[1, 0, 0, 0],                        // write_zeroes_may_unmap
    ]
    .concat();
    assert_eq!(config, expected[..]);
    assert!(device.offered().contains(Features::MQ));
    // Any part can be read; beyond the end there are zeros.
    let mut part = [0xff; 6];
    device.read_config(34, &mut part);
    assert_eq!(part, expected[34..40]);
    let mut part = [0xff; 8];
    device.read_config(CONFIG_BYTES - 4, &mut part);
    assert_eq!(part, [1, 0, 0, 0, 0, 0, 0, 0]);
    device.read_config(usize::MAX, &mut part);
    assert_eq!(part, [0; 8]);
}

#[test]
fn only_the_switch_of_the_cache_can_be_written() {
    let device = BlockDevice::new(RamDisk::new(64), settings(), 0);
    device.negotiate(u64::MAX);
    let config = || {
        let mut config = [0; CONFIG_BYTES];
        device.read_config(0, &mut config);
        config
    };
    let before = config();
    device.write_config(0, &[0; 32]);
    device.write_config(33, &[0xff; 40]);
    device.write_config(usize::MAX, &[0]);
    assert_eq!(config(), before);
    device.write_config(30, &[0xff, 0xff, 0, 0xff]);
    assert_eq!(config()[32], 0);
    // Without the feature there is no such switch.
    device.negotiate(Features::FLUSH.bits());
    device.write_config(32, &[0]);
    assert_eq!(config()[32], 1);
}

#[test]
fn a_chain_without_room_for_a_status_is_given_back_untouched() {
    let mut bench = Bench::new(RamDisk::new(64));
    bench.header(FLUSH, 0);
    bench.guest.submit_at(0, &[read_only(HEADER, 16)]);
    assert_eq!(bench.serve().completed, 1);
    assert_eq!(bench.guest.used(), Some((0, 0)));
}

#[test]
fn a_chain_too_short_for_a_header_has_a_status_all_the_same() {
    let mut bench = Bench::new(RamDisk::new(64));
    for pieces in [vec![read_only(HEADER, 15), writable(STATUS, 1)], vec![writable(STATUS, 1)]] {
        bench.guest.put(STATUS, &[UNTOUCHED]);
        bench.guest.submit_at(0, &pieces);
        assert_eq!(bench.serve().completed, 1);
        assert_eq!((bench.guest.used(), bench.guest.get(STATUS, 1)[0]), (Some((0, 1)), IO_ERROR));
    }
}

#[test]
fn memory_that_is_not_there_fails_its_request_alone() {
    let mut bench = Bench::new(RamDisk::new(64));
    let nowhere = 1 << 40;
    bench.header(OUT, 0);
    bench.guest.submit_at(0, &[read_only(HEADER, 16), read_only(nowhere, 512), writable(STATUS, 1)]);
    assert_eq!(bench.serve().completed, 1);
    assert_eq!((bench.guest.used(), bench.guest.get(STATUS, 1)[0]), (Some((0, 1)), IO_ERROR));
    bench.header(IN, 0);
    bench
        .guest
        .submit_at(0, &[read_only(HEADER, 16), writable(DATA, 512), writable(nowhere, 512), writable(STATUS, 1)]);
    assert_eq!(bench.serve().completed, 1);
    let (_, written) = bench.guest.used().expect("it is given back");
    assert!(written <= 512);
    assert_eq!(bench.guest.get(STATUS, 1)[0], IO_ERROR);
    bench.guest.submit_at(0, &[read_only(nowhere, 16), writable(nowhere, 1)]);
    assert_eq!(bench.serve().completed, 1);
    assert!(bench.guest.used().is_some());
    assert_eq!(bench.status(FLUSH, 0, &[], 0), OK);
}

#[test]
fn several_queues_serve_one_disk_at_once() {
    let device = Arc::new(BlockDevice::new(RamDisk::new(4 * 64), Settings { queues: 4, ..settings() }, 0));
    device.negotiate(u64::MAX);
    std::thread::scope(|scope| {
        for index in 0..4 {
            let device = Arc::clone(&device);
            scope.spawn(move || {
                let mut bench = Bench::of(device);
                for round in 0..50 {
                    let data = [(index * 50 + round) as u8; 512];
                    assert_eq!(bench.status(OUT, index * 64 + round, &data, 0), OK);
                }
            });
        }
    });
    for (index, round) in (0..4).flat_map(|index| (0..50).map(move |round| (index, round))) {
        let mut sector = [0; 512];
        device.disk().read(Sector(index * 64 + round), &mut sector).expect("it is read");
        assert_eq!(sector, [(index * 50 + round) as u8; 512]);
    }
}

/// A request as a driver may make it, beside what a plain array of sectors would do.
#[derive(Clone, Debug)]
enum Wish {
    Read(u64, usize),
    Write(u64, usize, u8),
    Zero(u64, u32, bool),
    Flush,
}

proptest! {
    #![proptest_config(cases(24))]

    #[test]
    fn a_device_with_snapshots_below_is_an_array_of_sectors(
        wishes in proptest::collection::vec(
            prop_oneof![
                (0..1024u64, 1..40usize).prop_map(|(first, count)| Wish::Read(first, count)),
                (0..1024u64, 1..300usize, 1..=255u8).prop_map(|(first, count, byte)| Wish::Write(first, count, byte)),
                (0..1024u64, 1..300u32, any::<bool>()).prop_map(|(first, count, unmap)| Wish::Zero(first, count, unmap)),
                Just(Wish::Flush),
            ],
            1..40,
        ),
    ) {
        let format = Format { capacity_sectors: 1024, chunk_bytes: Format::CHUNK_BYTES };
        let disk = SnapshotDisk::format(RamDisk::new(4096), format).expect("it is formatted");
        let mut bench = Bench::new(&disk);
        let mut model = vec![0; 1024 * 512];
        for wish in wishes {
            let span = |first: u64, count: usize| first as usize * 512..(first as usize + count).min(1024) * 512;
            match wish {
                Wish::Read(first, count) => {
                    let span = span(first, count);
                    let (status, read, _) = bench.request(IN, first, &[], span.len());
                    prop_assert_eq!(status, OK);
                    prop_assert!(read == model[span]);
                }
                Wish::Write(first, count, byte) => {
                    let span = span(first, count);
                    model[span.clone()].fill(byte);
                    prop_assert_eq!(bench.status(OUT, first, &model[span], 0), OK);
                }
                Wish::Zero(first, count, may_unmap) => {
                    let span = span(first, count as usize);
                    let sent = range(first, (span.len() / 512) as u32, may_unmap.into());
                    model[span].fill(0);
                    prop_assert_eq!(bench.status(WRITE_ZEROES, 0, &sent, 0), OK);
                }
                Wish::Flush => prop_assert_eq!(bench.status(FLUSH, 0, &[], 0), OK),
            }
        }
        let mut content = vec![0; model.len()];
        disk.read(Sector(0), &mut content).expect("it is read");
        prop_assert!(content == model);
    }
}
