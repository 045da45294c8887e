//! Faults beside threads that go on, and from CPUs that fault at the same time.
#![expect(unsafe_code, reason = "the faults are instructions at known addresses")]

use core::arch::asm;
use core::sync::atomic::Ordering;

use dragonfly_abi::arch::ThreadState;
use dragonfly_abi::{FaultReply, MessageTag, Rights};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{Gate, Message, exit_thread};

use super::code::undefined;
use super::{END, counter, reply};
use crate::check::{Outcome, equal};
use crate::light::{Builder, Child, Words, handle, shared};
use crate::probe::{expect_fault, expect_that, expect_value, pause};
use crate::tests::Context;

pub fn others_go_on(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let gate = Gate::create()?;
        let _counter = Builder::new(cpu).spawn(child.domain(), counter, &[])?;
        let _patient = Builder::new(cpu).fault_gate(*gate, 0).spawn(child.domain(), undefined, &[])?;
        expect_fault(*gate, "the fault")?;
        let before = child.word(0)?.load(Ordering::Relaxed);
        expect_that(
            || child.word(0).is_ok_and(|word| word.load(Ordering::Relaxed) > before),
            "the other thread's work",
        )?;
        reply(END)?;
    }
    Ok(())
}

/// Handles faults at gate 0 by stepping over two bytes. Word 0 counts.
extern "C" fn stepping_handler(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let buffer = crate::light::Buffer::own();
    let mut received = gate.receive();
    while received.is_ok() {
        buffer.rip().fetch_add(2, Ordering::Relaxed);
        shared(0).fetch_add(1, Ordering::Relaxed);
        let tag = MessageTag::new(FaultReply::ResumeWith as u32, size_of::<ThreadState>(), 0);
        received = gate.reply_receive(Message { tag, words: [0; 4] });
    }
    exit_thread()
}

/// Faults words[0] times; word 1 counts threads that are through.
extern "C" fn frequent_faulter(words: &Words) -> ! {
    for _ in 0..words[0] {
        // SAFETY: the handler steps over the instruction.
        unsafe { asm!("ud2") };
    }
    shared(1).fetch_add(1, Ordering::Release);
    exit_thread()
}

pub fn remote_handler(context: &Context) -> Outcome {
    for (from, to) in [(0, context.other_cpu()), (context.other_cpu(), 0)] {
        let (handlers, child) = (Child::new()?, Child::new()?);
        let gate = Gate::create()?;
        let given = handlers.give(*gate, Rights::RECEIVE)?;
        let _handler = handlers.spawn(to, stepping_handler, &[given])?;
        let faults = context.repeat(200, 2000, 50_000);
        let _light = Builder::new(from).fault_gate(*gate, 0).spawn(child.domain(), frequent_faulter, &[faults])?;
        expect_value(child.word(1)?, 1, "the end of the faults")?;
        equal("faults handled", handlers.word(0)?.load(Ordering::Relaxed), faults)?;
    }
    Ok(())
}

pub fn fault_storm(context: &Context) -> Outcome {
    let (handlers, child) = (Child::new()?, Child::new()?);
    let gate = Gate::create()?;
    let given = handlers.give(*gate, Rights::RECEIVE)?;
    let _handler = handlers.spawn(context.other_cpu(), stepping_handler, &[given])?;
    let faults = context.repeat(100, 2000, 50_000);
    let mut lights = alloc::vec::Vec::new();
    for cpu in 0..cpus() {
        for _ in 0..3 {
            let plan = Builder::new(cpu).fault_gate(*gate, 0);
            lights.push(plan.spawn(child.domain(), frequent_faulter, &[faults])?);
        }
    }
    while child.word(1)?.load(Ordering::Acquire) < lights.len() as u64 {
        pause();
    }
    equal("faults handled", handlers.word(0)?.load(Ordering::Relaxed), faults * lights.len() as u64)
}
