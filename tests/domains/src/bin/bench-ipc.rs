//! Measures the kernel's fast paths: see `dragonfly_test_domains::bench`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
dragonfly_rt::main!(dragonfly_test_domains::bench::run);

#[cfg(not(target_os = "none"))]
fn main() {}
