//! Virtual machines: what comes back from a guest, and what goes into it. The same on every back end.

use dragonfly_abi::Rights;
use dragonfly_abi::arch::guest::{General, Segment, VcpuState};
use dragonfly_abi::guest::{ExitReason, PortAccess, RunFlags};
use dragonfly_rt::guest::VirtualCpu;
use dragonfly_rt::sys::{Commit, Memory, Owned, RawExit, Vm};
use dragonfly_rt::{Mapping, cpus, thread, time};

use crate::check::{Failure, Outcome};

mod code;
mod dirty;
mod exits;
mod interrupts;
mod threads;

super::tests! {
    "an entry with an absurd state is refused, and the next one with a good state works" => exits::entry_failure,
    "a port access comes to the VMM with its port, width, direction and value" => exits::ports,
    "a string instruction says that it is one" => exits::strings,
    "CPUID is answered from the table, and by the VMM where it has nothing" => exits::cpuid,
    "an MSR is read and written as its policy says" => exits::msrs,
    "an access to memory that is not there says where and how" => exits::memory,
    "a hypercall comes to the VMM, and KVM's get its answers" => exits::hypercalls,
    "a task switch is the hardware's, or comes to the VMM with its name" => exits::task_switch,
    "a triple fault shuts the guest down" => exits::shutdown,
    "an exception that the VMM injects is delivered" => interrupts::injection,
    "a kick brings the guest's thread back from the guest" => threads::kick_running,
    "a kick brings the guest's thread back from a halt" => threads::kick_halted,
    "a kick before the run ends the run" => threads::kick_early,
    "a CPU is reached at any moment of a guest" on 2 => threads::reached_at_any_moment,
    "a write to a doorbell's port signals and the guest goes on" => exits::doorbells,
    "a message interrupts the guest" => interrupts::interrupts,
    "a message ends a halt" => interrupts::interrupt_ends_halt,
    "an interrupt waits until the guest lets it come" => interrupts::interrupt_window,
    "an interrupt waits while the task priority is higher" => interrupts::task_priority,
    "a notification's route interrupts the guest" => interrupts::routes,
    "the end of a level-triggered interrupt comes to the VMM" => interrupts::level_eoi,
    "a guest ends interrupts in its memory, where nobody waits for their end" => interrupts::ends_in_memory,
    "an NMI interrupts the guest" => interrupts::nmi,
    "a guest goes from real mode to 64-bit mode" => exits::modes,
    "system-call registers are the guest's own" => exits::system_calls,
    "a single step is a debug exception with its cause" => exits::single_step,
    "a guest goes on where it was on another CPU" on 2 => threads::moving,
    "a guest goes on where it was when its thread moves" on 2 => threads::moving_with_its_thread,
    "vector registers of two guests on one CPU are apart" => exits::vector_registers,
    "a vCPU is run by one thread at a time" => threads::busy,
    "a guest is told of the time in which others had its CPU" => threads::stolen_time,
    "a vCPU that goes while it runs ends the run" => threads::closing,
    "pages that a guest writes are told once, to 4 KiB" => dirty::patterns,
    "no write is lost while several vCPUs write and pages are taken" on 2 => dirty::several,
    "a log of written pages is started, read and ended in this order" => dirty::refusals,
    "exits that the kernel handles cost few instructions" => exits::measure,
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
    object: Owned<Memory>,
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
        Ok(Self { vcpu, vm, memory, object })
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
