//! What a back end does: SVM and VT-x are two implementations of [`Hardware`].

use dragonfly_abi::Rights;
use dragonfly_abi::arch::guest::{DescriptorTable, Segment, TscRatio};
use dragonfly_abi::guest::PortAccess;
use dragonfly_memory::GuestPhys;
use dragonfly_vapic::LocalApic;

use super::Local;
use crate::arch::x86_64::X86;
use crate::shared_page::SharedPage;
use crate::space::GuestSpace;

/// Why the guest was left, in terms that both back ends have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// An interrupt of the host: its vector if the CPU has taken it, or it is pending still.
    Interrupt(Option<u8>),
    /// A non-maskable interrupt of the host, dealt with.
    Nmi,
    /// CPUID.
    Cpuid,
    /// HLT.
    Halt,
    /// RDMSR.
    MsrRead,
    /// WRMSR.
    MsrWrite,
    /// XSETBV.
    Xsetbv,
    /// VMCALL or VMMCALL.
    Hypercall,
    /// INVD, WBINVD: to be skipped.
    CacheControl,
    /// The processor's log of pages that the guest writes is full.
    LogFull,
    /// PAUSE, too often.
    Pause,
    /// An access to a port, and the length of the instruction.
    Port(PortAccess),
    /// An access to memory that the second stage does not allow.
    Memory {
        /// Where.
        address: GuestPhys,
        /// One of READ, WRITE, EXECUTE.
        access: Rights,
        /// The linear address, or 0.
        linear: u64,
        /// It is the access of an instruction, not one to the guest's page tables.
        is_final: bool,
    },
    /// The guest can take an interrupt or NMI now.
    Window,
    /// The hardware has ended a level-triggered interrupt of the guest.
    Eoi(u8),
    /// The guest has interrupted itself, with a vector that the hardware leaves to us.
    SelfInterrupt(u8),
    /// An instruction that the guest does not have.
    Undefined,
    /// An instruction that is answered with a general-protection exception.
    Forbidden,
    /// A triple fault.
    Shutdown,
    /// A task switch: the selector, and what the hardware says.
    TaskSwitch(u64, u64),
    /// The hardware refused to enter, and why.
    EntryFailed(u64),
    /// A machine check.
    MachineCheck,
    /// The back end has done all there was to do.
    Done,
    /// Unknown: number, and what the hardware says.
    Unknown(u64, u64, u64),
}

/// Control registers that a guest changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ControlRegisters {
    /// CR0.
    pub cr0: u64,
    /// CR2.
    pub cr2: u64,
    /// CR3.
    pub cr3: u64,
    /// CR4.
    pub cr4: u64,
    /// EFER.
    pub efer: u64,
}

/// Segment registers and descriptor tables.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Segments {
    /// ES, CS, SS, DS, FS, GS, LDTR, TR.
    pub segments: [Segment; 8],
    /// GDTR.
    pub gdtr: DescriptorTable,
    /// IDTR.
    pub idtr: DescriptorTable,
}

/// Model-specific registers that are the guest's own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the registers have their own names")]
pub struct SystemRegisters {
    pub star: u64,
    pub lstar: u64,
    pub cstar: u64,
    pub sfmask: u64,
    pub kernel_gs_base: u64,
    pub sysenter_cs: u64,
    pub sysenter_esp: u64,
    pub sysenter_eip: u64,
    pub pat: u64,
}

/// An event to inject, in the form of [`VcpuState::inject`](dragonfly_abi::arch::guest::VcpuState::inject).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event {
    /// Vector, type and flags.
    pub information: u32,
    /// Error code.
    pub error_code: u32,
}

impl Event {
    const VALID: u32 = 1 << 31;
    /// Bit of the information: an error code is delivered.
    pub const HAS_ERROR_CODE: u32 = 1 << 11;
    const HARDWARE_EXCEPTION: u32 = 3 << 8;

    /// An exception.
    pub const fn exception(vector: u8, error_code: Option<u32>) -> Self {
        let information = Self::VALID | Self::HARDWARE_EXCEPTION | vector as u32;
        match error_code {
            None => Self { information, error_code: 0 },
            Some(error_code) => Self { information: information | Self::HAS_ERROR_CODE, error_code },
        }
    }

    /// Whether there is one.
    pub const fn is_valid(self) -> bool {
        self.information & Self::VALID != 0
    }
}

