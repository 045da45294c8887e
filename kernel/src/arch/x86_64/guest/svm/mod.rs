//! AMD SVM with nested paging (APM 2, chapter 15).
//!
//! [`capability`] finds out what there is, [`cpu`] is what a CPU keeps. [`entry`] is the way in and out, [`exit`] tells why
//! the guest was left, [`event`] injects, and [`state`] has the guest's registers.
#![expect(unsafe_code, reason = "the control block is a structure in memory that the processor uses")]

use core::ptr::NonNull;
use core::sync::atomic::Ordering;

use dragonfly_abi::Status;
use dragonfly_abi::arch::guest::{DescriptorTable, General};
use dragonfly_hw::x86::control::Rflags;
use dragonfly_hw::x86::cpuid::ExtendedAEdx;
use dragonfly_hw::x86::exception::Exception;
use dragonfly_hw::x86::msr::{Efer, PAT_RESET};
use dragonfly_hw::x86::svm::control::{InterruptShadow, NestedControl, TlbControl, VirtualInterrupt};
use dragonfly_hw::x86::svm::exit::ExitCode;
use dragonfly_hw::x86::svm::intercept::{Intercept3, Intercept4, InterceptException};
use dragonfly_hw::x86::svm::{SegmentAttributes, Vmcb, VmcbSegment};
use dragonfly_memory::{Account, HostPhys};
use zerocopy::FromZeros;

use super::Local as GuestLocal;
use super::hardware::{ControlRegisters, Event, Exit, Hardware, Segments, SystemRegisters};
use crate::Ref;
use crate::arch::x86_64::{KernelHeap, X86};
use crate::frames::OwnedFrame;
use crate::shared_page::SharedPage;
use crate::space::GuestSpace;
use capability::{ASIDS, IOPM, MSRPM, has};
use entry::dragonfly_svm_run;
use state::{shown, stored};

mod capability;
mod cpu;
mod entry;
mod event;
mod exit;
mod state;

pub use capability::detect;
pub use cpu::{Local, enable_on_this_cpu};

/// Interruptibility in the state page: blocked by STI.
const BLOCKED_BY_STI: u64 = 1;
/// Blocked by MOV SS.
const BLOCKED_BY_MOV_SS: u64 = 2;
/// NMIs are blocked.
const NMI_BLOCKED: u64 = 8;
/// RFLAGS.TF.
const TRAP_FLAG: u64 = 1 << 8;
/// DR6.BS: the debug exception is a single step (APM 2, 13.1.1.3).
const SINGLE_STEPPED: u64 = 1 << 14;
/// DR6 after reset (APM 2, 14.1.3).
const DR6_RESET: u64 = 0xffff_0ff0;
/// DR7 after reset.
const DR7_RESET: u64 = 0x400;

/// A virtual CPU.
pub struct SvmVcpu {
    frame: OwnedFrame<X86>,
    /// Where the host's registers are on the CPU that it is prepared for.
    host: u64,
    /// CPU by its host area, epoch there, and generation of the second stage, for which its identifier is valid.
    asid_for: (u64, u64, u64),
    /// The interrupt that was offered.
    offered: Option<u8>,
    /// An NMI was injected, and its handler has not ended.
    is_nmi_blocked: bool,
    /// Where the IRET is that ends the handler and has not been executed yet.
    iret_at: Option<u64>,
    /// The IRET is executed as a single step, since another NMI waits for its end.
    is_stepping: bool,
}

