//! Places the kernel and all that it starts with.

use arrayvec::ArrayVec;
use dragonfly_handoff::{
    DIRECT_MAP_BASE, DirectMap, HANDOFF_SIZE, Handoff, HandoffFlags, KernelSegment, LoaderName, MAX_KERNEL_SEGMENTS,
    MAX_MEMORY_REGIONS, MemoryKind, MemoryRegion, PhysAddr, PhysRange, SegmentFlags, VirtAddr,
};

use crate::LoadError;
use crate::arena::{self, Arena};
use crate::kernel_image::{KernelImage, Segment};
use crate::machine::{Machine, region};
use crate::page_tables::{PageSize, PageTables};

/// Size of the stack that the kernel starts on, in bytes.
const STACK_SIZE: u64 = 32 << 10;

/// Where and with what the kernel is to be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// What CR3 is to hold.
    pub page_tables: PhysAddr,
    /// Whether the page tables use no-execute.
    pub no_execute: bool,
    /// Where execution begins.
    pub entry: VirtAddr,
    /// End of the stack, a multiple of 16.
    pub stack_end: VirtAddr,
    /// The handoff.
    pub handoff: VirtAddr,
}

/// Puts the kernel of `kernel_file` and all that it starts with into memory of the arena. Of what the boot loader left, only
/// the bundle is in use afterwards.
///
/// # Errors
/// Any of [`LoadError`].
pub fn load(
    machine: &Machine<'_>,
    kernel_file: &[u8],
    bundle_file: &[u8],
    mut arena: Arena<'_>,
) -> Result<Launch, LoadError> {
    let image = KernelImage::parse(kernel_file)?;
    let kernel = place_segments(&image, &mut arena)?;
    // GRUB on UEFI puts modules as low as they fit, and a large one could leave no page there.
    let in_place = machine.boot.bundle.base() >= arena::LOWEST;
    let bundle = if in_place { machine.boot.bundle } else { place(&mut arena, bundle_file, "the bundle")? };
    let boot_memory_end = arena.taken().base();

    let map = machine.memory_map(&[])?;
    let direct_map = DirectMap { base: DIRECT_MAP_BASE, size: machine.direct_map_size(&map) };
    let tables = build_page_tables(machine, direct_map, &kernel, &mut arena)?;
    let stack = take(&mut arena, STACK_SIZE, "the kernel's stack")?;
    let command_line = place(&mut arena, machine.boot.command_line.as_str().as_bytes(), "the command line")?;
    let rsdp = machine.boot.rsdp.map(|rsdp| place(&mut arena, rsdp, "the ACPI root pointer")).transpose()?;
    let map_size = MAX_MEMORY_REGIONS * size_of::<MemoryRegion>();
    let memory_map = take(&mut arena, map_size as u64, "the memory map")?;
    let handoff_memory = take(&mut arena, HANDOFF_SIZE as u64, "the handoff")?;

    // Nothing is taken any more, so the map can be written.
    let boot_memory = range_between(arena.taken().base(), boot_memory_end);
    let map = machine.memory_map(&regions_in_use(&kernel, bundle, boot_memory))?;
    let memory_map = write(&mut arena, memory_map, map.as_bytes(), "the memory map")?;

    let mut flags = HandoffFlags::empty();
    flags.set(HandoffFlags::NO_EXECUTE, machine.cpu.no_execute);
    flags.set(HandoffFlags::UEFI, machine.boot.uefi);
    let handoff = Handoff {
        flags,
        memory_map,
        kernel,
        bundle,
        command_line,
        acpi_rsdp: rsdp.map(PhysRange::base),
        boot_memory,
        direct_map,
        loader_name: LoaderName::new(concat!("dragonfly-multiboot2 ", env!("CARGO_PKG_VERSION"))),
    };
    let handoff = write(&mut arena, handoff_memory, &handoff.encode()?, "the handoff")?;
    let virt = |range: PhysRange| direct_map.virt(range).ok_or(LoadError::NoArena);
    Ok(Launch {
        page_tables: tables.root(),
        no_execute: machine.cpu.no_execute,
        entry: image.entry,
        stack_end: VirtAddr(virt(stack)?.0.saturating_add(stack.size())),
        handoff: virt(handoff)?,
    })
}

fn place_segments(
    image: &KernelImage<'_>,
    arena: &mut Arena<'_>,
) -> Result<ArrayVec<KernelSegment, MAX_KERNEL_SEGMENTS>, LoadError> {
    let place = |segment: &Segment<'_>| {
        let frames = take(arena, segment.size, "the kernel")?;
        let start = PhysAddr(frames.base().0.saturating_add(segment.offset));
        arena.write(start, segment.contents).ok_or(LoadError::OutOfMemory(arena.range(), "the kernel"))?;
        Ok(KernelSegment { virtual_base: segment.virtual_base, frames, flags: segment.flags })
    };
    image.segments.iter().map(place).collect()
}

/// The three things that the contract wants mapped.
fn build_page_tables(
    machine: &Machine<'_>,
    direct_map: DirectMap,
    kernel: &[KernelSegment],
    arena: &mut Arena<'_>,
) -> Result<PageTables, LoadError> {
    let tables = PageTables::new(arena, machine.cpu.no_execute)?;
    for segment in kernel {
        let KernelSegment { virtual_base, frames, flags } = *segment;
        tables.map(arena, virtual_base, frames.base(), frames.size(), PageSize::Size4K, flags)?;
    }
    let page = machine.direct_map_page();
    tables.map(arena, direct_map.base, PhysAddr(0), direct_map.size, page, SegmentFlags::WRITE)?;
    let code = machine.loader_code;
    let same_address = VirtAddr(code.base().0);
    tables.map(arena, same_address, code.base(), code.size(), PageSize::Size4K, SegmentFlags::EXECUTE)?;
    Ok(tables)
}

fn regions_in_use(
    kernel: &[KernelSegment],
    bundle: PhysRange,
    boot_memory: PhysRange,
) -> ArrayVec<MemoryRegion, { MAX_KERNEL_SEGMENTS + 2 }> {
    let segments = kernel.iter().map(|segment| region(segment.frames, MemoryKind::KERNEL_IMAGE));
    segments.chain([region(bundle, MemoryKind::BUNDLE), region(boot_memory, MemoryKind::BOOTLOADER)]).collect()
}

fn range_between(start: PhysAddr, end: PhysAddr) -> PhysRange {
    PhysRange::new(start, end.0.saturating_sub(start.0)).unwrap_or_default()
}

fn take(arena: &mut Arena<'_>, size: u64, what: &'static str) -> Result<PhysRange, LoadError> {
    arena.take(size).ok_or(LoadError::OutOfMemory(arena.range(), what))
}

/// Copies `bytes` to memory of their own.
fn place(arena: &mut Arena<'_>, bytes: &[u8], what: &'static str) -> Result<PhysRange, LoadError> {
    let memory = take(arena, bytes.len() as u64, what)?;
    write(arena, memory, bytes, what)
}

/// Copies `bytes` to the beginning of `memory` and returns the part of it that they fill.
fn write(arena: &mut Arena<'_>, memory: PhysRange, bytes: &[u8], what: &'static str) -> Result<PhysRange, LoadError> {
    arena.write(memory.base(), bytes).ok_or(LoadError::OutOfMemory(arena.range(), what))?;
    Ok(PhysRange::new(memory.base(), bytes.len() as u64).unwrap_or_default())
}
