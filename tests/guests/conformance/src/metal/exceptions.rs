//! Exceptions of every kind.

use core::arch::asm;

use dragonfly_guest_kit::playground::{self, PRESENT, USER, WRITABLE};
use dragonfly_guest_kit::{
    Check, Frame, SPARE, TSS, USER_CODE, USER_CODE_32, catch, cpu, ensure, equal, faults, run_user, set_descriptor,
    set_gate_present, set_gate_stack, set_hook, set_tss_limit,
};
use dragonfly_hw::x86::msr::{IA32_FMASK, IA32_LSTAR, IA32_STAR};

/// An address that has no place in 48 bits.
const NOT_CANONICAL: u64 = 0x8000_0000_0000_0000;
/// RFLAGS.
const CARRY: u64 = 1;
/// CR0.
const TASK_SWITCHED: u64 = 1 << 3;
/// CR4.
const FXSR: u64 = 1 << 9;

pub fn faults_have_their_vectors() -> Check {
    // SAFETY: the divisor is 0.
    faults("division by 0", 0, 0, || unsafe {
        asm!("div {0:e}", in(reg) 0, inout("eax") 1 => _, inout("edx") 0 => _)
    })?;
    // SAFETY: faults.
    faults("UD2", 6, 0, || unsafe { asm!("ud2", options(nomem, nostack)) })?;
    faults("load from no canonical address", 13, 0, || cpu::peek::<u8>(NOT_CANONICAL))
}

pub fn traps_go_on_behind_the_instruction() -> Check {
    // SAFETY: the handler ends it.
    let trap = catch(|| unsafe { asm!("int3") });
    let Some(trap) = trap else { return equal("INT3", u64::MAX, 3) };
    equal("vector of INT3", trap.frame.vector, 3)?;
    equal("instruction before INT3's end", cpu::peek::<u8>(trap.frame.rip - 1).into(), 0xcc)?;
    // SAFETY: the handler ends it.
    let trap = catch(|| unsafe { asm!(".byte 0xf1") });
    let Some(trap) = trap else { return equal("INT1", u64::MAX, 1) };
    equal("vector of INT1", trap.frame.vector, 1)?;
    equal("instruction before INT1's end", cpu::peek::<u8>(trap.frame.rip - 1).into(), 0xf1)?;
    // SAFETY: the handler ends it.
    let trap = catch(|| unsafe { asm!("int 4") });
    let Some(trap) = trap else { return equal("INT 4", u64::MAX, 4) };
    equal("vector of INT 4", trap.frame.vector, 4)?;
    equal("instruction before INT 4's end", cpu::peek::<u16>(trap.frame.rip - 2).into(), 0x04cd)
}

pub fn segments_fault_with_their_selectors() -> Check {
    let load_data = |selector: u16| {
        // SAFETY: faults; 64-bit code does not use the segment.
        move || unsafe { asm!("mov ds, {0:x}", in(reg) selector) }
    };
    let load_stack = |selector: u16| {
        // SAFETY: faults.
        move || unsafe { asm!("mov ss, {0:x}", in(reg) selector) }
    };
    faults("DS beyond the table", 13, 0x1000, load_data(0x1003))?;
    faults("DS in no local table", 13, 0xc, load_data(0xc))?;
    set_descriptor(SPARE, 0x00cf_1300_0000_ffff);
    faults("DS that is not present", 11, SPARE.into(), load_data(SPARE))?;
    faults("SS that is not present", 12, SPARE.into(), load_stack(SPARE))?;
    set_descriptor(SPARE, 0x00af_9900_0000_ffff);
    faults("DS of code that cannot be read", 13, SPARE.into(), load_data(SPARE))?;
    faults("SS of code", 13, SPARE.into(), load_stack(SPARE))?;
    faults("SS with another privilege", 13, 16, load_stack(16 | 3))?;
    set_descriptor(SPARE, 0x00cf_9300_0000_ffff);
    // SAFETY: a data segment like the usual one.
    unsafe { asm!("mov ds, {0:x}", in(reg) SPARE) };
    equal("accessed bit", dragonfly_guest_kit::descriptor(SPARE) >> 40 & 1, 1)?;
    // SAFETY: the usual one.
    unsafe { asm!("mov ds, {0:x}", in(reg) 16) };
    // SAFETY: the task state is busy.
    faults("LTR of a busy task", 13, TSS.into(), || unsafe { asm!("ltr {0:x}", in(reg) TSS) })
}

