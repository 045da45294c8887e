//! System calls: the number and six words of a domain, decoded and performed.
//!
//! Each call first checks all it can check, then acts. Whatever a domain passes, the answer is a status.

use dragonfly_abi::{Call, Handle, MessageKind, Rights, Status};

use crate::arch::{Arch, Context};
use crate::capability::Capability;
use crate::cpu::Cpu;
use crate::thread::{Message, Thread};
use crate::{Kernel, Ref};

mod device;
mod domain;
mod handle;
mod memory;
mod notification;
mod system;
pub mod thread;
mod vm;

/// How a call goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flow {
    /// It is done, with one word.
    Value(u64),
    /// It is done, with several words.
    Values([u64; 6]),
    /// The results are in the registers of whatever thread is current now.
    Resume,
}

/// What a call came to.
pub type Outcome = Result<Flow, Status>;

/// The call is done and gives nothing.
pub const DONE: Outcome = Ok(Flow::Value(0));

/// What the architecture is to do after a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// Go back to the same thread with a status and a word; all other result words are zero.
    Direct(Status, u64),
    /// Let [`Kernel::select`] say who runs; the registers are all in its context.
    Selected,
}

impl<A: Arch> Kernel<A> {
    /// Performs the current thread's call.
    #[inline]
    pub fn system_call(&'static self, cpu: &mut Cpu<A>, number: u64, words: [u64; 6]) -> Return {
        if number == Call::Nop as u64 {
            return Return::Direct(Status::Ok, 0);
        }
        let outcome = self.dispatch(cpu, number, words);
        let (status, word) = match outcome {
            Ok(Flow::Resume) => return Return::Selected,
            Ok(Flow::Values(values)) => {
                if let Some(current) = &cpu.current {
                    current.context.set_results(Status::Ok, values);
                }
                return Return::Selected;
            }
            Ok(Flow::Value(word)) => (Status::Ok, word),
            Err(status) => (status, 0),
        };
        if !cpu.needs_reschedule && !cpu.needs_timer {
            return Return::Direct(status, word);
        }
        if let Some(current) = &cpu.current {
            current.context.set_results(status, [word, 0, 0, 0, 0, 0]);
        }
        Return::Selected
    }

    #[inline]
    fn dispatch(&'static self, cpu: &mut Cpu<A>, number: u64, words: [u64; 6]) -> Outcome {
        let [a, b, c, d, e, f] = words;
        // IPC first: it is the path that counts.
        if number == Call::Call as u64 {
            let gate = cpu.capability(a)?;
            let message = Message::decode(gate.badge, b, [c, d, e, f], MessageKind::Call)?;
            let timeout_ns = match &cpu.current {
                Some(current) => current.buffer.timeout_ns(message.tag),
                None => return Err(Status::BadState),
            };
            self.send(cpu, gate.gate(Rights::SEND)?, message, timeout_ns)?;
            return Ok(Flow::Resume);
        }
        if number == Call::ReplyReceive as u64 {
            let gate = cpu.capability(a)?;
            let message = Message::decode(0, b, [c, d, e, f], MessageKind::Call)?;
            self.reply_receive(cpu, gate.gate(Rights::RECEIVE)?, &message)?;
            return Ok(Flow::Resume);
        }
        self.dispatch_others(cpu, number, words)
    }

