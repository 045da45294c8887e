//! Why the guest was left.
#![expect(unsafe_code, reason = "it enters the guest, and hands a non-maskable interrupt to the kernel")]

use core::arch::asm;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicBool, Ordering};

use dragonfly_abi::arch::guest::General;
use dragonfly_abi::guest::PortAccess;
use dragonfly_hw::x86::apic::SELF_IPI;
use dragonfly_hw::x86::control::Cr0;
use dragonfly_hw::x86::exception::Exception;
use dragonfly_hw::x86::msr::{IA32_CSTAR, IA32_FMASK, IA32_LSTAR, IA32_STAR};
use dragonfly_hw::x86::vmx::control::PrimaryControls;
use dragonfly_hw::x86::vmx::event::{Interruption, InterruptionType};
use dragonfly_hw::x86::vmx::exit::{BasicReason, ExitReason};
use dragonfly_hw::x86::vmx::field::Field;
use dragonfly_hw::x86::vmx::qualification::{CrAccess, EptViolation, IoAccess, TaskSwitch};
use dragonfly_memory::GuestPhys;

use super::super::access_right;
use super::super::hardware::{Event, Exit, Hardware};
use super::VmxVcpu;
use super::cpu::canonical;
use super::entry::dragonfly_vmx_run;
use super::event::{redeliver, set_nmi_blocking};
use super::state;
use super::vmcs::{read, write};
use crate::arch::x86_64::X86;
use crate::shared_page::SharedPage;

/// Exits after which the length of the instruction is known, by the number of their reason (SDM 3C, "Information for VM
/// Exits Due to Instruction Execution").
const OF_INSTRUCTIONS: u64 = {
    let list = [
        BasicReason::CPUID,
        BasicReason::GETSEC,
        BasicReason::HLT,
        BasicReason::INVD,
        BasicReason::INVLPG,
        BasicReason::RDPMC,
        BasicReason::VMCALL,
        BasicReason::VMCLEAR,
        BasicReason::VMLAUNCH,
        BasicReason::VMPTRLD,
        BasicReason::VMPTRST,
        BasicReason::VMREAD,
        BasicReason::VMRESUME,
        BasicReason::VMWRITE,
        BasicReason::VMXOFF,
        BasicReason::VMXON,
        BasicReason::CR_ACCESS,
        BasicReason::IO_INSTRUCTION,
        BasicReason::RDMSR,
        BasicReason::WRMSR,
        BasicReason::MWAIT,
        BasicReason::MONITOR,
        BasicReason::PAUSE,
        BasicReason::INVEPT,
        BasicReason::INVVPID,
        BasicReason::WBINVD,
        BasicReason::XSETBV,
        BasicReason::TASK_SWITCH,
    ];
    let (mut all, mut i) = (0_u64, 0);
    while i < list.len() {
        all |= 1 << list[i].0;
        i += 1;
    }
    all
};

/// Whether the length of the instruction is known after such an exit.
#[inline]
pub fn is_of_instruction(reason: BasicReason) -> bool {
    reason.0 < u64::BITS as u16 && OF_INSTRUCTIONS >> reason.0 & 1 != 0
}

impl VmxVcpu {
    #[inline]
    pub(super) fn enter_and_decode(&mut self, page: &SharedPage<X86>) -> Exit {
        // SAFETY: The VMCS is current and complete: its host state is this CPU's, its second stage reaches what the guest
        // was given only. The page's first words are the general registers. Interrupts are off.
        let failed = unsafe { dragonfly_vmx_run(NonNull::from(page.words()).cast(), self.vmcs.is_launched()) };
        if failed != 0 {
            return self.failed(failed);
        }
        let reason = ExitReason(read(Field::EXIT_REASON) as u32);
        self.reason = reason.basic();
        if reason.is_entry_failure() {
            return self.refused(reason);
        }
        self.vmcs.set_launched();
        match reason.basic() {
            BasicReason::CPUID => Exit::Cpuid,
            BasicReason::VMCALL => Exit::Hypercall,
            BasicReason::RDMSR => self.msr_read(page),
            BasicReason::WRMSR => self.msr_write(page),
            BasicReason::EXTERNAL_INTERRUPT => {
                self.look_at_place();
                Exit::Interrupt(Some(Interruption(read(Field::EXIT_INTERRUPTION_INFORMATION) as u32).vector()))
            }
            BasicReason::HLT => Exit::Halt,
            BasicReason::IO_INSTRUCTION => io(IoAccess::from_bits_retain(read(Field::EXIT_QUALIFICATION))),
            reason => self.decode_rest(reason),
        }
    }

