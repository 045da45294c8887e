//! What a CPU can do, and how the kernel is entered for it.

use dragonfly_abi::{Call, Rights};
use dragonfly_memory::UserVirt;

use super::MANY;
use crate::arch::fake::Fake;
use crate::arch::{Arch, Context};
use crate::cpu::Cpu;
use crate::fault::Fault;
use crate::simulation::Ref;
use crate::system_call::Return;

/// What a CPU does next.
#[derive(Clone, Copy, Debug)]
pub enum Action {
    /// Its current thread makes a system call.
    Call(Call, [u64; 6]),
    /// As `Call`, but not by the fast path where there is one.
    GeneralCall(Call, [u64; 6]),
    /// It makes a call that there is not.
    BadCall(u64),
    /// Its current thread accesses memory.
    Touch(UserVirt, Rights),
    /// Its current thread faults otherwise.
    Fault(Fault),
    /// Another CPU's kick reaches it.
    Kick,
    /// Its timer interrupts it.
    Timer,
    /// A line interrupts it.
    Interrupt(u32),
}

/// Lets a CPU, which nobody else uses, do something, and then what the kernel has it do before it runs a domain again.
pub fn perform(fake: Fake, cpu: &mut Cpu<Fake>, action: Action) {
    let kernel = fake.kernel();
    match action {
        Action::Call(call, words) if call_fast(fake, cpu, call, words) => return,
        Action::Call(..) | Action::GeneralCall(..) | Action::BadCall(_) => {
            let (number, words) = match action {
                Action::Call(call, words) | Action::GeneralCall(call, words) => (call as u64, words),
                Action::BadCall(number) => (number, [0; 6]),
                _ => return,
            };
            let Some(caller) = cpu.current.clone() else { return };
            fake.enter(cpu.id);
            match kernel.system_call(cpu, number, words) {
                Return::Direct(status, word) => {
                    assert!(cpu.current.as_ref().is_some_and(|current| Ref::ptr_eq(current, &caller)));
                    Context::set_results(&caller.context, status, [word, 0, 0, 0, 0, 0]);
                    fake.leave(cpu.id);
                    return;
                }
                Return::Selected => {}
            }
        }
        Action::Touch(address, access) => {
            if fake.access(cpu.id, address, access).is_some() {
                return;
            }
            fake.enter(cpu.id);
            kernel.fault(cpu, Fault::Page { address, access });
        }
        Action::Fault(fault) => {
            fake.enter(cpu.id);
            kernel.fault(cpu, fault);
        }
        Action::Kick => {
            fake.take_kick(cpu.id);
            fake.enter(cpu.id);
            kernel.kicked(cpu);
        }
        Action::Timer => {
            fake.enter(cpu.id);
            kernel.timer(cpu);
        }
        Action::Interrupt(line) => {
            fake.enter(cpu.id);
            kernel.interrupt(cpu, line);
        }
    }
    settle(fake, cpu);
}

/// A call by the fast path, as the entry code of a machine tries it first.
fn call_fast(fake: Fake, cpu: &mut Cpu<Fake>, call: Call, words: [u64; 6]) -> bool {
    let [gate, tag, words @ ..] = words;
    fake.enter(cpu.id);
    let is_done = match call {
        Call::Call => fake.kernel().fast_call(cpu, gate, tag, words),
        Call::ReplyReceive => fake.kernel().fast_reply_receive(cpu, gate, tag, words),
        _ => false,
    };
    if is_done {
        fake.kernel().enter_current(cpu);
    }
    fake.leave(cpu.id);
    is_done
}

/// Has the kernel decide what a CPU runs, as on each way out of it.
pub fn settle(fake: Fake, cpu: &mut Cpu<Fake>) {
    fake.enter(cpu.id);
    for _ in 0..MANY {
        if !fake.kernel().select(cpu) || cpu.current.is_some() {
            fake.leave(cpu.id);
            return;
        }
    }
    panic!("CPU {} cannot decide what to run", cpu.id);
}
