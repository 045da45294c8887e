//! Calls about devices.

use dragonfly_abi::{Rights, Status};
use dragonfly_memory::{HostPhys, PAGE_SIZE};

use super::{DONE, Flow, Outcome};
use crate::arch::{Arch, Trigger};
use crate::capability::Object;
use crate::cpu::Cpu;
use crate::device::{InterruptLine, InterruptTarget, PortRange};
use crate::domain::{Domain, publish};
use crate::memory_object::Memory;
use crate::{Kernel, LINES, MESSAGES, Ref};

/// I/O ports of the machine.
const PORTS: u64 = 0x1_0000;
/// Flag of an interrupt line: level-triggered.
const LEVEL: u64 = 1;
/// Flag of an interrupt line: active low.
const ACTIVE_LOW: u64 = 2;

impl<A: Arch> Kernel<A> {
    pub(super) fn device_ports(&'static self, cpu: &Cpu<A>, system: u64, first: u64, count: u64) -> Outcome {
        cpu.capability(system)?.system(Rights::DEVICES)?;
        if first >= PORTS || count == 0 || count > PORTS - first {
            return Err(Status::BadArgument);
        }
        let ports = PortRange {
            first: u16::try_from(first).map_err(|_| Status::BadArgument)?,
            count: u32::try_from(count).map_err(|_| Status::BadArgument)?,
        };
        let domain = &cpu.running()?.domain;
        let rights = Rights::COPY | Rights::READ | Rights::WRITE;
        let handle = publish(self.arch, domain, domain, Object::Ports(ports), rights)?;
        Ok(Flow::Value(u64::from(handle.0)))
    }

    pub(super) fn device_memory(&'static self, cpu: &Cpu<A>, system: u64, address: u64, size: u64) -> Outcome {
        cpu.capability(system)?.system(Rights::DEVICES)?;
        let end = address.checked_add(size).ok_or(Status::BadArgument)?;
        if size == 0 || !address.is_multiple_of(PAGE_SIZE) || !end.is_multiple_of(PAGE_SIZE) {
            return Err(Status::BadArgument);
        }
        let start = HostPhys::new(address);
        if !self.arch.is_device_memory(start, size) {
            return Err(Status::Denied);
        }
        let domain = &cpu.running()?.domain;
        let memory = Memory::of_device(domain, start, size)?;
        let memory = Ref::<_, A>::try_new(self.arch.heap(), memory).map_err(|_| Status::OutOfMemory)?;
        let rights = Rights::COPY | Rights::READ | Rights::WRITE;
        let handle = publish(self.arch, domain, domain, Object::Memory(memory), rights)?;
        Ok(Flow::Value(u64::from(handle.0)))
    }

    pub(super) fn device_interrupt(&'static self, cpu: &Cpu<A>, system: u64, line: u64, flags: u64) -> Outcome {
        cpu.capability(system)?.system(Rights::DEVICES)?;
        let line = match u32::try_from(line) {
            Ok(line) if line < self.arch.interrupt_lines().min(LINES) => line,
            _ => return Err(Status::BadArgument),
        };
        if flags & !(LEVEL | ACTIVE_LOW) != 0 {
            return Err(Status::BadArgument);
        }
        let trigger = Trigger { is_level: flags & LEVEL != 0, is_active_low: flags & ACTIVE_LOW != 0 };
        let domain = &cpu.running()?.domain;
        let object = InterruptLine::new(line, Some(trigger), domain.charge_object::<InterruptLine<A>>()?);
        let object = Ref::<_, A>::try_new(self.arch.heap(), object).map_err(|_| Status::OutOfMemory)?;
        let rights = Rights::COPY | Rights::MANAGE;
        let handle = publish(self.arch, domain, domain, Object::Interrupt(object), rights)?;
        Ok(Flow::Value(u64::from(handle.0)))
    }

    pub(super) fn device_message(&'static self, cpu: &Cpu<A>, system: u64) -> Outcome {
        cpu.capability(system)?.system(Rights::DMA)?;
        let domain = &cpu.running()?.domain;
        let object = self.new_message(domain)?;
        let rights = Rights::COPY | Rights::MANAGE;
        let handle = publish(self.arch, domain, domain, Object::Interrupt(object.clone()), rights);
        if handle.is_err() {
            self.close_interrupt(&object);
        }
        Ok(Flow::Value(u64::from(handle?.0)))
    }

    /// Makes a message-signalled interrupt with the first number that is free.
    fn new_message(&'static self, domain: &Domain<A>) -> Result<Ref<InterruptLine<A>, A>, Status> {
        let charge = domain.charge_object::<InterruptLine<A>>()?;
        for number in LINES..LINES + MESSAGES {
            let Some(slot) = self.slot(number) else { continue };
            let mut slot = slot.lock();
            if slot.is_none() {
                let object = InterruptLine::new(number, None, charge);
                let object = Ref::<_, A>::try_new(self.arch.heap(), object).map_err(|_| Status::OutOfMemory)?;
                *slot = Some(object.clone());
                return Ok(object);
            }
        }
        Err(Status::NoHandles)
    }