impl SvmVcpu {
    /// As after reset, with a second stage.
    pub fn new(arch: X86, account: &Ref<Account<KernelHeap>, X86>, root: HostPhys) -> Result<Self, Status> {
        let frame = OwnedFrame::new(arch, account)?;
        let mut vcpu = Self {
            frame,
            host: 0,
            asid_for: (0, 0, 0),
            offered: None,
            is_nmi_blocked: false,
            iret_at: None,
            is_stepping: false,
        };
        let vmcb = vcpu.vmcb();
        let control = &mut vmcb.control;
        control.intercept_exception = InterceptException::MC | InterceptException::AC | InterceptException::DB;
        control.intercept_3 = Intercept3::INTR
            | Intercept3::NMI
            | Intercept3::SMI
            | Intercept3::INIT
            | Intercept3::RDPMC
            | Intercept3::CPUID
            | Intercept3::RSM
            | Intercept3::INVD
            | Intercept3::HLT
            | Intercept3::INVLPGA
            | Intercept3::IOIO_PROT
            | Intercept3::MSR_PROT
            | Intercept3::SHUTDOWN;
        control.intercept_4 = Intercept4::VMRUN
            | Intercept4::VMMCALL
            | Intercept4::VMLOAD
            | Intercept4::VMSAVE
            | Intercept4::STGI
            | Intercept4::CLGI
            | Intercept4::SKINIT
            | Intercept4::WBINVD
            | Intercept4::MONITOR
            | Intercept4::MWAIT
            | Intercept4::XSETBV
            | Intercept4::RDPRU;
        if has(ExtendedAEdx::PAUSE_FILTER) {
            control.intercept_3 |= Intercept3::PAUSE;
            control.pause_filter_count = 3000;
        }
        control.iopm_base_pa = IOPM.load(Ordering::Relaxed);
        control.msrpm_base_pa = MSRPM.load(Ordering::Relaxed);
        control.nested_control = NestedControl::NP_ENABLE;
        control.n_cr3 = root.as_u64();
        control.virtual_interrupt = VirtualInterrupt::V_INTR_MASKING;
        let save = &mut vmcb.save;
        save.efer = Efer::SVME.bits();
        save.cr0 = 0x6000_0010;
        save.rflags = 2;
        save.rip = 0xfff0;
        save.g_pat = PAT_RESET;
        save.dr6 = DR6_RESET;
        save.dr7 = DR7_RESET;
        let data = VmcbSegment {
            selector: 0,
            attributes: SegmentAttributes::P | SegmentAttributes::S | SegmentAttributes::RW | SegmentAttributes::A,
            limit: 0xffff,
            base: 0,
        };
        (save.ds, save.es, save.fs, save.gs, save.ss) = (data, data, data, data, data);
        save.cs = VmcbSegment { selector: 0xf000, base: 0xffff_0000, ..data };
        save.cs.attributes |= SegmentAttributes::CODE;
        save.gdtr.limit = 0xffff;
        save.idtr.limit = 0xffff;
        save.ldtr = VmcbSegment { attributes: SegmentAttributes::from_bits_retain(0x82), ..data };
        save.tr = VmcbSegment { attributes: SegmentAttributes::from_bits_retain(0x8b), ..data };
        Ok(vcpu)
    }

    fn vmcb(&mut self) -> &mut Vmcb {
        // SAFETY: The frame is this object's alone, page-aligned, reached whole through the direct map; any content is a
        // valid `Vmcb`. The processor changes it only within `enter`.
        unsafe { self.frame.pointer().cast().as_mut() }
    }

    /// The entry failed, for which QEMU's emulation saves the host's registers in place of the guest's. Or it has left the
    /// guest twice in a row, the second time with the host's registers (docs/CAVEATS.md): that is made a failed entry, too.
    #[cold]
    #[inline(never)]
    fn forget_registers(vmcb: &mut Vmcb) {
        if vmcb.control.exit_code != ExitCode::INVALID {
            log::warn!("the processor has overwritten a guest's registers with its own");
        }
        vmcb.save.zero();
        vmcb.control.virtual_interrupt = VirtualInterrupt::V_INTR_MASKING;
        vmcb.control.exit_code = ExitCode::INVALID;
    }

    fn view(&self) -> &Vmcb {
        // SAFETY: As in `vmcb`.
        unsafe { self.frame.pointer().cast().as_ref() }
    }
}

impl Hardware for SvmVcpu {
    #[inline]
    fn prepare(&mut self, local: &mut GuestLocal, _page: &SharedPage<X86>, space: &GuestSpace<X86>) {
        let generation = space.generation();
        let local = &mut local.svm;
        self.host = local.host;
        let wanted = (local.host, local.asid_epoch, generation);
        if self.asid_for == wanted {
            return;
        }
        let mut flush = TlbControl::NOTHING;
        if local.next_asid >= ASIDS.load(Ordering::Relaxed) {
            local.next_asid = 1;
            local.asid_epoch += 1;
            flush = TlbControl::FLUSH_ALL;
        }
        let asid = local.next_asid;
        local.next_asid += 1;
        self.asid_for = (local.host, local.asid_epoch, generation);
        let control = &mut self.vmcb().control;
        control.guest_asid = asid;
        control.tlb_control = flush;
    }

    fn flush(&mut self) {
        // No CPU has its host area there.
        self.asid_for = (0, 0, 0);
    }

