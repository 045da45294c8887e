//! What a fault says to its handler.

use core::arch::naked_asm;
use core::sync::atomic::Ordering;

use dragonfly_abi::arch::ThreadState;
use dragonfly_abi::{FaultKind, PAGE_SIZE, Rights, Status, USER_END};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{self, Commit, Gate, Memory};

use super::code::{EXCEPTIONS, avx, bad_stack, breakpoint, fxsave, sse, sse2, undefined, x87, x87_wait};
use super::{END, RESUME, counter, filled, reply, start};
use crate::check::{Failure, Outcome, equal, that};
use crate::light::{Builder, Child, Entry, PLAYGROUND, Words};
use crate::probe::{self, expect_fault, expect_that, pause};
use crate::tests::Context;

pub fn every_exception(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for (name, entry, kind, number, code) in EXCEPTIONS {
            let patient = start(cpu, *entry, &[])?;
            let case = |failure: Failure| failure.in_case(format_args!("{name} on CPU {cpu}"));
            let fault = expect_fault(*patient.gate, "the fault").map_err(case)?;
            equal(
                "kind, number and error code",
                (fault.kind, fault.words[0], fault.words[2]),
                (*kind as u32, *number, *code),
            )
            .map_err(case)?;
            equal("w1 and w3", (fault.words[1], fault.words[3]), (fault.state.rip, fault.state.rsp)).map_err(case)?;
            let start = *entry as *const () as u64;
            that((start..start + 32).contains(&fault.state.rip), format_args!("rip is {:#x}", fault.state.rip))
                .map_err(case)?;
            equal("badge", fault.badge, 0x99).map_err(case)?;
            reply(END)?;
            patient.expect_end().map_err(case)?;
        }
        // A stack fault by the manual (SDM 3A 6.15, interrupt 12); QEMU makes it a general protection fault.
        let patient = start(cpu, bad_stack, &[])?;
        let fault = expect_fault(*patient.gate, "the stack fault")?;
        let is_known = [(FaultKind::Exception as u32, 12), (FaultKind::IllegalInstruction as u32, 13)]
            .contains(&(fault.kind, fault.words[0]));
        that(is_known, format_args!("a bad stack gave {fault:x?}"))?;
        reply(END)?;
        // After INT3 the instruction pointer is behind it.
        let patient = start(cpu, breakpoint, &[])?;
        let fault = expect_fault(*patient.gate, "the breakpoint")?;
        equal("kind and number", (fault.kind, fault.words[0]), (FaultKind::Exception as u32, 3))?;
        equal("rip", fault.state.rip, breakpoint as *const () as u64 + 1)?;
        reply(END)?;
    }
    Ok(())
}

/// Fills all registers and faults.
#[unsafe(naked)]
extern "C" fn fill_and_fault(_: &Words) -> ! {
    naked_asm!(
        "mov rax, 0x1111111111111111",
        "mov rbx, 0x2222222222222222",
        "mov rcx, 0x3333333333333333",
        "mov rdx, 0x4444444444444444",
        "mov rsi, 0x5555555555555555",
        "mov rdi, 0x6666666666666666",
        "mov rbp, 0x7777777777777777",
        "mov rsp, 0x123456789ab0",
        "mov r8, 0x8888888888888888",
        "mov r9, 0x9999999999999999",
        "mov r10, 0xaaaaaaaaaaaaaaaa",
        "mov r11, 0xbbbbbbbbbbbbbbbb",
        "mov r12, 0xcccccccccccccccc",
        "mov r13, 0xdddddddddddddddd",
        "mov r14, 0xeeeeeeeeeeeeeeee",
        "mov r15, 0xf0f0f0f0f0f0f0f0",
        "std",
        "stc",
        "ud2",
    )
}

pub fn all_registers(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let patient = start(cpu, fill_and_fault, &[])?;
        let fault = expect_fault(*patient.gate, "the fault")?;
        let wanted = filled(fault.state.rip);
        // Carry and direction are set, and what always is; the others depend on what came before.
        equal("carry and direction", fault.state.rflags & 0x401, 0x401)?;
        equal("registers", ThreadState { rflags: wanted.rflags, ..fault.state }, wanted)?;
        reply(END)?;
    }
    Ok(())
}

pub fn page_fault_words(_: &Context) -> Outcome {
    let child = Child::new()?;
    let memory = Memory::create(2 * PAGE_SIZE, Commit::Explicit)?;
    memory.commit(0, 2 * PAGE_SIZE)?;
    memory.map(child.domain(), PLAYGROUND, 0, PAGE_SIZE, Rights::READ)?;
    for cpu in 0..cpus() {
        let domain = child.domain();
        let cases = [
            (
                "reading nothing",
                probe::read(domain, cpu, PLAYGROUND + PAGE_SIZE)?,
                PLAYGROUND + PAGE_SIZE,
                Rights::READ,
            ),
            ("reading at 8", probe::read(domain, cpu, 8)?, 8, Rights::READ),
            ("writing nothing", probe::write(domain, cpu, 0x7777_0008, 1)?, 0x7777_0008, Rights::WRITE),
            ("writing what is read-only", probe::write(domain, cpu, PLAYGROUND + 8, 1)?, PLAYGROUND + 8, Rights::WRITE),
            ("running what is not executable", probe::execute(domain, cpu, PLAYGROUND)?, PLAYGROUND, Rights::EXECUTE),
            ("running nothing", probe::execute(domain, cpu, 0x7777_0000)?, 0x7777_0000, Rights::EXECUTE),
            ("reading the last page", probe::read(domain, cpu, USER_END)?, USER_END, Rights::READ),
            (
                "reading over a page's end",
                probe::read(domain, cpu, PLAYGROUND + PAGE_SIZE - 4)?,
                PLAYGROUND + PAGE_SIZE,
                Rights::READ,
            ),
        ];
        for (name, result, address, access) in cases {
            match result {
                Ok(value) => return Err(Failure::new(format_args!("{name} gave {value:#x}"))),
                Err(fault) => that(fault.is_page_fault(address, access), format_args!("{name} gave {fault:x?}"))?,
            }
        }
    }
    Ok(())
}

