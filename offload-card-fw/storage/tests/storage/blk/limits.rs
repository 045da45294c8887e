//! The virtio block device held to limits.

use core::num::NonZeroU64;

use dragonfly_storage::{Limits, RamDisk, Rate};

use super::{
    Bench, DATA, FLUSH, HEADER, IN, OK, OUT, STATUS, Served, Settings, UNSUPPORTED, WRITE_ZEROES, range, read_only,
    settings, writable,
};

fn positive(value: u64) -> NonZeroU64 {
    NonZeroU64::new(value).expect("positive")
}

#[test]
fn a_request_above_the_limits_waits_until_it_is_told_and_those_behind_it_wait_too() {
    let operations = Rate { per_second: positive(1000), burst: positive(2) };
    let limits = Limits { operations: Some(operations), bytes: None };
    let mut bench = Bench::with(RamDisk::new(64), Settings { limits, ..settings() });
    bench.header(FLUSH, 0);
    for head in 0..4 {
        bench.guest.submit_at(head * 2, &[read_only(HEADER, 16), writable(STATUS, 1)]);
    }
    assert_eq!(bench.serve(), Served { completed: 2, needs_notification: true, wait_until_ns: Some(1_000_000) });
    bench.now_ns = 999_999;
    assert_eq!(bench.serve(), Served { completed: 0, needs_notification: false, wait_until_ns: Some(1_000_000) });
    bench.now_ns = 1_000_000;
    assert_eq!(bench.serve(), Served { completed: 1, needs_notification: true, wait_until_ns: Some(2_000_000) });
    // A queue that is to be stopped does not wait.
    let drained = bench.engine.drain(&mut bench.queue, &bench.guest.memory, &bench.device);
    assert_eq!(drained, Ok(Served { completed: 1, needs_notification: true, wait_until_ns: None }));
    assert_eq!(bench.queue.in_flight(), 0);
    let heads: Vec<_> = std::iter::from_fn(|| bench.guest.used()).collect();
    assert_eq!(heads, [(0, 1), (2, 1), (4, 1), (6, 1)]);
}

#[test]
fn requests_that_fail_count_against_the_limit_on_operations() {
    let operations = Rate { per_second: positive(1000), burst: positive(1) };
    let limits = Limits { operations: Some(operations), bytes: None };
    let mut bench = Bench::with(RamDisk::new(64), Settings { limits, ..settings() });
    assert_eq!(bench.status(0x1234, 0, &[], 0), UNSUPPORTED);
    bench.header(0x1234, 0);
    bench.guest.submit_at(0, &[read_only(HEADER, 16), writable(STATUS, 1)]);
    assert_eq!(bench.serve().wait_until_ns, Some(1_000_000));
    bench.now_ns = 1_000_000;
    assert_eq!((bench.serve().completed, bench.guest.get(STATUS, 1)[0]), (1, UNSUPPORTED));
}

#[test]
fn a_limit_on_bytes_holds_reads_writes_and_zeroes_back() {
    let bytes = Rate { per_second: positive(4096 * 1000), burst: positive(4096) };
    let limits = Limits { operations: None, bytes: Some(bytes) };
    let mut bench = Bench::with(RamDisk::new(64), Settings { limits, ..settings() });
    // Each is admitted a little more than a millisecond after the one before: a token must be there.
    for (kind, sent, room) in [(IN, vec![], 4096), (OUT, vec![0; 4096], 0), (WRITE_ZEROES, range(0, 8, 0), 0)] {
        assert_eq!(bench.status(kind, 0, &sent, room), OK);
        bench.header(IN, 0);
        bench.guest.submit_at(0, &[read_only(HEADER, 16), writable(DATA, 512), writable(STATUS, 1)]);
        let waiting = bench.serve();
        assert_eq!(waiting.completed, 0);
        assert!(waiting.wait_until_ns.is_some_and(|until| until > bench.now_ns));
        bench.now_ns += 2_000_000;
        assert_eq!(bench.serve().completed, 1);
        assert!(bench.guest.used().is_some());
        bench.now_ns += 2_000_000;
    }
}