    #[inline]
    fn enter(&mut self, page: &SharedPage<X86>) -> Exit {
        let words = page.words();
        let (host, block) = (self.host, self.frame.address().as_u64());
        let vmcb = self.vmcb();
        vmcb.save.rax = words[General::Rax as usize].load(Ordering::Relaxed);
        vmcb.save.rsp = words[General::Rsp as usize].load(Ordering::Relaxed);
        // SAFETY: The block is this virtual CPU's, complete, and its second stage reaches what the guest was given only.
        // The page's first words are the general registers. SVM is on, `host` holds this CPU's registers, and interrupts
        // are off.
        unsafe { dragonfly_svm_run(block, NonNull::from(words).cast(), host) };
        let vmcb = self.vmcb();
        // No processor changes `V_INTR_MASKING`.
        if !vmcb.control.virtual_interrupt.contains(VirtualInterrupt::V_INTR_MASKING)
            || vmcb.control.exit_code == ExitCode::INVALID
        {
            Self::forget_registers(vmcb);
        }
        words[General::Rax as usize].store(vmcb.save.rax, Ordering::Relaxed);
        words[General::Rsp as usize].store(vmcb.save.rsp, Ordering::Relaxed);
        vmcb.control.tlb_control = TlbControl::NOTHING;
        if vmcb.control.exit_int_info.is_valid() {
            self.redeliver();
        }
        if self.iret_at.is_some() {
            self.look_at_iret();
        }
        self.decode()
    }

    #[inline]
    fn length(&self) -> u32 {
        let Vmcb { control, save } = self.view();
        let length = match control.exit_code {
            // The address behind IN and OUT is always told (APM 2, 15.10.2).
            ExitCode::IOIO => control.exit_info_2.wrapping_sub(save.rip),
            _ if has(ExtendedAEdx::NRIPS) && control.next_rip != 0 => control.next_rip.wrapping_sub(save.rip),
            code => return Self::usual_length(code),
        };
        u32::try_from(length).ok().filter(|length| *length <= 15).unwrap_or(0)
    }

    #[inline]
    fn skip(&mut self, length: u32) {
        let vmcb = self.vmcb();
        let next = vmcb.save.rip.wrapping_add(u64::from(length));
        let is_long = vmcb.save.cs.attributes.contains(SegmentAttributes::L) && vmcb.save.efer & Efer::LMA.bits() != 0;
        vmcb.save.rip = if is_long { next } else { next & 0xffff_ffff };
        vmcb.control.interrupt_shadow = InterruptShadow::empty();
        if vmcb.save.rflags & TRAP_FLAG != 0 {
            vmcb.save.dr6 |= SINGLE_STEPPED;
            self.inject(Event::exception(Exception::Debug.vector(), None));
        }
    }

    #[inline]
    fn clear_resume_flag(&mut self) {
        self.vmcb().save.rflags &= !Rflags::RF.bits();
    }

    #[inline]
    fn offer(&mut self, vector: Option<u8>) {
        if self.offered == vector {
            return;
        }
        self.offered = vector;
        let control = &mut self.vmcb().control;
        let others = control.virtual_interrupt & !VirtualInterrupt::PENDING_MASK;
        control.virtual_interrupt = match vector {
            Some(vector) => others | VirtualInterrupt::pending(vector),
            None => others,
        };
    }

    #[inline]
    fn has_taken(&mut self) -> bool {
        let is_taken = !self.view().control.virtual_interrupt.contains(VirtualInterrupt::V_IRQ);
        if is_taken {
            self.offered = None;
        }
        is_taken
    }

    fn inject(&mut self, event: Event) {
        self.inject_event(event);
    }

    fn inject_nmi(&mut self) -> bool {
        self.inject_nmi_if_possible()
    }

    #[inline]
    fn cr8(&self) -> u8 {
        self.view().control.virtual_interrupt.tpr() & 0xf
    }

    fn set_cr8(&mut self, class: u8) {
        let control = &mut self.vmcb().control;
        let others = control.virtual_interrupt.bits() & !VirtualInterrupt::V_TPR_MASK;
        control.virtual_interrupt = VirtualInterrupt::from_bits_retain(others | u64::from(class & 0xf));
    }

    #[inline]
    fn pointer(&self) -> (u64, u64) {
        let save = &self.view().save;
        (save.rip, save.rflags)
    }

    fn set_pointer(&mut self, rip: u64, rflags: u64) {
        let save = &mut self.vmcb().save;
        (save.rip, save.rflags) = (rip, rflags | 2);
    }

    fn privilege(&self) -> u8 {
        self.view().save.cpl
    }

