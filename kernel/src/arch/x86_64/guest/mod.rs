//! Guests: what runs a virtual CPU on x86-64.
//!
//! [`hardware`] is the trait of the two back ends, [`svm`] and [`vmx`]; [`run`] is the loop above them, which handles what
//! is pure mechanism: interrupts of the guest ([`message`]), its timer, CPUID and MSRs ([`policy`], [`msr`]). [`vector`]
//! keeps floating point and what else stays in the CPU's registers between exits. [`format`] is the second stage's.

use core::sync::atomic::{AtomicU8, Ordering};

use dragonfly_abi::guest::{MsrPolicy, RunFlags, Virtualisation};
use dragonfly_abi::{Rights, Status};
use dragonfly_memory::Unique;
use dragonfly_vapic::{Clock, LocalApic, Ratio};

use super::{KernelHeap, X86, clock};
use crate::Ref;
use crate::arch::{Arch, Guest, GuestExit, NEVER, Ticks};
use crate::cpu::Cpu;
use crate::domain::Domain;
use crate::shared_page::SharedPage;
use crate::space::GuestSpace;
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use hardware::Hardware;
use policy::{CpuidTable, MsrTable};

pub mod format;
pub mod hardware;
mod message;
mod msr;
mod policy;
mod registers;
mod run;
pub mod svm;
pub mod vector;

/// Which back end this machine has: a [`Virtualisation`].
static BACK_END: AtomicU8 = AtomicU8::new(Virtualisation::None as u8);

/// What runs virtual machines here.
pub fn back_end() -> Virtualisation {
    match BACK_END.load(Ordering::Relaxed) {
        1 => Virtualisation::Svm,
        2 => Virtualisation::Vmx,
        _ => Virtualisation::None,
    }
}

/// Finds out what this machine has. On the boot CPU, before others start.
pub fn detect() {
    let found = if !vector::detect() {
        log::warn!("no virtual machines: the CPU has no XSAVE");
        Virtualisation::None
    } else if svm::detect() {
        Virtualisation::Svm
    } else {
        log::info!("no virtual machines: the CPU has neither SVM with nested paging nor VT-x with EPT");
        Virtualisation::None
    };
    BACK_END.store(found as u8, Ordering::Relaxed);
}

/// Lets this CPU run guests.
pub fn enable_on_this_cpu(local: &mut Local) {
    if back_end() == Virtualisation::Svm && !svm::enable_on_this_cpu(&mut local.svm) {
        log::error!("a CPU cannot run guests: no memory for its host state");
    }
}

/// What a CPU keeps to run guests.
pub struct Local {
    svm: svm::Local,
}

impl Local {
    /// Of a CPU that has run no guest.
    pub const NEW: Self = Self { svm: svm::Local::NEW };
}

/// A virtual CPU.
pub struct X86Guest {
    hardware: svm::SvmVcpu,
    cpuid: Unique<CpuidTable, KernelHeap>,
    msrs: Unique<MsrTable, KernelHeap>,
    /// Added to the host's time-stamp counter.
    tsc_offset: u64,
    /// IA32_TSC_ADJUST.
    tsc_adjust: u64,
    /// Length of the instruction of the last exit, 0 if not known.
    length: u32,
    wait: Wait,
    /// An NMI waits until the guest can take it.
    is_nmi_pending: bool,
}

/// What a guest waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// Nothing: it runs.
    Nothing,
    /// An interrupt.
    Interrupt,
    /// Anything that is no maskable interrupt: it has halted with those off.
    Unmaskable,
    /// A start-up message.
    Startup,
}

/// What other CPUs use of a virtual CPU.
pub struct Interrupts {
    /// The local APIC.
    pub apic: LocalApic,
    /// Registers that stay in a CPU between exits.
    pub vector: vector::VectorState,
}

