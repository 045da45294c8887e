//! What guests do, and how it comes back.

use dragonfly_abi::arch::guest::{ExitCounter, General, Segment};
use dragonfly_abi::guest::{DoorbellKind, ExitReason, MemoryAccess, MsrPolicy, PortAccess, RunFlags, Virtualisation};
use dragonfly_abi::{Rights, Status};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{CpuidEntry, Doorbell, Notification, RawExit, System};

use super::{CODE, Guest, code, expect, expect_output};
use crate::check::{Outcome, equal, refused, that};
use crate::tests::Context;

pub fn entry_failure(_: &Context) -> Outcome {
    let guest = Guest::new_64_bit(code::forever(), &[])?;
    let good = guest.vcpu.state().read();
    // Long mode without physical-address extension (SDM 3C, "Checks on Guest Control Registers"; APM 2, 15.5.1).
    guest.change(|state| state.cr4 = 0);
    let exit = expect(guest.start()?, ExitReason::EntryFailed)?;
    that(exit.details[0] != 0, "there is no reason")?;
    expect(guest.start()?, ExitReason::EntryFailed)?;
    guest.vcpu.state().write(&good);
    guest.memory.write(CODE, &[0xe6, 0x80])?;
    expect_output(guest.start()?, 0x80)?;
    Ok(())
}

pub fn ports(_: &Context) -> Outcome {
    let guest = Guest::new(code::ports())?;
    let mut exit = guest.start()?;
    for (port, width, value) in [(0x80, 1, 0x41), (0x80, 2, 0x4243), (0x1234, 4, 0x4445_4647_u64)] {
        equal("the value", expect_output(exit, port)?, value)?;
        equal("the width", PortAccess(exit.details[0]).width(), width)?;
        that(exit.length > 0, "the instruction has no length")?;
        exit = guest.go_on()?;
    }
    for (width, value) in [(1, 0xff), (2, 0xffff), (4, 0x1234_5678)] {
        let access = PortAccess(expect(exit, ExitReason::Port)?.details[0]);
        equal("the access", (access.port(), access.width(), access.is_in()), (0x1234, width, true))?;
        guest.set_general(General::Rax, value);
        if width == 4 {
            break;
        }
        exit = guest.go_on()?;
    }
    // Only HLT is left behind it.
    guest.vcpu.kick()?;
    expect(guest.go_on()?, ExitReason::Kicked)?;
    Ok(())
}

pub fn strings(_: &Context) -> Outcome {
    let guest = Guest::new(code::strings())?;
    let exit = expect(guest.start()?, ExitReason::Port)?;
    let access = PortAccess(exit.details[0]);
    that(access.is_string() && access.is_repeated() && !access.is_in(), format_args!("{access:x?} for REP OUTSB"))?;
    equal("port and width", (access.port(), access.width()), (0x99, 1))?;
    equal("the instruction pointer", guest.vcpu.state().rip(), CODE + 9)?;
    equal("CX", guest.general(General::Rcx) & 0xffff, 5)?;
    let access = PortAccess(expect(guest.go_on()?, ExitReason::Port)?.details[0]);
    that(access.is_string() && !access.is_repeated() && access.is_in(), format_args!("{access:x?} for INSW"))?;
    equal("width", access.width(), 2)
}

pub fn cpuid(_: &Context) -> Outcome {
    let guest = Guest::new(code::cpuid())?;
    let [leaf, sub_leaf] = [0x17, 0x4000_0000_u32];
    guest.vcpu.set_cpuid(&CpuidEntry { leaf, sub_leaf: None, eax: 1, ebx: 2, ecx: 3, edx: 4 })?;
    let entry = CpuidEntry { leaf: sub_leaf, sub_leaf: Some(7), eax: 0xffff_ffff, ebx: 0x1_0001, ecx: 0, edx: 9 };
    guest.vcpu.set_cpuid(&entry)?;
    let ask = |leaf: u32, sub_leaf: u32, exit: fn(&Guest) -> Outcome<RawExit>| -> Outcome<[u64; 4]> {
        guest.set_general(General::Rax, leaf.into());
        guest.set_general(General::Rcx, sub_leaf.into());
        expect_output(exit(&guest)?, 0x80)?;
        Ok([General::Rax, General::Rbx, General::Rcx, General::Rdx].map(|register| guest.general(register)))
    };
    equal("a leaf", ask(leaf, 99, Guest::start)?, [1, 2, 3, 4])?;
    equal("a sub-leaf", ask(sub_leaf, 7, Guest::go_on)?, [0xffff_ffff, 0x1_0001, 0, 9])?;
    guest.set_general(General::Rax, sub_leaf.into());
    guest.set_general(General::Rcx, 8);
    let exit = expect(guest.go_on()?, ExitReason::Cpuid)?;
    equal("what is asked for", exit.details[..2].to_vec(), [u64::from(sub_leaf), 8].to_vec())?;
    guest.set_general(General::Rax, 0x77);
    equal("what the VMM says", expect_output(guest.go_on()?, 0x80)?, 0x77)?;
    let counters = guest.vcpu.state().read().exits;
    equal("exits due to CPUID", counters[ExitCounter::Cpuid as usize], 3)
}