pub fn gates_fault_with_their_vectors() -> Check {
    set_gate_present(0x30, false);
    // SAFETY: faults.
    let result = faults("a gate that is not present", 11, 0x182, || unsafe { asm!("int 0x30") });
    set_gate_present(0x30, true);
    result?;
    let trap = run_user(&[0xcd, 0x30], USER_CODE, 0);
    let seen = trap.map_or((u64::MAX, 0), |trap| (trap.frame.vector, trap.frame.error));
    equal("a gate that is not for programs", seen.0, 13)?;
    equal("its error code", seen.1, 0x182)?;
    let trap = run_user(&[0xcc], USER_CODE, CARRY);
    let Some(trap) = trap else { return equal("INT3 of a program", u64::MAX, 3) };
    equal("INT3 of a program", trap.frame.vector, 3)?;
    equal("its code segment", trap.frame.cs, USER_CODE.into())?;
    equal("its stack", trap.frame.rsp, playground::USER_STACK)?;
    equal("its flags", trap.frame.rflags & 0xfff, CARRY | 2)
}

pub fn the_task_state_and_the_stack() -> Check {
    // The task state ends before the stack that the gate names.
    set_gate_stack(0x31, 7);
    set_tss_limit(Some(0x50));
    // SAFETY: faults.
    let result = faults("a stack beyond the task state's end", 10, TSS.into(), || unsafe { asm!("int 0x31") });
    set_tss_limit(None);
    set_gate_stack(0x31, 0);
    result
}

pub fn a_fault_in_a_fault_is_double() -> Check {
    set_gate_present(13, false);
    set_gate_present(11, false);
    let trap = catch(|| cpu::peek::<u8>(NOT_CANONICAL));
    set_gate_present(13, true);
    set_gate_present(11, true);
    let Some(trap) = trap else { return equal("double fault", u64::MAX, 8) };
    equal("vector", trap.frame.vector, 8)?;
    equal("error code", trap.frame.error, 0)?;
    set_gate_present(13, false);
    let trap = catch(|| cpu::peek::<u8>(NOT_CANONICAL));
    set_gate_present(13, true);
    let seen = trap.map_or(u64::MAX, |trap| trap.frame.vector);
    equal("a second contributory fault", seen, 8)?;
    set_gate_present(14, false);
    let trap = catch(|| cpu::peek::<u8>(playground::BASE + 0x10_0000));
    set_gate_present(14, true);
    equal("a page fault that cannot be delivered", trap.map_or(u64::MAX, |trap| trap.frame.vector), 8)
}

pub fn overflow_and_bound_in_32_bit_code() -> Check {
    // The code is below 4 GiB only here: its first page is mapped twice, by the second name in the first 4 GiB.
    let low = 0x4000_0000_u64;
    let run = |code: &[u8]| {
        for (address, byte) in (playground::SCRATCH..).zip(code) {
            cpu::poke(address, *byte);
        }
        with_user_page(low, || {
            catch(|| {
                dragonfly_guest_kit::enter_user(low, low + 0x8000, 2, USER_CODE_32, dragonfly_guest_kit::USER_DATA)
            })
        })
    };
    // mov al, 0x7f; inc al; into
    let Some(trap) = run(&[0xb0, 0x7f, 0xfe, 0xc0, 0xce]) else { return equal("INTO", u64::MAX, 4) };
    equal("vector of INTO", trap.frame.vector, 4)?;
    equal("address behind INTO", trap.frame.rip, low + 5)?;
    equal("code segment", trap.frame.cs, USER_CODE_32.into())?;
    // A program begins without the kernel's DS. mov eax, USER_DATA; mov ds, eax; mov eax, 5; mov ebx, low + 0x100;
    // mov [ebx], 0 (zeros: bounds 0 to 0); bound eax, [ebx]
    let bound = [
        0xb8, 0x2b, 0, 0, 0, 0x8e, 0xd8, 0xb8, 5, 0, 0, 0, 0xbb, 0, 1, 0, 0x40, 0xc7, 3, 0, 0, 0, 0, 0xc7, 0x43, 4, 0,
        0, 0, 0, 0x62, 0x03,
    ];
    let Some(trap) = run(&bound) else { return equal("BOUND", u64::MAX, 5) };
    equal("vector of BOUND", trap.frame.vector, 5)?;
    equal("address of BOUND", trap.frame.rip, low + 30)?;
    // cpuid, in a program of 32 bits: mov eax, 0; cpuid; ud2
    let Some(trap) = run(&[0xb8, 0, 0, 0, 0, 0x0f, 0xa2, 0x0f, 0x0b]) else { return equal("UD2", u64::MAX, 6) };
    equal("vector behind CPUID", trap.frame.vector, 6)?;
    equal("CPUID of a 32-bit program", trap.frame.rbx, u64::from(cpu::cpuid(0, 0)[1]))
}