pub fn kernel_half(_: &Context) -> Outcome {
    let addresses =
        [0xffff_8000_0000_0000, 0xffff_8000_0010_0000, 0xffff_ffff_8000_0000, 0xffff_ffff_8010_0000, !0xfff];
    let child = Child::new()?;
    for cpu in 0..cpus() {
        for address in addresses {
            let domain = child.domain();
            let results = [
                (probe::read(domain, cpu, address)?, Rights::READ),
                (probe::write(domain, cpu, address, 1)?, Rights::WRITE),
                (probe::execute(domain, cpu, address)?, Rights::EXECUTE),
            ];
            for (result, access) in results {
                let is_refused = result.is_err_and(|fault| fault.is_page_fault(address, access));
                that(is_refused, format_args!("{access:?} at {address:#x} gave {result:x?}"))?;
            }
        }
    }
    Ok(())
}

pub fn floating_point(_: &Context) -> Outcome {
    let cases: [(&str, Entry); 6] =
        [("sse", sse), ("sse2", sse2), ("fld1", x87), ("fninit", x87_wait), ("avx", avx), ("fxsave", fxsave)];
    for cpu in 0..cpus() {
        for (name, entry) in cases {
            let patient = start(cpu, entry, &[])?;
            let fault = expect_fault(*patient.gate, name)?;
            equal(name, fault.kind, FaultKind::IllegalInstruction as u32)?;
            // Invalid opcode or device not available.
            that(matches!(fault.words[0], 6 | 7), format_args!("{name} gave exception {}", fault.words[0]))?;
            reply(END)?;
        }
    }
    Ok(())
}

pub fn fault_badge(_: &Context) -> Outcome {
    let gate = Gate::create()?;
    let child = Child::new()?;
    for badge in [0, 5, u64::MAX] {
        let _light = Builder::new(0).fault_gate(*gate, badge).spawn(child.domain(), undefined, &[])?;
        equal("badge", expect_fault(*gate, "the fault")?.badge, badge)?;
        reply(END)?;
    }
    // Who holds a badged handle cannot say that it is somebody else.
    let badged = gate.copy_with(0x77)?;
    let _light = Builder::new(0).fault_gate(*badged, 5).spawn(child.domain(), undefined, &[]);
    match gate.receive_timed(20_000_000) {
        Ok(received) => {
            reply(END)?;
            equal("badge of a fault through a badged handle", received.badge, 0x77)
        }
        // Refusing the configuration would be as good.
        Err(_) => Ok(()),
    }
}

trait CopyWith {
    fn copy_with(self, badge: u64) -> Result<sys::Owned<Gate>, Status>;
}

impl CopyWith for Gate {
    fn copy_with(self, badge: u64) -> Result<sys::Owned<Gate>, Status> {
        sys::Object::copy(self, Rights::all(), badge)
    }
}

pub fn budget_fault(context: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let gate = Gate::create()?;
        let plan = Builder::new(cpu).fault_gate(*gate, 3).budget(1_000_000, 20_000_000).report_exhaustion();
        let light = plan.spawn(child.domain(), counter, &[])?;
        let mut last = 0;
        for round in 1..=3 {
            let fault = expect_fault(*gate, "the end of the budget")?;
            equal(
                "kind and words",
                (fault.kind, fault.words[0], fault.words[2]),
                (FaultKind::BudgetExhausted as u32, 0, 0),
            )?;
            equal("badge", fault.badge, 3)?;
            let consumed = light.thread().info()?.consumed_ns;
            that(consumed > last, format_args!("{consumed} ns consumed at end {round} of the budget, {last} before"))?;
            // A budget that was used in parts comes back in parts, and each part has an end.
            let is_whole = round > 1 || consumed >= 990_000;
            let message = format_args!("{consumed} ns consumed at end {round} of the budget");
            context.hold(is_whole && consumed <= round * 1_020_000, message)?;
            last = consumed;
            let counted = child.word(0)?.load(Ordering::Relaxed);
            pause();
            equal("what it does meanwhile", child.word(0)?.load(Ordering::Relaxed), counted)?;
            reply(RESUME)?;
        }
        expect_fault(*gate, "the end of the budget")?;
        reply(END)?;
        let thread = light.thread();
        expect_that(|| thread.info().is_ok_and(|info| info.state == 2), "the end of the thread")?;
    }
    Ok(())
}
