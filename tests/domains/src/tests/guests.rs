//! Virtual machines: what comes back from a guest, and what goes into it. The same on every back end.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use dragonfly_abi::arch::guest::{ExitCounter, General, Segment, VcpuState};
use dragonfly_abi::guest::{DoorbellKind, ExitReason, MsrPolicy, PortAccess, RunFlags, Virtualisation};
use dragonfly_abi::{Rights, Status};
use dragonfly_rt::guest::VirtualCpu;
use dragonfly_rt::sys::{
    Commit, CpuidEntry, Doorbell, Memory, Notification, Object, Owned, RawExit, System, Vcpu, Vm,
};
use dragonfly_rt::{Mapping, cpus, thread, time};

use super::Context;
use crate::check::{Failure, Outcome, equal, refused, that};

mod code;

super::tests! {
    "an entry with an absurd state is refused, and the next one with a good state works" => entry_failure,
    "a port access comes to the VMM with its port, width, direction and value" => ports,
    "a string instruction says that it is one" => strings,
    "CPUID is answered from the table, and by the VMM where it has nothing" => cpuid,
    "an MSR is read and written as its policy says" => msrs,
    "an access to memory that is not there says where and how" => memory,
    "a hypercall comes to the VMM, and KVM's get its answers" => hypercalls,
    "a triple fault shuts the guest down" => shutdown,
    "an exception that the VMM injects is delivered" => injection,
    "a kick brings the guest's thread back from the guest" => kick_running,
    "a kick brings the guest's thread back from a halt" => kick_halted,
    "a kick before the run ends the run" => kick_early,
    "a write to a doorbell's port signals and the guest goes on" => doorbells,
    "a message interrupts the guest" => interrupts,
    "a message ends a halt" => interrupt_ends_halt,
    "an interrupt waits until the guest lets it come" => interrupt_window,
    "an interrupt waits while the task priority is higher" => task_priority,
    "a notification's route interrupts the guest" => routes,
    "the end of a level-triggered interrupt comes to the VMM" => level_eoi,
    "an NMI interrupts the guest" => nmi,
    "a guest goes from real mode to 64-bit mode" => modes,
    "system-call registers are the guest's own" => system_calls,
    "a single step is a debug exception with its cause" => single_step,
    "a guest goes on where it was on another CPU" on 2 => moving,
    "vector registers of two guests on one CPU are apart" => vector_registers,
    "a vCPU is run by one thread at a time" => busy,
    "a vCPU that goes while it runs ends the run" => closing,
    "exits that the kernel handles cost few instructions" => measure,
}

/// Where the code is.
const CODE: u64 = 0x1000;
/// Bytes of guest memory, at address 0. Behind it there is nothing.
const MEMORY: u64 = 0x8000;
/// Priority of threads beside the test's own: the same, so that they get their turn on its CPU.
const PRIORITY: u8 = 55;
/// Base of the messages that devices write to interrupt the CPU with the APIC ID 0 (SDM 3A, "Message Address Register
/// Format").
const MESSAGE: u64 = 0xfee0_0000;
/// Vector of the tests' interrupts.
const VECTOR: u8 = 0x41;

/// A virtual machine with one vCPU and a little memory.
struct Guest {
    vcpu: VirtualCpu,
    vm: Owned<Vm>,
    memory: Mapping,
    _object: Owned<Memory>,
}

impl Guest {
    /// One in real mode that is about to run the code.
    fn new(code: &[u8]) -> Outcome<Self> {
        let object = Memory::create(MEMORY, Commit::Explicit)?;
        object.commit(0, MEMORY)?;
        let memory = Mapping::new(*object, 0, MEMORY, Rights::READ | Rights::WRITE)?;
        memory.write(CODE, code)?;
        let vm = Vm::create()?;
        vm.map(*object, 0, 0, MEMORY, Rights::READ | Rights::WRITE | Rights::EXECUTE)?;
        let vcpu = VirtualCpu::create(*vm, 0)?;
        let mut state = vcpu.state().read();
        (state.cs.selector, state.cs.base, state.rip) = (0, 0, CODE);
        state.general[General::Rsp as usize] = 0x7000;
        vcpu.state().write(&state);
        Ok(Self { vcpu, vm, memory, _object: object })
    }

