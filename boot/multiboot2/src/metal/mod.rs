//! The program's side of the machine: registers, ports and physical memory.
//!
//! `entry.s` brings the CPU to 64-bit mode with the first 4 GiB mapped to themselves and calls [`loader_main`].

#![expect(unsafe_code, reason = "this is the code that turns addresses into memory and starts the kernel")]

mod console;
mod enter;
mod stop;

use core::arch::{global_asm, x86_64::__cpuid};
use core::panic::PanicInfo;
use core::slice;

use dragonfly_handoff::{PhysAddr, PhysRange};
use dragonfly_multiboot2::LoadError;
use dragonfly_multiboot2::arena::{self, Arena};
use dragonfly_multiboot2::boot_info::{BootInfo, BootInfoError};
use dragonfly_multiboot2::load::{Launch, load};
use dragonfly_multiboot2::machine::{Cpu, Machine};
use dragonfly_multiboot2::rsdp;
use multiboot2::{BootInformation, BootInformationHeader};

global_asm!(include_str!("entry.s"), loader_main = sym loader_main);

/// Called by `entry.s` with what the boot loader passed in EBX.
extern "C" fn loader_main(boot_info: *const BootInformationHeader) -> ! {
    match prepare(boot_info) {
        Ok(launch) => enter::kernel(&launch),
        Err(error) => stop::with_error(&error),
    }
}

fn prepare(boot_info: *const BootInformationHeader) -> Result<Launch, LoadError> {
    // SAFETY: entry.s has seen the boot loader's magic number, so EBX held the address of its information, which is below
    // 4 GiB, mapped, and written by nobody: the arena leaves it out.
    let information = unsafe { BootInformation::load(boot_info) }.map_err(|_| BootInfoError::Damaged)?;
    let tags = information.tags().map(|tag| (tag.header().typ.get(), tag.payload()));
    stop::choose_exit(BootInfo::command_line(tags.clone())?);
    let mut boot = BootInfo::read(tags)?;
    if boot.rsdp.is_none() && !boot.uefi {
        boot.rsdp = find_rsdp();
    }
    let machine = Machine {
        cpu: cpu(),
        boot,
        boot_info_memory: range(information.start_address(), information.end_address()),
        loader_image: range((&raw const loader_image_start).addr(), (&raw const loader_image_end).addr()),
        loader_code: range((&raw const loader_code_start).addr(), (&raw const loader_code_end).addr()),
    };
    let free = arena::choose(&machine.memory_map_before()?).ok_or(LoadError::NoArena)?;
    // SAFETY: the range is RAM between 1 MiB and 4 GiB, which is mapped writable; the memory map says that it is free, which
    // leaves out this program, what the boot loader passed, and both modules; nothing else runs.
    let free_memory = unsafe { slice::from_raw_parts_mut(free.base().0 as *mut u8, free.size() as usize) };
    // SAFETY: modules are below 4 GiB and not at 0, and the arena does not overlap them.
    let (kernel_file, bundle_file) =
        unsafe { (physical_memory(machine.boot.kernel), physical_memory(machine.boot.bundle)) };
    load(&machine, kernel_file, bundle_file, Arena::new(free.base(), free_memory))
}

// From the link script.
unsafe extern "C" {
    static loader_image_start: u8;
    static loader_image_end: u8;
    static loader_code_start: u8;
    static loader_code_end: u8;
}

fn range(start: usize, end: usize) -> PhysRange {
    PhysRange::new(PhysAddr(start as u64), end.saturating_sub(start) as u64).unwrap_or_default()
}

/// Reads physical memory where it is mapped to itself.
///
/// # Safety
/// `range` is below 4 GiB and not at 0, and nothing writes to it any more.
unsafe fn physical_memory(range: PhysRange) -> &'static [u8] {
    // SAFETY: entry.s maps the first 4 GiB to themselves; the rest is the caller's promise.
    unsafe { slice::from_raw_parts(range.base().0 as *const u8, range.size() as usize) }
}

/// The first KiB of the extended BIOS data area, then the BIOS's read-only memory (ACPI 6.5, 5.2.5.1).
fn find_rsdp() -> Option<&'static [u8]> {
    let in_range = |base, size| {
        let range = PhysRange::new(PhysAddr(base), size)?;
        // SAFETY: both areas are below 1 MiB, where a PC has memory at every address and the loader writes nothing.
        rsdp::find(unsafe { physical_memory(range) })
    };
    // SAFETY: the BIOS data area is at this address on every PC with a BIOS; the word is two bytes at an even address.
    let segment = unsafe { (0x40e as *const u16).read_volatile() };
    let extended_area = (segment != 0).then(|| u64::from(segment) << 4);
    extended_area.and_then(|base| in_range(base, 0x400)).or_else(|| in_range(0xe_0000, 0x2_0000))
}

/// Extended leaf 8000_0001h is there: entry.s looked for long mode in it (SDM 2A, CPUID; APM 3, appendix E).
fn cpu() -> Cpu {
    let leaf = |number| __cpuid(number);
    let features = leaf(0x8000_0001).edx;
    let has_sizes = leaf(0x8000_0000).eax >= 0x8000_0008;
    Cpu {
        no_execute: features & 1 << 20 != 0,
        gib_pages: features & 1 << 26 != 0,
        physical_address_bits: if has_sizes { leaf(0x8000_0008).eax & 0xff } else { 36 },
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    stop::with_error(info)
}
