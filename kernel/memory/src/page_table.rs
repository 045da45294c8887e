//! Page tables of any format: one walker, and a policy for each format.
//!
//! Operations over ranges work in slices, within a budget of entries to look at. Tables that become empty leave the
//! page table at once but are kept by the slice's result: a processor may still walk them until the caller has flushed
//! the TLBs. Which memory a page table lets somebody reach is the caller's matter; the tables themselves are safe from
//! it.
#![expect(unsafe_code, reason = "tables are reached by their physical addresses")]

use core::fmt;
use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use crate::address::{Address, HostPhys, PAGE_SIZE, PageSize};
use crate::physical::{FrameSource, PhysicalMemory};
use format::{MAX_LEVELS, span_mask, span_shift};
use walk::{ENTRIES, entry, index, set_count};

mod dirty;
mod ept;
mod format;
mod frame_index;
mod host;
mod nested;
mod range;
#[cfg(all(test, not(loom)))]
mod tests;
mod walk;

pub use ept::{EptFormat, EptTracking};
pub use format::{Access, Entry, Mapping, PageFormat};
pub use frame_index::FrameIndex;
pub use host::HostFormat;
pub use nested::NestedFormat;
pub use range::Unmapped;

/// The last physical address that fits into an entry of any format.
const LAST_PHYS: HostPhys = HostPhys::new((1 << 52) - 1);

/// Why a page cannot be mapped.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MapError {
    /// There is no frame for a table that is needed.
    OutOfMemory,
    /// The address, or part of what the page would cover, is mapped already.
    AlreadyMapped,
    /// The page does not fit the table: an address is not aligned to the page's size or outside of what the table or an
    /// entry can hold, or the format has no such pages.
    Misaligned,
}

impl fmt::Display for MapError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::OutOfMemory => "no frame left for a page table",
            Self::AlreadyMapped => "something is mapped there already",
            Self::Misaligned => "the page does not fit the page table there",
        })
    }
}

/// The upper half of a page table, which others share: that of the kernel.
#[derive(Clone, Copy, Debug)]
pub struct SharedHalf {
    root: HostPhys,
}

impl SharedHalf {
    /// Root of the table that it is the upper half of.
    #[inline]
    #[must_use]
    pub const fn root(self) -> HostPhys {
        self.root
    }
}

/// A page table.
///
/// Frames for tables come from the source that an operation gets, and go to the one that a later operation gets: all
/// are to be of one frame allocator. [`destroy`](Self::destroy) gives them back; a page table that is dropped before
/// keeps them.
pub struct PageTable<F> {
    format: F,
    /// The entry that covers all addresses. Its table is the root.
    top: AtomicU64,
    /// Entries of the root that belong to this table, from the first on; the others are shared.
    owned_entries: u64,
    has_fixed_root: bool,
    is_shared: bool,
    /// How far `destroy` has come.
    destroyed_up_to: u64,
}

impl<F: PageFormat> PageTable<F> {
    /// A page table that translates nothing and has no table yet: for formats that no hardware reads.
    #[must_use]
    pub const fn empty(format: F) -> Self {
        Self {
            format,
            top: AtomicU64::new(0),
            owned_entries: ENTRIES,
            has_fixed_root: false,
            is_shared: false,
            destroyed_up_to: 0,
        }
    }

    /// A page table that translates nothing, with a root that stays until it is destroyed.
    ///
    /// # Errors
    /// There is no frame for the root, or the format has no tables.
    pub fn new<S: FrameSource>(format: F, source: &S) -> Result<Self, MapError> {
        if format.levels() == 0 {
            return Err(MapError::Misaligned);
        }
        let root = take_table(source)?;
        Ok(Self { top: AtomicU64::new(format.table(root, 0)), has_fixed_root: true, ..Self::empty(format) })
    }

