//! Memory objects: frames under byte offsets, that can be mapped into address spaces.
//!
//! Frames are given in the largest blocks that fit, all at once (`MemoryCommit`) or on first touch. Who made the object
//! pays for them. They go when the object does, after all mappings have gone.

use core::sync::atomic::Ordering;

use dragonfly_abi::Status;
use dragonfly_memory::{
    Access, Account, Charge, FrameIndex, FrameUse, HostPhys, ObjectOffset, PAGE_SIZE, PageSize, PageTable,
};

use crate::arch::Arch;
use crate::domain::{Domain, charge_object};
use crate::frames::DomainFrames;
use crate::sync::AtomicU64;
use crate::teardown::Progress;
use crate::{Kernel, Lock, Ref};

const _: () = assert!(PAGE_SIZE == dragonfly_abi::PAGE_SIZE);

/// How many bytes one call zeroes: 4,096 eight-byte stores.
const ZERO_SLICE: u64 = 32 << 10;
/// How many blocks one call looks at or gives.
const BLOCKS_PER_CALL: u32 = 32;
/// How many commits of one object may be under way at once. Of more than that, none would come further than
/// [`BLOCKS_PER_CALL`] blocks that it has to look at again.
const RUNS: usize = 4;

/// Frames under byte offsets.
pub struct Memory<A: Arch> {
    arch: A,
    size: u64,
    kind: Kind,
    account: Ref<Account<A::Heap>, A>,
    mappings: AtomicU64,
    state: Lock<MemoryState, A>,
    _charge: Charge<A::Heap>,
}

/// Where the frames come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// From the frame allocator, by `MemoryCommit`.
    Committed,
    /// From the frame allocator, also on first touch.
    OnDemand,
    /// From the frame allocator; the kernel uses them too, until the object itself is gone.
    Pinned,
    /// A range that is not the frame allocator's: the bundle.
    Fixed(HostPhys),
    /// Device memory: a range that must not be cached.
    Device(HostPhys),
}

struct MemoryState {
    frames: PageTable<FrameIndex>,
    committed: u64,
    /// Ranges all of which is committed: how far the latest commits have come, each from where it started.
    runs: [(u64, u64); RUNS],
    oldest_run: usize,
    /// A block that is being zeroed.
    pending: Option<Pending>,
    is_released: bool,
}

#[derive(Clone, Copy)]
struct Pending {
    offset: u64,
    block: HostPhys,
    size: PageSize,
    zeroed: u64,
}

/// A contiguous piece of a memory object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Where it starts in the object.
    pub offset: u64,
    /// Where it is.
    pub frames: HostPhys,
    /// Bytes.
    pub length: u64,
}

impl<A: Arch> Memory<A> {
    /// An object without frames, for a domain that pays for it.
    pub fn new(kernel: &'static Kernel<A>, owner: &Domain<A>, size: u64, is_on_demand: bool) -> Result<Self, Status> {
        let kind = if is_on_demand { Kind::OnDemand } else { Kind::Committed };
        Self::of_kind(kernel.arch, owner, size, kind)
    }

    /// An object over a range of device memory.
    pub fn of_device(owner: &Domain<A>, start: HostPhys, size: u64) -> Result<Self, Status> {
        Self::of_kind(owner.space.arch(), owner, size, Kind::Device(start))
    }

    /// An object over RAM that the frame allocator does not have, and that nobody writes.
    pub fn of_range(owner: &Domain<A>, start: HostPhys, size: u64) -> Result<Self, Status> {
        Self::of_kind(owner.space.arch(), owner, size, Kind::Fixed(start))
    }

    /// One page that the kernel uses too.
    pub fn pinned_page(kernel: &'static Kernel<A>, owner: &Domain<A>) -> Result<Ref<Self, A>, Status> {
        let memory = Self::of_kind(kernel.arch, owner, PAGE_SIZE, Kind::Pinned)?;
        let memory = Ref::<_, A>::try_new(kernel.arch.heap(), memory).map_err(|_| Status::OutOfMemory)?;
        memory.commit_page(kernel, 0)?;
        Ok(memory)
    }

    fn of_kind(arch: A, owner: &Domain<A>, size: u64, kind: Kind) -> Result<Self, Status> {
        let charge = charge_object::<A, Self>(&owner.account)?;
        Ok(Self {
            arch,
            size,
            kind,
            account: owner.account.clone(),
            mappings: AtomicU64::new(0),
            state: Lock::<_, A>::new(MemoryState {
                frames: PageTable::empty(FrameIndex::for_size(size)),
                committed: 0,
                runs: [(0, 0); RUNS],
                oldest_run: 0,
                pending: None,
                is_released: false,
            }),
            _charge: charge,
        })
    }

    /// Bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes that have frames.
    pub fn committed(&self) -> u64 {
        match self.kind {
            Kind::Fixed(_) | Kind::Device(_) => self.size,
            _ => self.state.lock().committed,
        }
    }

    /// Whether it must not be cached.
    pub fn is_device(&self) -> bool {
        matches!(self.kind, Kind::Device(_))
    }

