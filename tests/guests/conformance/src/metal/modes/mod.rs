//! The processor's modes, from the 64-bit program and back: `switch` goes there with a few instructions and comes back with
//! the exception that ended them, `tables` has what the mode needs in memory, `code` assembles the instructions for each
//! size. What is checked is the same in each [`Mode`], as far as it exists there.

mod code;
mod execution;
mod faults;
mod interrupts;
mod layout;
mod mmio;
mod mode;
mod ports;
mod switch;
mod tables;

use dragonfly_guest_kit::{Check, Report, cpu};

use mode::Mode;

/// Whether segments have limits: QEMU's emulation, which is of AMD's processors, has none.
fn are_limits_checked() -> bool {
    cpu::is_intel()
}

fn in_mode(mode: &Mode, check: fn(&Mode) -> Check) -> Check {
    tables::build(mode);
    check(mode)
}

/// The checks of a mode, under names that begin with its own.
macro_rules! cases {
    ($name:literal, $mode:ident) => {
        [
            (concat!("mode_", $name, "_execution"), || in_mode(&mode::$mode, execution::check)),
            (concat!("mode_", $name, "_faults"), || in_mode(&mode::$mode, faults::check)),
            (concat!("mode_", $name, "_interrupts"), || in_mode(&mode::$mode, interrupts::check)),
            (concat!("mode_", $name, "_ports"), || in_mode(&mode::$mode, ports::check)),
            (concat!("mode_", $name, "_mmio"), || in_mode(&mode::$mode, mmio::check)),
        ]
    };
}

type Case = (&'static str, fn() -> Check);

const MODES: [[Case; 5]; 10] = [
    cases!("real", REAL),
    cases!("protected_16", PROTECTED_16),
    cases!("protected_32", PROTECTED_32),
    cases!("paging_32", PAGING_32),
    cases!("pae", PAE),
    cases!("program_32", PROGRAM_32),
    cases!("virtual_8086", VIRTUAL_8086),
    cases!("compatibility_16", COMPATIBILITY_16),
    cases!("compatibility_32", COMPATIBILITY_32),
    cases!("long", LONG),
];

const FIVE_LEVELS: [Case; 5] = cases!("five_levels", FIVE_LEVELS);

/// Runs all checks of all modes.
pub fn run(report: &mut Report) {
    for (name, check) in MODES.iter().flatten() {
        report.check(name, *check);
    }
    if cpu::cpuid(7, 0)[2] & 1 << 16 == 0 {
        return report.absent("mode_five_levels", "5-level paging");
    }
    for (name, check) in FIVE_LEVELS {
        report.check(name, check);
    }
}
