//! Time that a thread may run.

use alloc::format;

use dragonfly_abi::{MAX_PERIOD_NS, MIN_BUDGET_NS};

use crate::error::SettingsError;
use crate::section::Section;

/// Microseconds in which budgets and periods are given.
const NS_PER_US: u64 = 1000;

/// Time that a thread may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How long in each period, in nanoseconds.
    pub budget_ns: u64,
    /// Length of a period in nanoseconds.
    pub period_ns: u64,
}

impl Section<'_> {
    /// The keys `budget_us` and `period_us`.
    ///
    /// # Errors
    /// One of them stands alone or is outside its range.
    pub fn budget(&self) -> Result<Option<Budget>, SettingsError> {
        let budget = self.integer("budget_us", MIN_BUDGET_NS / NS_PER_US..=MAX_PERIOD_NS / NS_PER_US)?;
        let period = self.integer("period_us", MIN_BUDGET_NS / NS_PER_US..=MAX_PERIOD_NS / NS_PER_US)?;
        match (budget, period) {
            (None, None) => Ok(None),
            (Some(budget), Some(period)) if budget <= period => {
                Ok(Some(Budget { budget_ns: budget * NS_PER_US, period_ns: period * NS_PER_US }))
            }
            (Some(_), Some(period)) => {
                Err(self.error("budget_us", format!("is more than `period_us`, {period}: give no more than that")))
            }
            (Some(_), None) => {
                Err(self.error("period_us", "is missing: `budget_us` is the time in each period".into()))
            }
            (None, Some(_)) => {
                Err(self.error("budget_us", "is missing: say how much of `period_us` it may run".into()))
            }
        }
    }
}