    /// How often it is mapped.
    pub fn mappings(&self) -> u64 {
        self.mappings.load(Ordering::Relaxed)
    }

    /// Counts a mapping.
    pub fn count_mapping(&self) {
        self.mappings.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a mapping down.
    pub fn uncount_mapping(&self) {
        self.mappings.fetch_sub(1, Ordering::Relaxed);
    }

    /// The first frame of an object that keeps it as long as it lives.
    pub fn pinned_frame(&self) -> Option<HostPhys> {
        if self.kind == Kind::Pinned { self.block_at(0).map(|block| block.frames) } else { None }
    }

    /// The contiguous piece that holds an offset; nothing if no frames have been given there.
    pub fn block_at(&self, offset: u64) -> Option<Block> {
        if offset >= self.size {
            return None;
        }
        match self.kind {
            Kind::Fixed(start) | Kind::Device(start) => Some(Block { offset: 0, frames: start, length: self.size }),
            _ => {
                let state = self.state.lock();
                let mapping = state.frames.query(&self.frames(), ObjectOffset::new(offset))?;
                let length = mapping.size.bytes();
                Some(Block { offset: offset & !(length - 1), frames: mapping.phys, length })
            }
        }
    }

    /// Where a device finds an offset, and how many bytes lie there one after the other, or more. They stay there until
    /// the object is released: nothing else takes frames back, and nothing moves them.
    pub fn for_devices(&self, offset: u64) -> Result<(HostPhys, u64), Status> {
        if offset >= self.size || !matches!(self.kind, Kind::Committed | Kind::OnDemand) {
            return Err(Status::BadArgument);
        }
        let first = self.block_at(offset).ok_or(Status::NotMapped)?;
        let mut end = first.offset + first.length;
        for _ in 1..BLOCKS_PER_CALL {
            let Some(next) = self.block_at(end) else { break };
            if next.frames != first.frames.wrapping_add(end - first.offset) {
                break;
            }
            end += next.length;
        }
        Ok((first.frames.wrapping_add(offset - first.offset), end - offset))
    }

    /// The contiguous piece that holds an offset, with a frame given there if that may be.
    pub fn block_on_touch(&self, kernel: &'static Kernel<A>, offset: u64) -> Option<Block> {
        self.block_at(offset).or_else(|| {
            if self.kind != Kind::OnDemand {
                return None;
            }
            // Somebody else may have given it meanwhile: then this is an error, and the look-up decides.
            let _ = self.commit_page(kernel, offset & !(PAGE_SIZE - 1));
            self.block_at(offset)
        })
    }

    fn frames(&self) -> DomainFrames<'_, A> {
        DomainFrames { arch: self.arch, account: &self.account }
    }

    /// Gives one frame to a page that has none.
    fn commit_page(&self, kernel: &'static Kernel<A>, offset: u64) -> Result<(), Status> {
        let mut state = self.state.lock();
        if state.is_released || state.pending.is_some_and(|pending| pending.covers(offset)) {
            return Err(Status::Busy);
        }
        if state.frames.query(&self.frames(), ObjectOffset::new(offset)).is_some() {
            return Ok(());
        }
        let block = self.take(kernel, PageSize::Size4K)?;
        kernel.arch.zero(block, PAGE_SIZE);
        self.insert(kernel, &mut state, offset, block, PageSize::Size4K)
    }

    /// Gives frames to a range of whole pages, a slice at a time.
    pub fn commit(
        &self,
        kernel: &'static Kernel<A>,
        start: ObjectOffset,
        end: ObjectOffset,
    ) -> Result<Progress, Status> {
        if matches!(self.kind, Kind::Fixed(_) | Kind::Device(_)) {
            return Err(Status::BadArgument);
        }
        let (start, end) = (start.as_u64(), end.as_u64());
        let mut state = self.state.lock();
        let mut bytes = ZERO_SLICE;
        let mut blocks = BLOCKS_PER_CALL;
        let run = state.run_from(start);
        let mut offset = state.runs[run].1;
        while offset < end || state.pending.is_some() {
            if state.is_released {
                return Err(Status::Aborted);
            }
            if let Some(pending) = &mut state.pending {
                let slice = (pending.size.bytes() - pending.zeroed).min(bytes);
                kernel.arch.zero(pending.block.wrapping_add(pending.zeroed), slice);
                pending.zeroed += slice;
                bytes -= slice;
                let pending = *pending;
                if pending.zeroed < pending.size.bytes() {
                    return Ok(Progress::More);
                }
                state.pending = None;
                self.insert(kernel, &mut state, pending.offset, pending.block, pending.size)?;
            } else if let Some(mapping) = state.frames.query(&self.frames(), ObjectOffset::new(offset)) {
                let length = mapping.size.bytes();
                offset = (offset & !(length - 1)) + length;
                state.runs[run].1 = offset;
            } else {
                state.pending = Some(self.take_largest(kernel, &state, offset, end)?);
            }
            blocks -= 1;
            if blocks == 0 || bytes == 0 {
                return Ok(Progress::More);
            }
        }
        Ok(Progress::Done)
    }

