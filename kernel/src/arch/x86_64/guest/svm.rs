//! AMD SVM with nested paging (APM 2, chapter 15).
#![expect(unsafe_code, reason = "guests are run by privileged instructions on structures in memory")]

use core::arch::global_asm;
use core::arch::x86_64::__cpuid;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use dragonfly_abi::Status;
use dragonfly_abi::arch::guest::{DescriptorTable, General, Segment, VCPU_GENERAL_OFFSET};
use dragonfly_abi::guest::PortAccess;
use dragonfly_hw::x86::cpuid::{Extended1Ecx, ExtendedAEdx, LEAF_EXTENDED, LEAF_EXTENDED_MAXIMUM, LEAF_SVM};
use dragonfly_hw::x86::exception::Exception;
use dragonfly_hw::x86::msr::{
    Efer, IA32_CSTAR, IA32_EFER, IA32_FMASK, IA32_FS_BASE, IA32_GS_BASE, IA32_KERNEL_GS_BASE, IA32_LSTAR, IA32_PAT,
    IA32_STAR, IA32_SYSENTER_CS, IA32_SYSENTER_EIP, IA32_SYSENTER_ESP, PAT_RESET, VM_CR, VM_HSAVE_PA, VmCr,
};
use dragonfly_hw::x86::svm::control::{InterruptShadow, NestedControl, TlbControl, VirtualInterrupt};
use dragonfly_hw::x86::svm::event::{EventInjection, EventType};
use dragonfly_hw::x86::svm::exit::{ExitCode, IoInfo, NestedPageFault};
use dragonfly_hw::x86::svm::intercept::{Intercept3, Intercept4, InterceptException};
use dragonfly_hw::x86::svm::permission::{IOPM_SIZE, MSRPM_SIZE, msrpm_bit};
use dragonfly_hw::x86::svm::{SegmentAttributes, Vmcb, VmcbSegment};
use dragonfly_memory::{Account, FrameUse, GuestPhys, HostPhys, PAGE_SIZE, PhysicalMemory};

use zerocopy::FromZeros;

use super::hardware::{ControlRegisters, Event, Exit, Hardware, Segments, SystemRegisters};
use super::{Local as GuestLocal, access_right};
use crate::Ref;
use crate::arch::x86_64::registers::{read_msr, write_msr};
use crate::arch::x86_64::{FRAMES, KernelHeap, X86};
use crate::frames::OwnedFrame;
use crate::shared_page::SharedPage;

/// Registers that the guest reads and writes itself: VMLOAD, VMSAVE and VMRUN switch them.
const GUEST_MSRS: [u32; 11] = [
    IA32_STAR,
    IA32_LSTAR,
    IA32_CSTAR,
    IA32_FMASK,
    IA32_KERNEL_GS_BASE,
    IA32_FS_BASE,
    IA32_GS_BASE,
    IA32_SYSENTER_CS,
    IA32_SYSENTER_ESP,
    IA32_SYSENTER_EIP,
    IA32_PAT,
];
/// Bit of a segment's attributes in the state page: unusable.
const UNUSABLE: u32 = 1 << 16;
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

/// CPUID 0x8000_000a, EDX.
static FEATURES: AtomicU32 = AtomicU32::new(0);
/// How many address space identifiers there are.
static ASIDS: AtomicU32 = AtomicU32::new(0);
/// Permission maps, the same for all guests: all ports are intercepted, and all registers but [`GUEST_MSRS`].
static IOPM: AtomicU64 = AtomicU64::new(0);
static MSRPM: AtomicU64 = AtomicU64::new(0);

fn has(feature: ExtendedAEdx) -> bool {
    ExtendedAEdx::from_bits_retain(FEATURES.load(Ordering::Relaxed)).contains(feature)
}

