//! Measures what making a virtual machine costs: see `dragonfly_test_domains::bench`.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
dragonfly_rt::main!(dragonfly_test_domains::bench::run_vm);

#[cfg(not(target_os = "none"))]
fn main() {}
