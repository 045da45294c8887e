//! A PVH guest that tests its machine from inside and writes what it finds to COM1:
//!
//! ```text
//! [check] start NAME
//! [check] ok NAME
//! [check] fail NAME: WHAT: SEEN instead of WANTED
//! [check] absent NAME: WHAT THE MACHINE DOES NOT HAVE
//! [check] end N ok M failed
//! ```
//!
//! then switches the machine off. Words of the command line:
//!
//! | word | meaning |
//! | --- | --- |
//! | `only=NAME` | only checks whose names begin so |
//! | `without=NAME,...` | not those whose names begin so |
//! | `rounds=N` | all of them so many times: a guest whose work others may not disturb |
//! | `end=reset`, `end=keyboard` | the end is a reset, by port 0xcf9 or by the keyboard controller |
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod metal;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("guest-conformance runs on a machine of its own: build it for x86_64-unknown-none");
}
