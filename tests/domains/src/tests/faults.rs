//! Faults: what their handler is told, and what it can do about them.
#![expect(unsafe_code, reason = "the faults are instructions at known addresses")]

use core::arch::{asm, naked_asm};
use core::sync::atomic::Ordering;

use dragonfly_abi::arch::ThreadState;
use dragonfly_abi::{FaultKind, FaultReply, MessageTag, PAGE_SIZE, Rights, Status, USER_END};
use dragonfly_rt::sys::{self, Commit, Gate, Memory, Message, Notification, Thread, exit_thread};
use dragonfly_rt::{cpus, message};

use super::Context;
use crate::check::{Failure, Outcome, equal, refused, that};
use crate::light::{Builder, Child, Entry, Light, PLAYGROUND, Words, handle, shared};
use crate::probe::{self, expect_fault, expect_that, expect_value, pause};

super::tests! {
    "each exception is delivered with its kind, number and place" => every_exception,
    "the handler sees all registers of the faulted thread" => all_registers,
    "a page fault tells the address and the kind of access" => page_fault_words,
    "the kernel's half cannot be read, written or run" => kernel_half,
    "floating-point instructions fault" => floating_point,
    "a fault carries the badge that was set with its gate" => fault_badge,
    "a handler that maps memory lets the access go on" => resume_after_mapping,
    "a resumed thread runs the instruction again" => resume_runs_again,
    "a thread goes on with the registers that its handler gives" => resume_with,
    "no register state that a handler gives takes privileges" => resume_with_privileges,
    "a thread goes on at an address of the handler's choice or faults there" => resume_anywhere,
    "a handler can end the thread" => handler_ends,
    "a reply that says anything else ends the thread" => unknown_replies,
    "without a handler a fault ends the thread" => no_handler,
    "a handler that dies takes the threads along whose faults it had" => handler_dies,
    "a gate that goes ends the threads whose faults wait there" => gate_goes,
    "a faulted thread can be destroyed before and after its fault is received" => destroyed_while_faulted,
    "a fault of one thread does not stop another on the same CPU" => others_go_on,
    "single steps are delivered one by one, over a call as well" => single_steps,
    "flags that a domain sets survive calls and do no harm in the kernel" => hostile_flags,
    "the end of a budget is delivered to those who ask for it" => budget_fault,
    "a handler on another CPU handles faults" on 2 => remote_handler,
    "faults from all CPUs reach one handler" within 120 => fault_storm,
}

/// Instructions that fault: name, code, kind, exception number, error code.
#[rustfmt::skip]
const EXCEPTIONS: &[(&str, Entry, FaultKind, u64, u64)] = &[
    ("ud2",              undefined,        FaultKind::IllegalInstruction, 6,  0),
    ("hlt",              halt,             FaultKind::IllegalInstruction, 13, 0),
    ("cli",              disable,          FaultKind::IllegalInstruction, 13, 0),
    ("in",               port_in,          FaultKind::IllegalInstruction, 13, 0),
    ("out",              port_out,         FaultKind::IllegalInstruction, 13, 0),
    ("rdmsr",            read_msr,         FaultKind::IllegalInstruction, 13, 0),
    ("wrmsr",            write_msr,        FaultKind::IllegalInstruction, 13, 0),
    ("mov from cr0",     read_cr0,         FaultKind::IllegalInstruction, 13, 0),
    ("mov to cr3",       write_cr3,        FaultKind::IllegalInstruction, 13, 0),
    ("mov from dr7",     read_dr7,         FaultKind::IllegalInstruction, 13, 0),
    ("lidt",             load_idt,         FaultKind::IllegalInstruction, 13, 0),
    ("invlpg",           invalidate_page,  FaultKind::IllegalInstruction, 13, 0),
    ("swapgs",           swap_gs,          FaultKind::IllegalInstruction, 13, 0),
    ("sysret",           system_return,    FaultKind::IllegalInstruction, 13, 0),
    ("int 0x80",         int_80,           FaultKind::IllegalInstruction, 13, 0x80 << 3 | 2),
    ("int 8",            int_8,            FaultKind::IllegalInstruction, 13, 8 << 3 | 2),
    ("int 0x31",         int_31,           FaultKind::IllegalInstruction, 13, 0x31 << 3 | 2),
    ("a bad selector",   bad_selector,     FaultKind::IllegalInstruction, 13, 0xabc8),
    ("no canonical address", not_canonical, FaultKind::IllegalInstruction, 13, 0),
    ("division by zero", divide,           FaultKind::Exception,          0,  0),
    ("a large quotient", divide_overflow,  FaultKind::Exception,          0,  0),
];

