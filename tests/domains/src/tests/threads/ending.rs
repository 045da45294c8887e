//! Threads that end, by themselves or destroyed, and what goes with them.
#![expect(unsafe_code, reason = "makes threads at addresses that a test chooses, in other domains")]

use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, Rights, Status};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{Domain, DomainSettings, Notification, Object, Thread, ThreadPlan, exit_thread, yield_thread};

use super::every_state::{in_a_fault, in_a_loop};
use crate::check::{Outcome, equal, refused, that};
use crate::light::{Builder, Child, PRIORITY, Words, shared, usual_settings};
use crate::probe::{self, expect_bits, expect_that, pause};
use crate::raw;
use crate::tests::Context;

extern "C" fn quitter(_: &Words) -> ! {
    exit_thread()
}

pub fn exit_by_itself(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let light = child.spawn(cpu, quitter, &[])?;
        let thread = light.thread();
        expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "its end")?;
        expect_that(|| child.domain().info().is_ok_and(|info| info.threads == 0), "its leaving the domain")?;
    }
    Ok(())
}

/// Destroys thread 0, which is itself, and stores 2 in word 0 if that comes back.
extern "C" fn self_destroyer(words: &Words) -> ! {
    while shared(1).load(Ordering::Acquire) == 0 {
        yield_thread();
    }
    let _ = raw::call_until_done(Call::ThreadDestroy, &[words[0].wrapping_add(shared(2).load(Ordering::Relaxed))]);
    shared(0).store(2, Ordering::Release);
    exit_thread()
}

pub fn destroy_itself(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let light = child.spawn(cpu, self_destroyer, &[0])?;
        let given = child.give(light.thread(), Rights::DESTROY)?;
        child.word(2)?.store(given, Ordering::Relaxed);
        child.word(1)?.store(1, Ordering::Release);
        let thread = light.thread();
        expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "its end")?;
        equal("what came after it", child.word(0)?.load(Ordering::Relaxed), 0)?;
    }
    Ok(())
}

pub fn destroyed_twice(_: &Context) -> Outcome {
    let child = Child::new()?;
    for cpu in 0..cpus() {
        let light = child.spawn(cpu, in_a_loop, &[])?;
        light.thread().destroy()?;
        light.thread().destroy()?;
        let weak = light.thread().copy(Rights::all() - Rights::DESTROY, 0)?;
        refused("without the right", weak.destroy(), Status::Denied)?;
    }
    Ok(())
}

pub fn buffer_goes(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let light = child.spawn(cpu, in_a_loop, &[])?;
        let buffer = light.message_buffer();
        let value = probe::read(child.domain(), cpu, buffer)?;
        that(value.is_ok(), "the buffer cannot be read while its thread lives")?;
        light.thread().destroy()?;
        let value = probe::read(child.domain(), cpu, buffer)?;
        that(value.is_err_and(|fault| fault.is_page_fault(buffer, Rights::READ)), "the buffer is still mapped")?;
    }
    Ok(())
}

pub fn many_threads(context: &Context) -> Outcome {
    let child = Child::new()?;
    // The first makes page tables and slots that stay.
    for cpu in 0..cpus() {
        make_and_end(&child, cpu)?;
    }
    let used = child.domain().info()?.used;
    let own = Domain::OWN.info()?.used;
    for round in 0..context.repeat(200, 1000, 20_000) {
        make_and_end(&child, round as u32 % cpus())?;
    }
    equal("memory used by the domain", child.domain().info()?.used, used)?;
    equal("memory used by its maker", Domain::OWN.info()?.used, own)
}

fn make_and_end(child: &Child, cpu: u32) -> Outcome {
    let plan = ThreadPlan {
        cpu,
        priority: PRIORITY,
        entry: quit_at_once as *const () as u64,
        stack: 0,
        message_buffer: 0x7000_0000,
        argument: 0,
    };
    // SAFETY: the domain is another one.
    let thread = unsafe { child.domain().create_thread(&plan) }?;
    thread.start()?;
    let handle: Thread = *thread;
    expect_that(|| handle.info().is_ok_and(|info| info.state == 2), "its end")?;
    Ok(())
}

/// Ends without a stack.
#[unsafe(naked)]
extern "C" fn quit_at_once() -> ! {
    core::arch::naked_asm!("mov eax, {exit}", "syscall", "ud2", exit = const Call::ThreadExit as u32)
}

pub fn death_is_told(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for way in 0..3 {
            let death = Notification::create()?;
            let child = Child::with(&DomainSettings { death: Some((*death, 0x40)), ..usual_settings() })?;
            let bystander = Builder::new(cpu).spawn(child.domain(), in_a_loop, &[])?;
            let light = match way {
                0 => child.spawn(cpu, quitter, &[])?,
                1 => child.spawn(cpu, in_a_loop, &[])?,
                _ => Builder::new(cpu).no_fault_gate().spawn(child.domain(), in_a_fault, &[])?,
            };
            pause();
            if way == 1 {
                light.thread().destroy()?;
            }
            expect_that(|| light.thread().info().is_ok_and(|info| info.state == 2), "its end")
                .map_err(|failure| failure.in_case(format_args!("way {way}")))?;
            refused("the death of a domain that lives", death.wait_timed(0), Status::WouldBlock)?;
            bystander.thread().destroy()?;
            equal("bits", expect_bits(*death, "the death")?, 0x40)?;
        }
    }
    Ok(())
}