pub fn msrs(_: &Context) -> Outcome {
    const ARCH_CAPABILITIES: u32 = 0x10a;
    let guest = Guest::new(code::msr())?;
    guest.vcpu.set_msr(0x1a0, 0x1_0000_0002, MsrPolicy::READ | MsrPolicy::WRITE)?;
    guest.vcpu.set_msr(0x8b, 5, MsrPolicy::READ | MsrPolicy::IGNORE_WRITES)?;
    let select = |register: u64| guest.set_general(General::Rcx, register);
    select(0x1a0);
    expect_output(guest.start()?, 0x80)?;
    equal("a value", (guest.general(General::Rdx), guest.general(General::Rax)), (1, 2))?;
    guest.set_general(General::Rax, 3);
    expect_output(guest.go_on()?, 0x81)?;
    guest.set_general(General::Rax, 0);
    expect_output(guest.go_on()?, 0x80)?;
    equal("the value that was written", guest.general(General::Rax), 3)?;
    select(0x8b);
    expect_output(guest.go_on()?, 0x81)?;
    expect_output(guest.go_on()?, 0x80)?;
    equal("a value that cannot be written", guest.general(General::Rax), 5)?;
    select(0x1a1);
    guest.set_general(General::Rdx, 7);
    equal("a write for the VMM", expect(guest.go_on()?, ExitReason::MsrWrite)?.details, [0x1a1, 0x7_0000_0005, 0])?;
    expect_output(guest.go_on()?, 0x81)?;
    equal("a read for the VMM", expect(guest.go_on()?, ExitReason::MsrRead)?.details[0], 0x1a1)?;
    guest.set_general(General::Rax, 0x33);
    equal("what the VMM says", expect_output(guest.go_on()?, 0x80)?, 0x33)?;
    // What a processor is immune to: nothing that it does not say itself, and the VMM says whether that is told at all.
    select(ARCH_CAPABILITIES.into());
    guest.vcpu.set_msr(ARCH_CAPABILITIES, 1 << 63, MsrPolicy::READ | MsrPolicy::IGNORE_WRITES)?;
    expect_output(guest.go_on()?, 0x81)?;
    expect_output(guest.go_on()?, 0x80)?;
    equal("a bit that no processor has", guest.general(General::Rdx), 0)?;
    guest.vcpu.set_msr(ARCH_CAPABILITIES, 0, MsrPolicy::IGNORE_WRITES)?;
    expect_output(guest.go_on()?, 0x81)?;
    equal("a read for the VMM", expect(guest.go_on()?, ExitReason::MsrRead)?.details[0], ARCH_CAPABILITIES.into())
}

pub fn memory(_: &Context) -> Outcome {
    let guest = Guest::new(code::memory())?;
    let mut exit = guest.start()?;
    for (access, rip, length) in [(Rights::READ, CODE + 3, 2), (Rights::WRITE, CODE + 5, 2)] {
        let [address, found, _] = expect(exit, ExitReason::Memory)?.details;
        equal("address and access", (address, found), (0xf010, MemoryAccess::new(access, 0, false, true).0))?;
        equal("the instruction pointer", guest.vcpu.state().rip(), rip)?;
        exit = guest.vcpu.run(RunFlags::skip(length))?;
    }
    let [address, found, _] = expect(exit, ExitReason::Memory)?.details;
    equal("a fetch", (address & !0xf, found), (0xf010, MemoryAccess::new(Rights::EXECUTE, 0, false, true).0))
}

