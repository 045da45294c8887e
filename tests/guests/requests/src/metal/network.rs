//! Packets from one network device to the other (virtio 1.2, 5.1).

use dragonfly_guest_kit::cpu::{peek, poke};

use super::function::Function;
use super::queue::Queue;
use super::wait;

const NETWORK_DEVICE: u16 = 0x1041;
/// The device has an address.
const MAC: u64 = 1 << 5;
/// Vectors of their interrupts: whoever sends does not ask for any.
const SENDER: u8 = 0x51;
const RECEIVER: u8 = 0x52;
/// Their memory: queues, then buffers of each.
const QUEUES: u64 = 20 << 20;
const QUEUE_SPACING: u64 = 0x1_0000;
const BUFFERS: u64 = 24 << 20;
const BUFFER: u64 = 2048;
/// Bytes of the header before each frame, and of a frame: the least that Ethernet has, without its checksum.
const HEADER: u64 = 12;
const FRAME: usize = 60;
/// The protocol of what is in it.
const UDP: u8 = 17;

/// A device with a queue for each direction.
struct Card {
    receive: Queue,
    transmit: Queue,
    address: [u8; 6],
    /// Where the buffers for receiving and for sending are.
    incoming: u64,
    outgoing: u64,
}

impl Card {
    fn find(number: usize, vector: u8) -> Self {
        let function = Function::find(NETWORK_DEVICE, number, MAC, vector);
        let index = number as u64;
        let [receive, transmit] =
            [0, 1].map(|queue| function.queue(queue, QUEUES + (2 * index + u64::from(queue)) * QUEUE_SPACING));
        let incoming = BUFFERS + (index << 20);
        let outgoing = incoming + (2 << 20);
        for number in 0..receive.size() {
            receive.describe(number, incoming + BUFFER * u64::from(number), BUFFER as u32, true, false);
        }
        for number in 0..transmit.size() {
            transmit.describe(
                number,
                outgoing + BUFFER * u64::from(number),
                HEADER as u32 + FRAME as u32,
                false,
                false,
            );
        }
        let address = core::array::from_fn(|byte| peek(function.config + byte as u64));
        let mut card = Self { receive, transmit, address, incoming, outgoing };
        card.receive.ask_for_interrupt(false);
        card.transmit.ask_for_interrupt(false);
        function.start();
        for number in 0..card.receive.size() {
            card.receive.offer(number);
        }
        card.receive.publish();
        card
    }

    /// Takes what has come and gives its buffer back. Whether that was one of the guest's own frames; none if there is nothing.
    #[inline(always)]
    fn take(&mut self) -> Option<bool> {
        let number = self.receive.take()?;
        // Type and protocol of the frame.
        let frame = self.incoming + BUFFER * u64::from(number) + HEADER;
        let is_own = peek::<u16>(frame + 12) == u16::from_le_bytes([0x08, 0x00]) && peek::<u8>(frame + 23) == UDP;
        self.receive.offer(number);
        Some(is_own)
    }

    /// Fills the buffers with frames to another one.
    fn address_frames(&self, to: &Self) {
        let mut frame = [0; FRAME];
        frame[..6].copy_from_slice(&to.address);
        frame[6..12].copy_from_slice(&self.address);
        frame[12..14].copy_from_slice(&[0x08, 0x00]);
        frame[14..34].copy_from_slice(&internet_header());
        // UDP from port 1000 to port 2000, without a checksum.
        frame[34..42].copy_from_slice(&[0x03, 0xe8, 0x07, 0xd0, 0, 26, 0, 0]);
        for number in 0..u64::from(self.transmit.size()) {
            for (offset, byte) in (0..).zip(frame) {
                poke(self.outgoing + BUFFER * number + HEADER + offset, byte);
            }
        }
    }

    /// Sends so many frames. Gives the number of kicks.
    fn send(&mut self, frames: u16) -> u64 {
        for number in 0..frames {
            self.transmit.offer(number);
        }
        self.transmit.ask_for_interrupt(false);
        self.transmit.publish()
    }
}

/// The header of an IPv4 packet with UDP, 46 bytes together.
fn internet_header() -> [u8; 20] {
    let mut header = [0x45, 0, 0, 46, 0, 0, 0, 0, 64, UDP, 0, 0, 10, 0, 2, 15, 10, 0, 2, 16];
    let words = header.as_chunks::<2>().0.iter();
    let sum: u32 = words.map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let checksum = !((sum & 0xffff) + (sum >> 16)) as u16;
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
    header
}

/// The first two network devices.
pub struct Network {
    sender: Card,
    receiver: Card,
}

impl Network {
    /// Finds them and starts them.
    pub fn find() -> Self {
        let [sender, receiver] = [(0, SENDER), (1, RECEIVER)].map(|(number, vector)| Card::find(number, vector));
        sender.address_frames(&receiver);
        receiver.address_frames(&sender);
        let mut network = Self { sender, receiver };
        // Whatever is between them learns where the receiver is.
        network.receiver.send(1);
        wait(None, || network.receiver.transmit.take().is_some());
        wait(None, || network.sender.take() == Some(true));
        network.sender.receive.publish();
        network
    }

    /// Sends so many packets at a time and waits until all have come. Gives the number of kicks.
    #[inline(never)]
    pub fn turn(&mut self, packets: u16, by_interrupts: bool) -> u64 {
        let Self { sender, receiver } = self;
        receiver.receive.ask_for_interrupt(by_interrupts);
        let mut kicks = sender.send(packets);
        let mut missing = packets;
        wait(by_interrupts.then_some(RECEIVER), || {
            loop {
                while let Some(is_own) = receiver.take() {
                    missing -= u16::from(is_own);
                }
                if missing == 0 || !by_interrupts || !receiver.receive.ask_for_interrupt(true) {
                    return missing == 0;
                }
            }
        });
        kicks += receiver.receive.publish();
        let mut sent = packets;
        wait(None, || {
            while sender.transmit.take().is_some() {
                sent -= 1;
            }
            sent == 0
        });
        kicks
    }
}
