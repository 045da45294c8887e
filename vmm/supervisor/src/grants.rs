//! From what `bundle.toml` grants a domain to the handles that it is started with.

use alloc::vec::Vec;

use dragonfly_abi::{Rights, Status};
use dragonfly_bundle::{DomainPlan, Grants};
use dragonfly_rt::loader::Grant;
use dragonfly_rt::sys::{Interrupt, Memory, Object, Owned, Polarity, Ports, System, Trigger};

/// What a domain may do with [`StartHandles::SYSTEM`](dragonfly_abi::StartHandles::SYSTEM).
pub(crate) fn system_rights(grants: Grants) -> Rights {
    let pairs = [
        (Grants::LOG, Rights::LOG),
        (Grants::FIGURES, Rights::READ),
        (Grants::DEVICES, Rights::DEVICES),
        (Grants::DMA, Rights::DMA),
    ];
    let granted = pairs.into_iter().filter(|(grant, _)| grants.contains(*grant));
    let rights = granted.fold(Rights::empty(), |rights, (_, right)| rights | right);
    // So that it can hand on what it has to domains of its own.
    if rights.is_empty() { rights } else { rights | Rights::COPY }
}

/// The device objects of one domain. They go when the domain does.
#[derive(Debug, Default)]
pub(crate) struct Devices {
    ports: Vec<Owned<Ports>>,
    memory: Vec<Owned<Memory>>,
    interrupts: Vec<Owned<Interrupt>>,
}

/// A device object that cannot be made.
#[derive(Debug)]
pub(crate) struct DeviceError<'a> {
    /// Its name in `bundle.toml`.
    pub(crate) name: &'a str,
    /// Why.
    pub(crate) status: Status,
}

impl Devices {
    /// Makes what the plan gives the domain.
    pub(crate) fn make(plan: &DomainPlan) -> Result<Self, DeviceError<'_>> {
        let mut devices = Self::default();
        for ports in &plan.ports {
            let made = System::OWN.ports(ports.first, ports.count);
            devices.ports.push(made.map_err(|status| DeviceError { name: &ports.name, status })?);
        }
        for memory in &plan.device_memory {
            let made = System::OWN.device_memory(memory.address, memory.size);
            devices.memory.push(made.map_err(|status| DeviceError { name: &memory.name, status })?);
        }
        for interrupt in &plan.interrupts {
            let trigger = if interrupt.level { Trigger::Level } else { Trigger::Edge };
            let polarity = if interrupt.active_low { Polarity::ActiveLow } else { Polarity::ActiveHigh };
            let made = System::OWN.interrupt(interrupt.number, trigger, polarity);
            devices.interrupts.push(made.map_err(|status| DeviceError { name: &interrupt.name, status })?);
        }
        Ok(devices)
    }

    /// The handles by which the domain gets them.
    pub(crate) fn grants<'a>(&'a self, plan: &'a DomainPlan) -> impl Iterator<Item = Grant<'a>> {
        let registers = Rights::READ | Rights::WRITE | Rights::COPY;
        let ports = plan.ports.iter().zip(&self.ports);
        let ports = ports.map(move |(plan, made)| grant(&plan.name, **made, registers));
        let memory = plan.device_memory.iter().zip(&self.memory);
        let memory = memory.map(move |(plan, made)| grant(&plan.name, **made, registers));
        let interrupts = plan.interrupts.iter().zip(&self.interrupts);
        let interrupts = interrupts.map(|(plan, made)| grant(&plan.name, **made, Rights::MANAGE | Rights::COPY));
        ports.chain(memory).chain(interrupts)
    }
}

fn grant(name: &str, object: impl Object, rights: Rights) -> Grant<'_> {
    Grant { name, handle: object.handle(), rights, badge: 0 }
}

#[cfg(test)]
mod tests {
    use dragonfly_abi::Rights;
    use dragonfly_bundle::Grants;

    use super::system_rights;

    #[test]
    fn a_domain_without_grants_may_do_nothing_with_the_machine() {
        assert_eq!(system_rights(Grants::empty()), Rights::empty());
        assert_eq!(system_rights(Grants::BUNDLE | Grants::SHUTDOWN), Rights::empty());
    }

    #[test]
    fn each_grant_gives_its_right_and_no_other() {
        assert_eq!(system_rights(Grants::LOG), Rights::LOG | Rights::COPY);
        assert_eq!(system_rights(Grants::FIGURES), Rights::READ | Rights::COPY);
        assert_eq!(system_rights(Grants::DEVICES), Rights::DEVICES | Rights::COPY);
        assert_eq!(system_rights(Grants::DMA), Rights::DMA | Rights::COPY);
    }
}
