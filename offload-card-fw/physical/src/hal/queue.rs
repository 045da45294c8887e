//! A virtqueue with buffers of its own, used with safe calls.

use alloc::vec::Vec;
use core::array;
use core::mem::ManuallyDrop;
use core::ops::Range;
use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::{Ordering, fence};

use arrayvec::ArrayVec;
use virtio_drivers::PAGE_SIZE;
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::{DeviceStatus, Transport};

use super::{CardHal, POOL};
use crate::error::{Fault, OpenError};
use crate::{Clock, RESET_TIMEOUT};

/// Most parts of a request.
const MAX_PARTS: usize = 4;

/// A virtqueue of `SIZE` descriptors and as many slots as it was made with: each holds one request, in memory that the
/// device reaches. The device has a slot from its submission to its completion.
///
/// When this is dropped its memory is not used again, because the device may still have it. Devices are opened once.
pub(crate) struct SlotQueue<const SIZE: usize> {
    queue: ManuallyDrop<VirtQueue<CardHal, SIZE>>,
    index: u16,
    slot_bytes: usize,
    slots: Vec<Slot>,
}

struct Slot {
    memory: SlotMemory,
    under_way: Option<UnderWay>,
}

/// The start of `slot_bytes` bytes of the pool, for good: nobody but the device and this module, by copying, accesses them.
#[derive(Clone, Copy)]
struct SlotMemory(NonNull<u8>);

// SAFETY: it leads to memory that stays mapped in all threads, and whose accesses are copies.
unsafe impl Send for SlotMemory {}

/// What the device has.
#[derive(Debug)]
struct UnderWay {
    token: u16,
    readable: Parts,
    writable: Parts,
}

type Parts = ArrayVec<Range<usize>, MAX_PARTS>;

/// A request that the device is done with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Completed {
    /// Where it was.
    pub(crate) slot: usize,
    /// How many bytes the device says that it wrote; no more than it had room for.
    pub(crate) written: usize,
}

/// Resets a device and waits until it has done so (virtio 1.2 4.1.4.3.2): it then accesses no memory. Whether it does in time.
pub(crate) fn quiesce<T: Transport>(transport: &mut T, clock: Clock) -> bool {
    transport.set_status(DeviceStatus::empty());
    let end = clock().saturating_add(RESET_TIMEOUT);
    while transport.get_status() != DeviceStatus::empty() {
        if clock() > end {
            return false;
        }
        core::hint::spin_loop();
    }
    true
}

impl<const SIZE: usize> SlotQueue<SIZE> {
    /// Sets up the queue of that number, with so many slots of so many bytes.
    ///
    /// # Errors
    /// The device has no such queue, or there is no memory for it.
    pub(crate) fn new<T: Transport>(
        transport: &mut T,
        index: u16,
        slots: usize,
        slot_bytes: usize,
    ) -> Result<Self, OpenError> {
        let pages = slot_bytes.div_ceil(PAGE_SIZE);
        // Neither indirect descriptors, which would need memory for each request, nor event indices, for which the
        // crate's comparison fails where indices wrap around.
        let queue = VirtQueue::new(transport, index, false, false).map_err(OpenError::Queue)?;
        let mut queue = Self { queue: ManuallyDrop::new(queue), index, slot_bytes, slots: Vec::new() };
        for _ in 0..slots {
            let (_, start) = POOL.lock().take(pages).ok_or(OpenError::NoMemory)?;
            queue.slots.push(Slot { memory: SlotMemory(start), under_way: None });
        }
        Ok(queue)
    }

    /// A slot that the device does not have.
    pub(crate) fn free_slot(&self) -> Option<usize> {
        self.slots.iter().position(|slot| slot.under_way.is_none())
    }

    /// Whether the device has a slot.
    pub(crate) fn is_busy(&self) -> bool {
        self.slots.iter().any(|slot| slot.under_way.is_some())
    }

