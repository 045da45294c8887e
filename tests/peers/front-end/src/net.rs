//! Two guests that send each other frames through a switch, as fast as it takes them.

use std::{
    path::{Path, PathBuf},
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use dragonfly_vhost_user::FrontEnd;

use crate::{
    connection::{self, Kick, RING_PACKED, VERSION_1},
    memory::Memory,
    percentiles::Percentiles,
    ring::{self, Buffers, Place, Ring},
    socket::Socket,
};

/// Bytes before each frame (virtio 1.2, 5.1.6).
const HEADER: usize = 12;
/// Bytes of a frame's checksum.
const CHECKSUM: usize = 4;
/// Bytes of an Ethernet header.
const ETHERNET: usize = 14;
const STRIDE: u32 = 2048;
/// Frames moved in one go.
const BURST: u16 = 32;
/// How long it may take until the first frames come through.
const PATIENCE: Duration = Duration::from_secs(20);
/// After so long without another one a frame is lost.
const FRAME_PATIENCE: Duration = Duration::from_millis(100);
/// Virtqueues: receive, transmit.
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// Where the rings and the buffers of both queues are.
const RINGS: [u64; 2] = [0x1000, 0x1000 + ring::RING_BYTES];
const BUFFERS: [u64; 2] = [0x10_0000, 0x10_0000 + STRIDE as u64 * ring::SIZE as u64];
const MEMORY_BYTES: usize = BUFFERS[1] as usize + STRIDE as usize * ring::SIZE as usize;

/// What is sent.
#[derive(Clone, Debug)]
pub struct Traffic {
    /// Where the switch listens, for each guest.
    pub sockets: [PathBuf; 2],
    /// Bytes of a frame, 64 to 1518, with the checksum of four bytes, which rings do not carry.
    pub frame: usize,
    /// Number of flows in each direction; each is used in both.
    pub flows: u32,
    /// Packed rings.
    pub is_packed: bool,
    /// Before it is counted.
    pub warm_up: Duration,
    /// While it is counted.
    pub time: Duration,
}

/// What came of it, in both directions together.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// Frames that the switch took.
    pub sent: u64,
    /// Frames that came out.
    pub received: u64,
    /// Seconds.
    pub seconds: f64,
}

/// Sends and counts.
///
/// # Errors
/// A back end refuses, or gives a frame that was not sent.
pub fn run(traffic: &Traffic) -> Result<Outcome> {
    ensure!((64..=1518).contains(&traffic.frame), "frames have 64 to 1518 bytes");
    let [first, second] = &traffic.sockets;
    let mut guests = [Guest::new(0, traffic, first)?, Guest::new(1, traffic, second)?];
    guests.iter_mut().for_each(Guest::send_all);
    // A switch may take some time until it serves new ports.
    turn_until(&mut guests, |guests, elapsed| elapsed > PATIENCE || guests.iter().all(|guest| guest.received > 0))?;
    ensure!(guests.iter().all(|guest| guest.received > 0), "nothing comes through the switch");
    turn_until(&mut guests, |_, elapsed| elapsed >= traffic.warm_up)?;
    guests.iter_mut().for_each(|guest| (guest.sent, guest.received) = (0, 0));
    let seconds = turn_until(&mut guests, |_, elapsed| elapsed >= traffic.time)?.as_secs_f64();
    let sum = |count: fn(&Guest) -> u64| guests.iter().map(count).sum();
    Ok(Outcome { sent: sum(|guest| guest.sent), received: sum(|guest| guest.received), seconds })
}

