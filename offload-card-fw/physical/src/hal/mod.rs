//! Memory that devices read and write, and device registers: the only unsafe code of the drivers.
//!
//! Devices are not trusted. What they may write (this pool, nothing else is ever given to them) is copied, never
//! referred to, and what they write is taken for an allegation by the modules above.
#![expect(unsafe_code, reason = "accesses memory that devices share, and device registers, by their addresses")]

mod frames;
mod pool;
mod queue;
mod registers;

use core::ptr::NonNull;

#[cfg(not(test))]
use dragonfly_rt::sync::Mutex;
// Threads of a host cannot sleep on the runtime's.
#[cfg(test)]
use spin::Mutex;
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

#[cfg(test)]
pub(crate) use pool::testing::device_memory;
pub(crate) use queue::{Completed, SlotQueue, quiesce};
pub(crate) use registers::Registers;

use pool::Pool;

/// What the rings of all devices share. `Hal` has no state of its own, so it is here.
static POOL: Mutex<Pool> = Mutex::new(Pool::new());

/// An address that no device takes: beyond the 52 bits that physical addresses have at most.
const NO_ADDRESS: PhysAddr = 1 << 63;

/// The card's memory for devices, as the crate `virtio-drivers` wants it.
pub(crate) struct CardHal;

// SAFETY: each method keeps what the trait asks of it, as said there.
unsafe impl Hal for CardHal {
    /// The pool gives each page to one caller until it is given back, zeroed, and never unmaps it.
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        // Address 0 is the crate's sign for failure.
        POOL.lock().take(pages).unwrap_or((0, NonNull::dangling()))
    }

    unsafe fn dma_dealloc(paddr: PhysAddr, _vaddr: NonNull<u8>, pages: usize) -> i32 {
        POOL.lock().give(paddr, pages);
        0
    }

    /// Only the crate's own PCI transport asks, which is not used here.
    unsafe fn mmio_phys_to_virt(_paddr: PhysAddr, _size: usize) -> NonNull<u8> {
        unreachable!("registers are mapped by `Registers`")
    }

    /// All buffers come from the pool, which devices reach where it is: nothing is copied.
    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        POOL.lock().address_of(buffer.cast(), buffer.len()).unwrap_or(NO_ADDRESS)
    }

    unsafe fn unshare(_paddr: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}