    /// Takes the largest block that can start at an offset.
    fn take_largest(
        &self,
        kernel: &'static Kernel<A>,
        state: &MemoryState,
        offset: u64,
        end: u64,
    ) -> Result<Pending, Status> {
        for size in PageSize::LARGEST_FIRST {
            let fits =
                offset.is_multiple_of(size.bytes()) && offset.checked_add(size.bytes()).is_some_and(|e| e <= end);
            if !fits
                || (size != PageSize::Size4K
                    && state.frames.has_table_at(&self.frames(), ObjectOffset::new(offset), size))
            {
                continue;
            }
            match self.take(kernel, size) {
                Ok(block) => return Ok(Pending { offset, block, size, zeroed: 0 }),
                Err(Status::OutOfMemory) if size != PageSize::Size4K => {}
                Err(status) => return Err(status),
            }
        }
        Err(Status::OutOfMemory)
    }

    /// Takes a block and charges it.
    fn take(&self, kernel: &'static Kernel<A>, size: PageSize) -> Result<HostPhys, Status> {
        self.account.take(size.bytes()).map_err(|_| Status::QuotaExceeded)?;
        let block = kernel.arch.frames().lock().alloc(size.order(), 0, FrameUse::Object);
        block.ok_or_else(|| {
            self.account.give_back(size.bytes());
            Status::OutOfMemory
        })
    }

    fn give(&self, block: HostPhys, size: PageSize) {
        let freed = self.arch.frames().lock().free(block, size.order());
        debug_assert!(freed.is_ok());
        self.account.give_back(size.bytes());
    }

    fn insert(
        &self,
        kernel: &'static Kernel<A>,
        state: &mut MemoryState,
        offset: u64,
        block: HostPhys,
        size: PageSize,
    ) -> Result<(), Status> {
        let frames = DomainFrames { arch: kernel.arch, account: &self.account };
        match state.frames.map(&frames, ObjectOffset::new(offset), block, size, Access::NONE) {
            Ok(()) => {
                state.committed += size.bytes();
                Ok(())
            }
            Err(error) => {
                self.give(block, size);
                Err(frames.status(error))
            }
        }
    }

    /// Writes content where frames have been given, before anybody runs with the object.
    pub fn write(&self, kernel: &'static Kernel<A>, offset: u64, content: &[u8]) -> Result<(), Status> {
        let (mut offset, mut rest) = (offset, content);
        while !rest.is_empty() {
            let block = self.block_at(offset).ok_or(Status::NotMapped)?;
            let inside = offset - block.offset;
            let length = usize::try_from(block.length - inside).unwrap_or(usize::MAX).min(rest.len());
            let (now, later) = rest.split_at(length);
            kernel.arch.copy_in(block.frames.wrapping_add(inside), now);
            offset += length as u64;
            rest = later;
        }
        Ok(())
    }

    /// Does something with the frame that holds an offset, which stays meanwhile; nothing if no frame is there, or none
    /// that is this object's own.
    pub fn with_frame<R>(&self, offset: u64, work: impl FnOnce(HostPhys) -> R) -> Option<R> {
        if !matches!(self.kind, Kind::Committed | Kind::OnDemand) {
            return None;
        }
        let state = self.state.lock();
        let mapping = state.frames.query(&self.frames(), ObjectOffset::new(offset))?;
        let inside = offset & (mapping.size.bytes() - 1) & !(PAGE_SIZE - 1);
        Some(work(mapping.phys.wrapping_add(inside)))
    }

    /// Gives all frames back, a slice at a time. All mappings are gone, and no new one can come.
    pub fn release(&self, budget: &mut u32) -> Progress {
        if self.kind == Kind::Pinned {
            return Progress::Done;
        }
        self.release_all(budget)
    }

    fn release_all(&self, budget: &mut u32) -> Progress {
        let mut state = self.state.lock();
        state.is_released = true;
        if let Some(pending) = state.pending.take() {
            self.give(pending.block, pending.size);
        }
        let frames = self.frames();
        let progress = state.frames.destroy(&frames, budget, |mapping| self.give(mapping.phys, mapping.size));
        state.committed = 0;
        if progress { Progress::Done } else { Progress::More }
    }
}

impl MemoryState {
    /// The run that a commit from `start` goes on with, or begins.
    fn run_from(&mut self, start: u64) -> usize {
        let known = self.runs.iter().position(|(from, to)| (*from..=*to).contains(&start));
        known.unwrap_or_else(|| {
            let run = self.oldest_run;
            self.oldest_run = (run + 1) % RUNS;
            self.runs[run] = (start, start);
            run
        })
    }
}

impl Pending {
    fn covers(&self, offset: u64) -> bool {
        (self.offset..self.offset + self.size.bytes()).contains(&offset)
    }
}

impl<A: Arch> Drop for Memory<A> {
    fn drop(&mut self) {
        // Nothing is left here but in an object that never was published, or is one pinned page.
        while self.release_all(&mut { u32::MAX }) == Progress::More {}
    }
}
