//! Bytes per second of AES-256-XTS on one core of this machine: `cargo run --release -p dragonfly-storage --example throughput`.

use std::hint::black_box;
use std::time::{Duration, Instant};

use dragonfly_storage::{DataUnit, XtsAes256};

/// The best of many short runs: whatever else the machine does only ever makes a run slower.
fn best_rate(mut work: impl FnMut() -> usize) -> f64 {
    let mut best: f64 = 0.0;
    for _ in 0..300 {
        let start = Instant::now();
        let mut done = 0;
        while start.elapsed() < Duration::from_millis(2) {
            done += work();
        }
        best = best.max(done as f64 / start.elapsed().as_secs_f64());
    }
    best
}

fn main() {
    let key: [u8; 64] = std::array::from_fn(|index| index as u8);
    let cipher = XtsAes256::new(&key).expect("the halves differ");
    for (unit, request_bytes) in [
        (DataUnit::Bytes512, 4096),
        (DataUnit::Bytes4096, 4096),
        (DataUnit::Bytes512, 128 << 10),
        (DataUnit::Bytes4096, 128 << 10),
    ] {
        let mut data = vec![0x5a; request_bytes];
        let encrypt = best_rate(|| {
            cipher.encrypt(black_box(7), unit, &mut data);
            request_bytes
        });
        let decrypt = best_rate(|| {
            cipher.decrypt(black_box(7), unit, &mut data);
            request_bytes
        });
        let unit_bytes = unit.bytes();
        println!("xts unit {unit_bytes} request {request_bytes}: {encrypt:.3e} B/s encrypt, {decrypt:.3e} B/s decrypt");
    }
}
