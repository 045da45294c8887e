//! From the loader's hands to Rust, on both CPUs.
#![expect(unsafe_code, reason = "the way into Rust is written in assembly, and the second CPU's entry is a copy of it")]

use core::{arch::global_asm, ptr};

use super::{apic, cpu, interrupts, run};

global_asm!(
    include_str!("../../../kit/src/metal/long_mode.s"),
    include_str!("boot.s"),
    first = sym run,
    second = sym interrupts::serve
);

unsafe extern "C" {
    static other_entry: u8;
    static other_entry_end: u8;
}

/// Page below 1 MiB where the second CPU starts. The guest's image is above, and nothing else is in use.
const SECOND_PAGE: u8 = 8;
/// How long the second CPU may take to answer; where there is none, all of this passes.
const PATIENCE_TICKS: u64 = 50_000_000;

/// Starts the CPU whose APIC ID is 1, and says whether there is one.
pub fn start_second_cpu() -> bool {
    let (from, end) = (&raw const other_entry, &raw const other_entry_end);
    let to = ptr::with_exposed_provenance_mut::<u8>(usize::from(SECOND_PAGE) << 12);
    // SAFETY: both symbols lie in long_mode.s, the first before the second, and the page is RAM that nothing else uses.
    unsafe { ptr::copy_nonoverlapping(from, to, end.offset_from_unsigned(from)) };
    apic::start(apic::SECOND, SECOND_PAGE);
    cpu::wait_at_most(PATIENCE_TICKS, interrupts::is_serving)
}