/// Finds out whether this machine has it.
pub fn detect() -> bool {
    if __cpuid(LEAF_EXTENDED_MAXIMUM).eax < LEAF_SVM
        || !Extended1Ecx::from_bits_retain(__cpuid(LEAF_EXTENDED).ecx).contains(Extended1Ecx::SVM)
    {
        return false;
    }
    let leaf = __cpuid(LEAF_SVM);
    FEATURES.store(leaf.edx, Ordering::Relaxed);
    ASIDS.store(leaf.ebx.max(2), Ordering::Relaxed);
    if VmCr::from_bits_retain(read_msr(VM_CR)).contains(VmCr::SVMDIS) {
        log::warn!("no virtual machines: the firmware has disabled SVM");
        return false;
    }
    if !has(ExtendedAEdx::NP) {
        log::warn!("no virtual machines: SVM without nested paging");
        return false;
    }
    let (Some(ports), Some(msrs)) = (new_map(IOPM_SIZE), new_map(MSRPM_SIZE)) else {
        log::error!("no virtual machines: no memory for permission maps");
        return false;
    };
    for bit in GUEST_MSRS.into_iter().filter_map(msrpm_bit) {
        // SAFETY: The map was just made, is this large, and no guest uses it yet.
        unsafe {
            let byte = X86.pointer(msrs).add(bit as usize / 8);
            byte.write(byte.read() & !(0b11 << (bit % 8)));
        }
    }
    IOPM.store(ports.as_u64(), Ordering::Relaxed);
    MSRPM.store(msrs.as_u64(), Ordering::Relaxed);
    let features = [
        ("nRIP", ExtendedAEdx::NRIPS),
        ("flush-by-ASID", ExtendedAEdx::FLUSH_BY_ASID),
        ("decode-assists", ExtendedAEdx::DECODE_ASSISTS),
        ("pause-filter", ExtendedAEdx::PAUSE_FILTER),
    ];
    let list =
        |is_there: bool| features.iter().filter(move |(_, feature)| has(*feature) == is_there).map(|(name, _)| *name);
    log::info!("virtual machines by SVM, {} address spaces; used: {}", leaf.ebx, Names(list(true)));
    log::info!("SVM features that are missing: {}", Names(list(false)));
    true
}

/// Names with commas.
pub(super) struct Names<I>(pub I);

impl<I: Iterator<Item = &'static str> + Clone> core::fmt::Display for Names<I> {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let mut is_empty = true;
        for name in self.0.clone() {
            if !is_empty {
                formatter.write_str(", ")?;
            }
            is_empty = false;
            formatter.write_str(name)?;
        }
        if is_empty { formatter.write_str("none") } else { Ok(()) }
    }
}

/// A permission map that intercepts everything.
pub(super) fn new_map(bytes: usize) -> Option<HostPhys> {
    let pages = (bytes as u64).div_ceil(PAGE_SIZE).next_power_of_two();
    let frame = FRAMES.lock().alloc(pages.trailing_zeros(), 0, FrameUse::Kernel)?;
    // SAFETY: The block was just taken, and is this large.
    unsafe { X86.pointer(frame).write_bytes(0xff, (pages * PAGE_SIZE) as usize) };
    Some(frame)
}

/// What a CPU keeps.
pub struct Local {
    /// Where VMSAVE has put the host's registers that VMRUN does not switch.
    host: u64,
    next_asid: u32,
    /// How often the address space identifiers have run out.
    asid_epoch: u64,
}

impl Local {
    /// Of a CPU that has run no guest.
    pub const NEW: Self = Self { host: 0, next_asid: 1, asid_epoch: 1 };
}

