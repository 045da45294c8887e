//! What the loader says: the command line, the memory, the ACPI tables (Xen, `public/arch-x86/hvm/start_info.h`).

use super::cpu::peek;

unsafe extern "C" {
    static start_information: u64;
}

// Offsets in the start structure.
const COMMAND_LINE: u64 = 24;
const RSDP: u64 = 32;
const MEMORY_MAP: u64 = 40;
const MEMORY_MAP_ENTRIES: u64 = 48;
/// Size of an entry of the memory map: address, size, type, reserved.
const ENTRY_SIZE: u64 = 24;
const TYPE_RAM: u32 = 1;

fn field<T: Copy>(offset: u64) -> T {
    // SAFETY: written once by long_mode.s, before this code runs.
    peek(unsafe { start_information } + offset)
}

fn command_line() -> &'static str {
    let address: u64 = field(COMMAND_LINE);
    if address == 0 {
        return "";
    }
    let length = (0..4096).take_while(|offset| peek::<u8>(address + offset) != 0).count();
    // SAFETY: the loader's bytes, below the guest's image, which nothing overwrites.
    let bytes = unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(address as usize), length) };
    core::str::from_utf8(bytes).unwrap_or("")
}

/// The value of `name=value` in the command line.
pub fn argument(name: &str) -> Option<&'static str> {
    command_line().split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
}

/// The number in the command line's `name=number`, or another.
pub fn number_argument(name: &str, otherwise: u64) -> u64 {
    argument(name).and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Physical address of the ACPI tables' root.
pub fn rsdp_address() -> u64 {
    field(RSDP)
}

/// Physical address where the RAM ends that starts at 1 MiB or below and holds this guest.
pub fn memory_end() -> u64 {
    let (map, entries): (u64, u32) = (field(MEMORY_MAP), field(MEMORY_MAP_ENTRIES));
    let ends = (0..u64::from(entries)).map(|index| map + index * ENTRY_SIZE).filter_map(|entry| {
        let (start, size, kind): (u64, u64, u32) = (peek(entry), peek(entry + 8), peek(entry + 16));
        (kind == TYPE_RAM && start <= 0x10_0000).then_some(start + size)
    });
    ends.max().unwrap_or(64 << 20)
}
