//! Exceptions: which one, with which error code, and where.

use dragonfly_guest_kit::cpu::poke;
use dragonfly_guest_kit::{Check, cpu, equal};
use dragonfly_hw::x86::apic::{ID, x2apic_msr};

use super::code::{Code, code};
use super::layout::{ABSENT, DATA_EXECUTED, HIDDEN, IO_MAP_PORT, MEMORY, READ_ONLY, SPARE, low};
use super::mode::{Kind, Mode, Paging, Size};
use super::switch::Registers;
use super::tables;

const TRAP_FLAG: u32 = 1 << 8;
const OVERFLOW_FLAG: u32 = 1 << 11;
/// DR6: a single step.
const STEP: u64 = 1 << 14;
/// Bits of a page fault's error code.
const WRITE: u64 = 2;
const USER: u64 = 4;
const FETCH: u64 = 0x10;
/// A register of the first serial port.
const SCRATCH_REGISTER: u32 = 0x3ff;

pub fn check(mode: &Mode) -> Check {
    instructions(mode)?;
    steps(mode)?;
    if super::are_limits_checked() && mode.size != Size::Bits64 {
        limits(mode)?;
    }
    if mode.paging != Paging::None {
        pages(mode)?;
    }
    if mode.has_descriptors() {
        descriptors(mode)?;
    }
    if !mode.is_privileged() {
        forbidden(mode)?;
    }
    Ok(())
}

/// Whether code faults at an offset.
fn faults_at(mode: &Mode, what: &'static str, vector: u64, at: u64, code: &Code, registers: Registers) -> Check {
    equal(what, mode.fault(what, vector, 0, code, registers)?.at, at)
}

fn instructions(mode: &Mode) -> Check {
    let none = Registers::default();
    faults_at(mode, "division by 0", 0, 1, &code!("nop", "div bl"), Registers { eax: 1, ..none })?;
    faults_at(mode, "INT3", 3, 1, &code!("int3"), none)?;
    faults_at(mode, "LOCK NOP", 6, 1, &code!("nop", ".byte 0xf0, 0x90"), none)?;
    if mode.size != Size::Bits64 {
        faults_at(mode, "INTO", 4, 1, &code!(legacy "into"), Registers { flags: OVERFLOW_FLAG, ..none })?;
        mode.finish("INTO without overflow", &code!(legacy "into"), none)?;
        poke(u64::from(low(MEMORY)), 0_u64);
        let start = Registers { eax: 5, ebx: MEMORY, ..none };
        faults_at(mode, "BOUND", 5, 0, &code!(legacy "bound eax, [ebx]"), start)?;
    }
    if matches!(mode.kind, Kind::Real | Kind::Virtual8086) {
        faults_at(mode, "LLDT", 6, 0, &code!(".byte 0x0f, 0x00, 0xd0"), none)?;
        faults_at(mode, "STR", 6, 0, &code!(".byte 0x0f, 0x00, 0xc8"), none)?;
    }
    Ok(())
}

/// Single steps, behind instructions that a hypervisor executes.
fn steps(mode: &Mode) -> Check {
    let start = Registers { flags: TRAP_FLAG, edx: SCRATCH_REGISTER, ..Registers::default() };
    let step = |what, code: &Code, length, registers| {
        cpu::set_dr6(0);
        let result = faults_at(mode, what, 1, length, code, registers);
        equal(what, cpu::dr6() & (STEP | 0xf), STEP)?;
        result
    };
    step("step over NOP", &code!("nop", "nop"), 1, start)?;
    step("step over CPUID", &code!("cpuid", "nop"), 2, start)?;
    step("step over IN", &code!("in al, dx", "nop"), 1, start)?;
    step("step over OUT", &code!("out dx, al", "nop"), 1, start)?;
    let load = code!("mov eax, fs:[ebx]");
    step("step over a load from a device", &load, load.bytes(mode.size).len() as u64, start)?;
    if mode.is_privileged() {
        step("step over RDMSR", &code!("rdmsr", "nop"), 2, Registers { ecx: x2apic_msr(ID), ..start })?;
    }
    let start = Registers { ecx: 3, edi: mode.at(MEMORY), ..start };
    let after = mode.fault("step over an iteration", 1, 0, &code!("rep insb"), start)?;
    equal("what is left after an iteration", after.rcx, 2)?;
    equal("where an iteration goes", after.rdi, u64::from(mode.at(MEMORY)) + 1)?;
    equal("an iteration's place", after.at, 0)
}

/// Segments of 64 KiB.
fn limits(mode: &Mode) -> Check {
    let none = Registers::default();
    let load = code!("mov eax, [ebx]");
    mode.finish("up to the limit", &load, Registers { ebx: 0xfffc, ..none })?;
    mode.fault("beyond the limit", 13, 0, &load, Registers { ebx: 0xfffd, ..none })?;
    mode.fault("far beyond the limit", 13, 0, &load, Registers { ebx: 0x1_0000, ..none })?;
    mode.fault("a write beyond the limit", 13, 0, &code!("mov [ebx], ax"), Registers { ebx: 0xffff, ..none })?;
    mode.fault("the stack beyond its limit", 12, 0, &code!("mov eax, [ebp]"), Registers { ebp: 0xfffe, ..none })?;
    let load = code!(legacy "mov eax, dword ptr [bx]");
    mode.fault("beyond the limit by a 16-bit address", 13, 0, &load, Registers { ebx: 0xffff, ..none })?;
    Ok(())
}