    /// Exits that are rare, or that may have interrupted the delivery of an event.
    #[inline(never)]
    fn decode_rest(&mut self, reason: BasicReason) -> Exit {
        let interrupted = Interruption(read(Field::IDT_VECTORING_INFORMATION) as u32);
        if interrupted.is_valid() {
            redeliver(interrupted);
        }
        let qualification = read(Field::EXIT_QUALIFICATION);
        match reason {
            BasicReason::EPT_VIOLATION => {
                let violation = EptViolation::from_bits_retain(qualification);
                if violation.contains(EptViolation::NMI_UNBLOCKING) && !interrupted.is_valid() {
                    set_nmi_blocking(true);
                }
                let is_final = violation.contains(EptViolation::LINEAR | EptViolation::FINAL);
                Exit::Memory {
                    address: GuestPhys::new(read(Field::GUEST_PHYSICAL_ADDRESS)),
                    access: access_right(
                        violation.contains(EptViolation::WRITE),
                        violation.contains(EptViolation::FETCH),
                    ),
                    linear: if is_final { read(Field::GUEST_LINEAR_ADDRESS) } else { 0 },
                    is_final,
                }
            }
            BasicReason::PAGE_MODIFICATION_LOG_FULL => {
                let is_unblocking =
                    EptViolation::from_bits_retain(qualification).contains(EptViolation::NMI_UNBLOCKING);
                if is_unblocking && !interrupted.is_valid() {
                    set_nmi_blocking(true);
                }
                Exit::LogFull
            }
            BasicReason::EXCEPTION_OR_NMI => self.exception(interrupted.is_valid()),
            BasicReason::INTERRUPT_WINDOW => {
                self.set_primary(PrimaryControls::INTERRUPT_WINDOW_EXITING, false);
                Exit::Window
            }
            BasicReason::NMI_WINDOW => {
                self.set_primary(PrimaryControls::NMI_WINDOW_EXITING, false);
                Exit::Window
            }
            BasicReason::TPR_BELOW_THRESHOLD => {
                self.set_threshold(0);
                Exit::Window
            }
            BasicReason::VIRTUALIZED_EOI => Exit::Eoi(qualification as u8),
            BasicReason::APIC_WRITE if qualification == SELF_IPI.into() => {
                Exit::SelfInterrupt(self.apic.register(SELF_IPI) as u8)
            }
            BasicReason::CR_ACCESS => control_register(CrAccess::from_bits_retain(qualification)),
            // Whatever waits for the host comes now.
            BasicReason::PREEMPTION_TIMER => {
                self.look_at_place();
                write(Field::PREEMPTION_TIMER, self.longest_stay.into());
                Exit::Interrupt(None)
            }
            BasicReason::PAUSE => Exit::Pause,
            BasicReason::XSETBV => Exit::Xsetbv,
            BasicReason::INVD | BasicReason::WBINVD => Exit::CacheControl,
            BasicReason::RDPMC => Exit::Forbidden,
            BasicReason::GETSEC
            | BasicReason::VMCLEAR
            | BasicReason::VMLAUNCH
            | BasicReason::VMPTRLD
            | BasicReason::VMPTRST
            | BasicReason::VMREAD
            | BasicReason::VMRESUME
            | BasicReason::VMWRITE
            | BasicReason::VMXOFF
            | BasicReason::VMXON
            | BasicReason::INVEPT
            | BasicReason::INVVPID
            | BasicReason::VMFUNC
            | BasicReason::MONITOR
            | BasicReason::MWAIT => Exit::Undefined,
            BasicReason::TRIPLE_FAULT => Exit::Shutdown,
            BasicReason::TASK_SWITCH => Exit::TaskSwitch(TaskSwitch(qualification).selector().into(), qualification),
            // Of the host, which has no use for it in VMX operation.
            BasicReason::INIT => Exit::Done,
            BasicReason::MACHINE_CHECK => Exit::MachineCheck,
            _ => Exit::Unknown(reason.0.into(), qualification, read(Field::GUEST_PHYSICAL_ADDRESS)),
        }
    }

    /// Tells once that an interrupt's exit has a wrong RIP. With several CPUs, Bochs 3.0 forgets that an exception has been
    /// delivered just before: RIP is that of the instruction that it came from (docs/CAVEATS.md). The length, which is 0
    /// after all other interrupts, is how far that is from where the guest was, but for its upper bits.
    #[inline]
    fn look_at_place(&self) {
        static IS_TOLD: AtomicBool = AtomicBool::new(false);
        // Relaxed: nothing goes with it.
        if self.is_in_bochs && read(Field::EXIT_INSTRUCTION_LENGTH) != 0 && !IS_TOLD.swap(true, Ordering::Relaxed) {
            log::warn!("the processor resumes a guest at a wrong instruction");
        }
    }