/// Maps 2 MiB of scratch RAM at 1 GiB for programs.
fn with_user_page<T>(low: u64, work: impl FnOnce() -> T) -> T {
    let top = cpu::peek::<u64>(playground::top());
    let directories = top & !0xfff;
    let directory = cpu::peek::<u64>(directories + 8);
    let entry = directory & !0xfff;
    let page = cpu::peek::<u64>(entry);
    cpu::poke(playground::top(), top | USER);
    cpu::poke(directories + 8, directory | USER);
    cpu::poke(entry, playground::SCRATCH | PRESENT | WRITABLE | USER | playground::LARGE);
    cpu::flush(low);
    let result = work();
    cpu::poke(entry, page);
    cpu::poke(directories + 8, directory);
    cpu::poke(playground::top(), top);
    cpu::flush(low);
    result
}

pub fn floating_point() -> Check {
    let (cr0, cr4) = (cpu::cr0(), cpu::cr4());
    cpu::set_cr4(cr4 | FXSR);
    cpu::set_cr0(cr0 & !0b1100 | 1 << 5 | 2);
    let result = (|| {
        // SAFETY: the exception is not masked, and comes with the next instruction.
        faults("x87 division by 0", 16, 0, || unsafe {
            asm!("fninit", "push 0x37b", "fldcw [rsp]", "pop rax", "fld1", "fldz", "fdivp", "fwait", out("rax") _);
        })?;
        // SAFETY: forgets it.
        unsafe { asm!("fninit") };
        cpu::set_cr0(cpu::cr0() | TASK_SWITCHED);
        // SAFETY: faults.
        let result = faults("x87 while it is another task's", 7, 0, || unsafe { asm!("fnop") });
        cpu::set_cr0(cpu::cr0() & !TASK_SWITCHED);
        result?;
        cpu::set_cr4(cpu::cr4() & !FXSR);
        // SAFETY: faults.
        faults("SSE that is not switched on", 6, 0, || unsafe { asm!("xorps xmm0, xmm0") })
    })();
    cpu::set_cr4(cr4);
    cpu::set_cr0(cr0);
    result
}

