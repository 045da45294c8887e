//! A PVH guest with a virtio disk and two virtio network devices that makes requests and says what each has cost:
//!
//! ```text
//! [bench] NAME INSTRUCTIONS KICKS
//! ```
//!
//! in ticks of the time-stamp counter for each request, and in thousandths of a kick. Its processor is never idle, so that
//! in an emulator whose tick is an instruction of the whole machine nothing but work and waiting in loops is counted. The
//! last line is `[bench] end`; then it switches its machine off, or stands still where that has no such switch.
//!
//! Words of the command line say how many requests of each kind are made after those that warm up; `metal::CASES` has the
//! kinds. Whoever counts exits compares two runs that differ in one of the numbers.
//!
//! A disk request reads 4 KiB. A packet is one of 60 bytes that the first network device sends and the second receives.
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod metal;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("guest-requests runs on a machine of its own: build it for x86_64-unknown-none");
}
