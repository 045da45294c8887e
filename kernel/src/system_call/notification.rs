//! Calls about notifications and gates.

use dragonfly_abi::{Rights, Status};
use dragonfly_memory::Guard;

use super::{DONE, Flow, Outcome};
use crate::arch::{Arch, Context, Guest};
use crate::capability::Object;
use crate::cpu::Cpu;
use crate::domain::publish;
use crate::gate::Gate;
use crate::notification::{Notification, Waiters};
use crate::thread::{Message, Waiting};
use crate::{Kernel, Ref};

impl<A: Arch> Kernel<A> {
    pub(super) fn notification_create(&'static self, cpu: &Cpu<A>) -> Outcome {
        let current = cpu.running()?;
        let domain = &current.domain;
        let notification = Notification::new(domain.charge_object::<Notification<A>>()?);
        let object = Ref::<_, A>::try_new(self.arch.heap(), notification).map_err(|_| Status::OutOfMemory)?;
        let handle = publish(self.arch, domain, domain, Object::Notification(object), Rights::all())?;
        Ok(Flow::Value(u64::from(handle.0)))
    }

    pub(super) fn gate_create(&'static self, cpu: &Cpu<A>) -> Outcome {
        let current = cpu.running()?;
        let domain = &current.domain;
        let gate = Gate::new(domain.charge_object::<Gate<A>>()?);
        let object = Ref::<_, A>::try_new(self.arch.heap(), gate).map_err(|_| Status::OutOfMemory)?;
        let handle = publish(self.arch, domain, domain, Object::Gate(object), Rights::all())?;
        Ok(Flow::Value(u64::from(handle.0)))
    }

    pub(super) fn notification_signal(&'static self, cpu: &mut Cpu<A>, notification: u64, bits: u64) -> Outcome {
        let capability = cpu.capability(notification)?;
        let notification = capability.notification(Rights::SEND)?;
        let bits = capability.bits_to_signal(bits);
        self.signal(cpu, notification, bits);
        DONE
    }

    /// Sets bits and hands them to a waiter, or to a receiver of the bound gate.
    pub fn signal(&self, cpu: &mut Cpu<A>, notification: &Ref<Notification<A>, A>, bits: u64) {
        if bits == 0 {
            return;
        }
        notification.set(bits);
        let mut waiters = notification.waiters.lock();
        if let Some(route) = &waiters.route {
            let (vm, address, data) = (route.vm.clone(), route.address, route.data);
            notification.take();
            drop(waiters);
            A::Guest::send_message(cpu, &vm, address, data);
            return;
        }
        // Taken before anybody is claimed, since others may have been faster: no wait ends without bits.
        let bits = notification.take();
        if bits == 0 {
            return;
        }
        while let Some(thread) = waiters.queue.pop_front() {
            if thread.claim_any() {
                drop(waiters);
                thread.ipc.lock().end_wait();
                thread.context.set_results(Status::Ok, [bits, 0, 0, 0, 0, 0]);
                self.wake(cpu, thread);
                return;
            }
        }
        notification.set(bits);
        self.offer_bits(cpu, waiters);
    }

    /// Hands the bits of a notification to a receiver of its gate, if there are both. Until that is decided the waiters
    /// stay locked, so that nobody begins to wait while bits are only on their way back.
    fn offer_bits(&self, cpu: &mut Cpu<A>, waiters: Guard<'_, Waiters<A>, A::Relax>) {
        let Some(gate) = waiters.gate.clone() else { return };
        let mut queues = gate.queues.lock();
        // Somebody may have taken the bits meanwhile: then no receiver is claimed.
        if queues.receivers.is_empty() {
            return;
        }
        let Some(bits) = queues.take_bits() else { return };
        let Some(receiver) = queues.take_receiver(cpu.id) else {
            if let Some(notification) = &queues.notification {
                notification.set(bits);
            }
            return;
        };
        drop(queues);
        drop(waiters);
        receiver.ipc.lock().end_wait();
        receiver.context.set_results(Status::Ok, Message::of_bits(bits).results());
        self.wake(cpu, receiver);
    }

    pub(super) fn notification_wait(&'static self, cpu: &mut Cpu<A>, notification: u64, timeout_ns: u64) -> Outcome {
        let capability = cpu.capability(notification)?;
        let notification = capability.notification(Rights::RECEIVE)?;
        let current = cpu.running()?;
        let mut waiters = notification.waiters.lock();
        let bits = notification.take();
        if bits != 0 {
            return Ok(Flow::Value(bits));
        }
        if waiters.is_closed {
            return Err(Status::Aborted);
        }
        if timeout_ns == 0 {
            return Err(Status::WouldBlock);
        }
        current.ipc.lock().begin_wait(Waiting::Notification(notification.clone()));
        current.block();
        let queued = waiters.queue.push_back(current.clone());
        debug_assert!(queued.is_ok());
        drop(waiters);
        self.begin_timeout(cpu, &current, timeout_ns);
        cpu.current = None;
        cpu.leave(self.arch);
        Ok(Flow::Resume)
    }

    pub(super) fn notification_bind(&'static self, cpu: &mut Cpu<A>, notification: u64, gate: u64) -> Outcome {
        let capability = cpu.capability(notification)?;
        let notification = capability.notification(Rights::RECEIVE)?;
        let gate = cpu.capability(gate)?;
        let gate = gate.gate(Rights::RECEIVE)?;
        let mut waiters = notification.waiters.lock();
        let mut queues = gate.queues.lock();
        if waiters.is_closed || queues.is_closed {
            return Err(Status::Aborted);
        }
        if waiters.gate.is_some() || queues.notification.is_some() {
            return Err(Status::Busy);
        }
        waiters.gate = Some(gate.clone());
        queues.notification = Some(notification.clone());
        drop(queues);
        // Receivers that wait already get the bits that are set already.
        self.offer_bits(cpu, waiters);
        DONE
    }
}
