//! Registers across the kernel's boundary: what a call keeps, and that nothing of the kernel or of others shows.
#![expect(unsafe_code, reason = "starts a thread whose first instruction stores all registers")]

use core::arch::naked_asm;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, FOREVER, StartHandles, Status};
use dragonfly_random::Random;
use dragonfly_rt::cpus;
use dragonfly_rt::named;
use dragonfly_rt::sys::{Domain, Notification, ThreadPlan, ThreadSettings};

use super::Context;
use crate::check::{Outcome, equal, that};
use crate::light::{Child, PRIORITY, SHARED};
use crate::probe::expect_value;
use crate::raw::{self, KEPT};

super::tests! {
    "a call keeps rbx, rbp, rsp and r12 to r15" => a_call_keeps_its_registers,
    "what a call does not give back is zero" => undefined_results_are_zero,
    "a call that fails gives back nothing but its status" => a_failed_call_gives_nothing,
    "rcx and r11 hold nothing of the kernel after a call" => clobbered_registers_hold_no_secret,
    "every number without a call is refused" => numbers_without_a_call_are_refused,
    "a new thread finds its argument and nothing else in its registers" => a_new_thread_starts_clean,
}

const DOMAIN: u64 = StartHandles::DOMAIN.0 as u64;
const THREAD: u64 = StartHandles::THREAD.0 as u64;
const SYSTEM: u64 = StartHandles::SYSTEM.0 as u64;

/// Harmless calls that succeed, with the number of words that they give back.
const SUCCEEDING: [(Call, [u64; 6], usize); 8] = [
    (Call::Nop, [0; 6], 0),
    (Call::ClockNow, [0; 6], 1),
    (Call::HandleInfo, [DOMAIN, 0, 0, 0, 0, 0], 3),
    (Call::DomainInfo, [DOMAIN, 0, 0, 0, 0, 0], 4),
    (Call::ThreadInfo, [THREAD, 0, 0, 0, 0, 0], 4),
    (Call::SystemInfo, [SYSTEM, 0, 0, 0, 0, 0], 2),
    (Call::ThreadYield, [0; 6], 0),
    (Call::HandleRevoke, [SYSTEM, 0, 0, 0, 0, 0], 0),
];

/// Harmless calls that fail.
const FAILING: [(Call, [u64; 6], Status); 6] = [
    (Call::Reply, [0; 6], Status::NoCaller),
    (Call::HandleInfo, [u64::MAX; 6], Status::BadHandle),
    (Call::Receive, [DOMAIN, FOREVER, 7, 7, 7, 7], Status::BadType),
    (Call::Call, [SYSTEM, 0, 7, 7, 7, 7], Status::BadType),
    (Call::MemoryCreate, [1, 0, 7, 7, 7, 7], Status::BadArgument),
    (Call::DomainDestroy, [THREAD, 7, 7, 7, 7, 7], Status::BadType),
];

fn a_call_keeps_its_registers(_: &Context) -> Outcome {
    let calls = SUCCEEDING.map(|(call, words, _)| (call, words)).into_iter();
    for (call, words) in calls.chain(FAILING.map(|(call, words, _)| (call, words))) {
        let after = raw::registers_after(call as u64, words);
        equal(format_args!("kept registers after {call:?}"), after.kept, KEPT)?;
        equal(format_args!("rsp after {call:?}"), after.stack_moved, 0)?;
    }
    // A call that waits goes another way through the kernel.
    let notification = Notification::create()?;
    let word = u64::from(dragonfly_rt::sys::Object::handle(*notification).0);
    let after = raw::registers_after(Call::NotificationWait as u64, [word, 1_000_000, 7, 7, 7, 7]);
    equal("status of a wait", after.status, Status::TimedOut as u64)?;
    equal("kept registers after a wait", after.kept, KEPT)?;
    equal("rsp after a wait", after.stack_moved, 0)
}

fn undefined_results_are_zero(_: &Context) -> Outcome {
    for (call, words, results) in SUCCEEDING {
        let after = raw::registers_after(call as u64, with_rubbish(words));
        equal(format_args!("status of {call:?}"), after.status, 0)?;
        for (index, word) in after.words.into_iter().enumerate().skip(results) {
            equal(format_args!("result word {index} of {call:?}"), word, 0)?;
        }
    }
    Ok(())
}

/// Words with rubbish in those that the call ignores.
fn with_rubbish(words: [u64; 6]) -> [u64; 6] {
    let [first, second, ..] = words;
    [first, second, 0, 0x5a5a, 0x5a5a, 0x5a5a]
}

