//! Threads that end by their faults, and what ends while a fault waits.

use core::sync::atomic::Ordering;

use dragonfly_abi::{FaultReply, MessageTag, Rights, Status};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{self, Gate, Message, exit_thread};

use super::code::{breakpoint, divide, not_canonical, undefined};
use super::{END, RESUME, reply, start};
use crate::check::{Outcome, equal, refused};
use crate::light::{Builder, Child, Entry, Words, handle, shared};
use crate::probe::{expect_fault, expect_that, expect_value, pause};
use crate::tests::Context;

pub fn handler_ends(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let patient = start(cpu, undefined, &[])?;
        expect_fault(*patient.gate, "the fault")?;
        reply(END)?;
        patient.expect_end()?;
        equal("threads of the domain", patient.child.domain().info()?.threads, 0)?;
    }
    Ok(())
}

pub fn unknown_replies(_: &Context) -> Outcome {
    for label in [3, 100, u32::MAX] {
        let patient = start(0, undefined, &[])?;
        expect_fault(*patient.gate, "the fault")?;
        reply(label)?;
        patient.expect_end()?;
    }
    // Registers without enough data.
    let patient = start(0, undefined, &[])?;
    expect_fault(*patient.gate, "the fault")?;
    sys::reply(Message { tag: MessageTag::new(FaultReply::ResumeWith as u32, 143, 0), words: [0; 4] })?;
    patient.expect_end()
}

pub fn no_handler(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for entry in [undefined as Entry, divide, breakpoint, not_canonical] {
            let child = Child::new()?;
            let light = Builder::new(cpu).no_fault_gate().spawn(child.domain(), entry, &[])?;
            let thread = light.thread();
            expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "the end of the thread")?;
        }
        // A gate that is gone is no handler.
        let child = Child::new()?;
        let gate = Gate::create()?;
        let light = Builder::new(cpu).fault_gate(*gate, 0).prepare(child.domain(), undefined, &[])?;
        gate.close()?;
        light.start()?;
        let thread = light.thread();
        expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "the end of the thread")?;
    }
    Ok(())
}

/// Receives one message from gate 0, says so in word 0, and waits until word 1 is set; then ends.
extern "C" fn mortal_handler(words: &Words) -> ! {
    let gate: Gate = handle(words[0]);
    let _ = gate.receive();
    shared(0).store(1, Ordering::Release);
    while shared(1).load(Ordering::Acquire) == 0 {
        sys::yield_thread();
    }
    exit_thread()
}

pub fn handler_dies(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for is_destroyed in [false, true] {
            let (handlers, child) = (Child::new()?, Child::new()?);
            let gate = Gate::create()?;
            let given = handlers.give(*gate, Rights::RECEIVE)?;
            let handler = handlers.spawn(0, mortal_handler, &[given])?;
            let light = Builder::new(cpu).fault_gate(*gate, 0).spawn(child.domain(), undefined, &[])?;
            expect_value(handlers.word(0)?, 1, "the fault at its handler")?;
            if is_destroyed {
                drop(handler);
            } else {
                handlers.word(1)?.store(1, Ordering::Release);
            }
            let thread = light.thread();
            expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "the end of the thread")?;
        }
    }
    Ok(())
}

pub fn gate_goes(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let gate = Gate::create()?;
        let light = Builder::new(cpu).fault_gate(*gate, 0).spawn(child.domain(), undefined, &[])?;
        for _ in 0..20 {
            pause();
        }
        equal("state while the fault waits", light.thread().info()?.state, 1)?;
        gate.close()?;
        let thread = light.thread();
        expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "the end of the thread")?;
    }
    Ok(())
}

pub fn destroyed_while_faulted(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let patient = start(cpu, undefined, &[])?;
        for _ in 0..20 {
            pause();
        }
        patient.thread().destroy()?;
        refused("a receive", patient.gate.receive_timed(0), Status::WouldBlock)?;
        let patient = start(cpu, undefined, &[])?;
        expect_fault(*patient.gate, "the fault")?;
        patient.thread().destroy()?;
        refused("the reply", reply(RESUME), Status::NoCaller)?;
    }
    Ok(())
}
