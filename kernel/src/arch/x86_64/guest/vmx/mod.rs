//! Intel VT-x with extended page tables (SDM 3C, "Introduction to Virtual Machine Extensions" and what follows it).
//!
//! [`capability`] finds out what there is and chooses the controls, [`cpu`] is what a CPU keeps, [`vmcs`] the control
//! structure and where it is, [`apic`] the virtual-APIC page, [`log`] the pages that the guest writes. [`entry`] is the way in and out, [`exit`] tells why the guest was left, [`event`] injects,
//! and [`state`] has the guest's registers.

use core::sync::atomic::Ordering;

use dragonfly_abi::Status;
use dragonfly_abi::arch::guest::{General, TscRatio};
use dragonfly_hw::x86::apic::TPR;
use dragonfly_hw::x86::control::Rflags;
use dragonfly_hw::x86::vmx::control::{PrimaryControls, SecondaryControls};
use dragonfly_hw::x86::vmx::ept::eptp;
use dragonfly_hw::x86::vmx::exit::BasicReason;
use dragonfly_hw::x86::vmx::field::Field;
use dragonfly_hw::x86::vmx::state::Interruptibility;
use dragonfly_memory::{Account, EptFormat, EptTracking, HostPhys, PageSize};
use dragonfly_vapic::LocalApic;

use super::Local as GuestLocal;
use super::hardware::{ControlRegisters, Event, Exit, Hardware, Segments, SystemRegisters};
use super::posted::Posted;
use crate::Ref;
use crate::arch::x86_64::registers::read_cr3;
use crate::arch::x86_64::{KernelHeap, X86, per_cpu};
use crate::frames::OwnedFrame;
use crate::shared_page::SharedPage;
use crate::space::GuestSpace;
use apic::VirtualApic;
use cpu::SystemCall;
use log::Log;
use vmcs::{Vmcs, read, write};

mod apic;
mod capability;
mod cpu;
mod entry;
mod event;
mod exit;
mod log;
mod state;
mod vmcs;

pub use capability::detect;
pub use cpu::Local;
pub use vmcs::answer;

/// The format of the second stage.
pub fn format() -> EptFormat {
    capability::setup().map_or(EptFormat::new(PageSize::Size4K, EptTracking::Protection), |setup| {
        EptFormat::new(setup.largest_page, setup.tracking)
    })
}

/// Whether processors here take interrupts for guests out of memory.
pub fn has_posted_interrupts() -> bool {
    capability::setup().is_some_and(capability::Setup::has_posted_interrupts)
}

/// Lets this CPU run guests. False if it cannot.
pub fn enable_on_this_cpu(local: &mut Local) -> bool {
    capability::setup().is_some_and(|setup| local.enable(setup))
}

/// No CPU.
const NOWHERE: usize = usize::MAX;

/// A virtual CPU.
pub struct VmxVcpu {
    vmcs: Vmcs,
    apic: VirtualApic,
    log: Log,
    eptp: u64,
    has_vpid: bool,
    /// The CPU whose host state the VMCS has.
    host_of: usize,
    /// Root of the host's tables that the VMCS has.
    host_cr3: HostPhys,
    /// CPU, epoch there and generation of the second stage for which the identifier is valid.
    tag_for: (usize, u64, u64),
    /// Under which the CPU knows the system-call registers, or 0.
    system_call_owner: u64,
    system_call: SystemCall,
    cstar: u64,
    cr2: u64,
    dr6: u64,
    /// Between [`Hardware::prepare`] and [`Hardware::finish`]: the VMCS is current, and CR2, DR6 and KERNEL_GS_BASE are
    /// in the CPU.
    is_in_cpu: bool,
    /// Why the guest was left last.
    reason: BasicReason,
    /// The primary controls as the VMCS has them.
    primary: PrimaryControls,
    /// The task-priority threshold as the VMCS has it.
    threshold: u8,
    /// Whether the next entry delivers the interrupt that was offered, or the last one has.
    is_injected: bool,
    /// What the preemption timer counts from.
    longest_stay: u32,
    /// The processor is Bochs's.
    is_in_bochs: bool,
}

impl VmxVcpu {
    /// As after reset, with a second stage, and its posted interrupts if there are any.
    pub fn new(
        arch: X86,
        account: &Ref<Account<KernelHeap>, X86>,
        root: HostPhys,
        posted: Option<&Posted>,
    ) -> Result<Self, Status> {
        let setup = capability::setup().ok_or(Status::NotSupported)?;
        let mut vcpu = Self {
            vmcs: Vmcs::new(arch, account, setup)?,
            apic: VirtualApic::new(
                OwnedFrame::new(arch, account)?,
                setup.secondary.contains(SecondaryControls::VIRTUAL_INTERRUPT_DELIVERY),
            ),
            log: Log::new((setup.tracking == EptTracking::Log).then(|| OwnedFrame::new(arch, account)).transpose()?),
            eptp: eptp(root.as_u64(), setup.eptp),
            has_vpid: setup.secondary.contains(SecondaryControls::ENABLE_VPID),
            host_of: NOWHERE,
            host_cr3: HostPhys::new(0),
            tag_for: (NOWHERE, 0, 0),
            system_call_owner: 0,
            system_call: SystemCall::default(),
            cstar: 0,
            cr2: 0,
            dr6: state::DR6_RESET,
            is_in_cpu: false,
            reason: BasicReason::EXTERNAL_INTERRUPT,
            primary: PrimaryControls::from_bits_retain(setup.primary),
            threshold: 0,
            is_injected: false,
            longest_stay: setup.preemption_timer,
            is_in_bochs: setup.is_bochs,
        };
        vcpu.vmcs.load();
        state::write_controls(setup, &vcpu, posted);
        vcpu.virtualize_x2apic(true);
        state::write_reset();
        Ok(vcpu)
    }

