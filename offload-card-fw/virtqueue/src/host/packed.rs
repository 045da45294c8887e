//! A driver of packed rings.

use super::{Buffer, Driver, descriptor_bytes, write};
use crate::memory::{GuestAddress, GuestMemory};
use crate::sync::{Ordering, fence};
use crate::{QueueConfig, RingFeatures};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;
const AVAIL: u16 = 1 << 7;
const USED: u16 = 1 << 15;

/// A driver of a packed ring (virtio 1.2, 2.8.21 and 2.8.22).
#[derive(Debug)]
pub struct PackedDriver {
    size: u16,
    ring: u64,
    driver_event: u64,
    device_event: u64,
    has_event_index: bool,
    next_available: u16,
    available_wrap: bool,
    next_used: u16,
    used_wrap: bool,
    /// Descriptors that the driver may write.
    free: u16,
    free_ids: Vec<u16>,
    /// Descriptors of the chain with each id that the device has; 0 if it has none.
    chains: Vec<u16>,
    /// Position and flags of the first descriptor that the device may not see yet.
    unpublished: Option<(u16, u16)>,
    /// Descriptors added since the last [`Driver::publish`].
    added: u16,
}

impl PackedDriver {
    /// A driver for a queue, whose ring it clears.
    #[must_use]
    pub fn new<M: GuestMemory>(config: &QueueConfig, memory: &M) -> Self {
        let size = config.size;
        let addresses = config.addresses;
        for index in 0..size {
            write(memory, addresses.descriptors.0 + 16 * u64::from(index), &[0; 16]);
        }
        write(memory, addresses.driver.0, &[0; 4]);
        write(memory, addresses.device.0, &[0; 4]);
        Self {
            size,
            ring: addresses.descriptors.0,
            driver_event: addresses.driver.0,
            device_event: addresses.device.0,
            has_event_index: config.features.contains(RingFeatures::EVENT_IDX),
            next_available: 0,
            available_wrap: true,
            next_used: 0,
            used_wrap: true,
            free: size,
            free_ids: (0..size).rev().collect(),
            chains: vec![0; usize::from(size)],
            unpublished: None,
            added: 0,
        }
    }

    fn flags_at(&self, index: u16) -> GuestAddress {
        GuestAddress(self.ring + 16 * u64::from(index) + 14)
    }

    fn is_used<M: GuestMemory>(&self, memory: &M, order: Ordering) -> bool {
        let flags = memory.load_u16(self.flags_at(self.next_used), order).expect("the ring in memory");
        (flags & AVAIL != 0) == self.used_wrap && (flags & USED != 0) == self.used_wrap
    }

    fn load<M: GuestMemory>(&self, memory: &M, address: u64, order: Ordering) -> u16 {
        memory.load_u16(GuestAddress(address), order).expect("the ring in memory")
    }

    fn store<M: GuestMemory>(&self, memory: &M, address: u64, value: u16, order: Ordering) {
        memory.store_u16(GuestAddress(address), value, order).expect("the ring in memory");
    }
}

impl<M: GuestMemory> Driver<M> for PackedDriver {
    fn add(&mut self, memory: &M, buffers: &[Buffer], _: usize, table: Option<u64>) -> Option<u16> {
        let write_flag = |buffer: &Buffer| if buffer.is_writable { WRITE } else { 0 };
        let entries: Vec<_> = if let Some(table) = table {
            for (index, buffer) in buffers.iter().enumerate() {
                write(memory, table + 16 * index as u64, &descriptor_bytes(*buffer, 0, write_flag(buffer)));
            }
            vec![(Buffer::readable(table, 16 * buffers.len() as u32), INDIRECT)]
        } else {
            let last = buffers.len().saturating_sub(1);
            let flags = |(at, buffer)| write_flag(buffer) | if at < last { NEXT } else { 0 };
            buffers.iter().enumerate().map(|entry| (*entry.1, flags(entry))).collect()
        };
        let count = u16::try_from(entries.len()).ok().filter(|count| (1..=self.free).contains(count))?;
        let id = self.free_ids.pop()?;
        for (buffer, flags) in entries {
            let flags = flags | if self.available_wrap { AVAIL } else { USED };
            // All but the flags, then those; of the first one that the device may not see, later.
            let bytes = descriptor_bytes(buffer, id, 0);
            write(memory, self.ring + 16 * u64::from(self.next_available), &bytes[..14]);
            if self.unpublished.is_none() {
                self.unpublished = Some((self.next_available, flags));
            } else {
                let at = self.flags_at(self.next_available);
                memory.store_u16(at, flags, Ordering::Relaxed).expect("the ring in memory");
            }
            self.next_available += 1;
            if self.next_available == self.size {
                self.next_available = 0;
                self.available_wrap = !self.available_wrap;
            }
        }
        self.chains[usize::from(id)] = count;
        self.free -= count;
        self.added += count;
        Some(id)
    }

    fn publish(&mut self, memory: &M) -> bool {
        let Some((first, flags)) = self.unpublished.take() else { return false };
        let added = core::mem::take(&mut self.added);
        memory.store_u16(self.flags_at(first), flags, Ordering::Release).expect("the ring in memory");
        // 2.8.21.3.1: a barrier before looking at what the device wants.
        fence(Ordering::SeqCst);
        match self.load(memory, self.device_event + 2, Ordering::Acquire) & 3 {
            1 => false,
            2 if self.has_event_index => {
                let event = self.load(memory, self.device_event, Ordering::Relaxed);
                // Whether one of the descriptors just written is the one asked for, in the lap asked for.
                let mut wrap = (flags & AVAIL) != 0;
                (0..added).any(|count| {
                    let index = (first + count) % self.size;
                    if index == 0 && count > 0 {
                        wrap = !wrap;
                    }
                    event == (index | u16::from(wrap) << 15)
                })
            }
            _ => true,
        }
    }

    fn take_used(&mut self, memory: &M) -> Option<(u16, u32)> {
        if !self.is_used(memory, Ordering::Acquire) {
            return None;
        }
        let mut bytes = [0; 8];
        let descriptor = self.ring + 16 * u64::from(self.next_used);
        memory.read(GuestAddress(descriptor + 8), &mut bytes).expect("the ring in memory");
        let len = u32::from_le_bytes(bytes[..4].try_into().expect("4 bytes"));
        let id = u16::from_le_bytes(bytes[4..6].try_into().expect("2 bytes"));
        let flags = u16::from_le_bytes(bytes[6..].try_into().expect("2 bytes"));
        let count = core::mem::take(&mut self.chains[usize::from(id)]);
        assert!(count > 0, "buffer {id} was given back but never, or not again, made available");
        self.free_ids.push(id);
        self.free += count;
        self.next_used += count;
        if self.next_used >= self.size {
            self.next_used -= self.size;
            self.used_wrap = !self.used_wrap;
        }
        // 2.8.4: the length counts only if something was written.
        Some((id, if flags & WRITE != 0 { len } else { 0 }))
    }

    fn enable_notifications(&mut self, memory: &M) -> bool {
        if self.has_event_index {
            let position = self.next_used | u16::from(self.used_wrap) << 15;
            self.store(memory, self.driver_event, position, Ordering::Relaxed);
            self.store(memory, self.driver_event + 2, 2, Ordering::Release);
        } else {
            self.store(memory, self.driver_event + 2, 0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        self.is_used(memory, Ordering::Relaxed)
    }

    fn disable_notifications(&mut self, memory: &M) {
        self.store(memory, self.driver_event + 2, 1, Ordering::Relaxed);
    }
}
