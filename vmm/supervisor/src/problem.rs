//! What keeps a bundle from being started, for the person who made it.

use alloc::string::String;

use dragonfly_abi::Status;
use dragonfly_bundle::{BundleError, PLAN_NAME};
use dragonfly_rt::loader::{LaunchError, ProgramError};
use thiserror::Error;

use crate::pci::PciError;

/// Why the bundle cannot be started.
#[derive(Debug, Error)]
pub(crate) enum StartError {
    /// The kernel gave no bundle, or it cannot be mapped.
    #[error("there is no bundle: load one as the module `bundle`")]
    NoBundle,
    /// The bundle has a fault.
    #[error(transparent)]
    Bundle(#[from] BundleError),
    /// The supervisor's own objects could not be made.
    #[error("the supervisor cannot start: {0}")]
    Own(#[from] Status),
    /// A domain could not be started.
    #[error("{PLAN_NAME}:{line}: domain \"{name}\" {problem}")]
    Domain {
        /// Line of the domain.
        line: usize,
        /// Name of the domain.
        name: String,
        /// What failed.
        problem: Problem,
    },
}

/// Why a domain cannot be started.
#[derive(Debug, Error)]
pub(crate) enum Problem {
    /// The machine lacks the CPU.
    #[error("is to run on CPU {cpu}, but the machine has {cpus}: change `cpu` or `cpus`")]
    NoCpu {
        /// The CPU that the plan names.
        cpu: u32,
        /// How many there are.
        cpus: u32,
    },
    /// There is too little memory left for it.
    #[error("has {memory_kib} KiB of `memory`, but {left_kib} KiB are left: give it less")]
    NoMemory {
        /// What the plan gives it.
        memory_kib: u64,
        /// What the supervisor has.
        left_kib: u64,
    },
    /// There is no memory for what it is to keep.
    #[error("cannot have {keep_kib} KiB to `keep`: {status}")]
    Keep {
        /// What the plan gives it.
        keep_kib: u64,
        /// Why.
        status: Status,
    },
    /// Its program is not fit to be started.
    #[error("has a bad program: {0}")]
    Program(#[from] ProgramError),
    /// A device object cannot be made.
    #[error("cannot have `{name}`: {status}")]
    Device {
        /// Name of the device.
        name: String,
        /// Why.
        status: Status,
    },
    /// A PCI function cannot be handed out.
    #[error("cannot have `{name}`: {error}")]
    Pci {
        /// Name of the function.
        name: String,
        /// Why.
        error: PciError,
    },
    /// A step of starting it failed.
    #[error("cannot be started: {0}")]
    Launch(#[from] LaunchError),
}
