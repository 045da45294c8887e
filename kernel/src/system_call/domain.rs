//! Calls about domains.

use dragonfly_abi::{PRIORITIES, Rights, Status};
use dragonfly_memory::{Account, AccountError, Vacant};

use super::{DONE, Flow, Outcome};
use crate::Kernel;
use crate::arch::Arch;
use crate::capability::Object;
use crate::cpu::Cpu;
use crate::domain::{Domain, DomainLimits, publish};
use crate::space::DomainSpace;

impl<A: Arch> Kernel<A> {
    pub(super) fn domain_create(
        &'static self,
        cpu: &Cpu<A>,
        parent: u64,
        quota: u64,
        max_priority: u64,
        cpu_mask: u64,
        (notification, bits): (u64, u64),
    ) -> Outcome {
        let parent = cpu.capability(parent)?;
        let parent = parent.domain(Rights::MANAGE)?;
        let max_priority = match u8::try_from(max_priority) {
            Ok(priority) if priority < PRIORITIES && priority <= parent.max_priority => priority,
            _ => return Err(Status::BadArgument),
        };
        if cpu_mask == 0 || cpu_mask & !parent.cpu_mask != 0 {
            return Err(Status::BadCpu);
        }
        let death = match notification {
            0 => None,
            handle => {
                let capability = cpu.capability(handle)?;
                Some((capability.notification(Rights::SEND)?.clone(), capability.bits_to_signal(bits)))
            }
        };
        let charge = parent.charge_object::<Domain<A>>()?;
        let account = Account::child(self.arch.heap(), &parent.account, quota).map_err(|error| match error {
            AccountError::QuotaExceeded => Status::QuotaExceeded,
            AccountError::OutOfMemory => Status::OutOfMemory,
        })?;
        // Before the address space, which is not given back by being dropped.
        let vacant = Vacant::<_, A::Heap>::reserve(self.arch.heap()).map_err(|_| Status::OutOfMemory)?;
        let space = DomainSpace::new(self, &account)?;
        let limits = DomainLimits { max_priority, cpu_mask };
        let domain = vacant.fill(Domain::new(account, &limits, Some(parent.clone()), space, death, charge));
        let holder = cpu.running()?;
        let handle = publish(self.arch, parent, &holder.domain, Object::Domain(domain.clone()), Rights::all());
        if handle.is_err() {
            // Nothing was mapped: its root is all there is.
            let _ = domain.space.give_back();
        }
        Ok(Flow::Value(u64::from(handle?.0)))
    }

    pub(super) fn domain_destroy(&'static self, cpu: &mut Cpu<A>, domain: u64) -> Outcome {
        let capability = cpu.capability(domain)?;
        let domain = capability.domain(Rights::DESTROY)?;
        self.destroy(cpu, domain)?;
        DONE
    }

    pub(super) fn domain_info(cpu: &Cpu<A>, domain: u64) -> Outcome {
        let capability = cpu.capability(domain)?;
        let domain = capability.domain(Rights::READ)?;
        let threads = domain.threads.lock().count;
        let handles = domain.table.lock().count();
        Ok(Flow::Values([domain.account.limit(), domain.account.used(), threads, handles, 0, 0]))
    }
}