/// A virtual CPU of a back end.
pub trait Hardware {
    /// Gets ready to enter on this CPU, with the registers in the page and the second stage's present translations.
    fn prepare(&mut self, local: &mut Local, page: &SharedPage<X86>, space: &GuestSpace<X86>);
    /// Tells the second stage to which pages the guest has written by the processor's log, if there is one.
    fn empty_log(&mut self, _space: &GuestSpace<X86>) {}
    /// The guest is not entered again soon: brings what [`prepare`](Self::prepare) has left in this CPU into memory.
    fn finish(&mut self, _page: &SharedPage<X86>) {}
    /// The next [`prepare`](Self::prepare) takes an identifier without translations.
    fn flush(&mut self);
    /// No CPU keeps anything of it: it is about to go.
    fn retire(&mut self) {}
    /// Enters the guest, comes back at its exit, and says why. The general registers are in the page.
    fn enter(&mut self, page: &SharedPage<X86>) -> Exit;
    /// Length of the instruction that caused the exit, if the hardware tells or it has only one form.
    fn length(&self) -> u32;
    /// Moves past an instruction.
    fn skip(&mut self, length: u32);

    /// Moves past the instruction that caused the exit that has just been decoded.
    #[inline]
    fn skip_instruction(&mut self) {
        let length = self.length();
        self.skip(length);
    }
    /// Clears RFLAGS.RF.
    fn clear_resume_flag(&mut self);

    /// Offers the guest an interrupt, whatever its task priority is, or takes the offer back.
    fn offer(&mut self, vector: Option<u8>);
    /// Whether the guest has taken what it was last offered.
    fn has_taken(&mut self) -> bool;
    /// Whether the hardware delivers interrupts itself, out of what it is lent: then none is offered.
    fn delivers(&self) -> bool {
        false
    }
    /// Whether there is nothing that it would have to be [lent](Self::lend).
    fn is_supplied(&self) -> bool {
        true
    }
    /// Lends the hardware what is requested and in service, and what has been requested since.
    fn lend(&mut self, _apic: &LocalApic) {}
    /// Takes back what was lent, to be looked at or changed.
    fn take_back(&mut self, _apic: &LocalApic) {}
    /// The guest's local APIC is in x2APIC mode now, or not any more.
    fn set_x2apic(&mut self, _is_x2apic: bool) {}
    /// Injects an event at the next entry.
    fn inject(&mut self, event: Event);
    /// Injects a non-maskable interrupt if the guest can take it. If not, it is left by [`Exit::Window`] when it can.
    fn inject_nmi(&mut self) -> bool;
    /// The guest's task priority class, its CR8.
    fn cr8(&self) -> u8;
    /// Sets it.
    fn set_cr8(&mut self, class: u8);

    /// RIP and RFLAGS.
    fn pointer(&self) -> (u64, u64);
    /// Sets them.
    fn set_pointer(&mut self, rip: u64, rflags: u64);
    /// Privilege level.
    fn privilege(&self) -> u8;
    /// Whether it runs 64-bit code.
    fn is_64_bit(&self) -> bool;
    /// Control registers.
    fn control(&self) -> ControlRegisters;
    /// Sets them.
    fn set_control(&mut self, control: &ControlRegisters);
    /// Segments.
    fn segments(&self) -> Segments;
    /// Sets them.
    fn set_segments(&mut self, segments: &Segments);
    /// Model-specific registers.
    fn system(&self) -> SystemRegisters;
    /// Sets them.
    fn set_system(&mut self, system: &SystemRegisters);
    /// DR6 and DR7.
    fn debug(&self) -> (u64, u64);
    /// Sets them.
    fn set_debug(&mut self, dr6: u64, dr7: u64);
    /// What blocks interrupts: [`VcpuState::interruptibility`](dragonfly_abi::arch::guest::VcpuState::interruptibility).
    fn interruptibility(&self) -> u64;
    /// Sets it.
    fn set_interruptibility(&mut self, value: u64);
    /// Lets the time-stamp counter run at another rate than the host's. False if the processor cannot.
    fn set_tsc_ratio(&mut self, _ratio: TscRatio) -> bool {
        false
    }
    /// Sets what is added to the time-stamp counter.
    fn set_tsc_offset(&mut self, offset: u64);
}
