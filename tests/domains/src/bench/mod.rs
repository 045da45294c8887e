//! Bench
/// run
pub fn run() {}