    /// VMLAUNCH or VMRESUME has failed; the guest was not entered, nor its state looked at.
    #[cold]
    fn failed(&mut self, kind: u32) -> Exit {
        self.reason = BasicReason::EXTERNAL_INTERRUPT;
        self.forget_event();
        Exit::EntryFailed(if kind == 2 { read(Field::VM_INSTRUCTION_ERROR) } else { 0 })
    }

    /// The guest's state is not one that can be entered: the reason, and the qualification in the upper half.
    #[cold]
    fn refused(&mut self, reason: ExitReason) -> Exit {
        self.forget_event();
        Exit::EntryFailed(u64::from(reason.0) | read(Field::EXIT_QUALIFICATION) << 32)
    }

    /// What was to be delivered was not: an interrupt is pending still, and an exception is the VMM's to repeat.
    fn forget_event(&mut self) {
        self.is_injected = false;
        write(Field::ENTRY_INTERRUPTION_INFORMATION, Interruption::NONE.0.into());
    }

    fn exception(&mut self, is_delivering: bool) -> Exit {
        let information = Interruption(read(Field::EXIT_INTERRUPTION_INFORMATION) as u32);
        if information.kind() == InterruptionType::Nmi {
            // SAFETY: The exit has taken the NMI; its handler runs on a stack of its own, and IRET lets the next come.
            unsafe { asm!("int 2", options(nostack)) };
            return Exit::Nmi;
        }
        let vector = information.vector();
        if vector == Exception::MachineCheck.vector() {
            return Exit::MachineCheck;
        }
        // Intercepted only so that an endless stream of them is left at each (CVE-2015-5307, CVE-2015-8104). What was
        // being delivered meets the same exception again, or has been through it.
        if is_delivering {
            return Exit::Done;
        }
        if information.is_nmi_unblocking() {
            set_nmi_blocking(true);
        }
        if vector == Exception::Debug.vector() {
            state::note_debug_exception(read(Field::EXIT_QUALIFICATION));
        }
        let code = read(Field::EXIT_INTERRUPTION_ERROR_CODE) as u32;
        let event = Event { information: information.for_entry().0, error_code: code };
        let length = read(Field::EXIT_INSTRUCTION_LENGTH);
        self.inject(event);
        if information.kind() == InterruptionType::PrivilegedSoftwareException {
            write(Field::ENTRY_INSTRUCTION_LENGTH, length);
        }
        Exit::Done
    }

    fn msr_read(&mut self, page: &SharedPage<X86>) -> Exit {
        let words = page.words();
        if words[General::Rcx as usize].load(Ordering::Relaxed) as u32 != IA32_CSTAR {
            return Exit::MsrRead;
        }
        words[General::Rax as usize].store(self.cstar & 0xffff_ffff, Ordering::Relaxed);
        words[General::Rdx as usize].store(self.cstar >> 32, Ordering::Relaxed);
        self.skip(2);
        Exit::Done
    }

    /// System-call registers: the guest's are in the CPU while it runs.
    fn msr_write(&mut self, page: &SharedPage<X86>) -> Exit {
        let word = |register: General| page.words()[register as usize].load(Ordering::Relaxed);
        let value = word(General::Rdx) << 32 | word(General::Rax) & 0xffff_ffff;
        let is_address = canonical(value) == value;
        match word(General::Rcx) as u32 {
            IA32_STAR => self.system_call.star = value,
            IA32_LSTAR if is_address => self.system_call.lstar = value,
            // No processor with VT-x has SYSCALL outside 64-bit mode, so nothing but the value counts.
            IA32_CSTAR if is_address => self.cstar = value,
            IA32_FMASK if value >> 32 == 0 => self.system_call.fmask = value,
            IA32_LSTAR | IA32_CSTAR | IA32_FMASK => return Exit::Forbidden,
            _ => return Exit::MsrWrite,
        }
        self.system_call.kernel_gs_base = state::kernel_gs_base();
        self.system_call.write();
        self.skip(2);
        Exit::Done
    }
}

/// Of CR0 the host owns NE, of CR4 what the guest does not have.
fn control_register(access: CrAccess) -> Exit {
    if access.control_register() != 0 {
        return Exit::Forbidden;
    }
    // An exit only because NE is to be other than it seems: with that done the instruction runs again, and has all its
    // other effects.
    write(Field::CR0_READ_SHADOW, read(Field::CR0_READ_SHADOW) ^ Cr0::NE.bits());
    Exit::Done
}

fn io(access: IoAccess) -> Exit {
    let port = PortAccess::new(access.port(), access.access_size(), access.contains(IoAccess::IN));
    if access.contains(IoAccess::STRING) {
        Exit::Port(port.string(access.contains(IoAccess::REP)))
    } else {
        Exit::Port(port)
    }
}
