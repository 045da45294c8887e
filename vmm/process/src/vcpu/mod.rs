//! A vCPU's thread: enters the guest, does what an exit asks for, enters the guest again.

mod bus;
mod event;
pub(crate) mod exit;
pub(crate) mod msr;
pub(crate) mod registers;

use alloc::sync::Arc;

use dragonfly_abi::Rights;
use dragonfly_abi::arch::guest::{General, VcpuState};
use dragonfly_abi::guest::{END_SIZE, ExitReason, MemoryAccess, PortAccess, RECORD_SIZE, RunFlags};
use dragonfly_emulate::{self as emulate, Access, Cause, Emulator, GuestPhys, Outcome, Stop, Translated};
use dragonfly_rt::guest::VirtualCpu;
use dragonfly_rt::sys::{Memory, RawExit, move_thread};
use log::{error, info, warn};

use crate::crash::Report;
use crate::end::End;
use crate::exits::Exits;
use crate::shared::Shared;
use bus::{BesideRam, Bus};
use event::Exception;
use exit::{Exit, Fatal};
use msr::{KvmMsr, Mtrrs};
use registers::{ALLOW_USER_PAGES, InPlace};

/// Where KVM's system time is told to be: the structure's address, and whether it is used.
const CLOCK_ENABLED: u64 = 1;
/// Bits of KVM's register of stolen time below the address, which is a multiple of 64: that it is used, and others.
const RECORDS_USED: u64 = 1;
const STEAL_TIME_RESERVED: u64 = 0x3e;
/// The same of that of ends of interrupts, whose address is a multiple of 4.
const ENDS_RESERVED: u64 = 2;

/// A vCPU and what its thread needs.
pub(crate) struct VcpuThread {
    shared: Arc<Shared>,
    number: u32,
    cpu: VirtualCpu,
    /// The registers after INIT.
    reset: VcpuState,
    /// Whether it waits for a start-up message.
    is_waiting: bool,
    mtrrs: Mtrrs,
    emulator: Emulator,
    /// What KVM's registers were last set to.
    wall_clock: u64,
    system_time: u64,
    steal_time: u64,
    ends: u64,
}

impl VcpuThread {
    /// A vCPU that starts with these registers, or with none waits for another one to start it.
    pub(crate) fn new(
        shared: Arc<Shared>,
        number: u32,
        cpu: VirtualCpu,
        reset: VcpuState,
        start: Option<&VcpuState>,
    ) -> Self {
        cpu.state().write(start.unwrap_or(&reset));
        let mtrrs = Mtrrs::new(shared.physical_bits);
        let (is_waiting, emulator) = (start.is_none(), Emulator::new());
        Self {
            shared,
            number,
            cpu,
            reset,
            is_waiting,
            mtrrs,
            emulator,
            wall_clock: 0,
            system_time: 0,
            steal_time: 0,
            ends: 0,
        }
    }

    /// Runs the guest until it comes to its end, then tells how often it was left.
    pub(crate) fn run(mut self) {
        self.run_to_the_end();
        let VcpuState { exits, .. } = self.cpu.state().read();
        info!("vCPU {} exits: {}", self.number, Exits(&exits));
    }

    fn run_to_the_end(&mut self) {
        let mut flags = RunFlags::GROUPS | self.waiting();
        loop {
            flags = match self.cpu.run(flags) {
                Ok(exit) if self.is_write_to_nothing(&exit) => RunFlags::SKIP,
                Ok(exit) => match self.handle(exit) {
                    Ok(next) => next,
                    Err(fatal) => return self.end(fatal),
                },
                Err(status) => return self.end(Fatal::Run(status)),
            };
            if self.shared.is_stopping() {
                return;
            }
        }
    }

    /// The guest cannot go on, unless that came of the machine's end, which takes precedence.
    #[cold]
    fn end(&self, fatal: Fatal) {
        if !self.shared.is_stopping() {
            self.crash(fatal);
        }
    }

