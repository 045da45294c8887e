//! Calls about virtual machines.

use dragonfly_abi::guest::{DoorbellKind, GUEST_END, MAX_VCPUS, MsrPolicy, RecordKind, RunFlags};
use dragonfly_abi::{Handle, Rights, Status};
use dragonfly_memory::{GuestPhys, PAGE_SIZE, UserVirt, Vacant};

use super::{DONE, Flow, Outcome};
use crate::arch::{Arch, Guest};
use crate::capability::Object;
use crate::cpu::Cpu;
use crate::domain::publish;
use crate::memory_object::Memory;
use crate::notification::Route;
use crate::shared_page::SharedPage;
use crate::teardown::SLICE;
use crate::vcpu::{AfterGuest, Vcpu};
use crate::vm::{DoorbellPlace, Vm};
use crate::{Kernel, Ref};

/// I/O ports of a guest.
const PORTS: u64 = 0x1_0000;

impl<A: Arch> Kernel<A> {
    pub(super) fn vm_create(&'static self, cpu: &mut Cpu<A>) -> Outcome {
        let current = cpu.running()?;
        let domain = &current.domain;
        // Before the guest's memory, whose root is not given back by being dropped.
        let vacant = Vacant::<_, A::Heap>::reserve(self.arch.heap()).map_err(|_| Status::OutOfMemory)?;
        let vm = vacant.fill(Vm::new(self, domain)?);
        let rights = Rights::COPY | Rights::MANAGE | Rights::SEND;
        let handle = publish(self.arch, domain, domain, Object::Vm(vm.clone()), rights);
        if handle.is_err() {
            // There is nothing in it: one slice is enough.
            let _ = self.close_vm(cpu, &vm, &mut { SLICE });
        }
        Ok(Flow::Value(u64::from(handle?.0)))
    }

    pub(super) fn vm_doorbell(cpu: &Cpu<A>, words: [u64; 6]) -> Outcome {
        let [vm, place, _, notification, bits, _] = words;
        let vm = cpu.capability(vm)?;
        let vm = vm.vm(Rights::MANAGE)?;
        let address = place & (GUEST_END - 1);
        let kind = match place >> 48 {
            0 => DoorbellKind::Memory,
            1 if address < PORTS => DoorbellKind::Port,
            _ => return Err(Status::BadArgument),
        };
        let target = match notification {
            0 => None,
            handle => {
                let capability = cpu.capability(handle)?;
                Some((capability.notification(Rights::SEND)?.clone(), capability.bits_to_signal(bits)))
            }
        };
        vm.set_doorbell(DoorbellPlace { kind, address }, target)?;
        DONE
    }

    pub(super) fn vm_interrupt(cpu: &mut Cpu<A>, vm: u64, address: u64, data: u64) -> Outcome {
        let vm = cpu.capability(vm)?;
        let vm = vm.vm(Rights::SEND)?;
        let data = u32::try_from(data).map_err(|_| Status::BadArgument)?;
        A::Guest::send_message(cpu, vm, address, data);
        DONE
    }

    pub(super) fn vm_dirty_log(&'static self, cpu: &Cpu<A>, vm: u64, is_on: u64) -> Outcome {
        let capability = cpu.capability(vm)?;
        let vm = capability.vm(Rights::MANAGE)?;
        let progress = match is_on {
            0 => vm.space.stop_dirty_log(self)?,
            1 => vm.space.start_dirty_log(self)?,
            _ => return Err(Status::BadArgument),
        };
        progress.status()?;
        DONE
    }

    pub(super) fn vm_dirty_pages(&'static self, cpu: &Cpu<A>, vm: u64, start: u64, end: u64) -> Outcome {
        let capability = cpu.capability(vm)?;
        let vm = capability.vm(Rights::MANAGE)?;
        if start >= end || end > GUEST_END || !(start | end).is_multiple_of(PAGE_SIZE) {
            return Err(Status::BadArgument);
        }
        let dirty = vm.space.take_dirty(self, GuestPhys::new(start), GuestPhys::new(end))?;
        if dirty.count != 0 {
            cpu.running()?.buffer.write_words(&dirty.bitmap);
        }
        Ok(Flow::Values([dirty.first, dirty.count, dirty.next, 0, 0, 0]))
    }

    pub(super) fn vcpu_create(&'static self, cpu: &mut Cpu<A>, vm: u64, number: u64, page: u64) -> Outcome {
        let capability = cpu.capability(vm)?;
        let vm = capability.vm(Rights::MANAGE)?;
        let number = match u32::try_from(number) {
            Ok(number) if number < MAX_VCPUS => number,
            _ => return Err(Status::BadArgument),
        };
        let current = cpu.running()?;
        let domain = &current.domain;
        let charge = domain.charge_object::<Vcpu<A>>()?;
        let (mut guest, interrupts) = A::Guest::new(self.arch, domain, number, &vm.space)?;
        let memory = Memory::pinned_page(self, domain)?;
        let shared = SharedPage::new(self.arch, memory.clone()).ok_or(Status::OutOfMemory)?;
        guest.sync(&interrupts, &shared, RunFlags::GROUPS);
        let vcpu = Vcpu::new(vm.clone(), number, shared, (guest, interrupts), domain.clone(), charge);
        let vcpu = Ref::<_, A>::try_new(self.arch.heap(), vcpu).map_err(|_| Status::OutOfMemory)?;
        domain.space.map_buffer(domain, &memory, UserVirt::new(page))?;
        let rights = Rights::COPY | Rights::MANAGE | Rights::SEND;
        let handle = vm.add(number, &vcpu).and_then(|()| {
            publish(self.arch, domain, domain, Object::Vcpu(vcpu.clone()), rights).inspect_err(|_| vm.remove(number))
        });
        if handle.is_err() {
            domain.space.unmap_buffer(self, &memory);
        }
        Ok(Flow::Value(u64::from(handle?.0)))
    }