    /// A page table with a lower half of its own, which translates nothing, and the upper half of another.
    ///
    /// # Errors
    /// As for [`new`](Self::new).
    pub fn new_user<S: FrameSource>(format: F, source: &S, upper: SharedHalf) -> Result<Self, MapError> {
        let table = Self::new(format, source)?;
        let root = table.root();
        for index in ENTRIES / 2..ENTRIES {
            // SAFETY: Both are roots: this one's, and that of a table that is never destroyed since it is shared.
            let (from, to) = unsafe { (entry(source, upper.root, index), entry(source, root, index)) };
            to.store(from.load(Ordering::Acquire), Ordering::Release);
        }
        Ok(Self { owned_entries: ENTRIES / 2, ..table })
    }

    /// Lets other tables share the upper half. Changes there are theirs, too, but for new entries of the root: the
    /// upper half should have all of those by now. The page table cannot be destroyed any more. `None` if it has no
    /// root.
    pub fn share(&mut self) -> Option<SharedHalf> {
        self.is_shared = self.has_fixed_root && self.owned_entries == ENTRIES;
        self.is_shared.then_some(SharedHalf { root: self.root() })
    }

    /// The root, for the processor's register; 0 if there is none.
    #[inline]
    #[must_use]
    pub fn root(&self) -> HostPhys {
        self.root_table().unwrap_or_default()
    }

    #[inline]
    fn root_table(&self) -> Option<HostPhys> {
        match self.format.decode(self.top.load(Ordering::Relaxed), self.format.levels()) {
            Entry::Table { frame, .. } => Some(frame),
            _ => None,
        }
    }

    /// The size of the largest page that can be mapped.
    #[inline]
    #[must_use]
    pub fn largest_page(&self) -> PageSize {
        self.format.largest_page()
    }

    /// Maps one page.
    ///
    /// # Errors
    /// See [`MapError`]; nothing changes then.
    pub fn map<S: FrameSource>(
        &mut self,
        source: &S,
        input: F::Input,
        phys: HostPhys,
        size: PageSize,
        access: Access,
    ) -> Result<(), MapError> {
        let bits = self.bits(input);
        let fits =
            self.format.extend(bits) == input.as_u64() && bits <= self.last_owned() && size <= self.largest_page();
        if !fits || !phys.is_aligned(size) || phys > LAST_PHYS || bits & (size.bytes() - 1) != 0 {
            return Err(MapError::Misaligned);
        }
        let mut level = self.format.levels();
        let mut slot = &self.top;
        let mut parent = None;
        while let Entry::Table { frame, count } = self.format.decode(slot.load(Ordering::Relaxed), level) {
            if level <= size.level() {
                return Err(MapError::AlreadyMapped);
            }
            parent = Some((slot, frame, count));
            level -= 1;
            // SAFETY: The frame comes from an entry of this page table.
            slot = unsafe { entry(source, frame, index(bits, level)) };
        }
        if slot.load(Ordering::Relaxed) != 0 {
            return Err(MapError::AlreadyMapped);
        }
        if level < size.level() || (parent.is_none() && self.has_fixed_root) {
            return Err(MapError::Misaligned);
        }
        let leaf = self.format.leaf(phys, size, access);
        let branch = self.branch(source, bits, leaf, size.level()..level)?;
        // Release: a processor that sees the entry sees what it leads to.
        slot.store(branch, Ordering::Release);
        if let Some((slot, frame, count)) = parent {
            set_count(self.format, slot, frame, count + 1);
        }
        Ok(())
    }

    /// Tables for these levels of entries, one below the other, the lowest with this leaf: gives the entry that leads
    /// there.
    fn branch<S: FrameSource>(&self, source: &S, bits: u64, leaf: u64, levels: Range<u32>) -> Result<u64, MapError> {
        let mut tables = [HostPhys::new(0); MAX_LEVELS as usize];
        let mut branch = leaf;
        for (place, level) in levels.clone().enumerate() {
            let Ok(table) = take_table(source) else {
                for &table in tables.iter().take(place) {
                    // SAFETY: It was taken here, and nothing leads there.
                    unsafe { source.give_frame(table) };
                }
                return Err(MapError::OutOfMemory);
            };
            // SAFETY: The table was just made.
            unsafe { entry(source, table, index(bits, level)) }.store(branch, Ordering::Relaxed);
            branch = self.format.table(table, 1);
            if let Some(place) = tables.get_mut(place) {
                *place = table;
            }
        }
        Ok(branch)
    }