/// The hypercall that this machine's processor has.
fn hypercall() -> Outcome<(&'static [u8], u64)> {
    Ok(match System::OWN.virtualisation()? {
        Virtualisation::Svm => (code::vmmcall(), 1),
        _ => (code::vmcall(), 0),
    })
}

pub fn hypercalls(_: &Context) -> Outcome {
    let guest = Guest::new(hypercall()?.0)?;
    guest.set_general(General::Rax, 0x1234);
    guest.set_general(General::Rbx, 0x55);
    let exit = expect(guest.start()?, ExitReason::Hypercall)?;
    equal("length", exit.length, 3)?;
    equal("argument", guest.general(General::Rbx), 0x55)?;
    // The next time around it is one that KVM could have, and the one after that has KVM's answer for a number.
    guest.set_general(General::Rax, 5);
    expect(guest.go_on()?, ExitReason::Hypercall)?;
    equal("KVM's answer", guest.general(General::Rax), 1000_u64.wrapping_neg())
}

pub fn task_switch(_: &Context) -> Outcome {
    let guest = Guest::new(code::task_switch())?;
    guest.make_tables()?;
    // A descriptor of the other task's state, then that: EIP and EFLAGS, ES and CS, SS and DS; no LDT (SDM 3A, "Task-State
    // Segment (TSS)").
    const SELECTOR: u16 = 0x28;
    for (address, word) in [
        (0x3000 + u64::from(SELECTOR), 0x0000_8900_3200_0067_u64),
        (0x3220, 2 << 32 | (CODE + 16)),
        (0x3248, 8 << 32 | 24),
        (0x3250, 24 << 32 | 24),
    ] {
        guest.memory.write(address, &word.to_le_bytes())?;
    }
    guest.change(|state| {
        let data = Segment { selector: 24, attributes: 0xc093, limit: 0xffff_ffff, reserved: 0, base: 0 };
        (state.ds, state.es, state.ss) = (data, data, data);
        state.cs = Segment { selector: 8, attributes: 0xc09b, ..data };
        (state.gdtr.base, state.gdtr.limit) = (0x3000, u64::from(SELECTOR) + 7);
        state.cr0 = 0x31;
    });
    let exit = guest.start()?;
    match System::OWN.virtualisation()? {
        // The kernel lets the processor do it.
        Virtualisation::Svm => expect_output(exit, 0x80).map(drop),
        // VT-x leaves all of them to software (SDM 3C, "Task Switches").
        _ => {
            let exit = expect(exit, ExitReason::TaskSwitch)?;
            equal("selector and length", (exit.details[0], exit.length), (SELECTOR.into(), 7))
        }
    }
}

pub fn shutdown(_: &Context) -> Outcome {
    let guest = Guest::new(code::invalid())?;
    guest.change(|state| state.idtr.limit = 0);
    expect(guest.start()?, ExitReason::Shutdown)?;
    Ok(())
}

pub fn doorbells(_: &Context) -> Outcome {
    let guest = Guest::new(code::ports())?;
    let notification = Notification::create()?;
    let doorbell = Doorbell { kind: DoorbellKind::Port, address: 0x80 };
    guest.vm.set_doorbell(doorbell, *notification, 4)?;
    equal("what is behind the doorbells", expect_output(guest.start()?, 0x1234)?, 0x4445_4647)?;
    equal("bits", notification.wait_timed(0)?, 4)?;
    guest.vm.clear_doorbell(doorbell)?;
    guest.change(|state| state.rip = CODE);
    expect_output(guest.vcpu.run(RunFlags::POINTER)?, 0x80)?;
    refused("a poll", notification.wait_timed(0), Status::WouldBlock)
}

