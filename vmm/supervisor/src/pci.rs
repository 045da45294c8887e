//! Finds functions on the PCI bus and hands them out as `bundle.toml` says.
//!
//! Only functions with memory-mapped configuration (PCI Express, "Enhanced Configuration Access Mechanism") are found,
//! in segment group 0: on a machine whose firmware describes none, nothing is.

mod config;
mod function;
#[cfg(test)]
mod model;
mod scan;

pub(crate) use function::{Function, PciError, bar_name};

use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;

use dragonfly_bundle::DomainPlan;
use log::{info, warn};

/// A function that a domain has for as long as the system runs, whoever plays the domain's part at the moment.
pub(crate) struct Assigned {
    /// Name of the handle to its configuration page; those of its registers begin with it.
    pub(crate) name: String,
    /// The function.
    pub(crate) function: Rc<Function>,
}

/// For each domain, in the plan's order, the functions that it is to have.
pub(crate) fn assign(domains: &[DomainPlan]) -> Vec<Vec<Assigned>> {
    if domains.iter().all(|domain| domain.pci.is_empty()) {
        return domains.iter().map(|_| Vec::new()).collect();
    }
    let mut found = scan::machine().unwrap_or_else(|status| {
        warn!("the PCI bus cannot be searched: {status}");
        Vec::new()
    });
    domains.iter().map(|domain| take(domain, &mut found)).collect()
}

/// Takes what a domain is to have out of what was found.
fn take(domain: &DomainPlan, found: &mut Vec<Function>) -> Vec<Assigned> {
    let mut assigned = Vec::new();
    for wanted in &domain.pci {
        let (taken, left) = found.drain(..).partition(|function| function.is(wanted.vendor, wanted.device));
        *found = left;
        let taken: Vec<Function> = taken;
        for (number, function) in taken.into_iter().enumerate() {
            let name = format!("{}{number}", wanted.name);
            info!("PCI {function} is {name} of {}", domain.name);
            assigned.push(Assigned { name, function: Rc::new(function) });
        }
    }
    assigned
}
