//! Address spaces, of domains and of guests: a page table and the mappings that it may show.
//!
//! A mapping is a promise; page-table entries are filled in when it is made, as far as one slice goes, and on first
//! touch. So mapping is fast whatever its size, and everything in the table can be found again from the mappings.

use core::sync::atomic::Ordering;

use dragonfly_abi::guest::GUEST_END;
use dragonfly_abi::{Rights, Status, USER_END};
use dragonfly_memory::{
    Access, Account, Address, HostPhys, HostVirt, MapError, ObjectOffset, PAGE_SIZE, PageFormat, PageSize, PageTable,
    SpaceAddr, UserVirt,
};

use crate::arch::Arch;
use crate::capability::{Capability, Derivation, Object, Place, link};
use crate::cpu::Cpu;
use crate::domain::{Domain, charge_object};
use crate::frames::DomainFrames;
use crate::memory_object::{Block, Memory};
use crate::sync::{AtomicBool, AtomicU64};
use crate::teardown::{Progress, SLICE};
use crate::{Kernel, Lock, Queue, Ref};
use dirty_log::DirtyLog;

mod dirty_log;

pub use dirty_log::Dirty;

/// Mappings of one address space. It bounds the search for the mapping of a faulting address.
pub const MAX_MAPPINGS: u64 = 1024;
/// Page-table entries that are filled in when a mapping is made.
const POPULATE: u32 = 64;
/// Page-table entries that one slice of an unmapping, or of the end of an address space, looks at.
const ENTRIES_PER_SLICE: u32 = 256;
/// What such a slice takes from a call's budget.
const UNMAP_COST: u32 = SLICE / 4;
/// Page-table leaves that one audit call looks at.
const AUDIT_SLICE: u32 = 2048;

/// What a mapping shows, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MappedRange {
    /// First address.
    pub start: SpaceAddr,
    /// First address past it.
    pub end: SpaceAddr,
    /// What the first address shows.
    pub offset: ObjectOffset,
    /// READ, with WRITE or EXECUTE or neither; in a guest's memory also with both.
    pub access: Rights,
}

/// An address space with page tables of some format.
pub struct Space<A: Arch, F: PageFormat> {
    arch: A,
    root: HostPhys,
    /// First address that is not its own.
    end: u64,
    /// Who pays for page tables and mappings.
    account: Ref<Account<A::Heap>, A>,
    /// The CPUs on which it is active.
    active: AtomicU64,
    /// How often translations were taken back.
    generation: AtomicU64,
    /// Processors note to which pages is written.
    is_logged: AtomicBool,
    is_closed: AtomicBool,
    state: Lock<SpaceState<A, F>, A>,
}

/// The address space of a domain.
pub type DomainSpace<A> = Space<A, <A as Arch>::Format>;
/// The physical memory of a guest.
pub type GuestSpace<A> = Space<A, <A as Arch>::GuestFormat>;

struct SpaceState<A: Arch, F: PageFormat> {
    table: PageTable<F>,
    /// By address.
    mappings: Queue<Capability<A>, A, link::Space>,
    count: u64,
    dirty_log: DirtyLog,
}

impl<A: Arch> DomainSpace<A> {
    /// A domain's address space, with nothing in its user half.
    pub fn new(kernel: &'static Kernel<A>, account: &Ref<Account<A::Heap>, A>) -> Result<Self, Status> {
        let frames = DomainFrames { arch: kernel.arch, account };
        let table = PageTable::new_user(kernel.arch.format(), &frames, kernel.arch.kernel_half());
        let table = table.map_err(|error| frames.status(error))?;
        Ok(Self::with_table(kernel.arch, account, table, USER_END))
    }
}

impl<A: Arch> GuestSpace<A> {
    /// A guest's memory, with nothing in it.
    pub fn new_guest(kernel: &'static Kernel<A>, account: &Ref<Account<A::Heap>, A>) -> Result<Self, Status> {
        let format = kernel.arch.guest_format().ok_or(Status::NotSupported)?;
        let frames = DomainFrames { arch: kernel.arch, account };
        let table = PageTable::new(format, &frames).map_err(|error| frames.status(error))?;
        Ok(Self::with_table(kernel.arch, account, table, GUEST_END))
    }

    /// How often translations were taken back: whoever caches some under a tag of its own asks before it uses them,
    /// after [`enter`](Self::enter).
    #[inline]
    pub fn generation(&self) -> u64 {
        // SeqCst: after `enter`. Whoever takes one back counts first and looks at the CPUs then.
        self.generation.load(Ordering::SeqCst)
    }
}

