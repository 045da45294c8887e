//! Single steps and breakpoints.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use dragonfly_guest_kit::{Check, Frame, cpu, ensure, equal, faults, set_hook};
use dragonfly_hw::x86::apic::{ID, x2apic_msr};

const TRAP_FLAG: u64 = 1 << 8;
const RESUME_FLAG: u64 = 1 << 16;
/// DR6.
const STEP: u64 = 1 << 14;

static STEPS: [AtomicU64; 16] = [const { AtomicU64::new(0) }; 16];
static COUNT: AtomicUsize = AtomicUsize::new(0);
static DR6: AtomicU64 = AtomicU64::new(0);

fn step(frame: &mut Frame) -> bool {
    if frame.vector != 1 {
        return false;
    }
    let count = COUNT.fetch_add(1, Relaxed);
    STEPS[count % STEPS.len()].store(frame.rip, Relaxed);
    DR6.store(DR6.load(Relaxed) | cpu::dr6(), Relaxed);
    cpu::set_dr6(0);
    // The last instruction is a NOP, which nothing else follows with.
    if cpu::peek::<u16>(frame.rip - 2) == 0x9090 || count + 1 == STEPS.len() {
        frame.rflags &= !TRAP_FLAG;
    }
    true
}

pub fn each_instruction_is_a_step() -> Check {
    COUNT.store(0, Relaxed);
    DR6.store(0, Relaxed);
    cpu::set_dr6(0);
    set_hook(Some(step));
    let (one, two, three, four, five, six): (u64, u64, u64, u64, u64, u64);
    // SAFETY: the instructions change the registers that are named; the hook clears the trap flag.
    unsafe {
        asm!(
            "mov r13, rbx",
            "lea r8, [rip + 2f]", "lea r9, [rip + 3f]", "lea r10, [rip + 4f]", "lea r11, [rip + 5f]",
            "lea r12, [rip + 6f]", "lea r14, [rip + 7f]",
            "pushfq", "or qword ptr [rsp], 0x100",
            "mov eax, 1", "mov edx, 0x3ff", "mov ecx, {apic_id}", "mov rdi, {io_apic}",
            "popfq",
            "mov esi, ecx",
            "2: in al, dx",
            "3: mov eax, [rdi]",
            "4: rdmsr",
            "5: mov eax, 1",
            "cpuid",
            "6: nop",
            "nop",
            "7: mov rbx, r13",
            apic_id = const x2apic_msr(ID), io_apic = const super::mmio::IO_APIC,
            out("rax") _, out("rcx") _, out("rdx") _, out("rsi") _, out("rdi") _, out("r13") _,
            out("r8") one, out("r9") two, out("r10") three, out("r11") four, out("r12") five, out("r14") six,
        );
    }
    set_hook(None);
    let ends = [one, two, three, four, five, six];
    let steps = COUNT.load(Relaxed);
    let step = |index: usize| STEPS[index].load(Relaxed);
    equal("behind a plain instruction", step(0), ends[0])?;
    equal("behind IN", step(1), ends[1])?;
    equal("behind a load from a device", step(2), ends[2])?;
    equal("behind RDMSR", step(3), ends[3])?;
    equal("behind CPUID", step(5), ends[4])?;
    equal("steps", steps as u64, 8)?;
    equal("cause", DR6.load(Relaxed) & (STEP | 0xf), STEP)
}

fn resume(frame: &mut Frame) -> bool {
    if frame.vector != 1 {
        return false;
    }
    COUNT.fetch_add(1, Relaxed);
    STEPS[0].store(frame.rip, Relaxed);
    DR6.store(cpu::dr6(), Relaxed);
    cpu::set_dr6(0);
    frame.rflags |= RESUME_FLAG;
    true
}

static WATCHED: [AtomicU64; 2] = [const { AtomicU64::new(0) }; 2];

pub fn breakpoints_break() -> Check {
    COUNT.store(0, Relaxed);
    cpu::set_dr6(0);
    set_hook(Some(resume));
    let watched = (&raw const WATCHED[0]).expose_provenance() as u64;
    cpu::set_dr0(watched);
    cpu::set_dr3(0x1234);
    // DR0: local, writes, 8 bytes.
    cpu::set_dr7(0x400 | 1 | 0b1001 << 16);
    let _: u64 = cpu::peek(watched);
    let after_read = COUNT.load(Relaxed);
    cpu::poke(watched, 1_u64);
    let after_write = COUNT.load(Relaxed);
    let write_cause = DR6.load(Relaxed);
    // An exit between keeps them.
    cpu::cpuid(0, 0);
    let kept = (cpu::dr0(), cpu::dr3(), cpu::dr7());
    cpu::poke(watched, 2_u64);
    let after_exit = COUNT.load(Relaxed);
    // DR1: local, execution.
    cpu::set_dr7(0x400);
    let target: u64;
    // SAFETY: the hook goes on behind the breakpoint.
    unsafe {
        asm!("lea {0}, [rip + 2f]", "mov dr1, {0}", "mov {1}, 0x404", "mov dr7, {1}", "nop", "2: nop",
            "mov {1}, 0x400", "mov dr7, {1}", out(reg) target, out(reg) _);
    }
    let (broke_at, cause) = (STEPS[0].load(Relaxed), DR6.load(Relaxed));
    let after_execution = COUNT.load(Relaxed);
    set_hook(None);
    equal("breaks by a read", after_read as u64, 0)?;
    equal("breaks by a write", after_write as u64, 1)?;
    equal("cause of a write", write_cause & 0xf, 1)?;
    equal("DR0", kept.0, watched)?;
    equal("DR3", kept.1, 0x1234)?;
    equal("DR7", kept.2 & 0xffff_03ff, 1 | 0b1001 << 16)?;
    equal("breaks after an exit", after_exit as u64, 2)?;
    equal("breaks by execution", after_execution as u64, 3)?;
    equal("place of execution", broke_at, target)?;
    equal("cause of execution", cause & 0xf, 2)?;
    faults("DR7 with a high half", 13, 0, || cpu::set_dr7(1 << 32))?;
    ensure("none is left", cpu::dr7() & 0xff == 0)
}