    /// Does what an exit asks for; gives what is to be done before the guest goes on.
    #[inline]
    fn handle(&mut self, exit: RawExit) -> Result<RunFlags, Fatal> {
        let length = exit.length;
        match Exit::from(exit) {
            Exit::Port(access, value) if !access.is_string() => {
                self.port(access, value);
                self.skip(length)
            }
            Exit::Port(access, _) => self.emulate(Cause::Port { port: access.port(), bytes: access.width() }),
            Exit::Memory(address, access) => self.memory(address, access),
            Exit::Kicked => {
                self.follow();
                Ok(self.waiting())
            }
            Exit::Cpuid => {
                for register in [General::Rax, General::Rbx, General::Rcx, General::Rdx] {
                    self.cpu.state().set_general(register, 0);
                }
                self.skip(length)
            }
            Exit::MsrRead(register) => self.read_msr(register, length),
            Exit::MsrWrite(register, value) => self.write_msr(register, value, length),
            Exit::Hypercall => self.hypercall(length),
            Exit::ApicEoi(vector) => {
                self.shared.with_machine(|machine, _| machine.end_of_interrupt(vector));
                Ok(RunFlags::empty())
            }
            Exit::Init => {
                self.is_waiting = true;
                // Whoever starts it next may know nothing of that.
                self.ends = 0;
                let _ = self.cpu.set_end_record(None);
                self.cpu.state().write(&self.reset);
                Ok(RunFlags::GROUPS | self.waiting())
            }
            Exit::Startup(vector) => {
                self.is_waiting = false;
                let mut state = self.reset;
                registers::set_startup(&mut state, vector);
                self.cpu.state().write(&state);
                Ok(RunFlags::GROUPS)
            }
            Exit::Invd => self.skip(length),
            Exit::Protected => Ok(self.raise(Exception::PROTECTION)),
            Exit::Undefined => Ok(self.raise(Exception::UNDEFINED)),
            Exit::Fatal(fatal) => Err(fatal),
        }
    }

    /// Whether an exit is a write to a port of which it is known that no device has it: there is nothing to do.
    #[inline(always)]
    fn is_write_to_nothing(&self, exit: &RawExit) -> bool {
        let access = PortAccess(exit.details[0]);
        exit.reason == ExitReason::Port as u32
            && access == PortAccess::new(access.port(), 1, false)
            && exit.length != 0
            && self.shared.dead_ports.has(access.port())
    }

    /// Goes to the CPU where it is wanted, if that is another one.
    #[cold]
    fn follow(&self) {
        let Some(cpu) = self.shared.wanted_cpus.take(self.number) else { return };
        match move_thread(cpu) {
            Ok(()) => info!("vCPU {} goes on on CPU {cpu}", self.number),
            Err(status) => {
                warn!("vCPU {} cannot go on on CPU {cpu}, which has to be one of the guest's: {status}", self.number)
            }
        }
    }

    fn waiting(&self) -> RunFlags {
        if self.is_waiting { RunFlags::WAIT_FOR_STARTUP } else { RunFlags::empty() }
    }

    #[inline]
    fn port(&self, access: PortAccess, value: u32) {
        let (port, width) = (access.port(), access.width());
        if access.is_in() {
            let value = self.shared.with_machine(|machine, now_ns| machine.port_in(port, width, now_ns));
            let state = self.cpu.state();
            state.set_general(General::Rax, registers::merged(state.general(General::Rax), width, value));
        } else {
            let is_dead = self.shared.with_machine(|machine, now_ns| {
                machine.port_out(port, width, value, now_ns);
                width == 1 && !machine.has_port(port)
            });
            if is_dead {
                self.shared.dead_ports.add(port);
            }
        }
    }

    // Not inlined: accesses to ports need few registers.
    #[inline(never)]
    fn memory(&mut self, address: u64, access: MemoryAccess) -> Result<RunFlags, Fatal> {
        // The kernel has no frame for it: it gives them as they are touched.
        if self.shared.ram.layout().offset(address, 1).is_some() {
            return Err(Fatal::OutOfMemory(address));
        }
        let translated = match access.right() {
            Rights::READ => Access::Read,
            Rights::WRITE => Access::Write,
            _ => return self.emulate_memory(),
        };
        let translated = Translated { address: GuestPhys(address), access: translated };
        let mut registers = InPlace { state: self.cpu.state(), access, physical_bits: self.shared.physical_bits };
        let mut bus = BesideRam(Bus { shared: &self.shared, vcpu: *self.cpu });
        if access.is_final()
            && let Some(length) = self.emulator.repeat(&mut registers, &mut bus, translated)
        {
            return Ok(RunFlags::skip(length));
        }
        self.emulate_memory()
    }

