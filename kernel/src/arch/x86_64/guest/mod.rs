//! Guests: what runs a virtual CPU on x86-64.
//!
//! [`hardware`] is the trait of the two back ends, [`svm`] and [`vmx`]; [`run`] is the loop above them, which handles what
//! is pure mechanism: interrupts of the guest ([`message`], [`posted`], [`eoi`]), its timer, CPUID and MSRs ([`policy`], [`msr`]). [`vector`]
//! keeps floating point and what else stays in the CPU's registers between exits. [`format`] is the second stage's.

use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use dragonfly_abi::arch::guest::{ExitCounter, TscRatio};
use dragonfly_abi::guest::{MsrPolicy, RECORD_WORDS, RunFlags, Virtualisation};
use dragonfly_abi::{Rights, Status};
use dragonfly_acpi::Acpi;
use dragonfly_hw::x86::msr::IA32_ARCH_CAPABILITIES;
use dragonfly_memory::Unique;
use dragonfly_vapic::{Clock, LocalApic, Ratio};

use super::{KernelHeap, X86, clock, mitigations};
use crate::Ref;
use crate::arch::{Arch, ExitFate, Guest, GuestExit, NEVER, Ticks};
use crate::cpu::Cpu;
use crate::domain::Domain;
use crate::shared_page::SharedPage;
use crate::space::GuestSpace;
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use eoi::EndInMemory;
use hardware::Hardware;
use policy::{CpuidTable, MsrTable};
use posted::Posted;
use speculation::Speculation;

/// Puts the guest's general registers where RAX points, all but RAX and RSP.
macro_rules! store_guest_registers {
    () => {
        r#"
    mov [rax + 8], rcx
    mov [rax + 16], rdx
    mov [rax + 24], rbx
    mov [rax + 40], rbp
    mov [rax + 48], rsi
    mov [rax + 56], rdi
    mov [rax + 64], r8
    mov [rax + 72], r9
    mov [rax + 80], r10
    mov [rax + 88], r11
    mov [rax + 96], r12
    mov [rax + 104], r13
    mov [rax + 112], r14
    mov [rax + 120], r15
        "#
    };
}

/// Clears the registers that a function may leave changed: what the guest left in them is not for speculation.
macro_rules! forget_guest_registers {
    () => {
        r#"
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor edi, edi
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
        "#
    };
}

mod capability;
mod eoi;
pub mod format;
pub mod hardware;
mod message;
mod msr;
mod policy;
mod posted;
mod registers;
mod run;
mod speculation;
mod steal;
pub mod svm;
pub mod vector;
pub mod vmx;

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
pub fn detect(acpi: &Acpi) {
    let found = if !vector::detect() {
        log::warn!("no virtual machines: the CPU has no XSAVE");
        Virtualisation::None
    } else if svm::detect() {
        Virtualisation::Svm
    } else if vmx::detect(acpi) {
        Virtualisation::Vmx
    } else {
        log::info!("no virtual machines: the CPU has neither SVM with nested paging nor VT-x with EPT");
        Virtualisation::None
    };
    BACK_END.store(found as u8, Ordering::Relaxed);
}

/// Lets this CPU run guests.
pub fn enable_on_this_cpu(local: &mut Local) {
    let is_ready = match back_end() {
        Virtualisation::Svm => svm::enable_on_this_cpu(&mut local.svm),
        Virtualisation::Vmx => vmx::enable_on_this_cpu(&mut local.vmx),
        Virtualisation::None => true,
    };
    if !is_ready {
        log::error!("a CPU cannot run guests: no memory for its host state, or the processor refuses");
    }
}

/// This CPU may be asked for what it has of a guest; called where it answers shoot-downs.
#[inline]
pub fn answer() {
    vector::answer();
    vmx::answer();
}

/// A domain is about to run on this CPU: it gets the host's registers that a guest has changed.
#[inline]
pub fn before_domain(local: &mut Local) {
    local.vmx.before_domain();
}

/// What a CPU keeps to run guests.
pub struct Local {
    svm: svm::Local,
    vmx: vmx::Local,
}

impl Local {
    /// Of a CPU that has run no guest.
    pub const NEW: Self = Self { svm: svm::Local::NEW, vmx: vmx::Local::NEW };
}

/// A virtual CPU, on the back end that this machine has. The loop around a guest is compiled for each.
pub enum X86Guest {
    /// AMD SVM.
    Svm(GuestCpu<svm::SvmVcpu>),
    /// Intel VT-x.
    Vmx(GuestCpu<vmx::VmxVcpu>),
}

