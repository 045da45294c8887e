//! What each mode needs in memory: descriptors, handlers, page tables.

use core::cell::UnsafeCell;
use core::mem::offset_of;

use dragonfly_guest_kit::cpu::{peek, poke};
use dragonfly_guest_kit::playground::{LARGE, NO_EXECUTE, PRESENT, SCRATCH, USER, WRITABLE};

use super::layout::{
    ABSENT, ALIAS, CODE_32, CODE_64, CONFIGURATION, COUNT, DATA, DATA_EXECUTED, DATA_OF_MODE, HIDDEN, IO_MAP_PORT,
    KERNEL_STACK, LOW, LOW_CODE, LOW_DATA, MODE_CODE, NOTHING_OFFSET, READ_ONLY, SPARE, TASK, USER_CODE, USER_DATA,
    VECTORS, WINDOW, low,
};
use super::mode::{Kind, Mode, Paging, Size};
use super::switch;
use crate::metal::mmio::{self, IO_APIC, NOTHING};

/// Where windows on devices are mapped: linear addresses that virtual-8086 mode reaches.
pub const WINDOW_PAGE: u32 = 0x3_0000;
const CONFIGURATION_PAGE: u32 = 0x4_0000;
/// Frames of pages that are not at their own addresses.
pub const ALIAS_FRAME: u64 = SCRATCH + 0x3000;
const OTHER_FRAME: u64 = SCRATCH + 0x5000;
/// Vectors whose handler counts and goes on.
pub const COUNTED: [u64; 2] = [0x20, 0x21];
/// Words of a task state with its permission map for all ports and the byte of ones behind it.
const TASK_WORDS: usize = 26 + 2048 + 1;

#[repr(C, align(4096))]
struct Tables {
    pml5: [u64; 512],
    pml4: [u64; 512],
    directories_long: [u64; 512],
    directory: [[u64; 512]; 4],
    pages: [u64; 512],
    directory_32: [u32; 1024],
    pages_32: [u32; 1024],
    directories_pae: [u64; 4],
    gdt: [u64; 18],
    idt: [u64; 512],
    task: [u32; TASK_WORDS],
}

struct Place(UnsafeCell<Tables>);
// SAFETY: changed by volatile accesses of the CPU that tests.
unsafe impl Sync for Place {}

// SAFETY: numbers may be zero.
static TABLES: Place = Place(UnsafeCell::new(unsafe { core::mem::zeroed() }));

fn address(offset: usize) -> u64 {
    (TABLES.0.get().expose_provenance() + offset) as u64
}

/// Address of one of the tables.
macro_rules! at {
    ($table:ident) => {
        address(offset_of!(Tables, $table))
    };
}

/// Builds everything for a mode.
pub fn build(mode: &Mode) {
    build_segments(mode);
    build_handlers(mode);
    match mode.paging {
        Paging::None => {}
        Paging::TwoLevels => build_two_levels(),
        Paging::Pae | Paging::FourLevels | Paging::FiveLevels => build_many_levels(mode.paging),
    }
    if mode.paging != Paging::None {
        build_windows();
    }
}

/// A segment of 64 KiB: its type and rights (SDM 3A, "Segment Descriptors").
const fn segment(base: u32, rights: u64, size: Size) -> u64 {
    let base = base as u64;
    let big = if matches!(size, Size::Bits16) { 0 } else { 1 << 54 };
    (base & 0xff_ffff) << 16 | (base >> 24) << 56 | rights << 40 | 0xffff | big
}

fn build_segments(mode: &Mode) {
    let (devices, configuration) = (device_base(mode), configuration_base(mode));
    for (selector, value) in [
        (CODE_64, 0x00af_9b00_0000_ffff),
        (DATA, 0x00cf_9300_0000_ffff),
        (CODE_32, 0x00cf_9b00_0000_ffff),
        (LOW_CODE, segment(LOW, 0x9b, Size::Bits16)),
        (LOW_DATA, segment(LOW, 0x93, Size::Bits16)),
        (MODE_CODE, segment(LOW, 0x9b, mode.size)),
        (DATA_OF_MODE, segment(LOW, 0x93, mode.size)),
        (WINDOW, segment(devices, 0xf3, mode.size)),
        (CONFIGURATION, segment(configuration, 0xf3, mode.size)),
        (USER_CODE, segment(LOW, 0xfb, mode.size)),
        (USER_DATA, segment(LOW, 0xf3, mode.size)),
        (SPARE, 0),
    ] {
        set_descriptor(selector, value);
    }
    for word in 0..TASK_WORDS as u64 {
        poke(at!(task) + 4 * word, 0_u32);
    }
    let map = 26 * 4;
    // Stack and its segment for 32-bit handlers; first stack of the table for 64-bit ones (SDM 3A, "Task Management").
    for (offset, value) in [(4, KERNEL_STACK), (8, DATA.into()), (36, KERNEL_STACK), (100, map << 16)] {
        poke(at!(task) + offset, value);
    }
    let denied = u64::from(map) + u64::from(IO_MAP_PORT / 8);
    poke(at!(task) + denied, 1_u8 << (IO_MAP_PORT % 8));
    poke(at!(task) + 26 * 4 + 8192, 0xff_u8);
}