impl X86Guest {
    /// The time as the guest's APIC sees it.
    fn clock(&self) -> Clock {
        Clock { now: X86.now(), tsc_offset: self.tsc_offset, ticks_per_count: ticks_per_count() }
    }
}

/// Host ticks for each count of a guest's APIC timer, which runs at 1 GHz.
fn ticks_per_count() -> Ratio {
    Ratio::new(clock::frequency_hz(), 1_000_000_000)
}

impl Guest<X86> for X86Guest {
    type Interrupts = Interrupts;

    fn new(
        arch: X86,
        domain: &Ref<Domain<X86>, X86>,
        number: u32,
        space: &GuestSpace<X86>,
    ) -> Result<(Self, Interrupts), Status> {
        let hardware = svm::SvmVcpu::new(arch, &domain.account, space.root())?;
        let interrupts =
            Interrupts { apic: LocalApic::new(number), vector: vector::VectorState::new(arch, &domain.account)? };
        let guest = Self {
            hardware,
            cpuid: CpuidTable::make(domain)?,
            msrs: MsrTable::make(domain)?,
            tsc_offset: 0,
            tsc_adjust: 0,
            length: 0,
            wait: Wait::Nothing,
            is_nmi_pending: false,
        };
        Ok((guest, interrupts))
    }

    fn take(&mut self, vcpu: &Vcpu<X86>, flags: RunFlags) {
        self.take_groups(vcpu, flags);
    }

    fn sync(&mut self, interrupts: &Interrupts, page: &SharedPage<X86>, groups: RunFlags) {
        self.sync_groups(interrupts, page, groups);
    }

    fn run(&mut self, cpu: &mut Cpu<X86>, vcpu: &Ref<Vcpu<X86>, X86>) -> GuestExit {
        self.run_until_exit(cpu, vcpu)
    }

    fn skip_write(&mut self) -> bool {
        if self.length == 0 {
            return false;
        }
        self.hardware.skip(self.length);
        true
    }

    fn add_cpuid(&mut self, leaf: u32, subleaf: Option<u32>, registers: [u32; 4]) -> Result<(), Status> {
        self.cpuid.add(leaf, subleaf, registers)
    }

    fn add_msr(&mut self, register: u32, value: u64, policy: MsrPolicy) -> Result<(), Status> {
        self.msrs.add(register, value, policy)
    }

    fn access_controller(
        &mut self,
        cpu: &mut Cpu<X86>,
        vcpu: &Vcpu<X86>,
        offset: u32,
        write: Option<u32>,
    ) -> Result<u32, Status> {
        let apic = &vcpu.interrupts.apic;
        match write {
            None => Ok(apic.read_page(offset, self.clock())),
            Some(value) => {
                let effect = apic.write_page(offset, value, self.clock());
                message::perform(cpu, vcpu, effect);
                Ok(0)
            }
        }
    }

    fn retire(vcpu: &Vcpu<X86>) {
        vector::retire(vcpu);
    }

    fn has_event(&self, interrupts: &Interrupts) -> bool {
        match self.wait {
            Wait::Nothing => true,
            Wait::Interrupt => interrupts.apic.has_work() || interrupts.apic.pending().is_some(),
            // Interrupts that were posted are looked at, too, which costs a round and loses nothing.
            Wait::Unmaskable | Wait::Startup => interrupts.apic.has_work(),
        }
    }

    fn deadline(interrupts: &Interrupts) -> Ticks {
        interrupts.apic.timer_deadline().unwrap_or(NEVER)
    }

    fn send_message(cpu: &mut Cpu<X86>, vm: &Vm<X86>, address: u64, data: u32) {
        message::send(cpu, vm, address, data);
    }
}

/// An access as the kernel above names it.
fn access_right(is_write: bool, is_fetch: bool) -> Rights {
    match (is_write, is_fetch) {
        (_, true) => Rights::EXECUTE,
        (true, _) => Rights::WRITE,
        _ => Rights::READ,
    }
}
