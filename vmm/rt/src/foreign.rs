//! Mappings of another domain's memory, which may vanish while they are in use.
#![expect(unsafe_code, reason = "unmaps what is gone")]

use alloc::collections::VecDeque;
use core::ptr::{self, NonNull};

use dragonfly_abi::{Rights, Status};

use crate::mapping::Mapping;
use crate::sync::Mutex;
use crate::sys::{Commit, Domain, Memory, Owned};

/// A part of another domain's memory object, mapped readable and writable until this goes out of scope.
///
/// When that domain ends its objects go, and so does what was mapped: the next access is a page fault. A program that wants
/// to go on after that lets the thread's faults come to a gate of its own, where another thread calls
/// [`ForeignMapping::substitute`] and lets the first go on.
pub struct ForeignMapping {
    mapping: Mapping,
    /// There is one once the foreign memory is gone.
    substitute: Mutex<Option<Substitute>>,
}

/// Memory that stands in for what is gone, mapped wherever it was touched last.
struct Substitute {
    memory: Owned<Memory>,
    size: u64,
    /// Where it is mapped, the latest place last.
    places: VecDeque<u64>,
}

/// Bytes of a substitute: small beside any quota.
const SUBSTITUTE_SIZE: u64 = 2 << 20;

/// Places where a substitute is mapped at a time, as a domain may have few mappings: one instruction of the thread that uses the
/// memory needs four at most, if it copies from it to it and both ends cross from one place to the next. One that is touched
/// later faults again, and finds the same memory.
const MAX_PLACES: usize = 4;

impl ForeignMapping {
    /// Maps a part of an object: offset and size in bytes, multiples of the page size.
    ///
    /// # Errors
    /// As [`Mapping::new`].
    pub fn new(memory: Memory, offset: u64, size: u64) -> Result<Self, Status> {
        let mapping = Mapping::new(memory, offset, size, Rights::READ | Rights::WRITE)?;
        Ok(Self { mapping, substitute: Mutex::new(None) })
    }

    /// Where it is mapped. The bytes belong to nobody: they change at any time, and each access may be a page fault.
    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        let start = ptr::with_exposed_provenance_mut(self.mapping.address() as usize);
        // Nothing is mapped at address 0.
        NonNull::new(start).unwrap_or(NonNull::dangling())
    }

    /// Size in bytes.
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.mapping.size()
    }

    /// Whether an address lies in it.
    #[must_use]
    pub const fn contains(&self, address: u64) -> bool {
        match address.checked_sub(self.mapping.address()) {
            Some(offset) => offset < self.mapping.size(),
            None => false,
        }
    }

    /// Puts memory of the own domain where the mapped one is gone: around `address`, where a thread has faulted, so that it can
    /// go on. What it finds is zeros, or what was written to such memory of this mapping before. What else is left of the
    /// foreign memory goes from the mapping, too, and so does the substitute where it was put long ago. One thread at a time uses
    /// the memory.
    ///
    /// # Errors
    /// [`Status::BadArgument`] for an address outside, [`Status::Overlap`] if there is a substitute already, and
    /// [`Status::NoHandles`], [`Status::QuotaExceeded`], [`Status::OutOfMemory`].
    pub fn substitute(&self, address: u64) -> Result<(), Status> {
        let base = self.mapping.address();
        let offset = address.checked_sub(base).filter(|offset| *offset < self.size()).ok_or(Status::BadArgument)?;
        let mut substitute = self.substitute.lock();
        if substitute.is_none() {
            // First of all: what this mapping has cost may be what there is too little of.
            // SAFETY: nothing refers to the memory but by addresses whose accesses may fault, which `start` says.
            match unsafe { Domain::OWN.unmap(base) } {
                Ok(()) | Err(Status::NotMapped) => {}
                Err(status) => return Err(status),
            }
            let size = self.size().min(SUBSTITUTE_SIZE);
            let memory = Memory::create(size, Commit::OnDemand)?;
            *substitute = Some(Substitute { memory, size, places: VecDeque::new() });
        }
        let Some(Substitute { memory, size, places }) = &mut *substitute else { return Err(Status::BadState) };
        let place = offset - offset % SUBSTITUTE_SIZE;
        let size = (*size).min(self.size() - place);
        if places.len() >= MAX_PLACES
            && let Some(oldest) = places.pop_front()
        {
            // SAFETY: as above.
            unsafe { Domain::OWN.unmap(oldest)? };
        }
        memory.map(Domain::OWN, base + place, 0, size, Rights::READ | Rights::WRITE)?;
        places.push_back(base + place);
        Ok(())
    }
}

impl Drop for ForeignMapping {
    fn drop(&mut self) {
        for place in self.substitute.lock().iter().flat_map(|substitute| &substitute.places) {
            // SAFETY: nobody uses the addresses any more; the range goes back when the mapping is dropped, after this.
            let _ = unsafe { Domain::OWN.unmap(*place) };
        }
    }
}
