//! Faults: what becomes of a thread that cannot go on by itself.

use dragonfly_abi::arch::THREAD_STATE_SIZE;
use dragonfly_abi::{FOREVER, FaultKind, FaultReply, MessageKind, MessageTag, Rights};
use dragonfly_memory::UserVirt;

use crate::Kernel;
use crate::arch::{Arch, Context};
use crate::cpu::Cpu;
use crate::thread::{Message, Thread};

const _: () = assert!(THREAD_STATE_SIZE <= dragonfly_abi::MESSAGE_DATA_SIZE);

/// A fault of the current thread, as the architecture found it.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// An access that the page tables do not allow.
    Page {
        /// The address accessed.
        address: UserVirt,
        /// How: one of READ, WRITE, EXECUTE.
        access: Rights,
    },
    /// An instruction that the CPU refuses.
    IllegalInstruction {
        /// The architecture's number of the exception.
        number: u64,
        /// The architecture's error code.
        code: u64,
    },
    /// Another exception.
    Exception {
        /// The architecture's number of the exception.
        number: u64,
        /// The architecture's error code.
        code: u64,
    },
    /// The budget is used up.
    BudgetExhausted,
}

impl<A: Arch> Kernel<A> {
    /// The current thread has faulted: resolves the fault, tells its handler, or ends the thread.
    pub fn fault(&'static self, cpu: &mut Cpu<A>, fault: Fault) {
        let Some(current) = cpu.current.clone() else { return };
        if let Fault::Page { address, access } = fault
            && current.domain.space.resolve(self, address.into(), access)
        {
            return;
        }
        let handler = current.ipc.lock().fault_gate.clone();
        let message = describe(&current, fault);
        let told =
            handler.is_some_and(|(gate, badge)| self.send(cpu, &gate, Message { badge, ..message }, FOREVER).is_ok());
        if !told && !matches!(fault, Fault::BudgetExhausted) {
            log::info!("a thread without a fault handler ends: {fault:x?} at {:#x}", message.words[1]);
            current.doom();
            cpu.needs_reschedule = true;
        }
    }
}

fn describe<A: Arch>(thread: &Thread<A>, fault: Fault) -> Message {
    let state = thread.context.state();
    let (kind, subject, detail) = match fault {
        Fault::Page { address, access } => (FaultKind::PageFault, address.as_u64(), u64::from(access.bits())),
        Fault::IllegalInstruction { number, code } => (FaultKind::IllegalInstruction, number, code),
        Fault::Exception { number, code } => (FaultKind::Exception, number, code),
        Fault::BudgetExhausted => (FaultKind::BudgetExhausted, 0, 0),
    };
    Message {
        badge: 0,
        tag: MessageTag::new(kind as u32, THREAD_STATE_SIZE, 0).with_kind(MessageKind::Fault),
        words: [subject, state.rip, detail, state.rsp],
    }
}

/// Does with a claimed faulted thread what the handler's reply says.
pub fn answer<A: Arch>(handler: &Thread<A>, faulted: &Thread<A>, reply: &Message) {
    match reply.tag.label() {
        label if label == FaultReply::Resume as u32 => {}
        label if label == FaultReply::ResumeWith as u32 && reply.tag.bytes() >= THREAD_STATE_SIZE => {
            faulted.context.set_state(&handler.buffer.read_state());
        }
        _ => faulted.doom(),
    }
}
