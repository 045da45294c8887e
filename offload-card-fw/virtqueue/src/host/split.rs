//! A driver of split rings.

use super::{Buffer, Driver, descriptor_bytes, write};
use crate::memory::{GuestAddress, GuestMemory};
use crate::sync::{Ordering, fence};
use crate::{QueueConfig, RingFeatures};

const NEXT: u16 = 1;
const WRITE: u16 = 2;
const INDIRECT: u16 = 4;

/// A driver of a split ring (virtio 1.2, 2.7.13 and 2.7.14).
#[derive(Debug)]
pub struct SplitDriver {
    size: u16,
    descriptors: u64,
    available: u64,
    used: u64,
    has_event_index: bool,
    free: Vec<u16>,
    /// Descriptors of the chain at each head that the device has.
    chains: Vec<Vec<u16>>,
    /// `idx` of the available ring, with what is not published.
    added: u16,
    published: u16,
    seen_used: u16,
}

impl SplitDriver {
    /// A driver for a queue, whose ring it clears.
    #[must_use]
    pub fn new<M: GuestMemory>(config: &QueueConfig, memory: &M) -> Self {
        let size = config.size;
        let addresses = config.addresses;
        let driver = Self {
            size,
            descriptors: addresses.descriptors.0,
            available: addresses.driver.0,
            used: addresses.device.0,
            has_event_index: config.features.contains(RingFeatures::EVENT_IDX),
            free: (0..size).rev().collect(),
            chains: vec![Vec::new(); usize::from(size)],
            added: 0,
            published: 0,
            seen_used: 0,
        };
        write(memory, driver.available, &[0; 4]);
        write(memory, driver.used, &[0; 4]);
        driver
    }

    fn descriptor(&self, index: u16) -> u64 {
        self.descriptors + 16 * u64::from(index)
    }

    fn slot(&self, index: u16) -> u64 {
        u64::from(index % self.size)
    }

    fn load<M: GuestMemory>(&self, memory: &M, address: u64, order: Ordering) -> u16 {
        memory.load_u16(GuestAddress(address), order).expect("the ring in memory")
    }

    fn store<M: GuestMemory>(&self, memory: &M, address: u64, value: u16, order: Ordering) {
        memory.store_u16(GuestAddress(address), value, order).expect("the ring in memory");
    }
}

/// Flags of a descriptor, with `next` if it has one.
fn flags(buffer: Buffer, has_next: bool) -> u16 {
    (if buffer.is_writable { WRITE } else { 0 }) | (if has_next { NEXT } else { 0 })
}

impl<M: GuestMemory> Driver<M> for SplitDriver {
    fn add(&mut self, memory: &M, buffers: &[Buffer], direct: usize, table: Option<u64>) -> Option<u16> {
        let direct = if table.is_some() { direct } else { buffers.len() };
        let (direct, indirect) = buffers.split_at(direct);
        let mut entries: Vec<_> = direct.iter().map(|buffer| (*buffer, 0)).collect();
        if let Some(table) = table {
            for (index, buffer) in indirect.iter().enumerate() {
                let has_next = index + 1 < indirect.len();
                let next = if has_next { index as u16 + 1 } else { 0 };
                write(memory, table + 16 * index as u64, &descriptor_bytes(*buffer, flags(*buffer, has_next), next));
            }
            entries.push((Buffer::readable(table, 16 * indirect.len() as u32), INDIRECT));
        }
        if entries.is_empty() || entries.len() > self.free.len() {
            return None;
        }
        let indices = self.free.split_off(self.free.len() - entries.len());
        for (at, (buffer, extra)) in entries.into_iter().enumerate() {
            let next = indices.get(at + 1).copied();
            let flags = flags(buffer, next.is_some()) | extra;
            write(memory, self.descriptor(indices[at]), &descriptor_bytes(buffer, flags, next.unwrap_or(0)));
        }
        let head = indices[0];
        self.chains[usize::from(head)] = indices;
        // 2.7.13.2: the entry comes before `idx`.
        self.store(memory, self.available + 4 + 2 * self.slot(self.added), head, Ordering::Relaxed);
        self.added = self.added.wrapping_add(1);
        Some(head)
    }

    fn publish(&mut self, memory: &M) -> bool {
        let (old, new) = (self.published, self.added);
        self.store(memory, self.available + 2, new, Ordering::Release);
        self.published = new;
        // 2.7.13.4.1: a barrier before looking at what the device wants.
        fence(Ordering::SeqCst);
        if !self.has_event_index {
            return new != old && self.load(memory, self.used, Ordering::Relaxed) & 1 == 0;
        }
        let event = self.load(memory, self.used + 4 + 8 * u64::from(self.size), Ordering::Relaxed);
        // 2.7.10.1: if an entry was written whose index is the event.
        (0..new.wrapping_sub(old)).any(|entry| old.wrapping_add(entry) == event)
    }

    fn take_used(&mut self, memory: &M) -> Option<(u16, u32)> {
        if self.load(memory, self.used + 2, Ordering::Acquire) == self.seen_used {
            return None;
        }
        let mut element = [0; 8];
        let address = self.used + 4 + 8 * self.slot(self.seen_used);
        memory.read(GuestAddress(address), &mut element).expect("the ring in memory");
        let [id, len] = [0, 4].map(|at| u32::from_le_bytes(element[at..at + 4].try_into().expect("4 bytes")));
        self.seen_used = self.seen_used.wrapping_add(1);
        let chain = core::mem::take(&mut self.chains[id as usize]);
        assert!(!chain.is_empty(), "chain {id} was given back but never, or not again, made available");
        self.free.extend(chain.iter().rev());
        Some((id as u16, len))
    }

    fn enable_notifications(&mut self, memory: &M) -> bool {
        if self.has_event_index {
            let event = self.available + 4 + 2 * u64::from(self.size);
            self.store(memory, event, self.seen_used, Ordering::Relaxed);
        } else {
            self.store(memory, self.available, 0, Ordering::Relaxed);
        }
        fence(Ordering::SeqCst);
        self.load(memory, self.used + 2, Ordering::Relaxed) != self.seen_used
    }

    fn disable_notifications(&mut self, memory: &M) {
        if !self.has_event_index {
            self.store(memory, self.available, 1, Ordering::Relaxed);
        }
    }
}