/// Sets a descriptor.
pub fn set_descriptor(selector: u16, value: u64) {
    poke(at!(gdt) + u64::from(selector & !7), value);
}

/// Makes the task state one that can be loaded.
pub fn free_task() {
    let address = at!(task);
    let limit = TASK_WORDS as u64 * 4 - 1;
    set_descriptor(TASK, limit | (address & 0xff_ffff) << 16 | 0x89 << 40 | (address >> 24 & 0xff) << 56);
    set_descriptor(TASK + 8, address >> 32);
}

/// Linear address of FS's segment: the I/O APIC, with nothing behind it.
fn device_base(mode: &Mode) -> u32 {
    if mode.paging == Paging::None { IO_APIC as u32 } else { WINDOW_PAGE }
}

/// Linear address of GS's segment: configuration space, in large pages where programs do not have to reach it.
fn configuration_base(mode: &Mode) -> u32 {
    match (mode.paging, mode.kind) {
        (Paging::None, _) | (_, Kind::Protected) => mmio::configuration_space() as u32,
        _ => CONFIGURATION_PAGE,
    }
}

/// Selectors of FS and GS.
pub fn device_selectors(mode: &Mode) -> [u16; 2] {
    match mode.kind {
        Kind::Virtual8086 => [(WINDOW_PAGE >> 4) as u16, (CONFIGURATION_PAGE >> 4) as u16],
        _ => [WINDOW | 3, CONFIGURATION | 3],
    }
}

/// Limit and base of the descriptors.
pub fn descriptors() -> (u16, u32) {
    (size_of::<[u64; 18]>() as u16 - 1, at!(gdt) as u32)
}

/// Limit and base of the handlers' table.
pub fn handlers(mode: &Mode) -> (u16, u32) {
    match (mode.kind, mode.is_long()) {
        (Kind::Real, _) => (0x3ff, low(VECTORS)),
        (_, false) => (0x7ff, at!(idt) as u32),
        (_, true) => (0xfff, at!(idt) as u32),
    }
}

fn build_handlers(mode: &Mode) {
    for vector in 0..256 {
        let is_counted = COUNTED.contains(&vector);
        if mode.kind == Kind::Real {
            let handler = if is_counted { switch::count_16() } else { switch::entry_16(vector) };
            poke(u64::from(low(VECTORS)) + 4 * vector, (LOW >> 4) << 16 | handler);
        } else if mode.is_long() {
            // The first stack of the task state: compatibility mode's stack has a base, which means nothing to the handler.
            let handler = if is_counted { switch::count_64() } else { switch::entry_64(vector) };
            poke(at!(idt) + 16 * vector, gate(CODE_64, handler, 0xee) | 1 << 32);
            poke(at!(idt) + 16 * vector + 8, handler >> 32);
        } else if is_counted && mode.size == Size::Bits16 && mode.kind == Kind::Protected {
            // A gate of the 80286.
            poke(at!(idt) + 8 * vector, gate(LOW_CODE, switch::count_16().into(), 0xe6));
        } else {
            let handler = if is_counted { switch::count_32() } else { switch::entry_32(vector) };
            poke(at!(idt) + 8 * vector, gate(CODE_32, handler, 0xee));
        }
    }
    poke(u64::from(low(COUNT)), 0_u32);
}

/// A gate, or the lower half of one (SDM 3A, "IDT Descriptors").
const fn gate(selector: u16, handler: u64, rights: u64) -> u64 {
    handler & 0xffff | (selector as u64) << 16 | rights << 40 | (handler >> 16 & 0xffff) << 48
}