/// Switches SVM on. False if there is no memory.
pub fn enable_on_this_cpu(local: &mut Local) -> bool {
    let frames = [0; 2].map(|_| FRAMES.lock().alloc(0, 0, FrameUse::Kernel));
    let [Some(saved), Some(host)] = frames else { return false };
    // SAFETY: The CPU has SVM, and both frames are its own from now on. VMSAVE stores segments and system-call registers,
    // which stay as they are.
    unsafe {
        write_msr(IA32_EFER, read_msr(IA32_EFER) | Efer::SVME.bits());
        write_msr(VM_HSAVE_PA, saved.as_u64());
        core::arch::asm!("vmsave rax", in("rax") host.as_u64(), options(nostack));
    }
    local.host = host.as_u64();
    true
}

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

    fn view(&self) -> &Vmcb {
        // SAFETY: As in `vmcb`.
        unsafe { self.frame.pointer().cast().as_ref() }
    }

    /// Length of instructions that have one form, for processors that do not tell. With needless prefixes they are
    /// longer: such a guest finds itself in the middle of its instruction (docs/CAVEATS.md).
    fn usual_length(code: ExitCode) -> u32 {
        match code {
            ExitCode::HLT => 1,
            ExitCode::CPUID | ExitCode::MSR | ExitCode::INVD | ExitCode::WBINVD | ExitCode::PAUSE => 2,
            ExitCode::VMMCALL | ExitCode::XSETBV => 3,
            _ => 0,
        }
    }

    /// Gives an event whose delivery was interrupted by the exit to the guest again.
    fn redeliver(&mut self) {
        let event = self.view().control.exit_int_info;
        if !event.is_valid() {
            return;
        }
        // Taken already, though its delivery was interrupted: QEMU's emulation keeps it pending, too.
        if event.kind() == Some(EventType::Interrupt) && self.offered == Some(event.vector()) {
            self.vmcb().control.virtual_interrupt &= !VirtualInterrupt::V_IRQ;
        }
        let is_again = match event.kind() {
            Some(EventType::Interrupt | EventType::Nmi) => true,
            // INT3 and INTO run again by themselves: the instruction pointer is at them.
            Some(EventType::Exception) => {
                let vector = event.vector();
                vector != Exception::Breakpoint.vector() && vector != Exception::Overflow.vector()
            }
            Some(EventType::SoftwareInterrupt) | None => false,
        };
        if is_again {
            self.vmcb().control.event_injection = event;
        }
    }

    /// An IRET of an NMI handler was to be executed: has it been?
    fn look_at_iret(&mut self) {
        if self.iret_at != Some(self.view().save.rip) && !self.is_stepping {
            self.end_nmi();
        }
    }

    /// The guest can take an NMI again.
    fn end_nmi(&mut self) {
        self.is_nmi_blocked = false;
        self.iret_at = None;
    }

    fn io(info: IoInfo) -> Exit {
        let access = PortAccess::new(info.port(), info.access_size(), info.contains(IoInfo::IN));
        if info.contains(IoInfo::STR) {
            Exit::Port(access.string(info.contains(IoInfo::REP)))
        } else {
            Exit::Port(access)
        }
    }

    fn decode(&mut self) -> Exit {
        let control = &self.view().control;
        let (code, first, second) = (control.exit_code, control.exit_info_1, control.exit_info_2);
        match code {
            ExitCode::CPUID => Exit::Cpuid,
            ExitCode::MSR if first == 0 => Exit::MsrRead,
            ExitCode::MSR => Exit::MsrWrite,
            ExitCode::INTR => Exit::Interrupt(None),
            ExitCode::HLT => Exit::Halt,
            ExitCode::IOIO => Self::io(IoInfo::from_bits_retain(first)),
            ExitCode::NPF => {
                let fault = NestedPageFault::from_bits_retain(first);
                let access = access_right(fault.contains(NestedPageFault::RW), fault.contains(NestedPageFault::ID));
                Exit::Memory { address: GuestPhys::new(second), access, linear: 0 }
            }
            ExitCode::VMMCALL => Exit::Hypercall,
            ExitCode::XSETBV => Exit::Xsetbv,
            ExitCode::PAUSE => Exit::Pause,
            ExitCode::INVD | ExitCode::WBINVD => Exit::CacheControl,
            // STGI lets the host's NMI come.
            ExitCode::NMI | ExitCode::SMI | ExitCode::INIT => Exit::Nmi,
            ExitCode::IRET => {
                // NMIs stay blocked until it has been executed: a handler on a stack of its own may not be entered
                // again while its frame is in use.
                self.iret_at = Some(self.view().save.rip);
                self.vmcb().control.intercept_3 &= !Intercept3::IRET;
                Exit::Window
            }
            ExitCode::RDPMC => Exit::Forbidden,
            ExitCode::VMRUN
            | ExitCode::VMLOAD
            | ExitCode::VMSAVE
            | ExitCode::STGI
            | ExitCode::CLGI
            | ExitCode::SKINIT
            | ExitCode::INVLPGA
            | ExitCode::RSM
            | ExitCode::MONITOR
            | ExitCode::MWAIT
            | ExitCode::MWAIT_CONDITIONAL
            | ExitCode::RDPRU => Exit::Undefined,
            ExitCode::SHUTDOWN => Exit::Shutdown,
            ExitCode::INVALID => Exit::EntryFailed(u64::from(code.0)),
            _ => match code.exception() {
                Some(vector) if vector == Exception::MachineCheck.vector() => Exit::MachineCheck,
                Some(vector) if vector == Exception::Debug.vector() && self.is_stepping => {
                    self.is_stepping = false;
                    self.vmcb().save.dr6 &= !SINGLE_STEPPED;
                    self.end_nmi();
                    Exit::Window
                }
                // Intercepted only so that an endless stream of them is left at each (CVE-2015-5307, CVE-2015-8104).
                Some(vector) => {
                    let has_code = vector == Exception::AlignmentCheck.vector();
                    self.inject(Event::exception(vector, has_code.then_some(first as u32)));
                    Exit::Done
                }
                None => Exit::Unknown(u64::from(code.0), first, second),
            },
        }
    }
}