pub fn modes(_: &Context) -> Outcome {
    let guest = Guest::new(code::modes())?;
    guest.make_tables()?;
    equal("CR0 in protected mode", expect_output(guest.start()?, 0x80)? & 0x21, 0x21)?;
    expect_output(guest.go_on()?, 0x81)?;
    equal("64 bits", expect_output(guest.go_on()?, 0x82)?, 0x1234_5678)?;
    equal("CR0", expect_output(guest.go_on()?, 0x83)? & 0x8000_0021, 0x8000_0021)?;
    equal("EFER", expect_output(guest.go_on()?, 0x84)?, 0x500)?;
    equal("CR4", expect_output(guest.go_on()?, 0x85)?, 0x20)?;
    let state = guest.registers()?;
    equal("EFER", state.efer, 0x500)?;
    equal("CS", (state.cs.selector, state.cs.attributes & 0x2000), (16, 0x2000))
}

pub fn system_calls(_: &Context) -> Outcome {
    let guest = Guest::new_64_bit(code::system_call(), &[])?;
    guest.change(|state| state.gs.base = 0x7777_0000);
    expect_output(guest.start()?, 0x80)?;
    let state = guest.registers()?;
    equal("LSTAR", state.lstar, CODE + 256)?;
    equal("KERNEL_GS_BASE", state.kernel_gs_base, 0x7abc_1234_5678)?;
    equal("LSTAR where SYSCALL goes", expect_output(guest.go_on()?, 0x81)?, CODE + 256)?;
    equal("GS behind SWAPGS, low", guest.general(General::Rsi), 0x1234_5678)?;
    equal("GS behind SWAPGS, high", guest.general(General::Rdi), 0x7abc)?;
    equal("KERNEL_GS_BASE behind two", expect_output(guest.go_on()?, 0x82)?, 0x1234_5678)?;
    guest.change(|state| (state.kernel_gs_base, state.rip) = (0x4321, CODE + 256));
    expect_output(guest.vcpu.run(RunFlags::GROUPS)?, 0x81)?;
    equal("what the VMM wrote", guest.general(General::Rsi), 0x4321)
}

pub fn single_step(_: &Context) -> Outcome {
    let guest = Guest::new_64_bit(code::single_step(), &[(1, 256)])?;
    equal("DR6", expect_output(guest.start()?, 0x80)?, 0xffff_4ff0)?;
    equal("DR6 as the VMM sees it", guest.registers()?.dr6, 0xffff_4ff0)
}

pub fn vector_registers(_: &Context) -> Outcome {
    let guests = [Guest::new_64_bit(code::vector(), &[])?, Guest::new_64_bit(code::vector(), &[])?];
    for (guest, first) in guests.iter().zip([1000, 2000]) {
        guest.set_general(General::Rbx, first);
        expect_output(guest.start()?, 0x80)?;
    }
    for round in 1..20 {
        for (guest, first) in guests.iter().zip([1000, 2000]) {
            expect_output(guest.go_on()?, 0x80)?;
            equal("the count", guest.general(General::Rax), first + round)?;
        }
    }
    Ok(())
}

pub fn measure(context: &Context) -> Outcome {
    let (_, kind) = hypercall()?;
    // About a sixth and a tenth of what KVM takes on VT-x; on SVM a tenth and a fifth. The stage `bench-exits-qemu` holds
    // them exactly. Where several CPUs run, their instructions count, too.
    let goals = if kind == 0 { [1122 / 6, 1184 / 6, 7539 / 10] } else { [2754 / 10, 2992 / 10, 3300 / 5] };
    let goals = goals.map(|goal| if cpus() == 1 { goal } else { 2 * goal });
    for (what, code, goal) in [
        ("CPUID", code::measure_cpuid(), goals[0]),
        ("hypercall", code::measure_hypercall(), goals[1]),
        ("port write", code::measure_port(), goals[2]),
    ] {
        let guest = Guest::new_64_bit(code, &[])?;
        let entry = CpuidEntry { leaf: 0, sub_leaf: None, ..CpuidEntry::default() };
        guest.vcpu.set_cpuid(&entry)?;
        guest.set_general(General::Rbx, kind);
        let mut exit = guest.start()?;
        while exit.reason == ExitReason::Port as u32 && PortAccess(exit.details[0]).port() == 0x81 {
            exit = guest.go_on()?;
        }
        let ticks = expect_output(exit, 0x80)? / 1000;
        context.note(format_args!("{what}: {ticks} ticks"));
        context.hold(ticks <= goal, format_args!("{what} takes {ticks} ticks, not {goal}"))?;
    }
    Ok(())
}