/// Does the same for either back end.
macro_rules! on {
    ($guest:expr, $cpu:ident => $work:expr) => {
        match $guest {
            X86Guest::Svm($cpu) => $work,
            X86Guest::Vmx($cpu) => $work,
        }
    };
}

/// A virtual CPU of a back end.
pub struct GuestCpu<H> {
    hardware: H,
    cpuid: Unique<CpuidTable, KernelHeap>,
    msrs: Unique<MsrTable, KernelHeap>,
    /// Ticks of its time-stamp counter for each of the host's.
    tsc_ratio: TscRatio,
    /// Added to the host's time-stamp counter, at the guest's rate.
    tsc_offset: u64,
    /// IA32_TSC_ADJUST.
    tsc_adjust: u64,
    /// Host ticks for each count of the guest's APIC timer, which runs at 1 GHz. Kept, because it takes a long division.
    ticks_per_count: Ratio,
    /// Length of the instruction of the last exit, 0 if not known.
    length: u32,
    wait: Wait,
    /// The interrupt that the guest may take during this entry.
    offered: Option<u8>,
    /// An NMI waits until the guest can take it.
    is_nmi_pending: bool,
    /// Where the guest ends interrupts without an exit.
    end_in_memory: EndInMemory,
    speculation: Speculation,
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
    /// Interrupts that the processor takes out of memory, if it can.
    posted: Option<Posted>,
    /// Registers that stay in a CPU between exits.
    pub vector: vector::VectorState,
}

impl<H: Hardware> GuestCpu<H> {
    /// As after reset.
    fn new(domain: &Ref<Domain<X86>, X86>, hardware: H) -> Result<Self, Status> {
        Ok(Self {
            hardware,
            cpuid: CpuidTable::make(domain)?,
            msrs: MsrTable::make(domain)?,
            tsc_ratio: TscRatio::ONE,
            tsc_offset: 0,
            tsc_adjust: 0,
            ticks_per_count: Ratio::new(clock::frequency_hz(), 1_000_000_000),
            length: 0,
            wait: Wait::Nothing,
            offered: None,
            is_nmi_pending: false,
            end_in_memory: EndInMemory::NONE,
            speculation: Speculation::new(),
        })
    }

    /// Skips a write to memory, if the length of the instruction is known.
    fn skip_write(&mut self) -> bool {
        if self.length == 0 {
            return false;
        }
        self.hardware.skip(self.length);
        true
    }

    /// An access of the VMM to the local APIC.
    fn access_controller(
        &mut self,
        cpu: &mut Cpu<X86>,
        vcpu: &Vcpu<X86>,
        offset: u32,
        write: Option<u32>,
    ) -> Result<u32, Status> {
        let apic = &vcpu.interrupts.apic;
        self.hardware.take_back(apic);
        apic.set_task_priority(self.hardware.cr8() << 4 | apic.task_priority() & 0xf);
        match write {
            None => Ok(apic.read_page(offset, self.clock())),
            Some(value) => {
                let effect = apic.write_page(offset, value, self.clock());
                self.hardware.set_cr8(apic.task_priority() >> 4);
                message::perform(cpu, vcpu, effect);
                Ok(0)
            }
        }
    }

    /// Lets its time-stamp counter run at a frequency.
    fn set_tsc_frequency(&mut self, hz: u64) -> Result<u64, Status> {
        let ratio = TscRatio::new(hz, clock::frequency_hz()).ok_or(Status::BadArgument)?;
        if ratio != self.tsc_ratio {
            if !self.hardware.set_tsc_ratio(ratio) {
                return Err(Status::NotSupported);
            }
            self.tsc_ratio = ratio;
        }
        Ok(ratio.to_bits())
    }

    /// Whether something waits that ends a halt.
    fn has_event(&self, interrupts: &Interrupts) -> bool {
        match self.wait {
            Wait::Nothing => true,
            // What a look for interrupts has come upon is no news any more, and waits all the same.
            Wait::Interrupt => {
                let Interrupts { apic, posted, .. } = interrupts;
                apic.pending().is_some() || apic.has_requests() || posted.as_ref().is_some_and(Posted::has_news)
            }
            Wait::Unmaskable | Wait::Startup => interrupts.apic.has_requests(),
        }
    }

    /// The time as the guest's APIC sees it.
    fn clock(&self) -> Clock {
        let (tsc_ratio, tsc_offset) = (self.tsc_ratio, self.tsc_offset);
        Clock { now: X86.now(), tsc_ratio, tsc_offset, ticks_per_count: self.ticks_per_count }
    }
}

impl Guest<X86> for X86Guest {
    type Interrupts = Interrupts;

