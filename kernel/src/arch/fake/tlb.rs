//! A CPU's translation look-aside buffer, of the worst kind: it keeps all it ever saw until it is flushed.

use dragonfly_memory::{Entry, HostFormat, HostPhys, HostVirt, PageFormat, PageSize};

/// What a walk of the page tables found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// The page's first address.
    pub page: HostVirt,
    /// Its size.
    pub size: PageSize,
    /// Where it is.
    pub frame: HostPhys,
    /// Whether it may be written.
    pub is_writable: bool,
    /// Whether it may be executed.
    pub is_executable: bool,
    /// The tables on the way, which CPUs keep too.
    tables: [HostPhys; 4],
}

/// What one CPU remembers.
#[derive(Default)]
pub struct Tlb {
    /// The active page table's root.
    pub root: Option<HostPhys>,
    /// Translations of it, as they were when they were used.
    pub translations: Vec<Translation>,
}

impl Tlb {
    /// The translation of an address, walking the tables only if it is not known.
    pub fn translate(&mut self, address: HostVirt, load: impl Fn(HostPhys) -> u64) -> Option<Translation> {
        let known = |translation: &&Translation| address.align_down(translation.size) == translation.page;
        if let Some(known) = self.translations.iter().find(known) {
            return Some(*known);
        }
        let found = walk(self.root?, address, load)?;
        self.translations.push(found);
        Some(found)
    }

    /// Forgets everything about a page: what a CPU does that faults on it.
    pub fn forget(&mut self, address: HostVirt) {
        self.translations.retain(|known| address.align_down(known.size) != known.page);
    }
}

/// Walks page tables as the CPU does (SDM 3A 4.5.4).
pub fn walk(root: HostPhys, address: HostVirt, load: impl Fn(HostPhys) -> u64) -> Option<Translation> {
    let format = HostFormat::new(true, PageSize::Size1G);
    let mut table = root;
    let mut tables = [HostPhys::default(); 4];
    for level in (0..4).rev() {
        tables[3 - level as usize] = table;
        let index = address.as_u64() >> (12 + 9 * level) & 0x1ff;
        match format.decode(load(table.wrapping_add(index * 8)), level) {
            Entry::Empty => return None,
            Entry::Table { frame, .. } => table = frame,
            Entry::Leaf { frame, access } => {
                let size = PageSize::LARGEST_FIRST[2 - level as usize];
                let (is_writable, is_executable) = (access.is_writable, access.is_executable);
                let page = address.align_down(size);
                return access.is_user.then_some(Translation { page, size, frame, is_writable, is_executable, tables });
            }
        }
    }
    None
}
