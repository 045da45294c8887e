//! A virtio function as the machine places it (docs/machine.md), and an honest driver for it, which polls.

use dragonfly_guest_kit::cpu::{peek, poke, write_port};
use dragonfly_guest_kit::time::wait_until;
use dragonfly_guest_kit::virtio::{Common, PATIENCE_MS};

/// Flags of a descriptor: another follows, the device writes to it.
pub const NEXT: u16 = 1;
pub const WRITE: u16 = 2;

const CONFIGURATION_SPACE: u64 = 0xe000_0000;
/// The command that lets a function reach memory, which firmware leaves to the driver.
const BUS_MASTER: u32 = 4;
/// The command register and what is beside it, and the base address registers.
const PLACES: [u64; 7] = [0x04, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24];

/// One function.
#[derive(Clone, Copy)]
pub struct Function {
    number: u64,
    /// What the machine has put into the registers of [`PLACES`].
    places: [u32; PLACES.len()],
}

impl Function {
    /// The function of the bus's device `number`, before anybody has moved it.
    pub fn new(number: u64) -> Self {
        let mut places = PLACES.map(|register| peek(CONFIGURATION_SPACE + (number << 15) + register));
        places[0] |= BUS_MASTER;
        Self { number, places }
    }

    /// Address of its configuration space.
    pub fn space(&self) -> u64 {
        CONFIGURATION_SPACE + (self.number << 15)
    }

    /// Address of its window, which begins with the common configuration.
    pub fn window(&self) -> u64 {
        0xe800_0000 + self.number * 0x4000
    }

    /// Address of the device's own configuration.
    pub fn configuration(&self) -> u64 {
        self.window() + 0x2000
    }

    /// Puts it where the machine had it, and lets it reach memory.
    pub fn restore(&self) {
        for (register, value) in PLACES.into_iter().zip(self.places).rev() {
            poke(self.space() + register, value);
        }
    }

    /// Its common configuration.
    pub fn common(&self) -> Common {
        Common(self.window())
    }

    /// Rings for a queue.
    pub fn ring(&self, queue: u16, value: u32) {
        write_port(0x1000 + self.number as u16 * 0x100 + queue * 4, value);
    }
}

/// A split ring of eight descriptors at an address of its own, filled from its beginning on.
pub struct Ring {
    at: u64,
    queue: u16,
}

/// Descriptors of a [`Ring`].
const RING_SIZE: u16 = 8;

impl Ring {
    /// Makes one for a queue of a function that has accepted its features.
    pub fn new(function: &Function, queue: u16, at: u64) -> Self {
        for byte in at..at + 0x3000 {
            poke(byte, 0_u8);
        }
        function.common().select(queue);
        function.common().enable(RING_SIZE, [at, at + 0x1000, at + 0x2000]);
        Self { at, queue }
    }

    /// Makes a chain available that begins at descriptor `first`: address, length and flags of each. There is one chain for
    /// each turn.
    pub fn add(&self, function: &Function, turn: u16, first: u16, chain: &[(u64, u32, u16)]) {
        for (number, (address, length, flags)) in (first..).zip(chain) {
            let descriptor = self.at + u64::from(number) * 16;
            let next = if number - first + 1 < chain.len() as u16 { NEXT } else { 0 };
            poke(descriptor, *address);
            poke(descriptor + 8, *length);
            poke(descriptor + 12, flags | next);
            poke(descriptor + 14, number + 1);
        }
        poke(self.at + 0x1000 + 4 + u64::from(turn % RING_SIZE) * 2, first);
        poke(self.at + 0x1000 + 2, turn + 1);
        function.ring(self.queue, self.queue.into());
    }

    /// Waits until so many chains have come back.
    pub fn wait(&self, turns: u16) -> bool {
        wait_until(PATIENCE_MS, || peek::<u16>(self.at + 0x2000 + 2) == turns)
    }
}
