//! Calls about handles.

use dragonfly_abi::{Rights, Status};

use super::{DONE, Flow, Outcome};
use crate::Kernel;
use crate::arch::Arch;
use crate::cpu::Cpu;
use crate::domain::place_in_table;
use crate::teardown::SLICE;

impl<A: Arch> Kernel<A> {
    pub(super) fn handle_copy(&self, cpu: &Cpu<A>, source: u64, target: u64, rights: u64, badge: u64) -> Outcome {
        let source = cpu.capability(source)?;
        let target = cpu.capability(target)?;
        let holder = target.domain(Rights::GRANT)?;
        source.need(Rights::COPY)?;
        let rights = u32::try_from(rights).map_err(|_| Status::BadArgument)?;
        let rights = Rights::from_bits(rights).ok_or(Status::BadArgument)?;
        let badge = match (source.badge, badge) {
            (old, 0) => old,
            (0, new) => new,
            _ => return Err(Status::BadArgument),
        };
        let handle = place_in_table(
            self.arch,
            holder,
            Some(&source),
            &source.derivation,
            source.object.share(),
            source.rights & rights,
            badge,
        )?;
        Ok(Flow::Value(u64::from(handle.0)))
    }

    pub(super) fn handle_close(&'static self, cpu: &mut Cpu<A>, handle: u64) -> Outcome {
        let capability = cpu.capability(handle)?;
        self.close(cpu, &capability, &mut { SLICE }).status()?;
        DONE
    }

    pub(super) fn handle_revoke(&'static self, cpu: &Cpu<A>, handle: u64) -> Outcome {
        let capability = cpu.capability(handle)?;
        self.revoke(&capability.derivation, Some(&capability), &mut { SLICE }).status()?;
        DONE
    }

    pub(super) fn handle_info(cpu: &Cpu<A>, handle: u64) -> Outcome {
        let capability = cpu.capability(handle)?;
        let object = capability.object.object_type() as u64;
        Ok(Flow::Values([object, u64::from(capability.rights.bits()), capability.badge, 0, 0, 0]))
    }
}
