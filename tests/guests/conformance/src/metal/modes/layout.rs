//! Low memory and selectors, as the machine code in `switch.s` knows them, too.

/// Start of 64 KiB that each mode's CS, DS, ES and SS begin at, but those of 64-bit mode.
pub const LOW: u32 = 0x2_0000;
/// A guard, so that offsets that wrap have somewhere to go: 16-bit code begins behind it.
pub const LOW_OFFSET: u32 = 0x100;
/// What the switch is to set.
pub const PLAN: u32 = 0x1000;
/// What a handler has seen.
pub const RESULT: u32 = 0x1200;
/// Real mode's interrupt vectors.
pub const VECTORS: u32 = 0x1800;
/// How often a handler that counts was called.
pub const COUNT: u32 = 0x1c00;
/// Code under test.
pub const CODE: u32 = 0x2000;
/// Memory for it.
pub const MEMORY: u32 = 0x4000;
/// A page that holds data.
pub const DATA_EXECUTED: u32 = 0x5000;
/// End of its stack.
pub const STACK: u32 = 0x7000;
/// End of the handlers' stack, where that is another one: a linear address.
pub const KERNEL_STACK: u32 = LOW + 0x8000;
/// With paging: a page that is not there.
pub const ABSENT: u32 = 0x8000;
/// A page that is not writable.
pub const READ_ONLY: u32 = 0x9000;
/// A page that is elsewhere in RAM.
pub const ALIAS: u32 = 0xa000;
/// A page that programs may not use.
pub const HIDDEN: u32 = 0xb000;
/// Offset in FS's segment from which on there is nothing.
pub const NOTHING_OFFSET: u32 = 0x8000;
/// A port that virtual-8086 mode and programs may not use.
pub const IO_MAP_PORT: u16 = 0xe4;

/// 64-bit code.
pub const CODE_64: u16 = 0x8;
/// Data, flat.
pub const DATA: u16 = 0x10;
/// 32-bit code, flat.
pub const CODE_32: u16 = 0x18;
/// 16-bit code in low memory.
pub const LOW_CODE: u16 = 0x20;
/// 16-bit data in low memory.
pub const LOW_DATA: u16 = 0x28;
/// The mode's code.
pub const MODE_CODE: u16 = 0x30;
/// The mode's data.
pub const DATA_OF_MODE: u16 = 0x38;
/// The I/O APIC.
pub const WINDOW: u16 = 0x40;
/// Configuration space.
pub const CONFIGURATION: u16 = 0x48;
/// Task state, of two entries in long mode.
pub const TASK: u16 = 0x50;
/// Programs' code.
pub const USER_CODE: u16 = 0x60;
/// Programs' data.
pub const USER_DATA: u16 = 0x68;
/// For tests to set.
pub const SPARE: u16 = 0x70;

/// The linear address of an offset in low memory.
pub const fn low(offset: u32) -> u32 {
    LOW + offset
}
