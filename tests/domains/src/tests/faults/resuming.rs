//! A handler that lets the faulted thread go on: as it was, or with other registers.
#![expect(unsafe_code, reason = "the faults are instructions at known addresses")]

use core::arch::naked_asm;
use core::sync::atomic::Ordering;

use dragonfly_abi::arch::ThreadState;
use dragonfly_abi::{FaultKind, FaultReply, MessageTag, PAGE_SIZE, Rights, Status, USER_END};
use dragonfly_rt::sys::{self, Commit, Memory, Message, exit_thread};
use dragonfly_rt::{cpus, message};

use super::code::undefined;
use super::{END, RESUME, filled, reply, start};
use crate::check::{Outcome, equal, that};
use crate::light::{PLAYGROUND, Words, shared};
use crate::probe::{self, expect_fault, expect_value};
use crate::tests::Context;

/// Reads at words[0], stores the value plus one in word 1 and 1 in word 0, then does it again at the next page, words[1]
/// times.
extern "C" fn page_reader(words: &Words) -> ! {
    for page in 0..words[1] {
        // SAFETY: the handler gives the page, or the thread ends.
        let value = unsafe { probe::read_word(words[0] + page * PAGE_SIZE) };
        shared(1).store(value + 1, Ordering::Relaxed);
        shared(0).fetch_add(1, Ordering::Release);
    }
    exit_thread()
}

pub fn resume_after_mapping(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let patient = start(cpu, page_reader, &[PLAYGROUND, 10])?;
        let memory = Memory::create(10 * PAGE_SIZE, Commit::OnDemand)?;
        for page in 0..10 {
            let address = PLAYGROUND + page * PAGE_SIZE;
            let fault = expect_fault(*patient.gate, "the fault")?;
            that(fault.is_page_fault(address, Rights::READ), format_args!("{fault:x?} for {address:#x}"))?;
            memory.map(patient.child.domain(), address, page * PAGE_SIZE, PAGE_SIZE, Rights::READ)?;
            reply(RESUME)?;
            expect_value(patient.child.word(0)?, page + 1, "the access")?;
            equal("the value read", patient.child.word(1)?.load(Ordering::Relaxed), 1)?;
        }
        patient.expect_end()?;
    }
    Ok(())
}

pub fn resume_runs_again(_: &Context) -> Outcome {
    let patient = start(0, undefined, &[])?;
    let first = expect_fault(*patient.gate, "the fault")?;
    for _ in 0..20 {
        reply(RESUME)?;
        equal("the fault again", expect_fault(*patient.gate, "the fault")?, first)?;
    }
    reply(END)?;
    patient.expect_end()
}

/// Faults; goes on with what the handler gave: stores all registers at the address in RDI, in the order of the state.
#[unsafe(naked)]
extern "C" fn fault_and_store(_: &Words) -> ! {
    naked_asm!(
        "ud2",
        "mov [rdi], rax",
        "mov [rdi + 8], rbx",
        "mov [rdi + 16], rcx",
        "mov [rdi + 24], rdx",
        "mov [rdi + 32], rsi",
        "mov [rdi + 40], rdi",
        "mov [rdi + 48], rbp",
        "mov [rdi + 56], rsp",
        "mov [rdi + 64], r8",
        "mov [rdi + 72], r9",
        "mov [rdi + 80], r10",
        "mov [rdi + 88], r11",
        "mov [rdi + 96], r12",
        "mov [rdi + 104], r13",
        "mov [rdi + 112], r14",
        "mov [rdi + 120], r15",
        "lea rsp, [rdi + 4096]",
        "pushfq",
        "pop rax",
        "mov [rdi + 136], rax",
        "cld",
        "mov qword ptr [rdi + 800], 1",
        "2:",
        "jmp 2b",
    )
}

/// Lets the thread go on with these registers.
fn resume_with_state(state: &ThreadState) -> Result<(), Status> {
    message::buffer().set_thread_state(state);
    let tag = MessageTag::new(FaultReply::ResumeWith as u32, size_of::<ThreadState>(), 0);
    sys::reply(Message { tag, words: [0; 4] })
}

pub fn resume_with(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let patient = start(cpu, fault_and_store, &[])?;
        let fault = expect_fault(*patient.gate, "the fault")?;
        let state = ThreadState { rdi: crate::light::SHARED, rip: fault.state.rip + 2, rflags: 0xcd7, ..filled(0) };
        resume_with_state(&state)?;
        expect_value(patient.child.word(100)?, 1, "the thread")?;
        let wanted = [
            state.rax, state.rbx, state.rcx, state.rdx, state.rsi, state.rdi, state.rbp, state.rsp, state.r8, state.r9,
            state.r10, state.r11, state.r12, state.r13, state.r14, state.r15,
        ];
        for (index, wanted) in wanted.into_iter().enumerate() {
            let found = patient.child.word(index as u64)?.load(Ordering::Relaxed);
            equal(format_args!("register {index} on CPU {cpu}"), found, wanted)?;
        }
        // All arithmetic flags and direction; interrupts are on whatever was given.
        equal("flags", patient.child.word(17)?.load(Ordering::Relaxed), 0xed7)?;
    }
    Ok(())
}

pub fn resume_with_privileges(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        // IOPL, nested task, virtual-8086 mode, virtual interrupts, and no interrupts.
        for flags in [0, 0x3000, 0x4000, 0x2_0000, 0x8_0000, 0x10_0000, 0xffff_ffff_fffa_feff, 0x3f_7eff & !0x100] {
            let patient = start(cpu, fault_and_store, &[])?;
            let fault = expect_fault(*patient.gate, "the fault")?;
            let rip = fault.state.rip + 2;
            resume_with_state(&ThreadState { rdi: crate::light::SHARED, rip, rflags: flags, ..fault.state })?;
            // Alignment checks, if they are on, fault at a store that is not aligned; these all are.
            expect_value(patient.child.word(100)?, 1, "the thread")?;
            let found = patient.child.word(17)?.load(Ordering::Relaxed);
            equal(format_args!("flags after {flags:#x}"), found & 0x1b_7202, 0x202)?;
        }
    }
    Ok(())
}

pub fn resume_anywhere(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for rip in [
            0,
            1 << 47,
            0x8000_0000_0000_0000,
            u64::MAX,
            USER_END,
            0xffff_8000_0000_0000,
            0x7fff_ffff_ffff,
            0x7777_7777,
        ] {
            let patient = start(cpu, undefined, &[])?;
            let fault = expect_fault(*patient.gate, "the fault")?;
            resume_with_state(&ThreadState { rip, rsp: rip, ..fault.state })?;
            let fault = expect_fault(*patient.gate, "the fault there")?;
            that(
                fault.kind == FaultKind::PageFault as u32 || fault.kind == FaultKind::IllegalInstruction as u32,
                format_args!("at {rip:#x} came {fault:x?}"),
            )?;
            reply(END)?;
            patient.expect_end()?;
        }
    }
    Ok(())
}
