//! From what `bundle.toml` grants a domain to the handles that it is started with.

use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use core::iter;
use core::time::Duration;

use dragonfly_abi::{PAGE_SIZE, Rights, Status};
use dragonfly_bundle::{DomainPlan, Grants};
use dragonfly_rt::loader::Grant;
use dragonfly_rt::sys::{Interrupt, Memory, Object, Owned, Polarity, Ports, System, Trigger};
use dragonfly_rt::time;

use crate::pci::{Assigned, Function, bar_name};
use crate::problem::Problem;

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

/// How long a function may take to end what it has begun when it may use memory no more. Not every function tells.
const DMA_END: Duration = Duration::from_millis(10);

/// The device objects of one domain. They go when the domain does.
#[derive(Default)]
pub(crate) struct Devices {
    ports: Vec<Owned<Ports>>,
    memory: Vec<Owned<Memory>>,
    interrupts: Vec<Owned<Interrupt>>,
    functions: Vec<Given>,
}

/// A PCI function that a domain has now.
struct Given {
    function: Rc<Function>,
    /// Its configuration page, and the pages of its registers, by the names that the domain finds them by.
    memory: Vec<(String, Owned<Memory>)>,
}

impl Devices {
    /// Makes what the plan gives the domain, and the PCI functions with it.
    pub(crate) fn make(plan: &DomainPlan, functions: &[Assigned]) -> Result<Self, Problem> {
        let mut devices = Self::default();
        for ports in &plan.ports {
            let made = System::OWN.ports(ports.first, ports.count);
            devices.ports.push(made.map_err(|status| device_problem(&ports.name, status))?);
        }
        for memory in &plan.device_memory {
            let made = System::OWN.device_memory(memory.address, memory.size);
            devices.memory.push(made.map_err(|status| device_problem(&memory.name, status))?);
        }
        for interrupt in &plan.interrupts {
            let trigger = if interrupt.level { Trigger::Level } else { Trigger::Edge };
            let polarity = if interrupt.active_low { Polarity::ActiveLow } else { Polarity::ActiveHigh };
            let made = System::OWN.interrupt(interrupt.number, trigger, polarity);
            devices.interrupts.push(made.map_err(|status| device_problem(&interrupt.name, status))?);
        }
        for assigned in functions {
            devices.functions.push(Given::make(assigned)?);
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
        let functions = self.functions.iter().flat_map(|given| &given.memory);
        let functions = functions.map(move |(name, made)| grant(name, **made, registers));
        ports.chain(memory).chain(interrupts).chain(functions)
    }

    /// Ends all that devices do by themselves, so that the domain's memory can be given to others.
    pub(crate) fn stop(&self) {
        self.functions.iter().for_each(Given::stop);
        if !self.functions.is_empty() {
            time::sleep(DMA_END);
        }
    }
}

impl Given {
    fn make(Assigned { name, function }: &Assigned) -> Result<Self, Problem> {
        let memory = |name: String, address, size| match System::OWN.device_memory(address, size) {
            Ok(memory) => Ok((name, memory)),
            Err(status) => Err(Problem::Device { name, status }),
        };
        let bars = function.bars().map_err(|error| Problem::Pci { name: name.clone(), error })?;
        let bars = bars.iter().map(|bar| memory(bar_name(name, bar), bar.address, bar.size));
        let configuration = memory(name.clone(), function.page, PAGE_SIZE);
        let given = Self {
            function: function.clone(),
            memory: iter::once(configuration).chain(bars).collect::<Result<_, _>>()?,
        };
        function.enable();
        Ok(given)
    }

    /// The domain's threads may still run: first it loses the registers, by which it could undo the rest.
    fn stop(&self) {
        for (_, memory) in &self.memory {
            let _ = memory.revoke();
        }
        self.function.stop();
    }
}

impl Drop for Given {
    fn drop(&mut self) {
        // Of a domain that could not be started: it has given the function nothing to do.
        self.function.stop();
    }
}

fn device_problem(name: &str, status: Status) -> Problem {
    Problem::Device { name: name.into(), status }
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
