//! Faults: what their handler is told, and what it can do about them.

use core::sync::atomic::Ordering;

use dragonfly_abi::arch::ThreadState;
use dragonfly_abi::{FaultReply, Status};
use dragonfly_rt::sys::{self, Gate, Message, Thread};

use crate::check::Outcome;
use crate::light::{Builder, Child, Entry, Light, Words, shared};
use crate::probe::expect_that;

mod code;
mod concurrent;
mod delivery;
mod ending;
mod flags;
mod resuming;

super::tests! {
    "each exception is delivered with its kind, number and place" => delivery::every_exception,
    "the handler sees all registers of the faulted thread" => delivery::all_registers,
    "a page fault tells the address and the kind of access" => delivery::page_fault_words,
    "the kernel's half cannot be read, written or run" => delivery::kernel_half,
    "floating-point instructions fault" => delivery::floating_point,
    "a fault carries the badge that was set with its gate" => delivery::fault_badge,
    "a handler that maps memory lets the access go on" => resuming::resume_after_mapping,
    "a resumed thread runs the instruction again" => resuming::resume_runs_again,
    "a thread goes on with the registers that its handler gives" => resuming::resume_with,
    "no register state that a handler gives takes privileges" => resuming::resume_with_privileges,
    "a thread goes on at an address of the handler's choice or faults there" => resuming::resume_anywhere,
    "a handler can end the thread" => ending::handler_ends,
    "a reply that says anything else ends the thread" => ending::unknown_replies,
    "without a handler a fault ends the thread" => ending::no_handler,
    "a handler that dies takes the threads along whose faults it had" => ending::handler_dies,
    "a gate that goes ends the threads whose faults wait there" => ending::gate_goes,
    "a faulted thread can be destroyed before and after its fault is received" => ending::destroyed_while_faulted,
    "a fault of one thread does not stop another on the same CPU" => concurrent::others_go_on,
    "single steps are delivered one by one, over a call as well" => flags::single_steps,
    "flags that a domain sets survive calls and do no harm in the kernel" => flags::hostile_flags,
    "the end of a budget is delivered to those who ask for it" => delivery::budget_fault,
    "a handler on another CPU handles faults" on 2 => concurrent::remote_handler,
    "faults from all CPUs reach one handler" within 120 => concurrent::fault_storm,
}

/// A light thread in a child whose faults come to a gate.
struct Patient {
    child: Child,
    gate: sys::Owned<Gate>,
    light: Light,
}

fn start(cpu: u32, entry: Entry, words: &[u64]) -> Outcome<Patient> {
    let child = Child::new()?;
    let gate = Gate::create()?;
    let light = Builder::new(cpu).fault_gate(*gate, 0x99).spawn(child.domain(), entry, words)?;
    Ok(Patient { child, gate, light })
}

impl Patient {
    fn thread(&self) -> Thread {
        self.light.thread()
    }

    fn expect_end(&self) -> Outcome {
        let thread = self.thread();
        expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "the end of the thread")
    }
}

fn reply(label: u32) -> Result<(), Status> {
    sys::reply(Message::new(label, [0; 4]))
}

const RESUME: u32 = FaultReply::Resume as u32;
const END: u32 = FaultReply::End as u32;

fn filled(rip: u64) -> ThreadState {
    let digit = |digit: u64| digit * 0x1111_1111_1111_1111;
    ThreadState {
        rax: digit(1),
        rbx: digit(2),
        rcx: digit(3),
        rdx: digit(4),
        rsi: digit(5),
        rdi: digit(6),
        rbp: digit(7),
        rsp: 0x1234_5678_9ab0,
        r8: digit(8),
        r9: digit(9),
        r10: digit(10),
        r11: digit(11),
        r12: digit(12),
        r13: digit(13),
        r14: digit(14),
        r15: 0xf0f0_f0f0_f0f0_f0f0,
        rip,
        rflags: 0x603,
    }
}

/// Counts in word 0.
extern "C" fn counter(_: &Words) -> ! {
    loop {
        shared(0).fetch_add(1, Ordering::Relaxed);
    }
}
