//! A PVH guest that measures what its hypervisor costs and writes it to COM1, one line each:
//!
//! ```text
//! [bench] NAME MINIMUM MEDIAN
//! ```
//!
//! in ticks of the time stamp counter. The last line is `[bench] end`; then the machine is switched off. `metal::run`
//! lists the names.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod metal;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("guest-bench runs on a machine of its own: build it for x86_64-unknown-none");
}