    /// Lets VMREAD and VMWRITE reach its VMCS.
    #[inline]
    fn make_current(&self) {
        if !self.is_in_cpu {
            self.vmcs.load();
        }
    }

    /// Takes an identifier without translations, for a CPU and a generation of the second stage.
    #[cold]
    #[inline(never)]
    fn take_tag(&mut self, local: &mut Local, space: &GuestSpace<X86>, (cpu, generation): (usize, u64)) {
        let (vpid, epoch) = local.tag(self.eptp);
        self.tag_for = (cpu, epoch, generation);
        self.set_log(space.is_logged());
        if self.has_vpid {
            write(Field::VPID, vpid.into());
        }
    }

    fn set_primary(&mut self, control: PrimaryControls, is_on: bool) {
        if self.primary.contains(control) != is_on {
            self.primary.set(control, is_on);
            write(Field::PRIMARY_PROCESSOR_BASED_CONTROLS, self.primary.bits().into());
        }
    }

    fn set_threshold(&mut self, class: u8) {
        if self.threshold != class {
            self.threshold = class;
            write(Field::TPR_THRESHOLD, class.into());
        }
    }
}

impl Hardware for VmxVcpu {
    fn prepare(&mut self, local: &mut GuestLocal, page: &SharedPage<X86>, space: &GuestSpace<X86>) {
        let generation = space.generation();
        let local = &mut local.vmx;
        let this = per_cpu::id();
        self.vmcs.load();
        if self.host_of != this {
            self.host_of = this;
            self.system_call_owner = 0;
            local.write_host();
        }
        let cr3 = read_cr3();
        if self.host_cr3 != cr3 {
            self.host_cr3 = cr3;
            write(Field::HOST_CR3, cr3.as_u64());
        }
        if self.tag_for != (this, local.vpid_epoch(), generation) {
            self.take_tag(local, space, (this, generation));
        }
        self.system_call_owner = local.load_system_call(self.system_call_owner, &self.system_call);
        write(Field::GUEST_RSP, page.words()[General::Rsp as usize].load(Ordering::Relaxed));
        state::load_cr2_and_dr6(self.cr2, self.dr6);
        self.is_in_cpu = true;
    }

    fn empty_log(&mut self, space: &GuestSpace<X86>) {
        if self.log.is_on {
            self.make_current();
            self.log.empty(space);
        }
    }

    fn flush(&mut self) {
        self.tag_for = (NOWHERE, 0, 0);
    }

    fn finish(&mut self, page: &SharedPage<X86>) {
        let rsp = read(Field::GUEST_RSP);
        page.words()[General::Rsp as usize].store(rsp, Ordering::Relaxed);
        (self.cr2, self.dr6) = state::cr2_and_dr6();
        self.system_call.kernel_gs_base = state::kernel_gs_base();
        self.is_in_cpu = false;
    }

    fn retire(&mut self) {
        self.vmcs.clear();
    }

    #[inline]
    fn enter(&mut self, page: &SharedPage<X86>) -> Exit {
        self.enter_and_decode(page)
    }

    #[inline]
    fn length(&self) -> u32 {
        if exit::is_of_instruction(self.reason) {
            self.make_current();
            read(Field::EXIT_INSTRUCTION_LENGTH) as u32 & 0xf
        } else {
            0
        }
    }

    #[inline]
    fn skip_instruction(&mut self) {
        // The VMCS is current, and the processor tells the length of all instructions that are skipped.
        self.skip(read(Field::EXIT_INSTRUCTION_LENGTH) as u32 & 0xf);
    }

    #[inline]
    fn skip(&mut self, length: u32) {
        self.make_current();
        let rip = read(Field::GUEST_RIP);
        let next = rip.wrapping_add(length.into());
        // Only code at the end of 4 GiB has to be told apart.
        let wraps = (rip ^ next) >> 32 != 0 && !state::is_64_bit();
        write(Field::GUEST_RIP, if wraps { next & 0xffff_ffff } else { next });
        let blocking = read(Field::GUEST_INTERRUPTIBILITY_STATE);
        let shadow = Interruptibility::BLOCKING_BY_STI | Interruptibility::BLOCKING_BY_MOV_SS;
        if blocking & u64::from(shadow.bits()) != 0 {
            write(Field::GUEST_INTERRUPTIBILITY_STATE, blocking & !u64::from(shadow.bits()));
        }
        if read(Field::GUEST_RFLAGS) & Rflags::TF.bits() != 0 {
            self.trap_step();
        }
    }

