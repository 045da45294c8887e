//! What keeps a guest from being run, for the person who described it.

use alloc::string::String;

use dragonfly_abi::Status;
use dragonfly_guest_boot::LoadError;
use dragonfly_machine_file::{MachineFile, SettingsError};
use thiserror::Error;

/// Why a guest is not run.
#[derive(Debug, Error)]
pub(crate) enum Problem {
    /// The argument that names the machine file is missing or no number.
    #[error("the VMM's arguments in bundle.toml have no `machine=N`: add it, with N below 32")]
    NoNumber,
    /// The VMM was not given the bundle.
    #[error("the VMM cannot read its machine file: give it the grant `bundle` in bundle.toml")]
    NoBundle,
    /// There is no machine file.
    #[error("{0}: is not in the bundle: add it, or change `machine=N` in bundle.toml")]
    NoMachineFile(String),
    /// The machine file, or a file that it names, has a fault.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The processor cannot run guests.
    #[error(
        "this machine cannot run guests: it needs a processor with AMD SVM or Intel VT-x, switched on in the firmware"
    )]
    NoVirtualisation,
    /// A step that fails only if something is wrong with the VMM, its quota or the kernel.
    #[error("cannot {step}: {status}")]
    Call {
        /// What it was to do.
        step: &'static str,
        /// Why it failed.
        status: Status,
    },
}

/// Says which step a status came from.
pub(crate) fn at<T>(step: &'static str, result: Result<T, Status>) -> Result<T, Problem> {
    result.map_err(|status| match status {
        Status::NotSupported => Problem::NoVirtualisation,
        status => Problem::Call { step, status },
    })
}

/// Says which key of the machine file a kernel that cannot be loaded is about.
pub(crate) fn loading(file: &MachineFile, error: LoadError) -> Problem {
    let key = match error {
        LoadError::InitrdDoesNotFit { .. } => "initrd",
        LoadError::CommandLineTooLong { .. } | LoadError::CommandLineHasNul => "cmdline",
        LoadError::NeedsMemory { .. } => "memory",
        _ => "kernel",
    };
    file.error(key, alloc::format!("cannot be used: {error}")).into()
}
