//! The other CPUs.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use dragonfly_hw::x86::apic::{ICR_ALL_BUT_SELF, ICR_INIT, icr_fixed, icr_startup};

use super::block::{BLOCKS, this, this_cpu};
use super::{acpi, apic, cpu, time};

/// The most CPUs that the tests use; others are left alone.
pub const MAX_CPUS: usize = 8;

/// Vector that wakes a CPU for work, and one that tells the first that it is done.
pub const WAKE: u8 = 0xe1;
/// Vector that tells the first CPU that another is done.
pub const DONE: u8 = 0xe2;

/// Page below 1 MiB where the others start. The guest's image is above, and nothing else is in use.
pub const START_PAGE: u8 = 8;

unsafe extern "C" {
    static other_entry: u8;
    static other_entry_end: u8;
}

/// CPUs that the ACPI tables tell of, and that the tests use.
pub fn cpus() -> usize {
    acpi::local_apics().clamp(1, MAX_CPUS)
}

/// Starts CPU `number`, which may be running. Whether it answers.
pub fn start(number: usize) -> bool {
    prepare();
    BLOCKS[number].is_up.store(false, Relaxed);
    apic::command(ICR_INIT, number as u32);
    apic::command(icr_startup(START_PAGE), number as u32);
    time::wait_until(2000, || is_up(number))
}

/// Starts all CPUs but this one by messages to all of them. Whether they answer.
pub fn start_all() -> bool {
    prepare();
    (1..cpus()).for_each(|number| BLOCKS[number].is_up.store(false, Relaxed));
    apic::command(ICR_INIT | ICR_ALL_BUT_SELF, 0);
    apic::command(icr_startup(START_PAGE) | ICR_ALL_BUT_SELF, 0);
    time::wait_until(4000, || (1..cpus()).all(is_up))
}

/// Puts the start-up code where a start-up message finds it.
fn prepare() {
    let (from, end) = (&raw const other_entry, &raw const other_entry_end);
    let to = core::ptr::with_exposed_provenance_mut::<u8>(usize::from(START_PAGE) << 12);
    // SAFETY: both symbols lie in long_mode.s, the first before the second, and the page is RAM that nothing else uses.
    unsafe { core::ptr::copy_nonoverlapping(from, to, end.offset_from_unsigned(from)) };
}

/// Whether CPU `number` waits for work, or works.
pub fn is_up(number: usize) -> bool {
    BLOCKS[number % MAX_CPUS].is_up.load(Acquire)
}

/// Another CPU's life.
pub(super) fn serve() -> ! {
    let block = this();
    block.slot.store(0, Relaxed);
    block.work.store(0, Relaxed);
    block.is_up.store(true, Release);
    loop {
        let work = block.work.load(Acquire);
        if work == 0 {
            cpu::sleep();
            continue;
        }
        // SAFETY: `give` has stored it.
        let work = unsafe { core::mem::transmute::<usize, fn(u64)>(work) };
        work(block.argument.load(Relaxed));
        block.work.store(0, Release);
        apic::command(icr_fixed(DONE), 0);
    }
}

/// Lets CPU `number`, which has nothing to do, call `work`.
pub fn give(number: usize, work: fn(u64), argument: u64) {
    let block = &BLOCKS[number % MAX_CPUS];
    block.argument.store(argument, Relaxed);
    block.work.store(work as usize, Release);
    apic::command(icr_fixed(WAKE), number as u32);
}

/// Waits, asleep, until CPU `number` has done its work, or for so long. Whether it has.
pub fn wait(number: usize, patience_ms: u64) -> bool {
    debug_assert_eq!(this_cpu(), 0);
    let start = cpu::tsc();
    while BLOCKS[number % MAX_CPUS].work.load(Acquire) != 0 {
        if cpu::tsc().wrapping_sub(start) > patience_ms * time::ticks_per_ms() {
            return false;
        }
        cpu::allow_interrupts();
        core::hint::spin_loop();
        cpu::forbid_interrupts();
    }
    true
}
