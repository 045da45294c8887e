//! Why a guest was left.

use dragonfly_abi::guest::PortAccess;
use dragonfly_hw::x86::exception::Exception;
use dragonfly_hw::x86::svm::exit::{ExitCode, IoInfo, NestedPageFault};
use dragonfly_hw::x86::svm::intercept::Intercept3;
use dragonfly_memory::GuestPhys;

use super::super::access_right;
use super::super::hardware::{Event, Exit, Hardware};
use super::{SINGLE_STEPPED, SvmVcpu};

impl SvmVcpu {
    /// Length of instructions that have one form, for processors that do not tell. With needless prefixes they are
    /// longer: such a guest finds itself in the middle of its instruction (docs/CAVEATS.md).
    pub(super) fn usual_length(code: ExitCode) -> u32 {
        match code {
            ExitCode::HLT => 1,
            ExitCode::CPUID | ExitCode::MSR | ExitCode::INVD | ExitCode::WBINVD | ExitCode::PAUSE => 2,
            ExitCode::VMMCALL | ExitCode::XSETBV => 3,
            _ => 0,
        }
    }

    fn io(info: IoInfo) -> Exit {
        let access = PortAccess::new(info.port(), info.access_size(), info.contains(IoInfo::IN));
        if info.contains(IoInfo::STR) {
            Exit::Port(access.string(info.contains(IoInfo::REP)))
        } else {
            Exit::Port(access)
        }
    }

    pub(super) fn decode(&mut self) -> Exit {
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
                let is_final = fault.contains(NestedPageFault::FINAL);
                Exit::Memory { address: GuestPhys::new(second), access, linear: 0, is_final }
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