    pub(super) fn port_read(&'static self, cpu: &Cpu<A>, ports: u64, port: u64, width: u64) -> Outcome {
        let (port, width) = cpu.capability(ports)?.ports(Rights::READ)?.check(port, width)?;
        Ok(Flow::Value(u64::from(self.arch.port_read(port, width))))
    }

    pub(super) fn port_write(&'static self, cpu: &Cpu<A>, ports: u64, port: u64, width: u64, value: u64) -> Outcome {
        let (port, width) = cpu.capability(ports)?.ports(Rights::WRITE)?.check(port, width)?;
        let value = u32::try_from(value).map_err(|_| Status::BadArgument)?;
        self.arch.port_write(port, width, value);
        DONE
    }

    pub(super) fn interrupt_bind(
        &'static self,
        cpu: &Cpu<A>,
        interrupt: u64,
        notification: u64,
        bits: u64,
        target: u64,
    ) -> Outcome {
        let capability = cpu.capability(interrupt)?;
        let line = capability.interrupt(Rights::MANAGE)?;
        if notification == 0 {
            self.unbind_interrupt(line);
            return DONE;
        }
        let signalled = cpu.capability(notification)?;
        let notification = signalled.notification(Rights::SEND)?.clone();
        let bits = signalled.bits_to_signal(bits);
        let target = match usize::try_from(target) {
            Ok(target) if target < self.cpus() => target,
            _ => return Err(Status::BadCpu),
        };
        if bits == 0 {
            return Err(Status::BadArgument);
        }
        let message = match line.trigger {
            Some(_) => None,
            None => Some(self.arch.message(line.line, target)?),
        };
        let slot = self.slot(line.line).ok_or(Status::BadArgument)?;
        {
            let tree = capability.derivation.state.lock();
            // The line has been unbound for the last time.
            if tree.is_closing {
                return Err(Status::BadHandle);
            }
            let mut bound = slot.lock();
            if bound.as_ref().is_some_and(|bound| !Ref::<_, A>::ptr_eq(bound, line)) {
                return Err(Status::Busy);
            }
            *line.target.lock() = Some(InterruptTarget { notification, bits });
            *bound = Some(line.clone());
        }
        if let Some(trigger) = line.trigger {
            self.arch.connect_interrupt(line.line, target, trigger)?;
        }
        let (address, data) = message.unwrap_or_default();
        Ok(Flow::Values([address, data.into(), 0, 0, 0, 0]))
    }

    pub(super) fn interrupt_acknowledge(&'static self, cpu: &Cpu<A>, interrupt: u64) -> Outcome {
        let capability = cpu.capability(interrupt)?;
        let line = capability.interrupt(Rights::MANAGE)?;
        if line.target.lock().is_none() {
            return Err(Status::BadState);
        }
        if line.trigger.is_some() {
            self.arch.unmask_interrupt(line.line);
        }
        DONE
    }

    /// Holds a line back and forgets where interrupts went. A message keeps its number.
    fn unbind_interrupt(&self, line: &Ref<InterruptLine<A>, A>) {
        let Some(slot) = self.slot(line.line) else { return };
        let mut bound = slot.lock();
        if bound.as_ref().is_some_and(|bound| Ref::<_, A>::ptr_eq(bound, line)) {
            *line.target.lock() = None;
            if line.trigger.is_some() {
                self.arch.mask_interrupt(line.line);
                *bound = None;
            }
        }
    }

    /// Unbinds an interrupt for good.
    pub fn close_interrupt(&self, line: &Ref<InterruptLine<A>, A>) {
        self.unbind_interrupt(line);
        if line.trigger.is_none()
            && let Some(slot) = self.slot(line.line)
        {
            // Nobody else has had the number, so it is this object that stands there.
            *slot.lock() = None;
        }
    }

    /// An interrupt has come to this CPU. A line stays masked until the domain acknowledges it; it is masked first, since
    /// that may be as soon as the domain is told. A message is not held back.
    pub fn interrupt(&'static self, cpu: &mut Cpu<A>, number: u32) {
        if number < LINES {
            self.arch.mask_interrupt(number);
        }
        let target = {
            let Some(slot) = self.slot(number) else { return };
            let bound = slot.lock();
            let Some(bound) = bound.as_ref() else { return };
            let target = bound.target.lock();
            target.as_ref().map(|target| (target.notification.clone(), target.bits))
        };
        if let Some((notification, bits)) = target {
            self.signal(cpu, &notification, bits);
        }
    }
}
