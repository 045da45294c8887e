//! Reads from a disk (virtio 1.2, 5.2).

use dragonfly_guest_kit::cpu::{peek, poke};

use super::function::Function;
use super::queue::Queue;
use super::wait;

const BLOCK_DEVICE: u16 = 0x1042;
/// Vector of its interrupts.
const VECTOR: u8 = 0x50;
/// Its memory: the queue, then a header and a buffer for each request.
const QUEUE: u64 = 16 << 20;
const HEADERS: u64 = QUEUE + 0x1_0000;
const BUFFERS: u64 = QUEUE + 0x10_0000;
const HEADER: u64 = 64;
/// Bytes of a request, and its sectors.
const LENGTH: u32 = 4096;
const SECTORS: u64 = LENGTH as u64 / 512;
/// Header, data and status.
const CHAIN: u16 = 3;
/// Sectors of the disk that are read, in turn.
const DISK: u64 = (8 << 20) / 512;

/// The first disk.
pub struct Disk {
    queue: Queue,
    next_sector: u64,
}

impl Disk {
    /// Finds it and starts it.
    pub fn find() -> Self {
        let function = Function::find(BLOCK_DEVICE, 0, 0, VECTOR);
        let queue = function.queue(0, QUEUE);
        for slot in 0..queue.size() / CHAIN {
            let header = HEADERS + HEADER * u64::from(slot);
            queue.describe(CHAIN * slot, header, 16, false, true);
            queue.describe(CHAIN * slot + 1, BUFFERS + u64::from(LENGTH) * u64::from(slot), LENGTH, true, true);
            queue.describe(CHAIN * slot + 2, header + 16, 1, true, false);
        }
        function.start();
        Self { queue, next_sector: 0 }
    }

    /// Makes so many requests at a time and waits until all have been done. Gives the number of kicks.
    #[inline(never)]
    pub fn turn(&mut self, requests: u16, by_interrupts: bool) -> u64 {
        for slot in 0..requests {
            let header = HEADERS + HEADER * u64::from(slot);
            // The header is as it was but for the sector: type 0 is a read.
            poke(header + 8, self.next_sector);
            poke(header + 16, u8::MAX);
            self.next_sector = (self.next_sector + SECTORS) % DISK;
            self.queue.offer(CHAIN * slot);
        }
        self.queue.ask_for_interrupt(by_interrupts);
        let kicks = self.queue.publish();
        let mut left = requests;
        wait(by_interrupts.then_some(VECTOR), || {
            loop {
                while let Some(first) = self.queue.take() {
                    let status: u8 = peek(HEADERS + HEADER * u64::from(first / CHAIN) + 16);
                    assert!(status == 0, "a read has failed: status {status}");
                    left -= 1;
                }
                if left == 0 || !by_interrupts || !self.queue.ask_for_interrupt(true) {
                    return left == 0;
                }
            }
        });
        kicks
    }
}