/// Sends one frame at a time, from guest to guest and back: how long each takes from the offer until the other guest has it.
///
/// # Errors
/// As [`run`].
pub fn one_at_a_time(traffic: &Traffic) -> Result<Percentiles> {
    let [first, second] = &traffic.sockets;
    let mut guests = [Guest::new(0, traffic, first)?, Guest::new(1, traffic, second)?];
    let mut times_ns = Vec::new();
    let begin = Instant::now();
    let mut counted = begin;
    while counted.elapsed() < traffic.time {
        let sent = Instant::now();
        let [sender, receiver] = &mut guests;
        sender.send(0);
        sender.publish();
        let before = receiver.received;
        // A switch may lose frames while it learns where guests are.
        while receiver.received == before && sent.elapsed() < FRAME_PATIENCE {
            receiver.take_received()?;
        }
        let time_ns = u64::try_from(sent.elapsed().as_nanos())?;
        let is_lost = receiver.received == before;
        // Its buffer is used for the next frame.
        while sender.transmit.take(&sender.memory).is_none() {
            ensure!(begin.elapsed() < PATIENCE, "a buffer does not come back");
        }
        if begin.elapsed() < traffic.warm_up {
            counted = Instant::now();
        } else if !is_lost {
            times_ns.push(time_ns);
        }
        guests.swap(0, 1);
    }
    Percentiles::of(times_ns).context("no frame came in time")
}

/// Lets the guests have their turns until it is time; gives the time that it took.
fn turn_until(guests: &mut [Guest; 2], mut is_over: impl FnMut(&[Guest; 2], Duration) -> bool) -> Result<Duration> {
    /// The clock costs as much as some frames.
    const TURNS: usize = 64;
    let begin = Instant::now();
    loop {
        for _ in 0..TURNS {
            guests.iter_mut().try_for_each(Guest::turn)?;
        }
        let elapsed = begin.elapsed();
        if is_over(guests, elapsed) {
            return Ok(elapsed);
        }
    }
}

/// A guest's side.
struct Guest {
    number: u8,
    memory: Memory,
    receive: Ring,
    transmit: Ring,
    kicks: Vec<Kick>,
    _back_end: FrontEnd<Socket>,
    frame: usize,
    flows: u32,
    next_flow: u32,
    sent: u64,
    received: u64,
}

impl Guest {
    fn new(number: u8, traffic: &Traffic, socket: &Path) -> Result<Self> {
        let memory = Memory::new(MEMORY_BYTES)?;
        let frame_len = traffic.frame - CHECKSUM;
        let len = (HEADER + frame_len) as u32;
        let places = [Place::at(RINGS[0]), Place::at(RINGS[1])];
        let receive = Buffers { first: BUFFERS[0], stride: STRIDE, len: STRIDE, is_writable: true };
        let transmit = Buffers { first: BUFFERS[1], stride: STRIDE, len, is_writable: false };
        let mut receive = Ring::new(&memory, RINGS[0], receive, traffic.is_packed);
        let transmit = Ring::new(&memory, RINGS[1], transmit, traffic.is_packed);
        for buffer in 0..ring::SIZE {
            receive.offer(&memory, buffer);
            let at = BUFFERS[1] + u64::from(STRIDE) * u64::from(buffer) + HEADER as u64;
            memory.write(at, &frame(number, frame_len));
        }
        receive.publish(&memory);
        let features = VERSION_1 | if traffic.is_packed { RING_PACKED } else { 0 };
        let queues = [(RECEIVE, places[0]), (TRANSMIT, places[1])];
        let (back_end, kicks) = connection::open(socket, &memory, features, &queues, receive.base())?;
        Ok(Self {
            number,
            memory,
            receive,
            transmit,
            kicks,
            _back_end: back_end,
            frame: frame_len,
            flows: traffic.flows.max(1),
            next_flow: 0,
            sent: 0,
            received: 0,
        })
    }

    /// Sends all buffers.
    fn send_all(&mut self) {
        for buffer in 0..ring::SIZE {
            self.send(buffer);
        }
        self.publish();
    }

    /// Takes back what was sent and received, and sends again.
    fn turn(&mut self) -> Result<()> {
        let mut work = 0;
        while work < BURST
            && let Some((buffer, _)) = self.transmit.take(&self.memory)
        {
            ensure!(buffer < ring::SIZE, "buffer {buffer} was given back");
            self.sent += 1;
            self.send(buffer);
            work += 1;
        }
        if work > 0 && self.transmit.publish(&self.memory) {
            self.kicks[usize::from(TRANSMIT)].give();
        }
        self.take_received()
    }