    /// One in 64-bit mode, with all memory at its physical address and interrupt gates for the vectors given, each with
    /// the handler at an offset from the code.
    fn new_64_bit(code: &[u8], handlers: &[(u8, u64)]) -> Outcome<Self> {
        let guest = Self::new(code)?;
        guest.make_tables()?;
        for (vector, offset) in handlers {
            let (entry, handler) = (0x6000 + u64::from(*vector) * 16, CODE + offset);
            let gate = handler & 0xffff | 0x10 << 16 | 0x8e00 << 32 | (handler >> 16) << 48;
            guest.memory.write(entry, &gate.to_le_bytes())?;
        }
        guest.change(|state| {
            let data = Segment { selector: 24, attributes: 0xc093, limit: 0xffff_ffff, reserved: 0, base: 0 };
            (state.ds, state.es, state.ss, state.fs, state.gs) = (data, data, data, data, data);
            state.cs = Segment { selector: 16, attributes: 0xa09b, ..data };
            (state.gdtr.base, state.gdtr.limit) = (0x3000, 31);
            (state.idtr.base, state.idtr.limit) = (0x6000, 0xfff);
            (state.cr0, state.cr3, state.cr4) = (0x8000_0031, 0x4000, 0x20);
            state.efer = 0x500;
        });
        Ok(guest)
    }

    /// Makes a descriptor table at 0x3000 (8: 32-bit code, 16: 64-bit code, 24: data), what LGDT loads at 0x3100, and
    /// page tables at 0x4000 that map the first 2 MiB.
    fn make_tables(&self) -> Outcome {
        let words = [
            (0x3008, 0x00cf_9b00_0000_ffff_u64),
            (0x3010, 0x00af_9b00_0000_ffff),
            (0x3018, 0x00cf_9300_0000_ffff),
            (0x3100, 0x3000 << 16 | 31),
            (0x4000, 0x5003),
            (0x5000, 0x2003),
            (0x2000, 0x83),
        ];
        for (address, word) in words {
            self.memory.write(address, &word.to_le_bytes())?;
        }
        Ok(())
    }

    /// Changes registers.
    fn change(&self, change: impl FnOnce(&mut VcpuState)) {
        let mut state = self.vcpu.state().read();
        change(&mut state);
        self.vcpu.state().write(&state);
    }

    /// Lets real-mode handlers, at these offsets from the code, serve vectors.
    fn serve(&self, handlers: &[(u8, u64)]) -> Outcome {
        for (vector, offset) in handlers {
            let pointer = (CODE + offset) as u32;
            self.memory.write(u64::from(*vector) * 4, &pointer.to_le_bytes())?;
        }
        Ok(())
    }

    /// Runs it with all registers of the page.
    fn start(&self) -> Outcome<RawExit> {
        Ok(self.vcpu.run(RunFlags::GROUPS)?)
    }

    /// Runs it on, behind the instruction of the last exit.
    fn go_on(&self) -> Outcome<RawExit> {
        Ok(self.vcpu.run(RunFlags::SKIP)?)
    }

    fn general(&self, register: General) -> u64 {
        self.vcpu.state().general(register)
    }

    fn set_general(&self, register: General, value: u64) {
        self.vcpu.state().set_general(register, value);
    }

    /// Runs it until it has switched its APIC on: before that, messages are lost.
    fn start_apic(&self) -> Outcome {
        expect_output(self.start()?, 0x8f)?;
        Ok(())
    }

    /// All registers.
    fn registers(&self) -> Outcome<VcpuState> {
        self.vcpu.sync(RunFlags::GROUPS)?;
        Ok(self.vcpu.state().read())
    }
}

/// Fails unless an exit has this reason.
#[track_caller]
fn expect(exit: RawExit, reason: ExitReason) -> Outcome<RawExit> {
    if exit.reason == reason as u32 {
        return Ok(exit);
    }
    let found = ExitReason::from_raw(exit.reason);
    Err(Failure::new(format_args!("exit {found:?} with {:x?} in place of {reason:?}", exit.details)))
}

