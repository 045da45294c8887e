//! A guest that reads from a disk at random, as fast as it answers.

use std::{
    path::Path,
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::{
    connection::{self, VERSION_1},
    memory::Memory,
    percentiles::Percentiles,
    ring::{self, Buffers, Place, Ring},
};

/// Requests that there can be at a time.
pub const MAX_DEPTH: u16 = ring::SIZE / 2;
/// Bytes of a request's header (virtio 1.2, 5.2.6), of what is read, and of a sector.
const HEADER: u32 = 16;
const BLOCK: u32 = 4096;
const SECTOR: u64 = 512;
/// `status` of a request that was done.
const OK: u16 = 0;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

const RING: u64 = 0x1000;
const HEADERS: u64 = 0x1_0000;
const ANSWERS: u64 = 0x10_0000;
/// An answer, its status and what brings the next one to a page.
const STRIDE: u32 = 2 * BLOCK;
const MEMORY_BYTES: usize = ANSWERS as usize + MAX_DEPTH as usize * STRIDE as usize;

/// What is read.
#[derive(Clone, Copy, Debug)]
pub struct Reads {
    /// Requests at a time, at most [`MAX_DEPTH`].
    pub depth: u16,
    /// Blocks of 4 KiB from which those are chosen that are read.
    pub blocks: u64,
    /// Before it is counted.
    pub warm_up: Duration,
    /// While it is counted.
    pub time: Duration,
}

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Reads per second.
    pub iops: f64,
    /// How long each took, from its offer until it was seen that it is done.
    pub latency: Percentiles,
}

/// Reads.
///
/// # Errors
/// The back end refuses, fails a request, or does not answer.
pub fn run(socket: &Path, reads: &Reads) -> Result<Outcome> {
    ensure!((1..=MAX_DEPTH).contains(&reads.depth) && reads.blocks > 0, "1 to {MAX_DEPTH} requests, of some blocks");
    let memory = Memory::new(MEMORY_BYTES)?;
    let headers = Buffers { first: HEADERS, stride: HEADER, len: HEADER, is_writable: false };
    let answers = Buffers { first: ANSWERS, stride: STRIDE, len: BLOCK + 1, is_writable: true };
    let mut ring = Ring::of_requests(&memory, RING, headers, answers);
    let (_back_end, kicks) = connection::open(socket, &memory, VERSION_1, &[(0, Place::at(RING))], ring.base())?;
    let mut chance = 1_u64;
    let mut offer = |ring: &mut Ring, number: u16| {
        // Marsaglia's xorshift: any order that nobody foresees does.
        chance ^= chance << 13;
        chance ^= chance >> 7;
        chance ^= chance << 17;
        let sector = chance % reads.blocks * (u64::from(BLOCK) / SECTOR);
        memory.u64(HEADERS + u64::from(HEADER) * u64::from(number) + 8).store(sector, Relaxed);
        // A status that the device does not write.
        memory.u16(status_at(number)).store(u16::MAX, Relaxed);
        ring.offer(&memory, number);
    };
    let begin = Instant::now();
    let mut offered = vec![begin; reads.depth.into()];
    (0..reads.depth).for_each(|number| offer(&mut ring, number));
    let kick = |ring: &mut Ring| {
        if ring.publish(&memory) {
            kicks.iter().for_each(connection::Kick::give);
        }
    };
    kick(&mut ring);
    let (mut counted, mut last) = (None, begin);
    let mut times_ns = Vec::new();
    loop {
        let now = Instant::now();
        let mut work = 0;
        while let Some((number, _)) = ring.take(&memory) {
            let place = offered.get_mut(usize::from(number)).context("what was not asked for was answered")?;
            ensure!(memory.u16(status_at(number)).load(Relaxed) & 0xff == OK, "a read fails");
            if counted.is_some() {
                times_ns.push(u64::try_from(now.duration_since(*place).as_nanos())?);
            }
            *place = now;
            offer(&mut ring, number);
            work += 1;
        }
        if work > 0 {
            kick(&mut ring);
            last = now;
        }
        ensure!(last.elapsed() < PATIENCE, "the disk does not answer");
        match counted {
            None if begin.elapsed() >= reads.warm_up => counted = Some(now),
            Some(since) if now.duration_since(since) >= reads.time => {
                let iops = times_ns.len() as f64 / now.duration_since(since).as_secs_f64();
                return Ok(Outcome { iops, latency: Percentiles::of(times_ns).context("no read was done in time")? });
            }
            _ => {}
        }
    }
}

/// Where a request's status is, which is one byte.
fn status_at(number: u16) -> u64 {
    ANSWERS + u64::from(STRIDE) * u64::from(number) + u64::from(BLOCK)
}