pub fn programs_may_not() -> Check {
    let cases: [(&'static str, &[u8]); 14] = [
        ("HLT", &[0xf4]),
        ("CLI", &[0xfa]),
        ("STI", &[0xfb]),
        ("IN", &[0xe4, 0x80]),
        ("OUT", &[0xe6, 0x80]),
        ("INS", &[0x6c]),
        ("OUTS", &[0x6e]),
        ("RDMSR", &[0x0f, 0x32]),
        ("WRMSR", &[0x0f, 0x30]),
        ("MOV from CR0", &[0x0f, 0x20, 0xc0]),
        ("MOV to CR8", &[0x44, 0x0f, 0x22, 0xc0]),
        ("MOV from DR7", &[0x0f, 0x21, 0xf8]),
        ("LGDT", &[0x0f, 0x01, 0x10]),
        ("INVLPG", &[0x0f, 0x01, 0x38]),
    ];
    for (what, code) in cases {
        let Some(trap) = run_user(code, USER_CODE, 0) else { return equal(what, u64::MAX, 13) };
        equal(what, trap.frame.vector, 13)?;
        equal(what, trap.frame.error, 0)?;
        equal(what, trap.frame.rip, playground::USER_CODE)?;
    }
    // xor eax, eax; cpuid; ud2
    let Some(trap) = run_user(&[0x31, 0xc0, 0x0f, 0xa2], USER_CODE, 0) else { return equal("CPUID", u64::MAX, 6) };
    equal("CPUID of a program", trap.frame.rbx, u64::from(cpu::cpuid(0, 0)[1]))
}

pub fn what_is_not_offered_is_undefined() -> Check {
    if cpu::cpuid(1, 0)[2] & 1 << 3 == 0 {
        // SAFETY: as above.
        faults("MONITOR", 6, 0, || unsafe { asm!("monitor", in("rax") 0x20_0000, in("ecx") 0, in("edx") 0) })?;
        // SAFETY: as above.
        faults("MWAIT", 6, 0, || unsafe { asm!("mwait", in("eax") 0, in("ecx") 0) })?;
    }
    if cpu::is_intel() {
        // SAFETY: as above.
        faults("VMXOFF", 6, 0, || unsafe { asm!("vmxoff") })?;
        // SAFETY: as above.
        return faults("VMXON", 6, 0, || unsafe { asm!("vmxon [{}]", in(reg) playground::SCRATCH) });
    }
    // SAFETY: as above.
    faults("VMRUN", 6, 0, || unsafe { asm!("vmrun rax", in("rax") playground::SCRATCH) })?;
    // SAFETY: as above.
    faults("VMLOAD", 6, 0, || unsafe { asm!("vmload rax", in("rax") playground::SCRATCH) })?;
    // SAFETY: as above.
    faults("CLGI", 6, 0, || unsafe { asm!("clgi") })
}

pub fn system_calls_enter_and_leave() -> Check {
    // The entry goes back at once; the program's second instruction is reached only so.
    const ENTRY: [u8; 3] = [0x48, 0x0f, 0x07];
    let entry = playground::BASE + 0x1000;
    playground::map(entry, playground::SCRATCH + 0x1000, PRESENT | WRITABLE);
    for (address, byte) in (entry..).zip(ENTRY) {
        cpu::poke(address, byte);
    }
    let efer = cpu::read_msr(0xc000_0080);
    cpu::write_msr(0xc000_0080, efer | 1);
    cpu::write_msr(IA32_STAR, 32_u64 << 48 | 8 << 32 | 3 << 48);
    cpu::write_msr(IA32_LSTAR, entry);
    cpu::write_msr(IA32_FMASK, CARRY);
    // syscall; ud2
    let trap = run_user(&[0x0f, 0x05], USER_CODE, CARRY);
    cpu::write_msr(0xc000_0080, efer & !1);
    let result = (|| {
        let Some(trap) = trap else { return equal("SYSCALL", u64::MAX, 6) };
        equal("vector after SYSRET", trap.frame.vector, 6)?;
        equal("address after SYSRET", trap.frame.rip, playground::USER_CODE + 2)?;
        equal("RCX after SYSCALL", trap.frame.rcx, playground::USER_CODE + 2)?;
        equal("flags in R11", trap.frame.r11 & 0xfff, CARRY | 2)?;
        equal("code segment after SYSRET", trap.frame.cs, USER_CODE.into())?;
        equal("flags after SYSRET", trap.frame.rflags & CARRY, CARRY)
    })();
    result?;
    let trap = run_user(&[0x0f, 0x05], USER_CODE, 0);
    equal("SYSCALL that is off", trap.map_or(u64::MAX, |trap| trap.frame.vector), 6)?;
    set_hook(Some(skip_undefined));
    // SAFETY: the hook skips it.
    unsafe { asm!("ud2") };
    set_hook(None);
    ensure("a handler that goes on", true)
}

fn skip_undefined(frame: &mut Frame) -> bool {
    let is_undefined = frame.vector == 6;
    if is_undefined {
        frame.rip += 2;
    }
    is_undefined
}
