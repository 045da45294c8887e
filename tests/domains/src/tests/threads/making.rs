//! What a new thread may be, how it is configured, and that it starts once.
#![expect(unsafe_code, reason = "makes threads at addresses that a test chooses, in other domains")]

use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, MIN_BUDGET_NS, Status, USER_END};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{Domain, DomainSettings, Object, ThreadPlan, ThreadSettings};

use super::spinner;
use crate::check::{Outcome, equal, refused};
use crate::light::{Builder, Child, PRIORITY, usual_settings};
use crate::probe::expect_that;
use crate::raw;
use crate::tests::Context;

fn settings() -> ThreadSettings {
    ThreadSettings { budget_ns: 10_000_000, period_ns: 10_000_000, fault_gate: None, report_exhaustion: false }
}

pub fn start_once(_: &Context) -> Outcome {
    let child = Child::new()?;
    let light = Builder::new(0).prepare(child.domain(), spinner, &[])?;
    let thread = light.thread();
    thread.configure(&settings())?;
    thread.configure(&settings())?;
    thread.start()?;
    refused("a second start", thread.start(), Status::BadState)?;
    refused("configuring it now", thread.configure(&settings()), Status::BadState)?;
    child.word(1)?.store(1, Ordering::Release);
    expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "its end")?;
    refused("a start after its end", thread.start(), Status::BadState)?;
    refused("configuring it after its end", thread.configure(&settings()), Status::BadState)?;
    let stopped = Builder::new(0).prepare(child.domain(), spinner, &[])?;
    stopped.thread().destroy()?;
    refused("a start after it was destroyed", stopped.start(), Status::BadState)
}

/// Makes a thread that is never started; gives the status.
fn make(domain: Domain, change: impl FnOnce(&mut ThreadPlan)) -> Result<(), Status> {
    let mut plan = ThreadPlan {
        cpu: 0,
        priority: PRIORITY,
        entry: 0x20_0000,
        stack: 0x7000_0000,
        message_buffer: 0x7000_0000,
        argument: 0,
    };
    change(&mut plan);
    // SAFETY: the domain is another one.
    unsafe { domain.create_thread(&plan) }?.destroy()
}

pub fn bad_cpus(_: &Context) -> Outcome {
    let child = Child::new()?;
    for cpu in [cpus(), cpus() + 1, 63, 64, 65, 1 << 16, u32::MAX] {
        if cpu >= cpus() {
            refused(format_args!("CPU {cpu}"), make(child.domain(), |plan| plan.cpu = cpu), Status::BadCpu)?;
        }
    }
    for only in 0..cpus() {
        let child = Child::with(&DomainSettings { cpus: 1 << only, ..usual_settings() })?;
        for cpu in 0..cpus() {
            let made = make(child.domain(), |plan| plan.cpu = cpu);
            equal(format_args!("CPU {cpu} for {only}"), made, if cpu == only { Ok(()) } else { Err(Status::BadCpu) })?;
        }
    }
    Ok(())
}

pub fn bad_priorities(_: &Context) -> Outcome {
    let child = Child::with(&DomainSettings { max_priority: 20, ..usual_settings() })?;
    for priority in [0, 1, 19, 20] {
        make(child.domain(), |plan| plan.priority = priority)?;
    }
    for priority in [21, 63, 64, 255] {
        let made = make(child.domain(), |plan| plan.priority = priority);
        refused(format_args!("priority {priority}"), made, Status::BadArgument)?;
    }
    let domain = u64::from(child.domain().handle().0);
    let made = raw::call(Call::ThreadCreate, &[domain, 1 << 63 | 1 << 40, 0x20_0000, 0x7000_0000, 0x7000_0000]);
    refused("a priority in the upper bits", made, Status::BadArgument)
}

pub fn bad_addresses(_: &Context) -> Outcome {
    let child = Child::new()?;
    let domain = child.domain();
    for entry in [0, 1, 4095, USER_END, USER_END + 1, 1 << 47, 1 << 63, 0xffff_8000_0000_0000, u64::MAX] {
        refused(format_args!("entry {entry:#x}"), make(domain, |plan| plan.entry = entry), Status::BadArgument)?;
    }
    for entry in [4096, USER_END - 1, 0x1234_5678_9abc] {
        make(domain, |plan| plan.entry = entry)?;
    }
    for stack in [USER_END + 1, 1 << 47, 1 << 63, 0xffff_8000_0000_0000, u64::MAX] {
        refused(format_args!("stack {stack:#x}"), make(domain, |plan| plan.stack = stack), Status::BadArgument)?;
    }
    for stack in [0, 7, USER_END] {
        make(domain, |plan| plan.stack = stack)?;
    }
    Ok(())
}

pub fn bad_buffers(_: &Context) -> Outcome {
    let child = Child::new()?;
    let domain = child.domain();
    for buffer in [0, 1, 0x7000_0001, 0x7000_0800, USER_END, 1 << 47, 0xffff_ffff_ffff_f000, u64::MAX] {
        let made = make(domain, |plan| plan.message_buffer = buffer);
        refused(format_args!("buffer {buffer:#x}"), made, Status::BadArgument)?;
    }
    // The program's text is there, and the shared page.
    for buffer in [0x20_0000, crate::light::SHARED] {
        let made = make(domain, |plan| plan.message_buffer = buffer);
        refused(format_args!("buffer {buffer:#x}"), made, Status::Overlap)?;
    }
    let light = Builder::new(0).prepare(domain, spinner, &[])?;
    let made = make(domain, |plan| plan.message_buffer = light.message_buffer());
    refused("another thread's buffer", made, Status::Overlap)?;
    make(domain, |plan| plan.message_buffer = USER_END - 4096)?;
    make(domain, |plan| plan.message_buffer = 4096)?;
    Ok(())
}

pub fn bad_budgets(_: &Context) -> Outcome {
    let child = Child::new()?;
    let light = Builder::new(0).prepare(child.domain(), spinner, &[])?;
    let configure =
        |budget_ns, period_ns| light.thread().configure(&ThreadSettings { budget_ns, period_ns, ..settings() });
    const HOUR: u64 = 3_600_000_000_000;
    for (budget, period) in [
        (0, 0),
        (0, 1_000_000),
        (MIN_BUDGET_NS - 1, 1_000_000),
        (1_000_001, 1_000_000),
        (MIN_BUDGET_NS, HOUR + 1),
        (HOUR + 1, HOUR + 1),
        (u64::MAX, u64::MAX),
        (MIN_BUDGET_NS, 0),
    ] {
        refused(format_args!("{budget} of {period}"), configure(budget, period), Status::BadArgument)?;
    }
    for (budget, period) in [(MIN_BUDGET_NS, MIN_BUDGET_NS), (MIN_BUDGET_NS, HOUR), (HOUR, HOUR)] {
        configure(budget, period)?;
    }
    let word = u64::from(light.thread().handle().0);
    for flags in [2, 3, 1 << 32, u64::MAX] {
        let configured = raw::call(Call::ThreadConfigure, &[word, 1_000_000, 1_000_000, 0, 0, flags]);
        refused(format_args!("flags {flags:#x}"), configured, Status::BadArgument)?;
    }
    Ok(())
}