impl Hardware for SvmVcpu {
    #[inline]
    fn prepare(&mut self, local: &mut GuestLocal, _page: &SharedPage<X86>, generation: u64) {
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
        if vmcb.control.exit_code == ExitCode::INVALID {
            // QEMU's emulation has saved the host's registers in place of the guest's.
            vmcb.save.zero();
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
        if !event.is_valid() {
            return;
        }
        // The forms differ only in privileged and software exceptions, which SVM counts among the exceptions.
        let kind = match event.information >> 8 & 7 {
            5 | 6 => 3,
            kind => kind,
        };
        let information = event.information & !(7 << 8) & 0x8000_08ff | kind << 8;
        self.vmcb().control.event_injection =
            EventInjection(u64::from(information) | u64::from(event.error_code) << 32);
    }

    fn inject_nmi(&mut self) -> bool {
        if self.iret_at.is_some() && !self.is_stepping {
            // Leave the guest behind the IRET (as a trap of its flag, which IRET itself replaces).
            self.is_stepping = true;
            self.vmcb().save.rflags |= TRAP_FLAG;
        }
        let is_blocked = self.is_nmi_blocked;
        let control = &mut self.vmcb().control;
        if is_blocked || control.event_injection.is_valid() || !control.interrupt_shadow.is_empty() {
            return false;
        }
        control.event_injection = EventInjection::new(EventType::Nmi, Exception::Nmi.vector());
        control.intercept_3 |= Intercept3::IRET;
        self.is_nmi_blocked = true;
        true
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

/// A segment as the state page has it.
fn shown(segment: &VmcbSegment) -> Segment {
    let bits = u32::from(segment.attributes.bits());
    let unusable = if segment.attributes.contains(SegmentAttributes::P) { 0 } else { UNUSABLE };
    Segment {
        selector: segment.selector.into(),
        attributes: bits & 0xff | (bits & 0xf00) << 4 | unusable,
        limit: segment.limit,
        reserved: 0,
        base: segment.base,
    }
}

/// A segment as the control block has it.
fn stored(segment: Segment) -> VmcbSegment {
    let bits = segment.attributes & 0xff | segment.attributes >> 4 & 0xf00;
    let present = if segment.attributes & UNUSABLE != 0 { !0x80 } else { !0 };
    VmcbSegment {
        selector: segment.selector as u16,
        attributes: SegmentAttributes::from_bits_retain((bits & present) as u16),
        limit: segment.limit,
        base: segment.base,
    }
}

const _: () = assert!(VCPU_GENERAL_OFFSET == 0);

unsafe extern "sysv64" {
    /// Runs a guest until it exits: its control block, its general registers, where this CPU's own are.
    fn dragonfly_svm_run(block: u64, general: NonNull<u64>, host: u64);
}

// With V_INTR_MASKING the host's IF says whether its interrupts make the guest exit: it is on while the global interrupt
// flag is off (APM 2, 15.21.1). VMRUN keeps the host's RAX and RSP; all other registers are the guest's after it.
global_asm!(
    r#"
    .pushsection .text.dragonfly_svm, "ax", @progbits
    .global dragonfly_svm_run
    .type dragonfly_svm_run, @function
dragonfly_svm_run:
    push rbx
    push rbp
    push r12
    push r13
    push r14
    push r15
    push rdx
    push rsi
    mov rax, rdi
    mov rcx, [rsi + 8]
    mov rdx, [rsi + 16]
    mov rbx, [rsi + 24]
    mov rbp, [rsi + 40]
    mov rdi, [rsi + 56]
    mov r8, [rsi + 64]
    mov r9, [rsi + 72]
    mov r10, [rsi + 80]
    mov r11, [rsi + 88]
    mov r12, [rsi + 96]
    mov r13, [rsi + 104]
    mov r14, [rsi + 112]
    mov r15, [rsi + 120]
    mov rsi, [rsi + 48]
    clgi
    sti
    vmload rax
    vmrun rax
    vmsave rax
    cli
    pop rax
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
    pop rax
    vmload rax
    stgi
    pop r15
    pop r14
    pop r13
    pop r12
    pop rbp
    pop rbx
    // What the guest left in the registers is not for speculation.
    xor ecx, ecx
    xor edx, edx
    xor esi, esi
    xor edi, edi
    xor r8d, r8d
    xor r9d, r9d
    xor r10d, r10d
    xor r11d, r11d
    ret
    .size dragonfly_svm_run, . - dragonfly_svm_run
    .popsection
    "#
);
