//! What a driver that knows nothing of what went before does with the devices: a sector is written and read, and the card's
//! own station answers.

use dragonfly_guest_kit::cpu::{peek, poke};
use dragonfly_guest_kit::playground::FREE_RAM;
use dragonfly_guest_kit::time::wait_until;
use dragonfly_guest_kit::virtio::{PATIENCE_MS, VERSION_1};

use super::virtio::{Function, Ring, WRITE};

/// Kinds of a disk's requests (virtio 1.2, 5.2.6).
const IN: u32 = 0;
const OUT: u32 = 1;
const SECTOR: u64 = 512;
/// The header before each frame (virtio 1.2, 5.1.6).
const NET_HEADER: u64 = 12;
const ASKED: [u8; 4] = [10, 0, 2, 4];

/// Resets and starts a function with these rings; none if it does not come up.
fn start<const N: usize>(function: &Function) -> Option<[Ring; N]> {
    function.restore();
    let common = function.common();
    if !common.reset() || !common.accept(VERSION_1) {
        return None;
    }
    let rings = core::array::from_fn(|queue| Ring::new(function, queue as u16, FREE_RAM + queue as u64 * 0x4000));
    common.start();
    Some(rings)
}

/// Writes a sector and reads it.
pub fn disk(function: &Function) -> bool {
    let Some([ring]) = start(function) else { return false };
    let (header, data, status) = (FREE_RAM + 0x8000, FREE_RAM + 0x9000, FREE_RAM + 0xa000);
    for (turn, kind) in [(0, OUT), (1, IN)] {
        poke(header, kind);
        poke(header + 4, 0_u32);
        poke(header + 8, 5_u64);
        for at in 0..SECTOR {
            poke(data + at, if kind == OUT { at as u8 ^ 0x5a } else { 0 });
        }
        poke(status, 0xff_u8);
        let flags = if kind == IN { WRITE } else { 0 };
        ring.add(function, turn, 0, &[(header, 16, 0), (data, SECTOR as u32, flags), (status, 1, WRITE)]);
        if !ring.wait(turn + 1) || peek::<u8>(status) != 0 {
            return false;
        }
    }
    (0..SECTOR).all(|at| peek::<u8>(data + at) == at as u8 ^ 0x5a)
}

/// Asks for the station of the card's services, and is answered.
pub fn network(function: &Function) -> bool {
    let Some([receive, send]) = start(function) else { return false };
    let (arrival, frame) = (FREE_RAM + 0x8000, FREE_RAM + 0x9000);
    for turn in 0..4 {
        receive.add(function, turn, turn, &[(arrival + u64::from(turn) * 0x1_0000, 2048, WRITE)]);
    }
    let mac: [u8; 6] = core::array::from_fn(|at| peek(function.configuration() + at as u64));
    let mut bytes = [0; 12 + 60];
    bytes[12..18].fill(0xff);
    bytes[18..24].copy_from_slice(&mac);
    // ARP (RFC 826): Ethernet, IPv4, a request of a sender without an address.
    bytes[24..34].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    bytes[34..40].copy_from_slice(&mac);
    bytes[50..54].copy_from_slice(&ASKED);
    for (at, byte) in (frame..).zip(bytes) {
        poke(at, byte);
    }
    send.add(function, 0, 0, &[(frame, bytes.len() as u32, 0)]);
    // Others may speak, too.
    let is_answer = |turn: u64| {
        let at = arrival + turn * 0x1_0000 + NET_HEADER;
        let is =
            |offset: u64, wanted: &[u8]| wanted.iter().zip(at + offset..).all(|(byte, at)| peek::<u8>(at) == *byte);
        is(12, &[8, 6]) && is(20, &[0, 2]) && is(28, &ASKED)
    };
    send.wait(1) && wait_until(PATIENCE_MS, || (0..4).any(is_answer))
}
