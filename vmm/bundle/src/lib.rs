//! The bundle: an archive of programs, and `bundle.toml`, which says what domains to start from them.
//!
//! [`Bundle::open`] checks all of it before anything is started: the archive, each key and value of the file, and that
//! what it refers to is there. An error says where and what to do. `docs/bundle.md` describes the file.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod bundle;
mod check;
mod domain;
mod plan;

pub use bundle::{Bundle, BundleError, PLAN_NAME};
pub use domain::KEPT_NAME;
pub use dragonfly_settings::{Budget, SettingsError};
pub use plan::{DeviceMemory, DomainPlan, Grants, Interrupt, MAX_DOMAINS, OnFinish, PciFunctions, Plan, Ports};

#[cfg(test)]
mod tests;
