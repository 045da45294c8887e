//! What a check found, and the lines that say so.

use core::fmt;

use dragonfly_hw::x86::apic::TPR;

use super::{apic, argument, interrupts, set_hook};
use crate::print;

/// Why a check failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failure {
    /// What was looked at.
    pub what: &'static str,
    /// What it was.
    pub seen: u64,
    /// What it should have been.
    pub wanted: u64,
}

/// What a check comes to.
pub type Check = Result<(), Failure>;

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, seen, wanted } = self;
        write!(formatter, "{what}: {seen:#x} instead of {wanted:#x}")
    }
}

/// Whether something holds.
///
/// # Errors
/// It does not.
pub fn ensure(what: &'static str, holds: bool) -> Check {
    equal(what, u64::from(holds), 1)
}

/// Whether a value is what it should be.
///
/// # Errors
/// It is not.
pub fn equal(what: &'static str, seen: u64, wanted: u64) -> Check {
    if seen == wanted { Ok(()) } else { Err(Failure { what, seen, wanted }) }
}

/// Runs checks and counts.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    passed: u32,
    failed: u32,
}

impl Report {
    /// Runs the check `name`, unless the command line has `only=` and another beginning of a name, or `without=` and this.
    pub fn check(&mut self, name: &str, check: fn() -> Check) {
        if argument("only").is_some_and(|only| !name.starts_with(only))
            || argument("without")
                .is_some_and(|without| without.split(',').any(|beginning| name.starts_with(beginning)))
        {
            return;
        }
        print!("[check] start {name}\n");
        settle();
        match check() {
            Ok(()) => {
                self.passed += 1;
                print!("[check] ok {name}\n");
            }
            Err(why) => {
                self.failed += 1;
                print!("[check] fail {name}: {why}\n");
            }
        }
    }

    /// Says that this machine does not have what the check `name` is about.
    pub fn absent(&mut self, name: &str, what: &str) {
        print!("[check] absent {name}: {what}\n");
    }

    /// The last line.
    pub fn end(&self) {
        let Self { passed, failed } = self;
        print!("[check] end {passed} ok {failed} failed\n");
    }
}

/// Leaves nothing of a check that failed for the next one.
fn settle() {
    set_hook(None);
    interrupts::end_by_themselves(true);
    apic::write(TPR, 0);
    (0..16).for_each(|_| apic::end());
    interrupts::window();
    interrupts::forget();
}