    /// Copies bytes into a slot. What does not fit is left out.
    pub(crate) fn write(&mut self, slot: usize, offset: usize, bytes: &[u8]) {
        if let Some(into) = self.place(slot, offset, bytes.len()) {
            // SAFETY: `place` gives memory of the pool, which holds no Rust objects, so `bytes` is not in it. Where the
            // device has the slot, it reads or writes a mixture: its bytes are never trusted.
            unsafe { into.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        }
    }

    /// Fills a part of a slot with zeros.
    pub(crate) fn clear(&mut self, slot: usize, offset: usize, length: usize) {
        if let Some(into) = self.place(slot, offset, length) {
            // SAFETY: as in `write`.
            unsafe { into.write_bytes(0, length) };
        }
    }

    /// Copies bytes out of a slot. What lies outside is left as it was.
    pub(crate) fn read(&self, slot: usize, offset: usize, into: &mut [u8]) {
        if let Some(from) = self.place(slot, offset, into.len()) {
            // SAFETY: as in `write`.
            unsafe { from.copy_to_nonoverlapping(into.as_mut_ptr(), into.len()) };
        }
    }

    /// Gives a slot to the device, which is told by [`Self::notify`]. Parts are in ascending order and do not overlap; those
    /// that the device reads come before those that it writes.
    ///
    /// # Errors
    /// [`Fault::Internal`] for parts that are not so, and a slot that the device has already.
    pub(crate) fn submit(
        &mut self,
        slot: usize,
        readable: &[Range<usize>],
        writable: &[Range<usize>],
    ) -> Result<(), Fault> {
        let parts = |ranges: &[Range<usize>]| Parts::try_from(ranges).map_err(|_| Fault::Internal);
        let (readable, writable) = (parts(readable)?, parts(writable)?);
        let mut end = 0;
        for part in readable.iter().chain(&writable) {
            if part.start < end || part.is_empty() || part.end > self.slot_bytes {
                return Err(Fault::Internal);
            }
            end = part.end;
        }
        let place = self.slots.get_mut(slot).filter(|slot| slot.under_way.is_none()).ok_or(Fault::Internal)?;
        let memory = place.memory;
        let (inputs, mut outputs) = (as_slices(memory, &readable), as_mut_slices(memory, &writable));
        let inputs = inputs.get(..readable.len()).unwrap_or_default();
        let outputs = outputs.get_mut(..writable.len()).unwrap_or_default();
        // SAFETY: the parts stay in the slot, which nothing accesses but by copying until `pop_used`, and whose memory is
        // never given back.
        let token = unsafe { self.queue.add(inputs, outputs) }.map_err(|_| Fault::Internal)?;
        place.under_way = Some(UnderWay { token, readable, writable });
        Ok(())
    }

    /// Tells the device of what was submitted, if it wants to be told.
    pub(crate) fn notify<T: Transport>(&self, transport: &mut T) {
        // The device's wish is read after the index was written (virtio 1.2 2.7.13.4.1).
        fence(Ordering::SeqCst);
        if self.queue.should_notify() {
            transport.notify(self.index);
        }
    }

    /// Takes a slot that the device is done with.
    ///
    /// # Errors
    /// The device names what it does not have, or wrote more than it may.
    pub(crate) fn take_completed(&mut self) -> Result<Option<Completed>, Fault> {
        let Some(token) = self.queue.peek_used() else { return Ok(None) };
        let is_it = |slot: &Slot| slot.under_way.as_ref().is_some_and(|request| request.token == token);
        let slot = self.slots.iter().position(is_it).ok_or(Fault::UnknownRequest)?;
        let place = self.slots.get_mut(slot).ok_or(Fault::Internal)?;
        let UnderWay { token, readable, writable } = place.under_way.take().ok_or(Fault::Internal)?;
        let memory = place.memory;
        let (inputs, mut outputs) = (as_slices(memory, &readable), as_mut_slices(memory, &writable));
        let inputs = inputs.get(..readable.len()).unwrap_or_default();
        let outputs = outputs.get_mut(..writable.len()).unwrap_or_default();
        // SAFETY: the same parts as were added under this token.
        let written = unsafe { self.queue.pop_used(token, inputs, outputs) }.map_err(|_| Fault::UnknownRequest)?;
        let room: usize = writable.iter().map(ExactSizeIterator::len).sum();
        let written = usize::try_from(written).ok().filter(|written| *written <= room).ok_or(Fault::Length)?;
        Ok(Some(Completed { slot, written }))
    }

    /// Says whether the device shall interrupt when it is done with something. After switching it on, look once more
    /// whether something [was completed](Self::has_completed) before.
    pub(crate) fn set_interrupts(&mut self, wanted: bool) {
        self.queue.set_dev_notify(wanted);
        fence(Ordering::SeqCst);
    }

    /// Whether the device is done with something.
    pub(crate) fn has_completed(&self) -> bool {
        self.queue.can_pop()
    }

    fn place(&self, slot: usize, offset: usize, length: usize) -> Option<*mut u8> {
        let slot = self.slots.get(slot)?;
        let is_inside = length > 0 && offset.checked_add(length)? <= self.slot_bytes;
        is_inside.then(|| slot.memory.0.as_ptr().wrapping_add(offset))
    }
}

/// The parts of a slot that the device reads, then nothing; only for the crate's calls, which take their addresses.
fn as_slices<'a>(memory: SlotMemory, parts: &Parts) -> [&'a [u8]; MAX_PARTS] {
    array::from_fn(|number| {
        parts.get(number).map_or(&[][..], |part| {
            // SAFETY: `submit` has checked that the part is in the slot. No reference to its bytes outlives the call.
            unsafe { slice::from_raw_parts(memory.0.add(part.start).as_ptr(), part.len()) }
        })
    })
}

/// The parts of a slot that the device writes, likewise.
fn as_mut_slices<'a>(memory: SlotMemory, parts: &Parts) -> [&'a mut [u8]; MAX_PARTS] {
    array::from_fn(|number| {
        parts.get(number).map_or(&mut [][..], |part| {
            // SAFETY: as above; `submit` has checked that the parts do not overlap, and each is referred to once.
            unsafe { slice::from_raw_parts_mut(memory.0.add(part.start).as_ptr(), part.len()) }
        })
    })
}