fn pages(mode: &Mode) -> Check {
    let user = if mode.is_user() { USER } else { 0 };
    let fault = |what, error, offset: u32, address: u32, code: &Code| {
        let registers = Registers { ebx: mode.at(offset), ..Registers::default() };
        let after = mode.fault(what, 14, error | user, code, registers)?;
        equal(what, after.cr2, low(address).into())
    };
    let (load, store) = (code!("mov eax, [ebx]"), code!("mov [ebx], al"));
    fault("read of nothing", 0, ABSENT + 5, ABSENT + 5, &load)?;
    fault("read across a page's end", 0, ABSENT - 2, ABSENT, &load)?;
    fault("write to nothing", WRITE, ABSENT + 6, ABSENT + 6, &store)?;
    fault("write to a read-only page", WRITE | 1, READ_ONLY + 7, READ_ONLY + 7, &store)?;
    if mode.is_user() {
        fault("read of the kernel's page", 1, HIDDEN, HIDDEN, &load)?;
        fault("write to the kernel's page", WRITE | 1, HIDDEN, HIDDEN, &store)?;
    }
    let jump = code!(each["jmp bx"], ["jmp ebx"], ["jmp rbx"]);
    let has_no_execute = mode.paging != Paging::TwoLevels;
    fault("jump to nothing", if has_no_execute { FETCH } else { 0 }, ABSENT, ABSENT, &jump)?;
    if has_no_execute {
        tables::forbid_execution();
        fault("jump to data", FETCH | 1, DATA_EXECUTED, DATA_EXECUTED, &jump)?;
    }
    if mode.paging == Paging::Pae && mode.is_privileged() {
        tables::set_gigabyte(2, false);
        let result = mode.fault("a gigabyte that is not there", 14, 0, &flat_load(), at_2_gib());
        tables::set_gigabyte(2, true);
        equal("address in that gigabyte", result?.cr2, 2 << 30)?;
        mode.finish("a gigabyte that is there again", &flat_load(), at_2_gib())?;
    }
    Ok(())
}

/// Loads by the flat segment.
fn flat_load() -> Code {
    code!("mov es, ax", "mov ecx, es:[ebx]")
}

fn at_2_gib() -> Registers {
    Registers { eax: super::layout::DATA.into(), ebx: 2 << 30, ..Registers::default() }
}

fn descriptors(mode: &Mode) -> Check {
    let (data, stack) = (code!("mov es, ax"), code!("mov ss, ax"));
    let with = |selector: u16| Registers { eax: selector.into(), ebx: MEMORY, ..Registers::default() };
    mode.fault("ES beyond the table", 13, 0x1000, &data, with(0x1003))?;
    mode.fault("ES in no local table", 13, 0xc, &data, with(0xc))?;
    tables::set_descriptor(SPARE, 0x00cf_7300_0000_ffff);
    mode.fault("ES that is not present", 11, SPARE.into(), &data, with(SPARE | 3))?;
    let privilege = if mode.is_user() { 3 } else { 0 };
    tables::set_descriptor(SPARE, 0x00cf_1300_0000_ffff | privilege << 45);
    mode.fault("SS that is not present", 12, SPARE.into(), &stack, with(SPARE | privilege as u16))?;
    tables::set_descriptor(SPARE, 0x00cf_f100_0000_ffff);
    mode.fault("SS that is read-only", 13, SPARE.into(), &stack, with(SPARE | privilege as u16))?;
    if super::are_limits_checked() && mode.size != Size::Bits64 {
        let store = code!("mov es, ax", "mov es:[ebx], al");
        mode.fault("a write to a read-only segment", 13, 0, &store, with(SPARE | 3))?;
        mode.fault("a load by no segment", 13, 0, &code!("mov es, ax", "mov eax, es:[ebx]"), with(0))?;
        // Valid offsets are those above the limit.
        tables::set_descriptor(SPARE, 0x0040_f700_0000_0fff);
        mode.fault("below a segment that grows down", 13, 0, &store, Registers { ebx: 0xfff, ..with(SPARE | 3) })?;
    }
    Ok(())
}

/// What programs may not do.
fn forbidden(mode: &Mode) -> Check {
    let none = Registers::default();
    let denied = |mode: &Mode, what, code: &Code, edx: u32| {
        equal(what, mode.fault(what, 13, 0, code, Registers { edx, ..none })?.at, 0)
    };
    denied(mode, "HLT", &code!("hlt"), 0)?;
    denied(mode, "RDMSR", &code!("rdmsr"), 0)?;
    denied(mode, "MOV from CR0", &code!(legacy "mov eax, cr0"), 0)?;
    denied(mode, "MOV to DR7", &code!(legacy "mov dr7, eax"), 0)?;
    denied(mode, "CLTS", &code!("clts"), 0)?;
    denied(mode, "LGDT", &code!("lgdt [ebx]"), 0)?;
    denied(mode, "INVLPG", &code!("invlpg [ebx]"), 0)?;
    let mode = &Mode { io_privilege: 0, ..*mode };
    denied(mode, "CLI", &code!("cli"), 0)?;
    denied(mode, "STI", &code!("sti"), 0)?;
    if mode.kind == Kind::Virtual8086 {
        denied(mode, "INT", &code!("int 0x20"), 0)?;
        denied(mode, "PUSHF", &code!(".byte 0x9c"), 0)?;
        denied(mode, "IRET", &code!(".byte 0xcf"), 0)?;
    }
    // The task's map of ports.
    mode.finish("IN of a port that is allowed", &code!("in al, dx"), Registers { edx: 0xe0, ..none })?;
    let port = u32::from(IO_MAP_PORT);
    denied(mode, "IN of a port that is not", &code!("in al, dx"), port)?;
    denied(mode, "OUT of a port that is not", &code!("out dx, al"), port)?;
    denied(mode, "IN that begins before it", &code!("in eax, dx"), port - 3)?;
    denied(mode, "INS of it", &code!("insb"), port)
}