/// Fails unless an exit is an output to this port; gives the value.
#[track_caller]
fn expect_output(exit: RawExit, port: u16) -> Outcome<u64> {
    let [access, value, _] = expect(exit, ExitReason::Port)?.details;
    let access = PortAccess(access);
    if access.port() != port || access.is_in() {
        return Err(Failure::new(format_args!("{access:x?} in place of an output to {port:#x}")));
    }
    Ok(value)
}

fn entry_failure(_: &Context) -> Outcome {
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

fn ports(_: &Context) -> Outcome {
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

fn strings(_: &Context) -> Outcome {
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

fn cpuid(_: &Context) -> Outcome {
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

fn msrs(_: &Context) -> Outcome {
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
    equal("what the VMM says", expect_output(guest.go_on()?, 0x80)?, 0x33)
}

fn memory(_: &Context) -> Outcome {
    let guest = Guest::new(code::memory())?;
    let mut exit = guest.start()?;
    for (access, rip, length) in [(Rights::READ, CODE + 3, 2), (Rights::WRITE, CODE + 5, 2)] {
        let [address, found, _] = expect(exit, ExitReason::Memory)?.details;
        equal("address and access", (address, found), (0xf010, u64::from(access.bits())))?;
        equal("the instruction pointer", guest.vcpu.state().rip(), rip)?;
        guest.vcpu.state().set_rip(rip + length);
        exit = guest.vcpu.run(RunFlags::POINTER)?;
    }
    let [address, found, _] = expect(exit, ExitReason::Memory)?.details;
    equal("a fetch", (address & !0xf, found), (0xf010, u64::from(Rights::EXECUTE.bits())))
}

/// The hypercall that this machine's processor has.
fn hypercall() -> Outcome<(&'static [u8], u64)> {
    Ok(match System::OWN.virtualisation()? {
        Virtualisation::Svm => (code::vmmcall(), 1),
        _ => (code::vmcall(), 0),
    })
}

fn hypercalls(_: &Context) -> Outcome {
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

fn shutdown(_: &Context) -> Outcome {
    let guest = Guest::new(code::invalid())?;
    guest.change(|state| state.idtr.limit = 0);
    expect(guest.start()?, ExitReason::Shutdown)?;
    Ok(())
}

fn injection(_: &Context) -> Outcome {
    let guest = Guest::new(code::interrupts())?;
    guest.serve(&[(6, 512)])?;
    guest.change(|state| state.inject = 0x8000_0306);
    expect_output(guest.start()?, 0x82)?;
    equal("where it was", guest.registers()?.inject, 0)
}

/// Does something from another thread as soon as the own one has begun to wait in the guest.
fn meanwhile<R>(work: impl FnOnce() -> R + Send + 'static) -> Outcome<thread::JoinHandle<R>>
where
    R: Send + 'static,
{
    Ok(thread::Builder::new(cpus() - 1, PRIORITY).spawn(move || {
        time::sleep(core::time::Duration::from_millis(5));
        work()
    })?)
}

fn kick_running(_: &Context) -> Outcome {
    let guest = Guest::new(code::forever())?;
    // With the guest's interrupts off and on.
    for flags in [2, 0x202] {
        guest.change(|state| state.rflags = flags);
        let vcpu: Vcpu = *guest.vcpu;
        let other = meanwhile(move || vcpu.kick())?;
        expect(guest.start()?, ExitReason::Kicked)?;
        other.join()??;
    }
    guest.memory.write(CODE, &[0xe6, 0x80])?;
    expect_output(guest.vcpu.run(RunFlags::empty())?, 0x80)?;
    Ok(())
}

fn kick_halted(_: &Context) -> Outcome {
    let guest = Guest::new(code::halts())?;
    for flags in [2, 0x202] {
        guest.change(|state| state.rflags = flags);
        let vcpu: Vcpu = *guest.vcpu;
        let other = meanwhile(move || vcpu.kick())?;
        expect(guest.start()?, ExitReason::Kicked)?;
        other.join()??;
    }
    Ok(())
}

fn kick_early(_: &Context) -> Outcome {
    let guest = Guest::new(code::forever())?;
    guest.vcpu.kick()?;
    expect(guest.start()?, ExitReason::Kicked)?;
    equal("the instruction pointer", guest.vcpu.state().rip(), CODE)
}

fn doorbells(_: &Context) -> Outcome {
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

fn interrupts(_: &Context) -> Outcome {
    let guest = Guest::new(code::interrupts())?;
    guest.serve(&[(VECTOR, 256)])?;
    guest.start_apic()?;
    guest.vm.interrupt(MESSAGE, VECTOR.into())?;
    equal("the handler", expect_output(guest.go_on()?, 0x80)?, 0x55)?;
    expect_output(guest.go_on()?, 0x81)?;
    for _ in 0..10 {
        guest.vm.interrupt(MESSAGE, VECTOR.into())?;
        expect_output(guest.go_on()?, 0x80)?;
        expect_output(guest.go_on()?, 0x81)?;
    }
    equal("interrupts", guest.vcpu.state().read().exits[ExitCounter::Injected as usize], 11)
}

fn interrupt_ends_halt(context: &Context) -> Outcome {
    let guest = Guest::new(code::interrupts())?;
    guest.serve(&[(VECTOR, 256)])?;
    let vm: Vm = *guest.vm;
    guest.start_apic()?;
    for _ in 0..context.repeat(3, 10, 1000) {
        let other = meanwhile(move || vm.interrupt(MESSAGE, VECTOR.into()))?;
        expect_output(guest.go_on()?, 0x80)?;
        expect_output(guest.go_on()?, 0x81)?;
        other.join()??;
    }
    Ok(())
}

fn interrupt_window(_: &Context) -> Outcome {
    let mut bytes = code::window().to_vec();
    bytes.resize(256, 0x90);
    bytes.extend_from_slice(&code::interrupts()[256..]);
    let guest = Guest::new(&bytes)?;
    guest.serve(&[(VECTOR, 256)])?;
    guest.start_apic()?;
    guest.vm.interrupt(MESSAGE, VECTOR.into())?;
    expect_output(guest.go_on()?, 0x90)?;
    expect_output(guest.go_on()?, 0x80)?;
    // The instruction behind STI was done first (SDM 2B, "STI").
    let stack = guest.general(General::Rsp) & 0xffff;
    let mut pushed = [0; 2];
    guest.memory.read(stack + 12, &mut pushed)?;
    equal("where it was interrupted", u64::from(u16::from_le_bytes(pushed)), CODE + 28)?;
    expect_output(guest.go_on()?, 0x81)?;
    expect_output(guest.go_on()?, 0x91)?;
    Ok(())
}

fn task_priority(_: &Context) -> Outcome {
    // QEMU 10's TCG ends itself when a guest on SVM lowers CR8 while an interrupt waits (docs/CAVEATS.md).
    let ways: &[u64] = if System::OWN.virtualisation()? == Virtualisation::Svm { &[1] } else { &[0, 1] };
    for way in ways {
        let guest = Guest::new_64_bit(code::task_priority(), &[(VECTOR, 256)])?;
        guest.set_general(General::Rbx, *way);
        guest.start_apic()?;
        expect_output(guest.go_on()?, 0x90)?;
        equal("CR8", guest.registers()?.cr8, 5)?;
        guest.vm.interrupt(MESSAGE, VECTOR.into())?;
        expect_output(guest.go_on()?, 0x91)?;
        expect_output(guest.go_on()?, 0x80)?;
        expect_output(guest.go_on()?, 0x92)?;
        equal("CR8", guest.registers()?.cr8, 0)?;
    }
    Ok(())
}

fn routes(_: &Context) -> Outcome {
    let guest = Guest::new(code::interrupts())?;
    guest.serve(&[(VECTOR, 256)])?;
    let notification = Notification::create()?;
    notification.route(*guest.vm, MESSAGE, VECTOR.into())?;
    guest.start_apic()?;
    notification.signal(1)?;
    expect_output(guest.go_on()?, 0x80)?;
    let vcpu: Vcpu = *guest.vcpu;
    expect_output(guest.go_on()?, 0x81)?;
    notification.end_route()?;
    notification.signal(2)?;
    let other = meanwhile(move || vcpu.kick())?;
    expect(guest.go_on()?, ExitReason::Kicked)?;
    other.join()??;
    equal("bits", notification.wait_timed(0)?, 2)
}

fn level_eoi(_: &Context) -> Outcome {
    let guest = Guest::new(code::interrupts())?;
    guest.serve(&[(VECTOR, 256)])?;
    guest.start_apic()?;
    guest.vm.interrupt(MESSAGE, 0xc000 | u32::from(VECTOR))?;
    expect_output(guest.go_on()?, 0x80)?;
    equal("the vector", expect(guest.go_on()?, ExitReason::ApicEoi)?.details[0], VECTOR.into())?;
    expect_output(guest.vcpu.run(RunFlags::empty())?, 0x81)?;
    Ok(())
}

fn nmi(_: &Context) -> Outcome {
    let guest = Guest::new(code::interrupts())?;
    guest.serve(&[(VECTOR, 256), (2, 512)])?;
    guest.start_apic()?;
    guest.vm.interrupt(MESSAGE, 0x400)?;
    expect_output(guest.go_on()?, 0x82)?;
    that(guest.registers()?.interruptibility & 8 != 0, "NMIs are not blocked in an NMI's handler")?;
    // The second one waits for the first one's IRET.
    guest.vm.interrupt(MESSAGE, 0x400)?;
    expect_output(guest.go_on()?, 0x82)?;
    guest.vm.interrupt(MESSAGE, VECTOR.into())?;
    expect_output(guest.go_on()?, 0x80)?;
    Ok(())
}

fn modes(_: &Context) -> Outcome {
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

fn system_calls(_: &Context) -> Outcome {
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

fn single_step(_: &Context) -> Outcome {
    let guest = Guest::new_64_bit(code::single_step(), &[(1, 256)])?;
    equal("DR6", expect_output(guest.start()?, 0x80)?, 0xffff_4ff0)?;
    equal("DR6 as the VMM sees it", guest.registers()?.dr6, 0xffff_4ff0)
}

fn moving(context: &Context) -> Outcome {
    let guest = Arc::new(Guest::new_64_bit(code::vector(), &[])?);
    guest.set_general(General::Rbx, 100);
    expect_output(guest.start()?, 0x80)?;
    let mut wanted = 100;
    for round in 0..context.repeat(10, 100, 10_000) {
        let (guest, cpu) = (guest.clone(), (round % u64::from(cpus())) as u32);
        let other = thread::Builder::new(cpu, PRIORITY).spawn(move || guest.go_on().map(|_| guest.general(General::Rax)))?;
        wanted += 1;
        equal("the count", other.join()??, wanted)?;
    }
    Ok(())
}

fn vector_registers(_: &Context) -> Outcome {
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

fn busy(_: &Context) -> Outcome {
    let guest = Guest::new(code::forever())?;
    let vcpu: Vcpu = *guest.vcpu;
    let was_busy = Arc::new(AtomicBool::new(false));
    let seen = was_busy.clone();
    let other = meanwhile(move || {
        let refusals = [
            vcpu.run(RunFlags::empty()).map(drop),
            vcpu.sync(RunFlags::POINTER),
            vcpu.set_msr(1, 0, MsrPolicy::READ),
            vcpu.read_apic(0x20).map(drop),
        ];
        seen.store(refusals.iter().all(|result| *result == Err(Status::Busy)), Ordering::Relaxed);
        vcpu.kick()
    })?;
    expect(guest.start()?, ExitReason::Kicked)?;
    other.join()??;
    that(was_busy.load(Ordering::Relaxed), "a call of another thread was not refused")?;
    refused("unknown flags", guest.vcpu.run(RunFlags::from_bits_retain(1 << 40)), Status::BadArgument)?;
    refused("groups that are none", guest.vcpu.sync(RunFlags::SKIP), Status::BadArgument)
}

fn closing(_: &Context) -> Outcome {
    let guest = Guest::new(code::forever())?;
    let vcpu: Vcpu = *guest.vcpu;
    let other = meanwhile(move || vcpu.close())?;
    let ended = guest.vcpu.run(RunFlags::GROUPS);
    other.join()??;
    refused("a run of a guest that goes", ended, Status::Aborted)
}

fn measure(context: &Context) -> Outcome {
    let (_, kind) = hypercall()?;
    // A sixth and a tenth of what KVM takes on VT-x; on SVM a tenth and a fifth (docs/SPEC.md). Where several CPUs run,
    // their instructions count, too.
    let goals = if kind == 0 { [1122 / 6, 1184 / 6, 7539 / 10] } else { [2754 / 10, 2992 / 10, 3073 / 5] };
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
