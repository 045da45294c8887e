//! System calls with types: one module per object, a `Result` in place of the status.
//!
//! An object's type ([`Gate`], [`Memory`], …) is a handle that is copied freely and closes nothing. What makes an
//! object gives an [`Owned`] one, which closes its handle when it goes out of scope.
//!
//! Calls that do their work in slices ([`Status::Again`]) are repeated here until they are done. `docs/abi.md` tells
//! every status of every call.
//!
//! Most calls are safe: the kernel maps nothing over what is mapped, so no call can change memory that Rust code uses.
//! The few that can, by unmapping or by running code at any address, are `unsafe`.

mod device;
mod domain;
mod gate;
mod handle;
mod memory;
mod notification;
mod system;
mod thread;
mod vcpu;
mod vm;

pub use device::{Interrupt, InterruptMessage, Polarity, Ports, Trigger};
pub use domain::{Domain, DomainInfo, DomainSettings};
pub use gate::{Gate, Message, Received, reply};
pub use handle::{Object, Owned};
pub use memory::{Commit, Memory, MemoryInfo};
pub use notification::Notification;
pub use system::{DmaRange, PageTableAudit, PciSegment, System, clock_now_ns, nop};
pub use thread::{Thread, ThreadInfo, ThreadPlan, ThreadSettings, exit_thread, move_thread, yield_thread};
pub use vcpu::{CpuidEntry, RawExit, Vcpu};
pub use vm::{Doorbell, Vm};

use dragonfly_abi::{Call, Status};

use crate::arch;

/// Makes any system call; for tests of the kernel and for what has no wrapper.
///
/// # Errors
/// The status, as a number, with the words that came back, if it is not [`Status::Ok`].
///
/// # Safety
/// The call must not take away or change memory of this domain that Rust code still relies on.
#[inline(always)]
#[expect(unsafe_code, reason = "any call can be made with it")]
pub unsafe fn raw(number: u32, arguments: [u64; 6]) -> (u64, [u64; 6]) {
    // SAFETY: the caller's promise.
    unsafe { arch::call(number, arguments) }
}

/// Makes a call that can do no harm to this domain's memory.
#[inline(always)]
#[expect(unsafe_code, reason = "the wrappers only make calls that are safe")]
fn call<const N: usize>(number: Call, arguments: [u64; N]) -> Result<[u64; 6], Status> {
    // SAFETY: the modules here make unmapping calls and those that start code only from functions that are `unsafe`
    // themselves; the other calls leave mapped memory as it is.
    let (status, words) = unsafe { arch::call(number as u32, arguments) };
    if status == Status::Ok as u64 { Ok(words) } else { Err(failed(status)) }
}

/// The same call again for as long as the kernel says that it has done a part.
fn call_until_done<const N: usize>(number: Call, arguments: [u64; N]) -> Result<[u64; 6], Status> {
    loop {
        match call(number, arguments) {
            Err(Status::Again) => {}
            done => return done,
        }
    }
}

/// A status that is not `Ok`. One that this version of the interface does not know can only come from another version.
#[cold]
fn failed(status: u64) -> Status {
    Status::from_raw(status).unwrap_or(Status::BadCall)
}