    /// `VcpuRun`: from now on the current thread goes on in the guest. Runs it as far as that goes.
    #[inline(always)]
    pub fn vcpu_run(&'static self, cpu: &mut Cpu<A>, vcpu: u64, flags: u64) -> Result<AfterGuest, Status> {
        let vcpu = {
            let current = cpu.current.as_ref().ok_or(Status::BadState)?;
            let handle = u32::try_from(vcpu).map_err(|_| Status::BadHandle)?;
            let table = current.domain.table.lock();
            table.get(Handle(handle))?.vcpu(Rights::MANAGE)?.clone()
        };
        let flags = RunFlags::from_bits(flags).ok_or(Status::BadArgument)?;
        self.begin_guest(cpu, &vcpu, flags)
    }

    pub(super) fn vcpu_kick(&'static self, cpu: &mut Cpu<A>, vcpu: u64) -> Outcome {
        let capability = cpu.capability(vcpu)?;
        self.kick_vcpu(cpu, capability.vcpu(Rights::SEND)?);
        DONE
    }

    pub(super) fn vcpu_sync(&'static self, cpu: &Cpu<A>, vcpu: u64, groups: u64) -> Outcome {
        let capability = cpu.capability(vcpu)?;
        let vcpu = capability.vcpu(Rights::MANAGE)?;
        let groups = RunFlags::from_bits(groups).filter(|groups| RunFlags::GROUPS.contains(*groups));
        let groups = groups.ok_or(Status::BadArgument)?;
        vcpu.while_idle(|guest| guest.sync(&vcpu.interrupts, &vcpu.page, groups))?;
        DONE
    }

    pub(super) fn vcpu_cpuid(cpu: &Cpu<A>, words: [u64; 6]) -> Outcome {
        let [vcpu, leaf, low, high, flags, _] = words;
        let capability = cpu.capability(vcpu)?;
        let vcpu = capability.vcpu(Rights::MANAGE)?;
        let subleaf = match flags {
            0 => None,
            1 => Some((leaf >> 32) as u32),
            _ => return Err(Status::BadArgument),
        };
        let registers = [low as u32, (low >> 32) as u32, high as u32, (high >> 32) as u32];
        vcpu.while_idle(|guest| guest.add_cpuid(leaf as u32, subleaf, registers))??;
        DONE
    }

    pub(super) fn vcpu_msr(cpu: &Cpu<A>, vcpu: u64, register: u64, value: u64, policy: u64) -> Outcome {
        let capability = cpu.capability(vcpu)?;
        let vcpu = capability.vcpu(Rights::MANAGE)?;
        let register = u32::try_from(register).map_err(|_| Status::BadArgument)?;
        let policy = MsrPolicy::from_bits(policy).ok_or(Status::BadArgument)?;
        vcpu.while_idle(|guest| guest.add_msr(register, value, policy))??;
        DONE
    }

    pub(super) fn vcpu_tsc_frequency(cpu: &Cpu<A>, vcpu: u64, hz: u64) -> Outcome {
        let capability = cpu.capability(vcpu)?;
        let vcpu = capability.vcpu(Rights::MANAGE)?;
        Ok(Flow::Value(vcpu.while_idle(|guest| guest.set_counter_frequency(hz))??))
    }

    pub(super) fn vcpu_apic(cpu: &mut Cpu<A>, vcpu: u64, offset: u64, value: u64, is_write: u64) -> Outcome {
        let capability = cpu.capability(vcpu)?;
        let vcpu = capability.vcpu(Rights::MANAGE)?;
        let offset = u32::try_from(offset).map_err(|_| Status::BadArgument)?;
        let write = match is_write {
            0 => None,
            1 => Some(u32::try_from(value).map_err(|_| Status::BadArgument)?),
            _ => return Err(Status::BadArgument),
        };
        let value = vcpu.while_idle(|guest| guest.access_controller(cpu, vcpu, offset, write))??;
        Ok(Flow::Value(u64::from(value)))
    }

    pub(super) fn vcpu_record(cpu: &Cpu<A>, vcpu: u64, memory: u64, offset: u64, kind: u64) -> Outcome {
        let capability = cpu.capability(vcpu)?;
        let vcpu = capability.vcpu(Rights::MANAGE)?;
        let place = match memory {
            0 => None,
            handle => Some((cpu.capability(handle)?.memory(Rights::READ | Rights::WRITE)?.clone(), offset)),
        };
        match RecordKind::from_raw(kind).ok_or(Status::BadArgument)? {
            RecordKind::StolenTime => vcpu.stolen.set_record(place)?,
            RecordKind::EndOfInterrupt => {
                let replaced = vcpu.while_idle(|guest| guest.set_end_place(place))??;
                drop(replaced);
            }
        }
        DONE
    }

    pub(super) fn notification_route(cpu: &Cpu<A>, notification: u64, vm: u64, address: u64, data: u64) -> Outcome {
        let capability = cpu.capability(notification)?;
        let notification = capability.notification(Rights::RECEIVE)?;
        let route = match vm {
            0 => None,
            handle => {
                let vm = cpu.capability(handle)?.vm(Rights::SEND)?.clone();
                Some(Route { vm, address, data: u32::try_from(data).map_err(|_| Status::BadArgument)? })
            }
        };
        let replaced = {
            let mut waiters = notification.waiters.lock();
            if waiters.is_closed {
                return Err(Status::Aborted);
            }
            core::mem::replace(&mut waiters.route, route)
        };
        drop(replaced);
        DONE
    }
}
