//! The dirty log of a guest's memory: to which pages it has written.
//!
//! The truth is in the leaves of its page table, which are of 4 KiB while there is a log. A processor with a log of its
//! own only tells below which tables to look for them.

use core::sync::atomic::Ordering;

use dragonfly_abi::Status;
use dragonfly_abi::guest::{DIRTY_WORDS, GUEST_END};
use dragonfly_memory::{GuestPhys, PAGE_SIZE, PageFormat, PageSize, SpaceAddr};

use super::{GuestSpace, SpaceState};
use crate::Kernel;
use crate::arch::Arch;
use crate::teardown::Progress;

/// Entries that one call looks at.
const ENTRIES_PER_CALL: u32 = 1024;
/// Ranges of 2 MiB that one call cuts into small pages, or makes clean.
const RANGES_PER_CALL: u32 = 4;
/// Bytes of guest memory that one bitmap tells of.
const REACH: u64 = DIRTY_WORDS as u64 * u64::BITS as u64 * PAGE_SIZE;

/// Whether there is a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirtyLog {
    /// There is none, and pages are as large as fit.
    Off,
    /// From here on pages are still to be cut and made clean.
    Starting(u64),
    /// There is one.
    On,
    /// From here on pages are still to be taken out of the table: they come back as large as fit.
    Stopping(u64),
}

/// What a part of the log says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dirty {
    /// Page of the first bit.
    pub first: u64,
    /// Pages that are dirty.
    pub count: u64,
    /// Where to go on.
    pub next: u64,
    /// A bit for each page.
    pub bitmap: [u64; DIRTY_WORDS],
}

impl<A: Arch> GuestSpace<A> {
    /// Whether processors are to log for it: asked after [`generation`](Self::generation).
    pub fn is_logged(&self) -> bool {
        self.is_logged.load(Ordering::SeqCst)
    }

    /// Starts the log, a slice at a time.
    pub fn start_dirty_log(&self, kernel: &'static Kernel<A>) -> Result<Progress, Status> {
        let mut state = self.state.lock();
        let mut at = match state.dirty_log {
            DirtyLog::Off => {
                // Processors log before the first page becomes clean.
                self.is_logged.store(true, Ordering::SeqCst);
                self.flush(kernel);
                0
            }
            DirtyLog::Starting(at) => at,
            DirtyLog::On | DirtyLog::Stopping(_) => return Err(Status::BadState),
        };
        let mut result = Ok(Progress::More);
        for _ in 0..RANGES_PER_CALL {
            let Some(start) = state.next_mapped(at) else {
                result = Ok(Progress::Done);
                break;
            };
            at = start;
            let end = GuestPhys::new(at).align_down(PageSize::Size2M).wrapping_add(PageSize::Size2M.bytes());
            if let Err(status) = self.cut_and_clean(&mut state, GuestPhys::new(at), end) {
                result = Err(status);
                break;
            }
            at = end.as_u64();
        }
        state.dirty_log = if result == Ok(Progress::Done) { DirtyLog::On } else { DirtyLog::Starting(at) };
        self.flush(kernel);
        result
    }

    /// Makes the pages of a range, of which no large one begins before, small and clean.
    fn cut_and_clean(
        &self,
        state: &mut SpaceState<A, A::GuestFormat>,
        start: GuestPhys,
        end: GuestPhys,
    ) -> Result<(), Status> {
        let frames = self.frames();
        if state.table.query(&frames, start).is_some_and(|page| page.size != PageSize::Size4K) {
            let cut = state.table.split(&frames, start.wrapping_add(PAGE_SIZE));
            cut.map_err(|error| frames.status(error))?;
        }
        let _ = state.table.clean_range(&frames, start..end, (REACH, true), &mut { u32::MAX }, |_| ());
        Ok(())
    }

    /// Ends the log, a slice at a time. Pages come back on touch, as large as fit.
    pub fn stop_dirty_log(&self, kernel: &'static Kernel<A>) -> Result<Progress, Status> {
        let mut state = self.state.lock();
        let at = match state.dirty_log {
            DirtyLog::Starting(_) | DirtyLog::On => {
                self.is_logged.store(false, Ordering::SeqCst);
                0
            }
            DirtyLog::Stopping(at) => at,
            DirtyLog::Off => return Err(Status::BadState),
        };
        let frames = self.frames();
        let range = GuestPhys::new(at)..GuestPhys::new(GUEST_END);
        let mut slice = state.table.unmap_range(&frames, range, &mut { ENTRIES_PER_CALL }, |_| ());
        self.flush(kernel);
        slice.free_tables(&frames);
        let (log, progress) = match slice.next() {
            Some(next) => (DirtyLog::Stopping(next.as_u64()), Progress::More),
            None => (DirtyLog::Off, Progress::Done),
        };
        state.dirty_log = log;
        Ok(progress)
    }

    /// Takes a part of what the log says about a range out of it.
    pub fn take_dirty(&self, kernel: &'static Kernel<A>, start: GuestPhys, end: GuestPhys) -> Result<Dirty, Status> {
        let mut state = self.state.lock();
        if state.dirty_log != DirtyLog::On {
            return Err(Status::BadState);
        }
        let mut dirty = Dirty { first: 0, count: 0, next: end.as_u64(), bitmap: [0; DIRTY_WORDS] };
        let mut note = |base: GuestPhys| {
            if dirty.count == 0 {
                dirty.first = base.as_u64();
            }
            let page = (base.as_u64() - dirty.first) / PAGE_SIZE;
            if let Some(word) = dirty.bitmap.get_mut((page / u64::BITS as u64) as usize) {
                *word |= 1 << (page % u64::BITS as u64);
                dirty.count += 1;
            }
        };
        let frames = self.frames();
        let next = state
            .table
            .clean_range(&frames, start..end, (REACH, false), &mut { ENTRIES_PER_CALL }, |page| note(page.base));
        if let Some(next) = next {
            dirty.next = next.as_u64();
        }
        if dirty.count != 0 {
            // What is written from now on is told the next time; what was is seen by whoever asks.
            self.flush(kernel);
        }
        Ok(dirty)
    }

    /// A processor's log says that a page was written.
    pub fn note_dirty(&self, address: GuestPhys) {
        self.state.lock().table.note_dirty(&self.frames(), address, false);
    }
}

impl<A: Arch, F: PageFormat> SpaceState<A, F> {
    /// The first address from one on that some mapping holds.
    fn next_mapped(&self, at: u64) -> Option<u64> {
        let at = SpaceAddr::new(at);
        let mapping = self.mappings.find(|mapping| mapping.range.is_some_and(|range| range.end > at))?;
        Some(mapping.range?.start.max(at).as_u64())
    }

    /// Whether its pages are to be small.
    pub(super) fn has_small_pages(&self) -> bool {
        matches!(self.dirty_log, DirtyLog::Starting(_) | DirtyLog::On)
    }
}
