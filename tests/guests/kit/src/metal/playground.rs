//! Pages of 4 KiB at addresses of their own, to map, unmap and run programs in.

use core::cell::UnsafeCell;

use super::cpu::{self, peek, poke};

/// Address of the first page. There are 512, unmapped but for tests.
pub const BASE: u64 = 0x80_0000_0000;
/// Page that programs' code is in.
pub const USER_CODE: u64 = BASE + 0x1f_0000;
/// End of their stack.
pub const USER_STACK: u64 = BASE + 0x1f_3000;
/// Page of data for them.
pub const USER_DATA: u64 = BASE + 0x1f_4000;
/// RAM that tests use: from here to the guest's end of memory. Below 24 MiB is the playground's own.
pub const FREE_RAM: u64 = 24 << 20;
/// RAM for pages here and there.
pub const SCRATCH: u64 = 16 << 20;

/// Bits of an entry (SDM 3A, "4-Level Paging").
pub const PRESENT: u64 = 1;
/// Writable.
pub const WRITABLE: u64 = 2;
/// For programs.
pub const USER: u64 = 4;
/// Accessed.
pub const ACCESSED: u64 = 1 << 5;
/// Dirty.
pub const DIRTY: u64 = 1 << 6;
/// Large.
pub const LARGE: u64 = 1 << 7;
/// Not to be executed.
pub const NO_EXECUTE: u64 = 1 << 63;

const USER_CODE_FRAME: u64 = SCRATCH + 0x7f_0000;
const USER_STACK_FRAME: u64 = SCRATCH + 0x7f_1000;
const USER_DATA_FRAME: u64 = SCRATCH + 0x7f_2000;

#[repr(C, align(4096))]
struct Table(UnsafeCell<[u64; 512]>);

// SAFETY: changed by volatile accesses of the CPU that tests.
unsafe impl Sync for Table {}

static DIRECTORIES: Table = Table(UnsafeCell::new([0; 512]));
static DIRECTORY: Table = Table(UnsafeCell::new([0; 512]));
static PAGES: Table = Table(UnsafeCell::new([0; 512]));

unsafe extern "C" {
    static mut pml4: u64;
}

fn address(table: &Table) -> u64 {
    table.0.get().expose_provenance() as u64
}

/// Address of the top table.
pub fn top() -> u64 {
    (&raw const pml4).expose_provenance() as u64
}

/// Address of the entry of the page at `page`.
pub fn entry_address(page: u64) -> u64 {
    address(&PAGES) + (page - BASE) / 4096 % 512 * 8
}

/// Address of the directory's entry that the pages hang from; the next one is free.
pub fn directory_address() -> u64 {
    address(&DIRECTORY)
}

/// Address of the entry above it; the next one is free.
pub fn directories_address() -> u64 {
    address(&DIRECTORIES)
}

/// Maps the page at `page` to what is at `physical`, and forgets what was there.
pub fn map(page: u64, physical: u64, flags: u64) {
    let all = PRESENT | WRITABLE | USER;
    poke(address(&DIRECTORY), address(&PAGES) | all);
    poke(address(&DIRECTORIES), address(&DIRECTORY) | all);
    poke(top() + 8, address(&DIRECTORIES) | all);
    poke(entry_address(page), physical | flags);
    cpu::flush(page);
}

/// The entry of the page at `page`.
pub fn entry(page: u64) -> u64 {
    peek(entry_address(page))
}

/// Unmaps the page at `page`.
pub fn unmap(page: u64) {
    map(page, 0, 0);
}

/// Puts a program's code in its place, gives it a stack and a page of data.
pub fn prepare_user(code: &[u8]) {
    let all = PRESENT | WRITABLE | USER;
    map(USER_CODE, USER_CODE_FRAME, all);
    map(USER_STACK - 4096, USER_STACK_FRAME, all);
    map(USER_DATA, USER_DATA_FRAME, all);
    for (address, byte) in (USER_CODE..).zip(code) {
        poke(address, *byte);
    }
    // What comes behind it: UD2.
    poke(USER_CODE + code.len() as u64, 0x0b0f_u16);
}