    #[inline]
    fn clear_resume_flag(&mut self) {
        self.make_current();
        write(Field::GUEST_RFLAGS, read(Field::GUEST_RFLAGS) & !Rflags::RF.bits());
    }

    fn offer(&mut self, vector: Option<u8>) {
        self.offer_interrupt(vector);
    }

    #[inline]
    fn has_taken(&mut self) -> bool {
        core::mem::take(&mut self.is_injected)
    }

    #[inline]
    fn delivers(&self) -> bool {
        self.apic.delivers
    }

    #[inline]
    fn is_supplied(&self) -> bool {
        self.apic.is_supplied()
    }

    fn lend(&mut self, apic: &LocalApic) {
        self.apic.lend(apic);
    }

    fn take_back(&mut self, apic: &LocalApic) {
        self.apic.take_back(apic);
    }

    fn set_x2apic(&mut self, is_x2apic: bool) {
        self.make_current();
        self.virtualize_x2apic(is_x2apic);
    }

    fn inject(&mut self, event: Event) {
        if event.is_valid() {
            self.make_current();
            event::inject(event);
        }
    }

    fn inject_nmi(&mut self) -> bool {
        self.inject_nmi_if_possible()
    }

    fn cr8(&self) -> u8 {
        self.apic.register(TPR) as u8 >> 4
    }

    fn set_cr8(&mut self, class: u8) {
        self.make_current();
        // The threshold must not be above it at an entry (SDM 3C, "VM-Execution Control Fields"); whoever offers an
        // interrupt sets it again.
        self.set_threshold(0);
        self.apic.set_register(TPR, u32::from(class) << 4);
    }

    fn pointer(&self) -> (u64, u64) {
        self.make_current();
        (read(Field::GUEST_RIP), read(Field::GUEST_RFLAGS))
    }

    fn set_pointer(&mut self, rip: u64, rflags: u64) {
        self.make_current();
        write(Field::GUEST_RIP, rip);
        write(Field::GUEST_RFLAGS, rflags & state::RFLAGS | 2);
    }

    fn privilege(&self) -> u8 {
        self.make_current();
        state::privilege()
    }

    fn is_64_bit(&self) -> bool {
        self.make_current();
        state::is_64_bit()
    }

    fn control(&self) -> ControlRegisters {
        self.make_current();
        let cr2 = if self.is_in_cpu { state::cr2_and_dr6().0 } else { self.cr2 };
        ControlRegisters { cr2, ..state::control() }
    }

    fn set_control(&mut self, control: &ControlRegisters) {
        self.make_current();
        self.cr2 = control.cr2;
        state::set_control(control);
        // What was translated by other registers.
        self.tag_for = (NOWHERE, 0, 0);
    }

    fn segments(&self) -> Segments {
        self.make_current();
        state::segments()
    }

    fn set_segments(&mut self, segments: &Segments) {
        self.make_current();
        state::set_segments(segments);
    }

    fn system(&self) -> SystemRegisters {
        self.make_current();
        state::system(&self.system_call, self.cstar)
    }

    fn set_system(&mut self, system: &SystemRegisters) {
        self.make_current();
        self.system_call = SystemCall {
            star: system.star,
            lstar: cpu::canonical(system.lstar),
            fmask: system.sfmask & 0xffff_ffff,
            kernel_gs_base: cpu::canonical(system.kernel_gs_base),
        };
        self.system_call_owner = 0;
        self.cstar = system.cstar;
        state::set_system(system);
    }

    fn debug(&self) -> (u64, u64) {
        self.make_current();
        (self.dr6, read(Field::GUEST_DR7))
    }

    fn set_debug(&mut self, dr6: u64, dr7: u64) {
        self.make_current();
        self.dr6 = dr6 & 0xffff_ffff;
        write(Field::GUEST_DR7, dr7 & 0xffff_ffff);
    }

    fn interruptibility(&self) -> u64 {
        self.make_current();
        read(Field::GUEST_INTERRUPTIBILITY_STATE) & state::INTERRUPTIBILITY
    }

    fn set_interruptibility(&mut self, value: u64) {
        self.make_current();
        write(Field::GUEST_INTERRUPTIBILITY_STATE, value & state::INTERRUPTIBILITY);
    }

    fn set_tsc_ratio(&mut self, ratio: TscRatio) -> bool {
        let is_scaled =
            capability::setup().is_some_and(|setup| setup.secondary.contains(SecondaryControls::USE_TSC_SCALING));
        if is_scaled {
            self.make_current();
            write(Field::TSC_MULTIPLIER, ratio.to_bits());
        }
        is_scaled
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.make_current();
        write(Field::TSC_OFFSET, offset);
    }
}