    #[cold]
    fn emulate_memory(&mut self) -> Result<RunFlags, Fatal> {
        self.cpu.sync(RunFlags::CONTROL | RunFlags::SEGMENTS).map_err(Fatal::Run)?;
        self.emulate(Cause::Memory)
    }

    /// Executes the instruction that the guest cannot. Control registers and segments are up to date.
    fn emulate(&mut self, cause: Cause) -> Result<RunFlags, Fatal> {
        let is_single_step = self.cpu.state().rflags() & SINGLE_STEP != 0;
        if is_single_step {
            self.cpu.sync(RunFlags::DEBUG).map_err(Fatal::Run)?;
        }
        let state = self.cpu.state();
        let mut cpu = registers::for_emulation(state, self.shared.physical_bits);
        let mut bus = Bus { shared: &self.shared, vcpu: *self.cpu };
        let outcome = self.emulator.emulate(&mut cpu, &mut bus, cause, MAX_ITERATIONS)?;
        state.set_pointer(&cpu.general, cpu.rip, cpu.rflags);
        let mut flags = RunFlags::POINTER;
        match outcome {
            Outcome::Fault(fault) => {
                if let Some(address) = fault.cr2 {
                    state.set_cr2(address);
                    flags |= RunFlags::CONTROL;
                }
                flags |= self.raise(Exception { vector: fault.exception as u8, error_code: fault.error_code });
            }
            Outcome::Done | Outcome::Partial if is_single_step => {
                state.set_dr6_bits(STEPPED);
                flags |= RunFlags::DEBUG | self.raise(Exception::DEBUG);
            }
            Outcome::Done | Outcome::Partial | Outcome::Retry => {}
        }
        Ok(flags)
    }

