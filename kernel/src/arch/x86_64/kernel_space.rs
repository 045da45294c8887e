//! The kernel's own address space: the upper half, the same in every domain's tables.
//!
//! | from | what |
//! |---|---|
//! | `0xffff_8000_0000_0000` | direct map of RAM, writable but for the kernel's code and constants; never executable |
//! | same, past or between RAM | registers of devices that the kernel drives, uncached |
//! | `0xffff_f000_0000_0000` | per CPU: stacks, each above an unmapped guard page |
//! | `0xffff_ffff_8000_0000` | the kernel's image: code executable, constants read-only, data writable |
//!
//! All of it is made at boot, before the first domain copies the upper half's entries, and never changes.

use dragonfly_handoff::{Handoff, MemoryKind, MemoryMap, PhysRange, SegmentFlags};
use dragonfly_memory::{
    Access, FrameUse, HostFormat, HostPhys, HostVirt, Lock, NodeFrames, PAGE_SIZE, PageSize, PageTable, SharedHalf,
};
use spin::Once;

use super::{DIRECT_MAP_BASE, FRAMES, X86};
use crate::arch::Arch;

/// Where per-CPU stacks are.
const STACKS: u64 = 0xffff_f000_0000_0000;
/// Address space of one CPU's stacks.
const STACKS_PER_CPU: u64 = 1 << 20;
/// Address space of one stack: its guard page is at the bottom.
const STACK_SPACING: u64 = 128 << 10;

type KernelTable = PageTable<HostFormat>;

/// The upper half of the kernel's tables, once they are made.
static HALF: Once<SharedHalf> = Once::new();
static TABLE: Lock<Option<KernelTable>, <X86 as Arch>::Relax> = Lock::new(None);

/// Root of the kernel's tables.
pub fn root() -> HostPhys {
    half().root()
}

/// The upper half of the kernel's tables.
pub fn half() -> SharedHalf {
    match HALF.get() {
        Some(half) => *half,
        None => panic!("the kernel's tables are not made yet"),
    }
}

/// Frames of the kernel's own tables, charged to nobody.
fn source() -> NodeFrames<'static, X86, <X86 as Arch>::Relax> {
    NodeFrames::new(&FRAMES, 0)
}

/// Access of kernel data.
const DATA: Access = Access { is_writable: true, is_executable: false, is_user: false, is_device: false };
/// Access of constants.
const CONSTANT: Access = Access { is_writable: false, ..DATA };
/// Access of code.
const CODE: Access = Access { is_writable: false, is_executable: true, ..DATA };
/// Access of device registers.
const DEVICE: Access = Access { is_device: true, ..DATA };

/// Makes the kernel's tables. They are not active yet.
pub fn build(handoff: &Handoff, map: &MemoryMap) -> Result<(), &'static str> {
    let out_of_memory = "too little memory for the kernel's page tables";
    let mut table = PageTable::new(X86.format(), &source()).map_err(|_| out_of_memory)?;
    for (range, kind) in map.iter() {
        if kind.is_ram() && kind != MemoryKind::UNUSABLE {
            map_directly(&mut table, handoff, range).map_err(|()| out_of_memory)?;
        }
    }
    for segment in &handoff.kernel {
        let access = match segment.flags {
            flags if flags.contains(SegmentFlags::EXECUTE) => CODE,
            flags if flags.contains(SegmentFlags::WRITE) => DATA,
            _ => CONSTANT,
        };
        let frames = segment.frames;
        for offset in (0..frames.size()).step_by(PAGE_SIZE as usize) {
            let virt = HostVirt::new(segment.virtual_base.0 + offset);
            let phys = HostPhys::new(frames.base().0 + offset);
            table.map(&source(), virt, phys, PageSize::Size4K, access).map_err(|_| out_of_memory)?;
        }
    }
    let half = table.share().ok_or(out_of_memory)?;
    HALF.call_once(|| half);
    *TABLE.lock() = Some(table);
    Ok(())
}

/// Shows RAM in the direct map, in pages as large as fit. What is code or constant of the kernel is read-only.
fn map_directly(table: &mut KernelTable, handoff: &Handoff, range: PhysRange) -> Result<(), ()> {
    let is_fixed = |page: u64| {
        handoff.kernel.iter().any(|segment| {
            let frames = segment.frames;
            !segment.flags.contains(SegmentFlags::WRITE) && (frames.base().0..frames.end().0).contains(&page)
        })
    };
    // Large pages stay clear of the kernel's image.
    let touches_kernel = |start: u64, end: u64| {
        handoff.kernel.iter().any(|segment| segment.frames.base().0 < end && start < segment.frames.end().0)
    };
    let (mut at, end) = (range.base().0 & !(PAGE_SIZE - 1), range.end().0);
    while at < end {
        let fits = |size: &PageSize| {
            at.is_multiple_of(size.bytes())
                && end - at >= size.bytes()
                && *size <= table.largest_page()
                && (*size == PageSize::Size4K || !touches_kernel(at, at + size.bytes()))
        };
        let size = PageSize::LARGEST_FIRST.into_iter().find(fits).unwrap_or(PageSize::Size4K);
        let access = if is_fixed(at) { CONSTANT } else { DATA };
        table.map(&source(), HostVirt::new(DIRECT_MAP_BASE + at), HostPhys::new(at), size, access).map_err(|_| ())?;
        at += size.bytes();
    }
    Ok(())
}

/// Shows a device's registers, uncached, in the direct map's address space.
pub fn map_device(start: u64, bytes: u64) -> Option<*mut u32> {
    let first = start & !(PAGE_SIZE - 1);
    let end = start.checked_add(bytes)?;
    let mut guard = TABLE.lock();
    let table = guard.as_mut()?;
    for page in (first..end).step_by(PAGE_SIZE as usize) {
        let virt = HostVirt::new(DIRECT_MAP_BASE.checked_add(page)?);
        match table.query(&source(), virt) {
            Some(mapping) if mapping.access.is_device => {}
            // RAM is no device.
            Some(_) => return None,
            None => table.map(&source(), virt, HostPhys::new(page), PageSize::Size4K, DEVICE).ok()?,
        }
    }
    Some((DIRECT_MAP_BASE + start) as *mut u32)
}

/// Makes a stack for a CPU, of whole pages, and gives its top. Below it is a page that is never mapped.
pub fn new_stack(cpu: usize, number: u64, bytes: u64) -> Option<u64> {
    let bottom = STACKS + cpu as u64 * STACKS_PER_CPU + number * STACK_SPACING + PAGE_SIZE;
    let mut guard = TABLE.lock();
    let table = guard.as_mut()?;
    for offset in (0..bytes).step_by(PAGE_SIZE as usize) {
        let frame = FRAMES.lock().alloc(0, 0, FrameUse::Kernel)?;
        table.map(&source(), HostVirt::new(bottom + offset), frame, PageSize::Size4K, DATA).ok()?;
    }
    Some(bottom + bytes)
}

/// Tables for CPUs that start: the kernel's, and one page executable at its own address below 1 MiB. The root is below
/// 4 GiB, as CR3 is loaded in 32-bit mode.
pub fn start_up_root(page: HostPhys) -> Option<HostPhys> {
    let mut table: KernelTable = PageTable::new_user(X86.format(), &source(), half()).ok()?;
    table.map(&source(), HostVirt::new(page.as_u64()), page, PageSize::Size4K, CODE).ok()?;
    let root = table.root();
    // Dropped without being destroyed, the tables stay: CPUs run in them until they have arrived.
    (root.as_u64() < 1 << 32).then_some(root)
}