    #[inline(never)]
    fn dispatch_others(&'static self, cpu: &mut Cpu<A>, number: u64, words: [u64; 6]) -> Outcome {
        let [a, b, c, d, e, f] = words;
        match Call::from_raw(number).ok_or(Status::BadCall)? {
            Call::Nop | Call::Call | Call::ReplyReceive => Err(Status::BadCall),
            Call::Reply => {
                let message = Message::decode(0, b, [c, d, e, f], MessageKind::Call)?;
                let server = cpu.running()?;
                match self.reply(cpu, &message) {
                    Ok(()) => server.context.set_results(Status::Ok, [0; 6]),
                    Err(Status::NoCaller) => return Err(Status::NoCaller),
                    Err(status) => server.context.set_results(status, [0; 6]),
                }
                Ok(Flow::Resume)
            }
            Call::Receive => {
                let gate = cpu.capability(a)?;
                self.receive(cpu, gate.gate(Rights::RECEIVE)?, b)?;
                Ok(Flow::Resume)
            }
            Call::HandleCopy => self.handle_copy(cpu, a, b, c, d),
            Call::HandleClose => self.handle_close(cpu, a),
            Call::HandleRevoke => self.handle_revoke(cpu, a),
            Call::HandleInfo => Self::handle_info(cpu, a),
            Call::DomainCreate => self.domain_create(cpu, a, b, c, d, (e, f)),
            Call::DomainDestroy => self.domain_destroy(cpu, a),
            Call::DomainInfo => Self::domain_info(cpu, a),
            Call::ThreadCreate => self.thread_create(cpu, words),
            Call::ThreadConfigure => self.thread_configure(cpu, words),
            Call::ThreadStart => self.thread_start(cpu, a),
            Call::ThreadDestroy => self.thread_destroy(cpu, a),
            Call::ThreadExit => Self::thread_exit(cpu),
            Call::ThreadYield => self.thread_yield(cpu),
            Call::ThreadInfo => self.thread_info(cpu, a),
            Call::ThreadMove => self.thread_move(cpu, a),
            Call::NotificationCreate => self.notification_create(cpu),
            Call::NotificationSignal => self.notification_signal(cpu, a, b),
            Call::NotificationWait => self.notification_wait(cpu, a, b),
            Call::NotificationBind => self.notification_bind(cpu, a, b),
            Call::TimerArm => self.timer_arm(cpu, a, b, c),
            Call::GateCreate => self.gate_create(cpu),
            Call::MemoryCreate => self.memory_create(cpu, a, b),
            Call::MemoryCommit => self.memory_commit(cpu, a, b, c),
            Call::MemoryMap => self.memory_map(cpu, words),
            Call::MemoryUnmap => self.memory_unmap(cpu, a, b),
            Call::MemoryInfo => Self::memory_info(cpu, a),
            Call::MemoryAddress => Self::memory_address(cpu, a, b, c),
            Call::DevicePorts => self.device_ports(cpu, a, b, c),
            Call::DeviceMemory => self.device_memory(cpu, a, b, c),
            Call::DeviceInterrupt => self.device_interrupt(cpu, a, b, c),
            Call::PortRead => self.port_read(cpu, a, b, c),
            Call::PortWrite => self.port_write(cpu, a, b, c, d),
            Call::InterruptBind => self.interrupt_bind(cpu, a, b, c, d),
            Call::InterruptAcknowledge => self.interrupt_acknowledge(cpu, a),
            Call::DeviceMessage => self.device_message(cpu, a),
            Call::SystemInfo => self.system_info(cpu, a, b, c),
            Call::LogWrite => self.log_write(cpu, a, b),
            Call::ClockNow => Ok(Flow::Value(self.clock_now())),
            Call::VmCreate => self.vm_create(cpu),
            Call::VmDoorbell => Self::vm_doorbell(cpu, words),
            Call::VmInterrupt => Self::vm_interrupt(cpu, a, b, c),
            Call::VcpuCreate => self.vcpu_create(cpu, a, b, c),
            Call::VcpuRun => {
                self.vcpu_run(cpu, a, b)?;
                Ok(Flow::Resume)
            }
            Call::VcpuKick => self.vcpu_kick(cpu, a),
            Call::VcpuSync => self.vcpu_sync(cpu, a, b),
            Call::VcpuCpuid => Self::vcpu_cpuid(cpu, words),
            Call::VcpuMsr => Self::vcpu_msr(cpu, a, b, c, d),
            Call::VcpuApic => Self::vcpu_apic(cpu, a, b, c, d),
            Call::NotificationRoute => Self::notification_route(cpu, a, b, c, d),
            Call::VcpuRecord => Self::vcpu_record(cpu, a, b, c, d),
            Call::VmDirtyLog => self.vm_dirty_log(cpu, a, b),
            Call::VcpuTscFrequency => Self::vcpu_tsc_frequency(cpu, a, b),
            Call::VmDirtyPages => self.vm_dirty_pages(cpu, a, b, c),
        }
    }
}

impl<A: Arch> Cpu<A> {
    /// The capability that a word of the current thread names.
    #[inline]
    fn capability(&self, word: u64) -> Result<Ref<Capability<A>, A>, Status> {
        let current = self.current.as_ref().ok_or(Status::BadState)?;
        let handle = u32::try_from(word).map_err(|_| Status::BadHandle)?;
        current.domain.table.lock().get(Handle(handle)).cloned()
    }

    /// The current thread.
    fn running(&self) -> Result<Ref<Thread<A>, A>, Status> {
        self.current.clone().ok_or(Status::BadState)
    }
}
