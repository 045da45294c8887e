//! Flags that a domain may set: single steps, and those that must not harm the kernel.
#![expect(unsafe_code, reason = "the flags are set by instructions")]

use core::arch::{asm, naked_asm};
use core::sync::atomic::Ordering;

use dragonfly_abi::{FaultKind, Rights};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{Notification, exit_thread};

use super::{END, RESUME, reply, start};
use crate::check::{Outcome, equal, that};
use crate::light::{Child, Words, shared};
use crate::probe::{expect_fault, expect_value};
use crate::tests::Context;

/// Sets the trap flag, then runs two instructions, a call that does nothing, and one more.
#[unsafe(naked)]
extern "C" fn step(_: &Words) -> ! {
    naked_asm!("pushfq", "or qword ptr [rsp], 0x100", "popfq", "nop", "xor eax, eax", "syscall", "nop", "2:", "jmp 2b",)
}

pub fn single_steps(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let patient = start(cpu, step, &[])?;
        let (mut last, mut number) = (0, 0);
        // CPUs differ in whether the step that ends a call is reported by itself, at the instruction after it.
        for round in 0..8 {
            let fault = expect_fault(*patient.gate, "a step")?;
            equal(
                format_args!("kind and number of step {number}"),
                (fault.kind, fault.words[0]),
                (FaultKind::Exception as u32, 1),
            )?;
            that(fault.state.rip >= last, format_args!("step {number} is at {:#x} after {last:#x}", fault.state.rip))?;
            equal("the trap flag", fault.state.rflags & 0x100, 0x100)?;
            number += u64::from(fault.state.rip > last);
            last = fault.state.rip;
            if number == 4 || round == 7 {
                break;
            }
            reply(RESUME)?;
        }
        that(number >= 3, format_args!("only {number} instructions were stepped over"))?;
        reply(END)?;
        patient.expect_end()?;
    }
    Ok(())
}

/// Makes calls with flags set that must not harm the kernel; word 0 counts what went well.
extern "C" fn flag_user(words: &Words) -> ! {
    // Direction, nested task, alignment check, identification, resume.
    for flags in [0x400_u64, 0x4000, 0x4_0000, 0x20_0000, 0x1_0000, 0x24_4400] {
        for number in [0_u64, words[0], words[1]] {
            let (after, status): (u64, u64);
            // SAFETY: the call does nothing to memory; the flags are put back before any Rust code runs.
            unsafe {
                asm!(
                    "push {flags}",
                    "popfq",
                    "syscall",
                    "pushfq",
                    "pop {after}",
                    "push 0x202",
                    "popfq",
                    flags = in(reg) flags,
                    after = out(reg) after,
                    inlateout("rax") number => status,
                    inlateout("rdi") words[2] => _,
                    inlateout("rsi") 20_000_u64 => _,
                    lateout("rdx") _, lateout("r10") _, lateout("r8") _, lateout("r9") _, lateout("rcx") _, lateout("r11") _,
                );
            }
            // RF is cleared by the next instruction; NT a domain may keep or lose.
            let kept = 0x24_0400 & flags;
            if after & 0x24_0400 == kept && after & 0x3200 == 0x200 && status <= 19 {
                shared(0).fetch_add(1, Ordering::Release);
            } else {
                shared(1).store(flags, Ordering::Relaxed);
                shared(2).store(after, Ordering::Relaxed);
                shared(3).store(status, Ordering::Relaxed);
            }
        }
    }
    shared(4).store(1, Ordering::Release);
    exit_thread()
}

pub fn hostile_flags(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let notification = Notification::create()?;
        let given = child.give(*notification, Rights::RECEIVE)?;
        let calls = [dragonfly_abi::Call::ThreadYield as u64, dragonfly_abi::Call::NotificationWait as u64, given];
        let _light = child.spawn(cpu, flag_user, &calls)?;
        expect_value(child.word(4)?, 1, "all calls")?;
        let [flags, after, status] =
            [1, 2, 3].map(|index| child.word(index).map_or(0, |word| word.load(Ordering::Relaxed)));
        let good = child.word(0)?.load(Ordering::Relaxed);
        equal(format_args!("good calls (flags {flags:#x} became {after:#x}, status {status})"), good, 18)?;
    }
    Ok(())
}