fn a_failed_call_gives_nothing(_: &Context) -> Outcome {
    for (call, words, status) in FAILING {
        let after = raw::registers_after(call as u64, words);
        equal(format_args!("status of {call:?}"), after.status, status as u64)?;
        equal(format_args!("results of the failed {call:?}"), after.words, [0; 6])?;
    }
    Ok(())
}

fn clobbered_registers_hold_no_secret(_: &Context) -> Outcome {
    let text = raw::registers_after as *const () as u64 >> 30;
    for (call, words, _) in SUCCEEDING {
        let [rcx, r11] = raw::registers_after(call as u64, words).clobbered;
        // SYSRET leaves the thread's own instruction pointer and flags there.
        that(rcx == 0 || rcx >> 30 == text, format_args!("rcx is {rcx:#x} after {call:?}"))?;
        that(r11 >> 22 == 0, format_args!("r11 is {r11:#x} after {call:?}"))?;
    }
    Ok(())
}

fn numbers_without_a_call_are_refused(context: &Context) -> Outcome {
    let mut random = Random::new(context.options.seed.unwrap_or(1));
    let near = 0..300;
    let far = [u64::from(u32::MAX), 1 << 32, 1 << 63, u64::MAX, 1 << 32 | Call::ClockNow as u64];
    let somewhere = (0..200).map(|_| random.number());
    for number in near.chain(far).chain(somewhere).filter(|number| Call::from_raw(*number).is_none()) {
        let (status, words) = raw::number(number, [DOMAIN; 6]);
        equal(format_args!("status of call {number:#x}"), status, Status::BadCall as u64)?;
        equal(format_args!("results of call {number:#x}"), words, [0; 6])?;
    }
    Ok(())
}

fn a_new_thread_starts_clean(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let thread = {
            let plan = ThreadPlan {
                cpu,
                priority: PRIORITY,
                entry: store_registers as *const () as u64,
                stack: 0x1234_5678_9000,
                message_buffer: 0x7000_0000,
                argument: SHARED,
            };
            // SAFETY: the domain is another one.
            unsafe { child.domain().create_thread(&plan) }?
        };
        let fault_gate = named("supervisor").map(|gate| (gate, 0));
        thread.configure(&ThreadSettings {
            budget_ns: 10_000_000,
            period_ns: 10_000_000,
            fault_gate,
            report_exhaustion: false,
        })?;
        thread.start()?;
        expect_value(child.word(20)?, 1, "the thread's registers")?;
        // rax rbx rcx rdx rsi rdi rbp r8 to r15 rsp rflags
        for (index, name) in NAMES.into_iter().enumerate() {
            let found = child.word(index as u64)?.load(Ordering::Relaxed);
            let wanted = match name {
                "rdi" => SHARED,
                "rsp" => 0x1234_5678_9000,
                // Interrupts on, and the bit that is always set.
                "rflags" => 0x202,
                _ => 0,
            };
            equal(format_args!("{name} of a new thread on CPU {cpu}"), found, wanted)?;
        }
        Domain::destroy(child.domain())?;
    }
    Ok(())
}

const NAMES: [&str; 17] = [
    "rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rsp",
    "rflags",
];

/// Stores all registers at the address in RDI, in the order of [`NAMES`]; then sets word 20 and stops.
#[unsafe(naked)]
extern "C" fn store_registers() -> ! {
    naked_asm!(
        "mov [rdi], rax",
        "mov [rdi + 8], rbx",
        "mov [rdi + 16], rcx",
        "mov [rdi + 24], rdx",
        "mov [rdi + 32], rsi",
        "mov [rdi + 40], rdi",
        "mov [rdi + 48], rbp",
        "mov [rdi + 56], r8",
        "mov [rdi + 64], r9",
        "mov [rdi + 72], r10",
        "mov [rdi + 80], r11",
        "mov [rdi + 88], r12",
        "mov [rdi + 96], r13",
        "mov [rdi + 104], r14",
        "mov [rdi + 112], r15",
        "mov [rdi + 120], rsp",
        // The flags go through a stack of the thread's own: the shared page above the words.
        "lea rsp, [rdi + 4096]",
        "pushfq",
        "pop rax",
        "mov [rdi + 128], rax",
        "mov qword ptr [rdi + 160], 1",
        "2:",
        "jmp 2b",
    )
}
