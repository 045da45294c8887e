//! Runs the tests of a program that has few: one after the other, and then the domain ends.

use dragonfly_rt::{argument, println, supervisor};

use crate::check::Outcome;
use crate::options::Options;

/// A test: its name and what it does.
pub type Test = (&'static str, fn() -> Outcome);

/// Runs the tests that the argument `test.filter` selects, and announces the exit code: 1 if one failed. What it prints
/// is for `cargo xtask test`.
pub fn run(tests: &[Test]) {
    let (mut passed, mut failed) = (0, 0);
    let options = Options { filter: argument("test.filter").unwrap_or_default(), ..Options::default() };
    for (name, test) in tests.iter().filter(|(name, _)| options.selects(name)) {
        println!("[test] start {name}");
        match test() {
            Ok(()) => {
                passed += 1;
                println!("[test] pass {name}");
            }
            Err(failure) => {
                failed += 1;
                println!("[test] fail {name}: {failure}");
            }
        }
    }
    println!("[test] end {passed} {failed}");
    let _ = supervisor::finish(u8::from(failed > 0));
}
