//! The fast path of calls and replies: short messages between threads of one CPU.
//!
//! Every guard stands here in order; the first that does not hold sends the call to the general path in [`ipc`], with
//! nothing changed. What the path does is the same as there, with no reference counted up that can be moved instead.
//!
//! [`ipc`]: crate::ipc

use dragonfly_abi::{Handle, MessageKind, MessageTag, Rights, Status};

use crate::arch::{Arch, Context};
use crate::capability::Object;
use crate::cpu::Cpu;
use crate::thread::{Caller, Message, Thread, Waiting};
use crate::{Kernel, Ref};

impl<A: Arch> Kernel<A> {
    /// `Call`: hands the message and the CPU to a receiver that waits. True if that is done.
    #[inline]
    pub fn fast_call(&'static self, cpu: &mut Cpu<A>, gate: u64, tag: u64, words: [u64; 4]) -> bool {
        let tag = MessageTag(tag);
        let Some(current) = cpu.current.as_ref() else { return false };
        // The message is all in registers, and the wait is without an end.
        if !tag.is_short() || gate > u64::from(u32::MAX) {
            return false;
        }
        let (receiver, badge) = {
            let table = current.domain.table.lock();
            let Ok(capability) = table.get(Handle(gate as u32)) else { return false };
            // The handle is a gate's and may be called.
            let Object::Gate(gate) = &capability.object else { return false };
            if !capability.rights.contains(Rights::SEND) {
                return false;
            }
            // Nobody else is at the gate. It comes before the table in the lock order, so it is not waited for.
            let Some(mut queues) = gate.queues.try_lock() else { return false };
            // A thread of this CPU waits first, without a time-out. A closed gate has nobody waiting.
            match queues.receivers.front() {
                Some(first) if first.cpu() == cpu.id && !first.has_timeout() => {}
                _ => return false,
            }
            let Some(receiver) = queues.receivers.pop_front() else { return false };
            // Its CPU is this one, so nobody can be taking it away.
            if !receiver.claim_any() {
                return false;
            }
            (receiver, capability.badge)
        };
        let message = Message { badge, tag: tag.with_kind(MessageKind::Call), words };
        receiver.context.set_results(Status::Ok, message.results());
        let token = current.block();
        current.ipc.lock().begin_wait(Waiting::Reply(receiver.clone()));
        let before = cpu.current.replace(receiver);
        if let (Some(thread), Some(receiver)) = (before, &cpu.current) {
            let mut ipc = receiver.ipc.lock();
            ipc.end_wait();
            ipc.caller = Some(Caller { thread, token, is_donor: true, is_fault: false });
        }
        true
    }

    /// `ReplyReceive`: hands the answer and the CPU back to the caller, with nobody else at the gate. True if done.
    #[inline]
    pub fn fast_reply_receive(&'static self, cpu: &mut Cpu<A>, gate: u64, tag: u64, words: [u64; 4]) -> bool {
        let tag = MessageTag(tag);
        let Some(server) = cpu.current.as_ref() else { return false };
        if !tag.is_short() || gate > u64::from(u32::MAX) {
            return false;
        }
        let caller = {
            let table = server.domain.table.lock();
            let Ok(capability) = table.get(Handle(gate as u32)) else { return false };
            let Object::Gate(gate) = &capability.object else { return false };
            if !capability.rights.contains(Rights::RECEIVE) {
                return false;
            }
            let Some(mut queues) = gate.queues.try_lock() else { return false };
            // The gate is open, no caller waits and no bits are set: the server will wait.
            if queues.is_closed || !queues.callers.is_empty() || queues.has_bits() {
                return false;
            }
            let mut ipc = server.ipc.lock();
            // The server has a caller on this CPU that called and waits without a time-out, and still does.
            match &ipc.caller {
                Some(caller) if caller.is_donor && !caller.is_fault && !caller.thread.has_timeout() => {
                    if !caller.thread.claim(caller.token) {
                        return false;
                    }
                }
                _ => return false,
            }
            let Some(caller) = ipc.caller.take() else { return false };
            ipc.begin_wait(Waiting::Receive(gate.clone()));
            drop(ipc);
            server.block();
            let queued = queues.receivers.push_back(server.clone());
            debug_assert!(queued.is_ok());
            caller.thread
        };
        caller.ipc.lock().end_wait();
        let message = Message { badge: 0, tag: tag.with_kind(MessageKind::Call), words };
        caller.context.set_results(Status::Ok, message.results());
        cpu.current = Some(caller);
        true
    }

    /// Makes the address space of the thread active that the fast path has made current.
    #[inline]
    pub fn enter_current(&self, cpu: &mut Cpu<A>) {
        let Some(current) = &cpu.current else { return };
        if !cpu.active.as_ref().is_some_and(|active| Ref::<_, A>::ptr_eq(active, &current.domain)) {
            let domain = current.domain.clone();
            self.activate(cpu, Some(domain));
        }
    }
}

impl<A: Arch> Thread<A> {
    /// Whether its wait has an end. For its own CPU.
    #[inline]
    fn has_timeout(&self) -> bool {
        self.timeout_link().is_queued()
    }
}
