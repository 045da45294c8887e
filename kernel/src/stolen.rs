//! Stolen time: what a guest is told of the time in which its virtual CPU wanted to run and did not.
//!
//! The VMM names a record in the guest's memory. It is marked while the virtual CPU has no CPU, so that others of the guest
//! need not wait for it: they leave what concerns its TLB there, and it is done before the guest goes on.

use core::sync::atomic::Ordering::Relaxed;

use dragonfly_abi::Status;
use dragonfly_abi::guest::RECORD_SIZE;

use crate::arch::{Arch, Guest, NEVER, Ticks};
use crate::memory_object::Memory;
use crate::shared_page::{RecordPlace, with_record};
use crate::sync::AtomicU64;
use crate::{Lock, Ref};

/// Since when a virtual CPU waits: it does not, it has its CPU or runs for its VMM.
const RUNS: Ticks = 0;

/// A virtual CPU's stolen time.
pub struct StolenTime<A: Arch> {
    record: Lock<Option<Record<A>>, A>,
    /// [`RUNS`], since when it waits for a CPU, or [`NEVER`]: it has none and wants none.
    waits_since: AtomicU64,
}

/// Where the guest reads of it.
struct Record<A: Arch> {
    memory: Ref<Memory<A>, A>,
    /// A multiple of [`RECORD_SIZE`].
    offset: u64,
}

impl<A: Arch> Default for StolenTime<A> {
    /// Of a virtual CPU that nobody wants to know it of.
    fn default() -> Self {
        Self { record: Lock::<_, A>::new(None), waits_since: AtomicU64::new(RUNS) }
    }
}

impl<A: Arch> StolenTime<A> {
    /// Says where the record is from now on.
    pub fn set_record(&self, place: Option<RecordPlace<A>>) -> Result<(), Status> {
        let record = match place {
            None => None,
            Some((_, offset)) if !offset.is_multiple_of(RECORD_SIZE) => return Err(Status::BadArgument),
            Some((memory, offset)) => {
                memory.with_frame(offset, |_| ()).ok_or(Status::NotMapped)?;
                Some(Record { memory, offset })
            }
        };
        let replaced = core::mem::replace(&mut *self.record.lock(), record);
        drop(replaced);
        Ok(())
    }

    /// The guest's thread has lost its CPU to others and waits to get it back, since `now`; or gives it away, with
    /// [`NEVER`].
    pub fn lose_cpu(&self, arch: A, now: Ticks) {
        let record = self.record.lock();
        if let Some(record) = &*record {
            self.waits_since.store(now, Relaxed);
            with_record(&record.memory, arch, record.offset, A::Guest::tell_away);
        }
    }

    /// The guest's thread, which has given its CPU away, wants it back.
    #[inline]
    pub fn want_cpu(&self, now: Ticks) {
        if self.waits_since.load(Relaxed) == NEVER {
            self.waits_since.store(now, Relaxed);
        }
    }

    /// The guest goes on. Whether others of the guest have left it to do to forget all translations.
    #[inline]
    pub fn regain_cpu(&self, arch: A) -> bool {
        // Only the CPU that has the thread changes it.
        let since = self.waits_since.load(Relaxed);
        since != RUNS && self.tell_back(arch, since)
    }

    #[cold]
    fn tell_back(&self, arch: A, since: Ticks) -> bool {
        self.waits_since.store(RUNS, Relaxed);
        let stolen = arch.ns_from_ticks(arch.now().saturating_sub(since));
        let record = self.record.lock();
        let told = record.as_ref().and_then(|record| {
            with_record(&record.memory, arch, record.offset, |words| A::Guest::tell_back(words, stolen))
        });
        // What was left to do is not known of a record that has gone.
        told.unwrap_or(true)
    }
}
