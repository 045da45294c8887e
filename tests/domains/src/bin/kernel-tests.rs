//! Tests the kernel from inside: see `dragonfly_test_domains::runner`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
dragonfly_rt::main!(dragonfly_test_domains::runner::run);

#[cfg(not(target_os = "none"))]
fn main() {}