impl<A: Arch, F: PageFormat> Space<A, F> {
    fn with_table(arch: A, account: &Ref<Account<A::Heap>, A>, table: PageTable<F>, end: u64) -> Self {
        Self {
            arch,
            root: table.root(),
            end,
            account: account.clone(),
            active: AtomicU64::new(0),
            generation: AtomicU64::new(0),
            is_logged: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            state: Lock::<_, A>::new(SpaceState {
                table,
                mappings: Queue::<_, A, _>::new(),
                count: 0,
                dirty_log: DirtyLog::Off,
            }),
        }
    }

    fn frames(&self) -> DomainFrames<'_, A> {
        DomainFrames { arch: self.arch, account: &self.account }
    }

    /// The machine it is on.
    pub fn arch(&self) -> A {
        self.arch
    }

    /// Root of its page table.
    pub fn root(&self) -> HostPhys {
        self.root
    }

    /// Refuses new mappings.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::SeqCst);
    }

    /// A CPU is about to make it active.
    pub fn enter(&self, cpu: usize) {
        // SeqCst: before the CPU reads any entry. Whoever changes an entry looks at the mask afterwards.
        self.active.fetch_or(1 << cpu, Ordering::SeqCst);
    }

    /// A CPU has made another one active.
    pub fn leave(&self, cpu: usize) {
        self.active.fetch_and(!(1 << cpu), Ordering::SeqCst);
    }

    /// The mapping that starts at an address.
    pub fn mapping_at(&self, start: SpaceAddr) -> Option<Ref<Capability<A>, A>> {
        self.state.lock().mappings.find(|mapping| mapping.range.is_some_and(|range| range.start == start))
    }

    /// Maps a part of a memory object at a place in this address space. The new capability derives from `parent`.
    pub fn map(
        &self,
        place: Place<A>,
        parent: Option<&Ref<Capability<A>, A>>,
        derivation: &Ref<Derivation<A>, A>,
        memory: &Ref<Memory<A>, A>,
        range: MappedRange,
    ) -> Result<(), Status> {
        let charge = charge_object::<A, Capability<A>>(&self.account)?;
        let object = Object::Memory(memory.clone());
        let mapping = Capability::new(object, range.access, 0, derivation.clone(), Some(range), charge);
        let mapping = Ref::<_, A>::try_new(self.arch.heap(), mapping).map_err(|_| Status::OutOfMemory)?;
        let mut tree = derivation.state.lock();
        let mut state = self.state.lock();
        if self.is_closed.load(Ordering::SeqCst) {
            return Err(Status::BadHandle);
        }
        if state.count == MAX_MAPPINGS {
            return Err(Status::NoHandles);
        }
        let overlaps = |mapping: &Capability<A>| {
            mapping.range.is_some_and(|other| other.start < range.end && range.start < other.end)
        };
        if state.mappings.iter().any(overlaps) {
            return Err(Status::Overlap);
        }
        tree.attach(parent, &mapping, place)?;
        memory.count_mapping();
        let start = |mapping: &Capability<A>| mapping.range.map(|range| range.start);
        let listed = state.mappings.push_sorted(mapping, start);
        debug_assert!(listed.is_ok());
        state.count += 1;
        self.populate(&mut state, memory, &range);
        Ok(())
    }

    /// Fills in page-table entries from the start of a mapping on, as far as one slice goes. The rest follows on touch.
    fn populate(&self, state: &mut SpaceState<A, F>, memory: &Memory<A>, range: &MappedRange) {
        let mut address = range.start;
        for _ in 0..POPULATE {
            let Some(block) = offset_of(range, address).and_then(|offset| memory.block_at(offset)) else { return };
            match self.insert(state, memory, range, &block, address) {
                Ok(size) => address = address.align_down(size).wrapping_add(size.bytes()),
                Err(_) => return,
            }
            if address >= range.end {
                return;
            }
        }
    }

    /// Puts the largest page that fits around an address into the table.
    fn insert(
        &self,
        state: &mut SpaceState<A, F>,
        memory: &Memory<A>,
        range: &MappedRange,
        block: &Block,
        address: SpaceAddr,
    ) -> Result<PageSize, MapError> {
        let frames = self.frames();
        let access = Access {
            is_writable: range.access.contains(Rights::WRITE),
            is_executable: range.access.contains(Rights::EXECUTE),
            is_user: true,
            is_device: memory.is_device(),
        };
        let mut result = Err(MapError::Misaligned);
        for size in PageSize::LARGEST_FIRST {
            let Some(frame) = frame_for(range, block, address, size) else { continue };
            if size > state.table.largest_page() || (size != PageSize::Size4K && state.has_small_pages()) {
                continue;
            }
            result = state.table.map(&frames, F::Input::new(address.align_down(size).as_u64()), frame, size, access);
            match result {
                Ok(()) => return Ok(size),
                // Smaller pages are there already, or it is this page and another CPU was faster.
                Err(MapError::AlreadyMapped) => {}
                Err(error) => return Err(error),
            }
        }
        result.map(|()| PageSize::Size4K)
    }

    /// Resolves a page fault: true if the access can be tried again.
    pub fn resolve(&self, kernel: &'static Kernel<A>, address: SpaceAddr, access: Rights) -> bool {
        if address.as_u64() >= self.end {
            return false;
        }
        let mut state = self.state.lock();
        let holds =
            |mapping: &Capability<A>| mapping.range.is_some_and(|range| (range.start..range.end).contains(&address));
        let Some(mapping) = state.mappings.find(holds) else { return false };
        let (Some(range), Object::Memory(memory)) = (mapping.range, &mapping.object) else { return false };
        if !range.access.contains(access) || mapping.is_leaving() {
            return false;
        }
        let Some(block) = offset_of(&range, address).and_then(|offset| memory.block_on_touch(kernel, offset)) else {
            return false;
        };
        match self.insert(&mut state, memory, &range, &block, address) {
            Ok(_) => true,
            // The entry is there: another CPU was faster, this CPU had cached that it was not, or the page was clean.
            Err(MapError::AlreadyMapped) => {
                if access == Rights::WRITE && state.dirty_log != DirtyLog::Off {
                    state.table.note_dirty(&self.frames(), F::Input::new(address.as_u64()), true);
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Takes a mapping's pages out of the table, a slice at a time. From then on it only has its place in the list.
    pub fn unmap(&self, kernel: &'static Kernel<A>, mapping: &Ref<Capability<A>, A>, budget: &mut u32) -> Progress {
        let Some(range) = mapping.range else { return Progress::Done };
        let mut state = self.state.lock();
        let from = mapping.left_up_to().unwrap_or(range.start);
        if from >= range.end {
            return Progress::Done;
        }
        let frames = self.frames();
        let addresses = F::Input::new(from.as_u64())..F::Input::new(range.end.as_u64());
        let mut slice = state.table.unmap_range(&frames, addresses, &mut { ENTRIES_PER_SLICE }, |_| ());
        let next = slice.next().map_or(range.end, |next| SpaceAddr::new(next.as_u64()));
        mapping.set_left_up_to(next);
        *budget = budget.saturating_sub(UNMAP_COST);
        self.flush(kernel);
        slice.free_tables(&frames);
        if slice.is_done() { Progress::Done } else { Progress::More }
    }

    /// Takes translations back: those of entries that were changed.
    fn flush(&self, kernel: &'static Kernel<A>) {
        // SeqCst: after the entries were changed and before the look at the CPUs; see `generation`.
        self.generation.fetch_add(1, Ordering::SeqCst);
        kernel.shoot_down(kernel.arch.this_cpu(), self.active.load(Ordering::SeqCst));
    }

    /// Takes a mapping out of the table and the list, a slice at a time. Called under its derivation's lock.
    pub fn remove(&self, kernel: &'static Kernel<A>, mapping: &Ref<Capability<A>, A>, budget: &mut u32) -> Progress {
        if self.unmap(kernel, mapping, budget) == Progress::More {
            return Progress::More;
        }
        let mut state = self.state.lock();
        if state.mappings.remove(mapping).is_some() {
            state.count -= 1;
            if let Object::Memory(memory) = &mapping.object {
                memory.uncount_mapping();
            }
        }
        Progress::Done
    }

    /// Empties it for good, a slice at a time.
    pub fn clear(&self, kernel: &'static Kernel<A>, cpu: &mut Cpu<A>, budget: &mut u32) -> Progress {
        loop {
            let Some(mapping) = self.state.lock().mappings.front_ref() else { break };
            if *budget == 0 || kernel.unmap(cpu, self, &mapping, budget) == Progress::More {
                return Progress::More;
            }
        }
        if self.active.load(Ordering::SeqCst) != 0 {
            // A CPU is just leaving it.
            return Progress::More;
        }
        self.give_back()
    }

    /// Gives the tables back. Nothing is mapped and no CPU uses it.
    pub fn give_back(&self) -> Progress {
        let frames = self.frames();
        let mut state = self.state.lock();
        if state.table.destroy(&frames, &mut { ENTRIES_PER_SLICE }, |_| ()) { Progress::Done } else { Progress::More }
    }
}

impl<A: Arch> DomainSpace<A> {
    /// Maps a page that the kernel shares with the domain: a thread's message buffer, a vCPU's state.
    pub fn map_buffer(
        &self,
        domain: &Ref<Domain<A>, A>,
        memory: &Ref<Memory<A>, A>,
        start: UserVirt,
    ) -> Result<(), Status> {
        let start = SpaceAddr::from(start);
        let end = start.checked_add(PAGE_SIZE).filter(|end| end.as_u64() <= USER_END).ok_or(Status::BadArgument)?;
        if !start.is_aligned(PageSize::Size4K) || start.as_u64() < dragonfly_abi::USER_START {
            return Err(Status::BadArgument);
        }
        let charge = domain.charge_object::<Derivation<A>>()?;
        let derivation = Derivation::new(Object::Memory(memory.clone()), domain.clone(), charge);
        let derivation = Ref::<_, A>::try_new(self.arch.heap(), derivation).map_err(|_| Status::OutOfMemory)?;
        let range = MappedRange { start, end, offset: ObjectOffset::new(0), access: Rights::READ | Rights::WRITE };
        let listed = domain.owned.lock().push_back(derivation.clone());
        debug_assert!(listed.is_ok());
        let mapped = self.map(Place::Mapping(domain.clone()), None, &derivation, memory, range);
        if mapped.is_err() {
            self.arch.kernel().disown(&derivation);
        }
        mapped
    }

    /// Unmaps such a page, if the domain has not done so itself.
    pub fn unmap_buffer(&self, kernel: &'static Kernel<A>, memory: &Ref<Memory<A>, A>) {
        let shows = |object: &Object<A>| matches!(object, Object::Memory(shown) if Ref::<_, A>::ptr_eq(shown, memory));
        let mapping = self.state.lock().mappings.find(|mapping| shows(&mapping.object));
        if let Some(mapping) = mapping {
            // One page: a slice is enough.
            let _ = kernel.remove(&mapping, &mut { SLICE });
            kernel.disown(&mapping.derivation);
        }
    }

    /// Looks through the live table from an address on, as the CPU would:
    /// `[leaves, writable and executable ones, ones of the kernel's half open to domains, next address or 0]`.
    pub fn audit(&self, from: u64) -> [u64; 6] {
        let state = self.state.lock();
        let (mut leaves, mut writable_code, mut open) = (0, 0, 0);
        let next = state.table.for_each_leaf(&self.arch, HostVirt::new(from), &mut { AUDIT_SLICE }, |leaf| {
            leaves += 1;
            writable_code += u64::from(leaf.access.is_writable && leaf.access.is_executable);
            open += u64::from(leaf.access.is_user && leaf.base.as_u64() >= USER_END);
        });
        [leaves, writable_code, open, next.map_or(0, HostVirt::as_u64), 0, 0]
    }
}

/// Where in the object an address of the mapping shows.
fn offset_of(range: &MappedRange, address: SpaceAddr) -> Option<u64> {
    range.offset.as_u64().checked_add(address.checked_offset_from(range.start)?)
}

/// The frame that a page of this size around an address would show, if the mapping and the block both hold it whole.
fn frame_for(range: &MappedRange, block: &Block, address: SpaceAddr, size: PageSize) -> Option<HostPhys> {
    let first = address.align_down(size);
    let past = first.checked_add(size.bytes())?;
    if first < range.start || past > range.end {
        return None;
    }
    let inside = offset_of(range, first)?.checked_sub(block.offset)?;
    if inside.checked_add(size.bytes())? > block.length {
        return None;
    }
    let frame = block.frames.checked_add(inside)?;
    frame.is_aligned(size).then_some(frame)
}

#[cfg(test)]
mod inspection {
    use dragonfly_memory::Mapping;

    use super::{Arch, Capability, DomainSpace, HostVirt, Ordering, Ref, USER_END};

    impl<A: Arch> DomainSpace<A> {
        /// The pages of the user half.
        pub fn pages(&self) -> Vec<Mapping<HostVirt>> {
            let state = self.state.lock();
            let mut pages = Vec::new();
            state.table.for_each_leaf(&self.arch, HostVirt::new(0), &mut { u32::MAX }, |page| pages.push(page));
            pages.retain(|page| page.base.as_u64() < USER_END);
            pages
        }

        /// The mappings, by address.
        pub fn mappings(&self) -> Vec<Ref<Capability<A>, A>> {
            let state = self.state.lock();
            let mut mappings = Vec::new();
            state.mappings.find(|mapping| {
                mappings.extend(state.mappings.find(|other| std::ptr::eq(other, mapping)));
                false
            });
            assert_eq!(mappings.len() as u64, state.count, "mappings and their count");
            mappings
        }

        /// The CPUs on which it is active.
        pub fn active_cpus(&self) -> u64 {
            self.active.load(Ordering::SeqCst)
        }
    }
}