    fn is_64_bit(&self) -> bool {
        let save = &self.view().save;
        save.efer & Efer::LMA.bits() != 0 && save.cs.attributes.contains(SegmentAttributes::L)
    }

    fn control(&self) -> ControlRegisters {
        let save = &self.view().save;
        let efer = save.efer & !Efer::SVME.bits();
        ControlRegisters { cr0: save.cr0, cr2: save.cr2, cr3: save.cr3, cr4: save.cr4, efer }
    }

    fn set_control(&mut self, control: &ControlRegisters) {
        let save = &mut self.vmcb().save;
        (save.cr0, save.cr2, save.cr3, save.cr4) = (control.cr0, control.cr2, control.cr3, control.cr4);
        save.efer = control.efer | Efer::SVME.bits();
        // What was translated by other registers.
        self.asid_for = (0, 0, 0);
    }

    fn segments(&self) -> Segments {
        let save = &self.view().save;
        let all = [&save.es, &save.cs, &save.ss, &save.ds, &save.fs, &save.gs, &save.ldtr, &save.tr];
        let table = |table: &VmcbSegment| DescriptorTable { base: table.base, limit: table.limit.into() };
        Segments { segments: all.map(shown), gdtr: table(&save.gdtr), idtr: table(&save.idtr) }
    }

    fn set_segments(&mut self, segments: &Segments) {
        let save = &mut self.vmcb().save;
        let [es, cs, ss, ds, fs, gs, ldtr, tr] = segments.segments.map(stored);
        (save.es, save.cs, save.ss, save.ds) = (es, cs, ss, ds);
        (save.fs, save.gs, save.ldtr, save.tr) = (fs, gs, ldtr, tr);
        save.cpl = (ss.attributes.bits() >> SegmentAttributes::DPL_SHIFT & 3) as u8;
        (save.gdtr.base, save.gdtr.limit) = (segments.gdtr.base, segments.gdtr.limit as u32 & 0xffff);
        (save.idtr.base, save.idtr.limit) = (segments.idtr.base, segments.idtr.limit as u32 & 0xffff);
    }

    fn system(&self) -> SystemRegisters {
        let save = &self.view().save;
        SystemRegisters {
            star: save.star,
            lstar: save.lstar,
            cstar: save.cstar,
            sfmask: save.sfmask,
            kernel_gs_base: save.kernel_gs_base,
            sysenter_cs: save.sysenter_cs,
            sysenter_esp: save.sysenter_esp,
            sysenter_eip: save.sysenter_eip,
            pat: save.g_pat,
        }
    }

    fn set_system(&mut self, system: &SystemRegisters) {
        let save = &mut self.vmcb().save;
        (save.star, save.lstar, save.cstar, save.sfmask) = (system.star, system.lstar, system.cstar, system.sfmask);
        save.kernel_gs_base = system.kernel_gs_base;
        (save.sysenter_cs, save.sysenter_esp, save.sysenter_eip) =
            (system.sysenter_cs, system.sysenter_esp, system.sysenter_eip);
        save.g_pat = system.pat;
    }

    fn debug(&self) -> (u64, u64) {
        let save = &self.view().save;
        (save.dr6, save.dr7)
    }

    fn set_debug(&mut self, dr6: u64, dr7: u64) {
        let save = &mut self.vmcb().save;
        // The high halves are reserved: VMRUN refuses them.
        (save.dr6, save.dr7) = (dr6 & 0xffff_ffff, dr7 & 0xffff_ffff);
    }

    fn interruptibility(&self) -> u64 {
        let shadow = self.view().control.interrupt_shadow.contains(InterruptShadow::INTERRUPT_SHADOW);
        let nmi = if self.is_nmi_blocked { NMI_BLOCKED } else { 0 };
        nmi | if shadow { BLOCKED_BY_STI } else { 0 }
    }

    fn set_interruptibility(&mut self, value: u64) {
        self.is_nmi_blocked = value & NMI_BLOCKED != 0;
        (self.iret_at, self.is_stepping) = (None, false);
        let is_blocked = self.is_nmi_blocked;
        let control = &mut self.vmcb().control;
        control.intercept_3.set(Intercept3::IRET, is_blocked);
        control
            .interrupt_shadow
            .set(InterruptShadow::INTERRUPT_SHADOW, value & (BLOCKED_BY_STI | BLOCKED_BY_MOV_SS) != 0);
    }

    fn set_tsc_offset(&mut self, offset: u64) {
        self.vmcb().control.tsc_offset = offset;
    }
}
