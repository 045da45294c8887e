//! A virtio device as a function of PCI Express (virtio 1.2, 4.1).

use dragonfly_guest_kit::cpu::{peek, poke, write_port};
use dragonfly_guest_kit::virtio::{Common, EVENT_INDEX, VECTOR_ABSENT, VERSION_1};

use super::queue::{Doorbell, Queue};

/// Configuration space of bus 0, on all machines that this guest knows.
const ECAM: u64 = 0xe000_0000;
/// Where windows go that nobody has given a place.
const WINDOW: u64 = 0xc000_0000;
const VENDOR: u16 = 0x1af4;

// Configuration space (PCI Local Bus 3.0, 6.1) and what this guest sets there: ports, memory, bus master.
const COMMAND: u64 = 0x04;
const COMMAND_ALL: u16 = 7;
const BARS: u64 = 0x10;
const CAPABILITIES: u64 = 0x34;
const CAPABILITY_VENDOR: u8 = 0x09;
const CAPABILITY_MSIX: u8 = 0x11;
const MSIX_ENABLE: u16 = 1 << 15;
/// Messages to the first CPU's local APIC (SDM 3A, "Message Signalled Interrupts").
const MESSAGE_ADDRESS: u64 = 0xfee0_0000;

/// A device that is being set up.
pub struct Function {
    common: Common,
    notify: (Doorbell, u64),
    /// Its own configuration structure.
    pub config: u64,
}

impl Function {
    /// The device of this number among those with this device ID, with interrupts as `vector`. It has accepted the
    /// features, and the event index, which all devices here have.
    pub fn find(device: u16, number: usize, features: u64, vector: u8) -> Self {
        let place = (0..32_u64).map(|slot| ECAM + (slot << 15));
        let mut those = place.filter(|place| peek::<u16>(*place) == VENDOR && peek::<u16>(place + 2) == device);
        let Some(place) = those.nth(number) else { panic!("there is no virtio device {device:#x} number {number}") };
        // Windows of different functions are to differ.
        place_windows(place, WINDOW + ((place - ECAM) << 5));
        poke(place + COMMAND, COMMAND_ALL);
        let (mut common, mut notify, mut config) = (Common(0), (Doorbell::Memory(0), 0), 0);
        let mut capability = u64::from(peek::<u8>(place + CAPABILITIES));
        while capability != 0 {
            let at = place + capability;
            match peek::<u8>(at) {
                CAPABILITY_VENDOR => {
                    let bar = bar(place, peek(at + 4));
                    let offset = u64::from(peek::<u32>(at + 8));
                    match peek::<u8>(at + 3) {
                        1 => common = Common(bar.memory() + offset),
                        2 => notify = (bar.doorbell(offset), peek::<u32>(at + 16).into()),
                        4 => config = bar.memory() + offset,
                        _ => {}
                    }
                }
                CAPABILITY_MSIX => {
                    let table: u32 = peek(at + 4);
                    let entry = bar(place, (table & 7) as u8).memory() + u64::from(table & !7);
                    poke(entry, MESSAGE_ADDRESS as u32);
                    poke(entry + 4, 0_u32);
                    poke(entry + 8, u32::from(vector));
                    poke(entry + 12, 0_u32);
                    poke(at + 2, peek::<u16>(at + 2) | MSIX_ENABLE);
                }
                _ => {}
            }
            capability = peek::<u8>(at + 1).into();
        }
        let wanted = features | EVENT_INDEX | VERSION_1;
        assert!(common.reset(), "the device does not come out of its reset");
        let offered = common.offered();
        assert!(offered & wanted == wanted, "features {offered:#x} lack some of {wanted:#x}");
        assert!(common.accept(wanted), "features were not accepted");
        Self { common, notify, config }
    }

    /// Sets a queue up. Its memory is at `address`, its interrupts are those of the device.
    pub fn queue(&self, number: u16, address: u64) -> Queue {
        let (most, place) = self.common.select(number);
        let size = most.min(super::queue::MOST);
        self.common.set_vectors(VECTOR_ABSENT, 0);
        let (base, multiplier) = self.notify;
        let queue = Queue::new(address, size, number, base.at(u64::from(place) * multiplier));
        self.common.enable(size, queue.parts());
        queue
    }

    /// The device may work.
    pub fn start(&self) {
        self.common.start();
    }
}

/// A window of a function.
#[derive(Clone, Copy)]
enum Window {
    Memory(u64),
    Ports(u16),
}

impl Window {
    fn memory(self) -> u64 {
        match self {
            Self::Memory(address) => address,
            Self::Ports(first) => panic!("the window at port {first:#x} is to be memory"),
        }
    }

    fn doorbell(self, offset: u64) -> Doorbell {
        match self {
            Self::Memory(address) => Doorbell::Memory(address + offset),
            Self::Ports(first) => Doorbell::Port(first + offset as u16),
        }
    }
}

/// A window where it is now (PCI Local Bus 3.0, 6.2.5.1).
fn bar(place: u64, number: u8) -> Window {
    let at = place + BARS + 4 * u64::from(number);
    let low: u32 = peek(at);
    if low & 1 != 0 {
        return Window::Ports((low & 0xfffc) as u16);
    }
    let high: u32 = if low & 4 != 0 { peek(at + 4) } else { 0 };
    Window::Memory(u64::from(high) << 32 | u64::from(low & !0xf))
}

/// Gives the windows in memory that have none a place, from `next` on.
fn place_windows(place: u64, mut next: u64) {
    let mut number = 0;
    while number < 6 {
        let at = place + BARS + 4 * number;
        let old: u32 = peek(at);
        let is_wide = old & 7 == 4;
        poke(at, u32::MAX);
        let mask: u32 = peek(at);
        poke(at, old);
        if mask != 0 && old & 1 == 0 && old & !0xf == 0 && !(is_wide && peek::<u32>(at + 4) != 0) {
            let size = u64::from(!(mask & !0xf)) + 1;
            next = next.next_multiple_of(size);
            poke(at, next as u32);
            next += size;
        }
        number += if is_wide { 2 } else { 1 };
    }
}

impl Doorbell {
    /// The one so many bytes further.
    fn at(self, offset: u64) -> Self {
        match self {
            Self::Memory(address) => Self::Memory(address + offset),
            Self::Port(port) => Self::Port(port + offset as u16),
        }
    }

    /// Rings for a queue.
    #[inline(always)]
    pub fn ring(self, queue: u16) {
        match self {
            Self::Memory(address) => poke(address, queue),
            Self::Port(port) => write_port(port, queue),
        }
    }
}
