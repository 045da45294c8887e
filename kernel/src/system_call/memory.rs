//! Calls about memory objects and mappings.

use dragonfly_abi::guest::GUEST_END;
use dragonfly_abi::{PAGE_SIZE, Rights, Status, USER_END, USER_START};
use dragonfly_memory::{ObjectOffset, PageFormat, SpaceAddr};

use super::{DONE, Flow, Outcome};
use crate::arch::Arch;
use crate::capability::{Object, Place};
use crate::cpu::Cpu;
use crate::domain::publish;
use crate::memory_object::Memory;
use crate::space::{MappedRange, Space};
use crate::teardown::SLICE;
use crate::{Kernel, Ref};

/// Flag of a memory object: frames are given on first touch.
const ON_DEMAND: u64 = 1;
/// The largest memory object in bytes.
const MAX_SIZE: u64 = 1 << 46;

/// A range of whole pages below `limit`.
fn whole_pages(start: u64, size: u64, limit: u64) -> Result<u64, Status> {
    let end = start.checked_add(size).ok_or(Status::BadArgument)?;
    if size == 0 || !(start | size).is_multiple_of(PAGE_SIZE) || end > limit {
        return Err(Status::BadArgument);
    }
    Ok(end)
}

impl<A: Arch> Kernel<A> {
    pub(super) fn memory_create(&'static self, cpu: &Cpu<A>, size: u64, flags: u64) -> Outcome {
        whole_pages(0, size, MAX_SIZE)?;
        if flags & !ON_DEMAND != 0 {
            return Err(Status::BadArgument);
        }
        let domain = &cpu.running()?.domain;
        let memory = Memory::new(self, domain, size, flags & ON_DEMAND != 0)?;
        let memory = Ref::<_, A>::try_new(self.arch.heap(), memory).map_err(|_| Status::OutOfMemory)?;
        let rights = Rights::COPY | Rights::READ | Rights::WRITE | Rights::EXECUTE;
        let handle = publish(self.arch, domain, domain, Object::Memory(memory.clone()), rights);
        if handle.is_err() {
            let _ = memory.release(&mut { SLICE });
        }
        Ok(Flow::Value(u64::from(handle?.0)))
    }

    pub(super) fn memory_commit(&'static self, cpu: &Cpu<A>, memory: u64, offset: u64, size: u64) -> Outcome {
        let capability = cpu.capability(memory)?;
        let memory = capability.memory(Rights::WRITE)?;
        let end = whole_pages(offset, size, memory.size())?;
        memory.commit(self, ObjectOffset::new(offset), ObjectOffset::new(end))?.status()?;
        DONE
    }

    pub(super) fn memory_map(&'static self, cpu: &Cpu<A>, words: [u64; 6]) -> Outcome {
        let [memory, target, address, offset, size, rights] = words;
        let capability = cpu.capability(memory)?;
        let access = u32::try_from(rights).ok().and_then(Rights::from_bits).ok_or(Status::BadArgument)?;
        let allowed = Rights::READ | Rights::WRITE | Rights::EXECUTE;
        // Never unreadable, and in domains never writable and executable at once.
        if !allowed.contains(access) || !access.contains(Rights::READ) {
            return Err(Status::BadArgument);
        }
        let target = cpu.capability(target)?;
        if matches!(target.object, Object::Domain(_)) && access.contains(Rights::WRITE | Rights::EXECUTE) {
            return Err(Status::BadArgument);
        }
        let memory = capability.memory(access)?;
        whole_pages(offset, size, memory.size())?;
        let (lowest, limit) =
            if matches!(target.object, Object::Vm(_)) { (0, GUEST_END) } else { (USER_START, USER_END) };
        let end = whole_pages(address, size, limit)?;
        let range = MappedRange {
            start: SpaceAddr::new(address),
            end: SpaceAddr::new(end),
            offset: ObjectOffset::new(offset),
            access,
        };
        let (parent, tree) = (Some(&capability), &capability.derivation);
        match &target.object {
            Object::Vm(_) => {
                let vm = target.vm(Rights::MANAGE)?;
                vm.space.map(Place::GuestMapping(vm.clone()), parent, tree, memory, range)?;
            }
            _ => {
                let domain = target.domain(Rights::MANAGE)?;
                if address < lowest {
                    return Err(Status::BadArgument);
                }
                domain.space.map(Place::Mapping(domain.clone()), parent, tree, memory, range)?;
            }
        }
        DONE
    }

    pub(super) fn memory_unmap(&'static self, cpu: &mut Cpu<A>, target: u64, address: u64) -> Outcome {
        let target = cpu.capability(target)?;
        match &target.object {
            Object::Vm(_) => self.unmap_at(cpu, &target.vm(Rights::MANAGE)?.space, address),
            _ => self.unmap_at(cpu, &target.domain(Rights::MANAGE)?.space, address),
        }
    }

    fn unmap_at<F: PageFormat>(&'static self, cpu: &mut Cpu<A>, space: &Space<A, F>, address: u64) -> Outcome {
        let mapping = space.mapping_at(SpaceAddr::new(address)).ok_or(Status::NotMapped)?;
        self.unmap(cpu, space, &mapping, &mut { SLICE }).status()?;
        DONE
    }

    pub(super) fn memory_info(cpu: &Cpu<A>, memory: u64) -> Outcome {
        let capability = cpu.capability(memory)?;
        let memory = capability.memory(Rights::READ)?;
        Ok(Flow::Values([memory.size(), memory.committed(), memory.mappings(), 0, 0, 0]))
    }

    pub(super) fn memory_address(cpu: &Cpu<A>, system: u64, memory: u64, offset: u64) -> Outcome {
        cpu.capability(system)?.system(Rights::DMA)?;
        let capability = cpu.capability(memory)?;
        // A device that has the address may write there.
        let (address, length) = capability.memory(Rights::WRITE)?.for_devices(offset)?;
        Ok(Flow::Values([address.as_u64(), length, 0, 0, 0, 0]))
    }
}