    fn bus(&self) -> Bus<'_> {
        Bus { shared: &self.shared, vcpu: *self.cpu }
    }

    fn read_msr(&self, register: u32, length: u32) -> Result<RunFlags, Fatal> {
        let value = match KvmMsr::from_number(register) {
            Some(KvmMsr::WallClock) => Some(self.wall_clock),
            Some(KvmMsr::SystemTime) => Some(self.system_time),
            Some(KvmMsr::StealTime) => Some(self.steal_time),
            Some(KvmMsr::EndOfInterrupt) => Some(self.ends),
            None => self.mtrrs.read(register),
        };
        let Some(value) = value else {
            self.shared.tell_of_msr(register, "reads");
            return Ok(self.raise(Exception::PROTECTION));
        };
        let state = self.cpu.state();
        state.set_general(General::Rax, value & 0xffff_ffff);
        state.set_general(General::Rdx, value >> 32);
        self.skip(length)
    }

    fn write_msr(&mut self, register: u32, value: u64, length: u32) -> Result<RunFlags, Fatal> {
        let (ram, clock) = (&self.shared.ram, &self.shared.clock);
        // A structure that is not in RAM is the guest's loss.
        match KvmMsr::from_number(register) {
            Some(KvmMsr::WallClock) => {
                self.wall_clock = value;
                let _ = ram.write(value, &clock.wall_clock());
            }
            Some(KvmMsr::SystemTime) => {
                self.system_time = value;
                if value & CLOCK_ENABLED != 0 {
                    let _ = ram.write(value & !CLOCK_ENABLED, &clock.system_time());
                }
            }
            Some(KvmMsr::StealTime) if value & STEAL_TIME_RESERVED == 0 => {
                self.steal_time = value;
                let _ = self.cpu.set_record(self.record(value, RECORD_SIZE));
            }
            Some(KvmMsr::EndOfInterrupt) if value & ENDS_RESERVED == 0 => {
                self.ends = value;
                let _ = self.cpu.set_end_record(self.record(value, END_SIZE));
            }
            None if self.mtrrs.write(register, value) => {}
            None | Some(KvmMsr::StealTime | KvmMsr::EndOfInterrupt) => {
                self.shared.tell_of_msr(register, "writes");
                return Ok(self.raise(Exception::PROTECTION));
            }
        }
        self.skip(length)
    }

    /// Where the guest has a record of so many bytes that kernel and guest share, by the value of a register of KVM's; none
    /// if that says that it is not used.
    fn record(&self, value: u64, size: u64) -> Option<(Memory, u64)> {
        let (ram, address) = (&self.shared.ram, value & !RECORDS_USED);
        let offset = ram.layout().offset(address, size).filter(|_| value & RECORDS_USED != 0)?;
        // RAM has frames where it was touched, which the guest need not have done yet. What cannot be is its loss.
        ram.read(address, &mut [0; END_SIZE as usize]).ok()?;
        Some((ram.memory(), offset))
    }

    /// KVM's hypercalls are the kernel's, so there is none of this number (Linux, virt/kvm/x86/hypercalls).
    fn hypercall(&self, length: u32) -> Result<RunFlags, Fatal> {
        const NO_CALL: i64 = -1000;
        const NOT_PERMITTED: i64 = -1;
        self.cpu.sync(RunFlags::SEGMENTS).map_err(Fatal::Run)?;
        let state = self.cpu.state();
        let [_, _, stack, ..] = state.segments();
        let answer = if registers::privilege(stack) == 0 { NO_CALL } else { NOT_PERMITTED };
        state.set_general(General::Rax, answer.cast_unsigned());
        self.skip(length)
    }

    /// The guest goes on after an instruction of this length, or 0 if it is not known.
    #[inline]
    fn skip(&self, length: u32) -> Result<RunFlags, Fatal> {
        if length != 0 { Ok(RunFlags::SKIP) } else { self.skip_unknown() }
    }

    #[cold]
    fn skip_unknown(&self) -> Result<RunFlags, Fatal> {
        self.cpu.sync(RunFlags::CONTROL | RunFlags::SEGMENTS).map_err(Fatal::Run)?;
        let cpu = registers::for_emulation(self.cpu.state(), self.shared.physical_bits);
        let length = match emulate::instruction_length(&cpu, &mut self.bus()) {
            Ok(length) => length,
            // The guest changes code or page tables at this very moment: it is to try again.
            Err(Stop::Fault(_) | Stop::Retry) => return Ok(RunFlags::empty()),
            Err(Stop::Miss(_) | Stop::Unsupported) => return Err(Fatal::UnknownLength),
        };
        // Beyond 4 GiB there is code in 64-bit mode only, where RIP wraps nowhere.
        self.cpu.state().set_rip(cpu.rip.wrapping_add(length as u64));
        Ok(RunFlags::POINTER)
    }

    fn raise(&self, exception: Exception) -> RunFlags {
        exception.inject(self.cpu.state());
        RunFlags::EVENT
    }

    /// Tells why the guest cannot go on, and begins its end.
    #[cold]
    fn crash(&self, fatal: Fatal) {
        // Should the kernel not give them, then older ones are better than none.
        let _ = self.cpu.sync(RunFlags::GROUPS);
        let state = self.cpu.state().read();
        let mut view = registers::for_emulation(self.cpu.state(), self.shared.physical_bits);
        // Of code and stack, whoever they belong to.
        view.cpl = 0;
        view.rflags |= ALLOW_USER_PAGES;
        let read = |linear: u64, into: &mut [u8]| {
            let in_page = (PAGE - linear % PAGE) as usize;
            let size = into.len().min(in_page);
            let Ok(address) = emulate::translate(&view, &mut self.bus(), linear, Access::Read) else { return 0 };
            let part = into.get_mut(..size).unwrap_or_default();
            self.shared.ram.read(address.0, part).map_or(0, |()| size)
        };
        let report = Report::new(self.number, &state, read);
        error!("the guest cannot go on: {fatal}\n{report}");
        self.shared.finish(End::Crash);
    }
}

const PAGE: u64 = 4096;

/// The most iterations of a repeated string instruction before interrupts are looked at: a sector's worth of words.
const MAX_ITERATIONS: u32 = 256;

/// RFLAGS.TF.
const SINGLE_STEP: u64 = 1 << 8;
/// DR6.BS.
const STEPPED: u64 = 1 << 14;