    fn new(
        arch: X86,
        domain: &Ref<Domain<X86>, X86>,
        number: u32,
        space: &GuestSpace<X86>,
    ) -> Result<(Self, Interrupts), Status> {
        let has_posted = back_end() == Virtualisation::Vmx && vmx::has_posted_interrupts();
        let interrupts = Interrupts {
            apic: LocalApic::new(number),
            posted: has_posted.then(|| Posted::new(arch, &domain.account)).transpose()?,
            vector: vector::VectorState::new(arch, &domain.account)?,
        };
        let guest = match back_end() {
            Virtualisation::Svm => {
                Self::Svm(GuestCpu::new(domain, svm::SvmVcpu::new(arch, &domain.account, space.root())?)?)
            }
            Virtualisation::Vmx => {
                let hardware = vmx::VmxVcpu::new(arch, &domain.account, space.root(), interrupts.posted.as_ref())?;
                Self::Vmx(GuestCpu::new(domain, hardware)?)
            }
            // There is no virtual machine without a back end.
            Virtualisation::None => return Err(Status::NotSupported),
        };
        Ok((guest, interrupts))
    }

    #[inline]
    fn take(&mut self, vcpu: &Vcpu<X86>, flags: RunFlags) {
        on!(self, guest => guest.take_groups(vcpu, flags));
    }

    fn sync(&mut self, interrupts: &Interrupts, page: &SharedPage<X86>, groups: RunFlags) {
        on!(self, guest => guest.sync_groups(interrupts, page, groups));
    }

    #[inline]
    fn show_mode(&self, page: &SharedPage<X86>) -> (u8, bool) {
        on!(self, guest => guest.show_mode(page))
    }

    #[inline]
    fn run(&mut self, cpu: &mut Cpu<X86>, vcpu: &Ref<Vcpu<X86>, X86>) -> GuestExit {
        let exit = on!(self, guest => guest.run_until_exit(cpu, vcpu));
        // Here and not where the guest is left, which has no registers to spare for it.
        if vcpu.vm.space.is_logged() {
            on!(self, guest => guest.hardware.empty_log(&vcpu.vm.space));
        }
        exit
    }

    fn skip_write(&mut self) -> bool {
        on!(self, guest => guest.skip_write())
    }

    fn add_cpuid(&mut self, leaf: u32, subleaf: Option<u32>, registers: [u32; 4]) -> Result<(), Status> {
        on!(self, guest => guest.cpuid.add(leaf, subleaf, registers))
    }

    fn add_msr(&mut self, register: u32, value: u64, policy: MsrPolicy) -> Result<(), Status> {
        let value = match register {
            // The VMM cannot know what this processor is immune to: that takes a privileged read.
            IA32_ARCH_CAPABILITIES => value & mitigations::capabilities(),
            _ => value,
        };
        on!(self, guest => guest.msrs.add(register, value, policy))
    }

    fn set_counter_frequency(&mut self, hz: u64) -> Result<u64, Status> {
        on!(self, guest => guest.set_tsc_frequency(hz))
    }

    fn access_controller(
        &mut self,
        cpu: &mut Cpu<X86>,
        vcpu: &Vcpu<X86>,
        offset: u32,
        write: Option<u32>,
    ) -> Result<u32, Status> {
        on!(self, guest => guest.access_controller(cpu, vcpu, offset, write))
    }

    fn set_end_place(&mut self, place: Option<eoi::Place>) -> Result<Option<eoi::Place>, Status> {
        on!(self, guest => guest.end_in_memory.set_place(place))
    }

    fn flush(&mut self) {
        on!(self, guest => guest.hardware.flush());
    }

    fn tell_away(record: &[AtomicU64; RECORD_WORDS]) {
        steal::tell_away(record);
    }

    fn tell_back(record: &[AtomicU64; RECORD_WORDS], stolen_ns: u64) -> bool {
        steal::tell_back(record, stolen_ns)
    }

    #[inline]
    fn count(page: &SharedPage<X86>, fate: ExitFate) {
        let counter = match fate {
            ExitFate::Vmm => ExitCounter::ToVmm,
            ExitFate::Page => ExitCounter::PageFault,
            ExitFate::Mmio => ExitCounter::Mmio,
            ExitFate::Doorbell => ExitCounter::Doorbell,
        };
        run::count(page.words(), counter);
    }

    fn retire(&mut self, vcpu: &Vcpu<X86>) {
        vector::retire(vcpu);
        on!(self, guest => guest.hardware.retire());
    }

    fn has_event(&self, interrupts: &Interrupts) -> bool {
        on!(self, guest => guest.has_event(interrupts))
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