    /// Takes what was received, and gives its buffers back.
    fn take_received(&mut self) -> Result<()> {
        let mut work = 0;
        while work < BURST
            && let Some((buffer, written)) = self.receive.take(&self.memory)
        {
            let expected = HEADER + self.frame;
            ensure!(
                buffer < ring::SIZE && written as usize == expected,
                "a frame of {written} bytes in place of {expected}"
            );
            // The end of the receiver's address: nothing else was sent.
            let at = BUFFERS[0] + u64::from(STRIDE) * u64::from(buffer) + HEADER as u64;
            let is_own = self.memory.u16(at + 4).load(Relaxed) == u16::from_le_bytes([0, self.number]);
            ensure!(is_own, "guest {} got a frame for another: {:02x?}", self.number, self.begin_of(at));
            self.received += 1;
            self.receive.offer(&self.memory, buffer);
            work += 1;
        }
        if work > 0 && self.receive.publish(&self.memory) {
            self.kicks[usize::from(RECEIVE)].give();
        }
        Ok(())
    }

    /// Sends a buffer as a frame of the next flow.
    fn send(&mut self, buffer: u16) {
        let at = BUFFERS[1] + u64::from(STRIDE) * u64::from(buffer) + HEADER as u64;
        if self.flows > 1 {
            let flow = self.next_flow;
            self.next_flow = if flow + 1 == self.flows { 0 } else { flow + 1 };
            // The third byte of both addresses, and the port of the guest 0.
            let net = u16::from_le_bytes([(flow >> 14) as u8, 1 + self.number]);
            let peer = u16::from_le_bytes([(flow >> 14) as u8, 2 - self.number]);
            self.memory.u16(at + 28).store(net, Relaxed);
            self.memory.u16(at + 32).store(peer, Relaxed);
            self.memory.u16(at + 24).store(ip_checksum(self.frame - ETHERNET, (flow >> 14) as u8).to_be(), Relaxed);
            let port = 1024 + (flow & 0x3fff) as u16;
            self.memory.u16(at + 34 + 2 * u64::from(self.number)).store(port.to_be(), Relaxed);
        }
        self.transmit.offer(&self.memory, buffer);
    }

    /// What a frame begins with, for people.
    fn begin_of(&self, frame: u64) -> [u8; 42] {
        let mut bytes = [0; 42];
        self.memory.read(frame, &mut bytes);
        bytes
    }

    fn publish(&mut self) {
        if self.transmit.publish(&self.memory) {
            self.kicks[usize::from(TRANSMIT)].give();
        }
    }
}

/// A UDP frame of the first flow; those of the two guests are each other's answers.
fn frame(sender: u8, len: usize) -> Vec<u8> {
    let mut frame = vec![0; len];
    let payload = len - ETHERNET;
    frame[..12].copy_from_slice(&[2, 0, 0, 0, 0, 1 - sender, 2, 0, 0, 0, 0, sender]);
    frame[12..14].copy_from_slice(&[8, 0]);
    frame[14..26].copy_from_slice(&[0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 17, 0, 0]);
    frame[16..18].copy_from_slice(&(payload as u16).to_be_bytes());
    frame[24..26].copy_from_slice(&ip_checksum(payload, 0).to_be_bytes());
    frame[26..30].copy_from_slice(&[10, 0, 0, 1 + sender]);
    frame[30..34].copy_from_slice(&[10, 0, 0, 2 - sender]);
    let ports: [u16; 2] = if sender == 0 { [1024, 5001] } else { [5001, 1024] };
    frame[34..36].copy_from_slice(&ports[0].to_be_bytes());
    frame[36..38].copy_from_slice(&ports[1].to_be_bytes());
    frame[38..40].copy_from_slice(&((payload - 20) as u16).to_be_bytes());
    frame
}

/// The checksum of a frame's IPv4 header (RFC 791); it is the same in both directions.
fn ip_checksum(payload: usize, net: u8) -> u16 {
    let words = [0x4500, payload as u32, 0, 0x4000, 0x4011, 0x0a00, 0x0a00, 1 + 2 + 2 * 256 * u32::from(net)];
    let sum: u32 = words.iter().sum();
    !((sum & 0xffff) + (sum >> 16)) as u16
}