macro_rules! faulting {
    ($($name:ident $($code:literal),*;)*) => { $(
        #[unsafe(naked)]
        extern "C" fn $name(_: &Words) -> ! {
            naked_asm!($($code,)* "2:", "jmp 2b")
        }
    )* };
}

faulting! {
    undefined "ud2";
    halt "hlt";
    disable "cli";
    port_in "in al, 0x80";
    port_out "out 0x80, al";
    read_msr "rdmsr";
    write_msr "wrmsr";
    read_cr0 "mov rax, cr0";
    write_cr3 "mov cr3, rax";
    read_dr7 "mov rax, dr7";
    load_idt "lidt [rsp]";
    invalidate_page "invlpg [rsp]";
    swap_gs "swapgs";
    system_return "sysretq";
    int_80 "int 0x80";
    int_8 "int 8";
    int_31 "int 0x31";
    bad_selector "mov eax, 0xabc8", "mov ds, eax";
    not_canonical "mov rax, 0x800000000000", "mov rax, [rax]";
    bad_stack "mov rsp, 0x800000000100", "push rax";
    divide "xor edx, edx", "xor ecx, ecx", "mov eax, 1", "div ecx";
    divide_overflow "mov edx, 7", "mov ecx, 1", "mov eax, 1", "div ecx";
    breakpoint "int3";
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

/// Lets the thread go on with these registers.
fn resume_with_state(state: &ThreadState) -> Result<(), Status> {
    message::buffer().set_thread_state(state);
    let tag = MessageTag::new(FaultReply::ResumeWith as u32, size_of::<ThreadState>(), 0);
    sys::reply(Message { tag, words: [0; 4] })
}

fn every_exception(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for (name, entry, kind, number, code) in EXCEPTIONS {
            let patient = start(cpu, *entry, &[])?;
            let case = |failure: Failure| failure.in_case(format_args!("{name} on CPU {cpu}"));
            let fault = expect_fault(*patient.gate, "the fault").map_err(case)?;
            equal("kind, number and error code", (fault.kind, fault.words[0], fault.words[2]), (*kind as u32, *number, *code))
                .map_err(case)?;
            equal("w1 and w3", (fault.words[1], fault.words[3]), (fault.state.rip, fault.state.rsp)).map_err(case)?;
            let start = *entry as *const () as u64;
            that((start..start + 32).contains(&fault.state.rip), format_args!("rip is {:#x}", fault.state.rip)).map_err(case)?;
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

fn all_registers(_: &Context) -> Outcome {
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

fn page_fault_words(_: &Context) -> Outcome {
    let child = Child::new()?;
    let memory = Memory::create(2 * PAGE_SIZE, Commit::Explicit)?;
    memory.commit(0, 2 * PAGE_SIZE)?;
    memory.map(child.domain(), PLAYGROUND, 0, PAGE_SIZE, Rights::READ)?;
    for cpu in 0..cpus() {
        let domain = child.domain();
        let cases = [
            ("reading nothing", probe::read(domain, cpu, PLAYGROUND + PAGE_SIZE)?, PLAYGROUND + PAGE_SIZE, Rights::READ),
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

fn kernel_half(_: &Context) -> Outcome {
    let addresses = [0xffff_8000_0000_0000, 0xffff_8000_0010_0000, 0xffff_ffff_8000_0000, 0xffff_ffff_8010_0000, !0xfff];
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

faulting! {
    sse "xorps xmm0, xmm0";
    sse2 "movd xmm1, eax";
    x87 "fld1";
    x87_wait "fninit";
    avx "vxorps ymm0, ymm0, ymm0";
    fxsave "fxsave [rsp - 1024]";
}

fn floating_point(_: &Context) -> Outcome {
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

fn fault_badge(_: &Context) -> Outcome {
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

fn resume_after_mapping(_: &Context) -> Outcome {
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

fn resume_runs_again(_: &Context) -> Outcome {
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

fn resume_with(_: &Context) -> Outcome {
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

fn resume_with_privileges(_: &Context) -> Outcome {
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

fn resume_anywhere(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        for rip in [0, 1 << 47, 0x8000_0000_0000_0000, u64::MAX, USER_END, 0xffff_8000_0000_0000, 0x7fff_ffff_ffff, 0x7777_7777] {
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

fn handler_ends(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let patient = start(cpu, undefined, &[])?;
        expect_fault(*patient.gate, "the fault")?;
        reply(END)?;
        patient.expect_end()?;
        equal("threads of the domain", patient.child.domain().info()?.threads, 0)?;
    }
    Ok(())
}

fn unknown_replies(_: &Context) -> Outcome {
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

fn no_handler(_: &Context) -> Outcome {
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

fn handler_dies(_: &Context) -> Outcome {
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

fn gate_goes(_: &Context) -> Outcome {
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

fn destroyed_while_faulted(_: &Context) -> Outcome {
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

/// Counts in word 0.
extern "C" fn counter(_: &Words) -> ! {
    loop {
        shared(0).fetch_add(1, Ordering::Relaxed);
    }
}

fn others_go_on(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let gate = Gate::create()?;
        let _counter = Builder::new(cpu).spawn(child.domain(), counter, &[])?;
        let _patient = Builder::new(cpu).fault_gate(*gate, 0).spawn(child.domain(), undefined, &[])?;
        expect_fault(*gate, "the fault")?;
        let before = child.word(0)?.load(Ordering::Relaxed);
        expect_that(|| child.word(0).is_ok_and(|word| word.load(Ordering::Relaxed) > before), "the other thread's work")?;
        reply(END)?;
    }
    Ok(())
}

/// Sets the trap flag, then runs two instructions, a call that does nothing, and one more.
#[unsafe(naked)]
extern "C" fn step(_: &Words) -> ! {
    naked_asm!(
        "pushfq",
        "or qword ptr [rsp], 0x100",
        "popfq",
        "nop",
        "xor eax, eax",
        "syscall",
        "nop",
        "2:",
        "jmp 2b",
    )
}

fn single_steps(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let patient = start(cpu, step, &[])?;
        let (mut last, mut number) = (0, 0);
        // CPUs differ in whether the step that ends a call is reported by itself, at the instruction after it.
        for round in 0..8 {
            let fault = expect_fault(*patient.gate, "a step")?;
            equal(format_args!("kind and number of step {number}"), (fault.kind, fault.words[0]), (FaultKind::Exception as u32, 1))?;
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

fn hostile_flags(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let notification = Notification::create()?;
        let given = child.give(*notification, Rights::RECEIVE)?;
        let calls = [dragonfly_abi::Call::ThreadYield as u64, dragonfly_abi::Call::NotificationWait as u64, given];
        let _light = child.spawn(cpu, flag_user, &calls)?;
        expect_value(child.word(4)?, 1, "all calls")?;
        let [flags, after, status] = [1, 2, 3].map(|index| child.word(index).map_or(0, |word| word.load(Ordering::Relaxed)));
        let good = child.word(0)?.load(Ordering::Relaxed);
        equal(format_args!("good calls (flags {flags:#x} became {after:#x}, status {status})"), good, 18)?;
    }
    Ok(())
}

fn budget_fault(context: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let gate = Gate::create()?;
        let plan = Builder::new(cpu).fault_gate(*gate, 3).budget(1_000_000, 20_000_000).report_exhaustion();
        let light = plan.spawn(child.domain(), counter, &[])?;
        let mut last = 0;
        for round in 1..=3 {
            let fault = expect_fault(*gate, "the end of the budget")?;
            equal("kind and words", (fault.kind, fault.words[0], fault.words[2]), (FaultKind::BudgetExhausted as u32, 0, 0))?;
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

fn remote_handler(context: &Context) -> Outcome {
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

fn fault_storm(context: &Context) -> Outcome {
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