/// CR3.
pub fn root(paging: Paging) -> u32 {
    let root = match paging {
        Paging::None => 0,
        Paging::TwoLevels => at!(directory_32),
        Paging::Pae => at!(directories_pae),
        Paging::FourLevels => at!(pml4),
        Paging::FiveLevels => at!(pml5),
    };
    root as u32
}

/// All addresses are their own, in the largest pages, but the lowest in pages of 4 KiB.
fn build_two_levels() {
    for index in 0..1024 {
        let entry = index << 22 | (PRESENT | WRITABLE | LARGE) as u32;
        poke(at!(directory_32) + 4 * u64::from(index), entry);
        poke(at!(pages_32) + 4 * u64::from(index), index << 12 | small_page(index << 12) as u32);
    }
    poke(at!(directory_32), at!(pages_32) as u32 | (PRESENT | WRITABLE | USER) as u32);
}

fn build_many_levels(paging: Paging) {
    let all = PRESENT | WRITABLE | USER;
    for index in 0..2048 {
        poke(at!(directory) + 8 * index, index << 21 | PRESENT | WRITABLE | LARGE);
    }
    for index in 0..512_u32 {
        poke(at!(pages) + 8 * u64::from(index), u64::from(index << 12) | small_page(index << 12));
    }
    poke(at!(directory), at!(pages) | all);
    for index in 0..4 {
        let directory = at!(directory) + 4096 * index;
        // The rights of the four entries of PAE paging are reserved.
        poke(at!(directories_pae) + 8 * index, directory | PRESENT);
        poke(at!(directories_long) + 8 * index, directory | all);
    }
    if paging != Paging::Pae {
        poke(at!(pml4), at!(directories_long) | all);
        poke(at!(pml5), at!(pml4) | all);
    }
}

/// What may be done to the page of 4 KiB at its own address: programs have the low memory.
fn small_page(linear: u32) -> u64 {
    let is_low = (LOW..LOW + 0x1_0000).contains(&linear);
    PRESENT | WRITABLE | if is_low { USER } else { 0 }
}

fn build_windows() {
    let all = PRESENT | WRITABLE | USER;
    let configuration = mmio::configuration_space();
    for (linear, entry) in [
        (WINDOW_PAGE, IO_APIC | all),
        (WINDOW_PAGE + NOTHING_OFFSET, NOTHING | all),
        (WINDOW_PAGE + NOTHING_OFFSET + 0x1000, (NOTHING + 0x1000) | all),
        (CONFIGURATION_PAGE, configuration | all),
        (CONFIGURATION_PAGE + 0x1000, (configuration + 0x1000) | all),
        (low(ABSENT), 0),
        (low(READ_ONLY), OTHER_FRAME | PRESENT | USER),
        (low(ALIAS), ALIAS_FRAME | all),
        (low(HIDDEN), OTHER_FRAME | PRESENT | WRITABLE),
    ] {
        set_page(linear, entry);
    }
}

/// Makes the page that holds data one that is not executed, where the paging knows that.
pub fn forbid_execution() {
    let entry = at!(pages) + 8 * u64::from(low(DATA_EXECUTED) >> 12);
    poke(entry, u64::from(low(DATA_EXECUTED)) | PRESENT | WRITABLE | USER | NO_EXECUTE);
}

/// Sets the entry of a small page, in all tables that have it.
pub fn set_page(linear: u32, entry: u64) {
    poke(at!(pages) + 8 * u64::from(linear >> 12), entry);
    poke(at!(pages_32) + 4 * u64::from(linear >> 12), entry as u32);
}

/// The entry of a small page.
pub fn page(paging: Paging, linear: u32) -> u64 {
    match paging {
        Paging::TwoLevels => peek::<u32>(at!(pages_32) + 4 * u64::from(linear >> 12)).into(),
        _ => peek(at!(pages) + 8 * u64::from(linear >> 12)),
    }
}

/// The directory's entry of a large page.
pub fn large_page(paging: Paging, linear: u32) -> u64 {
    match paging {
        Paging::TwoLevels => peek::<u32>(at!(directory_32) + 4 * u64::from(linear >> 22)).into(),
        _ => peek(at!(directory) + 8 * u64::from(linear >> 21)),
    }
}

/// Takes a gigabyte out of PAE paging, or gives it back.
pub fn set_gigabyte(number: u64, is_present: bool) {
    let directory = at!(directory) + 4096 * number;
    poke(at!(directories_pae) + 8 * number, if is_present { directory | PRESENT } else { 0 });
}