    /// The page that translates an address.
    #[inline]
    #[must_use]
    pub fn query<M: PhysicalMemory>(&self, memory: &M, input: F::Input) -> Option<Mapping<F::Input>> {
        let bits = self.bits(input);
        if self.format.extend(bits) != input.as_u64() {
            return None;
        }
        let mut level = self.format.levels();
        let mut slot = &self.top;
        loop {
            match self.format.decode(slot.load(Ordering::Acquire), level) {
                Entry::Empty => return None,
                Entry::Leaf { frame, access } => {
                    let base = F::Input::new(self.format.extend(bits & !span_mask(level)));
                    return Some(Mapping { base, phys: frame, size: PageSize::of_level(level)?, access });
                }
                Entry::Table { frame, .. } => {
                    level = level.checked_sub(1)?;
                    // SAFETY: The frame comes from an entry of this page table.
                    slot = unsafe { entry(memory, frame, index(bits, level)) };
                }
            }
        }
    }

    /// Whether smaller pages are mapped where a page of this size would be.
    #[must_use]
    pub fn has_table_at<M: PhysicalMemory>(&self, memory: &M, input: F::Input, size: PageSize) -> bool {
        let bits = self.bits(input);
        let mut level = self.format.levels();
        let mut slot = &self.top;
        while let Entry::Table { frame, .. } = self.format.decode(slot.load(Ordering::Acquire), level) {
            if level <= size.level() {
                return true;
            }
            level -= 1;
            // SAFETY: The frame comes from an entry of this page table.
            slot = unsafe { entry(memory, frame, index(bits, level)) };
        }
        false
    }

    /// Cuts the page that reaches across `at`, if there is one, so that a page starts there. What is translated stays
    /// the same, and whether it is dirty is forgotten; the caller flushes the TLBs before it changes one of the new pages.
    ///
    /// # Errors
    /// There is no frame for a table, or `at` is no multiple of 4 KiB. Some larger page may be cut then.
    pub fn split<S: FrameSource>(&mut self, source: &S, at: F::Input) -> Result<(), MapError> {
        let bits = self.bits(at);
        if !bits.is_multiple_of(PAGE_SIZE) || self.format.extend(bits) != at.as_u64() {
            return Err(MapError::Misaligned);
        }
        if bits > self.last_owned() {
            return Ok(());
        }
        let mut level = self.format.levels();
        let mut slot = &self.top;
        loop {
            match self.format.decode(slot.load(Ordering::Relaxed), level) {
                Entry::Table { frame, .. } if level > 0 => {
                    level -= 1;
                    // SAFETY: The frame comes from an entry of this page table.
                    slot = unsafe { entry(source, frame, index(bits, level)) };
                }
                Entry::Leaf { frame, access } if bits & span_mask(level) != 0 => {
                    let size = level.checked_sub(1).and_then(PageSize::of_level).ok_or(MapError::Misaligned)?;
                    let table = take_table(source)?;
                    for number in 0..ENTRIES {
                        let leaf = self.format.leaf(frame.wrapping_add(number * size.bytes()), size, access);
                        // SAFETY: The table was just made.
                        unsafe { entry(source, table, number) }.store(leaf, Ordering::Relaxed);
                    }
                    slot.store(self.format.table(table, ENTRIES as u32), Ordering::Release);
                }
                _ => return Ok(()),
            }
        }
    }

    /// The bits of an address that are translated.
    #[inline]
    fn bits(&self, input: F::Input) -> u64 {
        input.as_u64() & span_mask(self.format.levels())
    }

    /// The last address that is not shared.
    #[inline]
    fn last_owned(&self) -> u64 {
        match self.format.levels().checked_sub(1) {
            Some(below) => (self.owned_entries << span_shift(below)) - 1,
            None => span_mask(0),
        }
    }
}

/// A table with empty entries.
fn take_table<S: FrameSource>(source: &S) -> Result<HostPhys, MapError> {
    let frame = source.take_frame().ok_or(MapError::OutOfMemory)?;
    // SAFETY: The frame is the caller's, and this large.
    unsafe { source.pointer(frame).write_bytes(0, PAGE_SIZE as usize) };
    Ok(frame)
}
