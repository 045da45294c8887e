//! Threads that go to another CPU.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, Status};
use dragonfly_rt::sys::{DomainSettings, Gate, Message, Notification, clock_now_ns, exit_thread, move_thread, reply};
use dragonfly_rt::{cpus, thread};

use crate::check::{Outcome, equal, refused, that};
use crate::light::{Child, PRIORITY, Words, shared, usual_settings};
use crate::machine::processor;
use crate::probe::{LIMIT_NS, expect_that};
use crate::raw::{self, KEPT};
use crate::tests::Context;

/// Runs something on a thread of this domain that begins on a CPU.
fn on<T: Send + 'static>(cpu: u32, work: impl FnOnce() -> Outcome<T> + Send + 'static) -> Outcome<T> {
    thread::Builder::new(cpu, PRIORITY).spawn(work)?.join()?
}

pub fn to_and_fro(context: &Context) -> Outcome {
    let processors = (0..cpus()).map(|cpu| on(cpu, || Ok(processor()))).collect::<Outcome<Vec<_>>>()?;
    let rounds = context.repeat(50, 1_000, 100_000);
    on(0, move || {
        for (cpu, wanted) in (0..cpus()).zip(processors).cycle().take(rounds as usize) {
            let after = raw::registers_after(Call::ThreadMove as u64, [cpu.into(), 7, 7, 7, 7, 7]);
            equal("the processor", processor(), wanted)?;
            equal("the status", after.status, Status::Ok as u64)?;
            equal("what the call keeps", after.kept, KEPT)?;
            equal("what it gives", after.words, [0; 6])?;
        }
        Ok(())
    })
}

/// Tries to move to CPU words[0]; word 0: the status and one.
extern "C" fn mover(words: &Words) -> ! {
    let status = move_thread(words[0] as u32).err().unwrap_or(Status::Ok);
    shared(0).store(status as u64 + 1, Ordering::Release);
    exit_thread()
}

pub fn bad_cpus(_: &Context) -> Outcome {
    for cpu in [cpus(), 63, 64, 65, 1 << 16, u32::MAX] {
        if cpu >= cpus() {
            refused(format_args!("CPU {cpu}"), move_thread(cpu), Status::BadCpu)?;
        }
    }
    for cpu in 0..cpus() {
        let child = Child::with(&DomainSettings { cpus: 1, ..usual_settings() })?;
        let _light = child.spawn(0, mover, &[cpu.into()])?;
        let status = child.word(0)?;
        expect_that(|| status.load(Ordering::Acquire) != 0, "the thread")?;
        let wanted = if cpu == 0 { Status::Ok } else { Status::BadCpu };
        equal(format_args!("a move to CPU {cpu}"), status.load(Ordering::Acquire), wanted as u64 + 1)?;
    }
    Ok(())
}

pub fn while_serving(_: &Context) -> Outcome {
    for callers_cpu in [0, 1] {
        let gate = Gate::create()?;
        let served = *gate;
        let server = thread::Builder::new(0, PRIORITY).spawn(move || -> Outcome {
            served.receive()?;
            let before = move_thread(1).err().unwrap_or(Status::Ok);
            reply(Message::new(before as u32, [0; 4]))?;
            Ok(move_thread(1)?)
        })?;
        let answer = on(callers_cpu, move || Ok(served.call(Message::default())?))?;
        equal("the status before the answer", answer.tag.label(), Status::BadState as u32)?;
        server.join()??;
    }
    Ok(())
}

pub fn with_its_timer(context: &Context) -> Outcome {
    for round in 0..context.repeat(5, 50, 1_000) {
        on(0, move || {
            let notification = Notification::create()?;
            // Now and then it is due before the thread arrives.
            let deadline = clock_now_ns() + round % 5 * 1_000_000;
            notification.arm_timer(deadline, 4)?;
            move_thread(1)?;
            equal("the bits", notification.wait_timed(LIMIT_NS)?, 4)?;
            that(clock_now_ns() >= deadline, "the timer came too early")?;
            move_thread(0)?;
            refused("a second signal", notification.wait_timed(1_000_000), Status::TimedOut)
        })?;
    }
    Ok(())
}
