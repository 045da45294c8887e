//! Virtual machines: what `VcpuRun` gives and takes. The registers are in [`arch::guest`](crate::arch::guest).

use bitflags::bitflags;

use crate::Rights;

/// The most vCPUs of a virtual machine; their numbers are below it.
pub const MAX_VCPUS: u32 = 64;

/// First guest-physical address that cannot be mapped: four-level tables translate 48 bits.
pub const GUEST_END: u64 = 1 << 48;

/// Words of a bitmap of dirty pages: a bit for each page of 16 MiB, lowest first.
pub const DIRTY_WORDS: usize = 64;

/// Bytes of the record by which a guest is told of stolen time; it begins at a multiple of them.
pub const RECORD_SIZE: u64 = 64;

/// Words of that record.
pub const RECORD_WORDS: usize = RECORD_SIZE as usize / 8;

/// Bytes of the record in which a guest ends interrupts; it begins at a multiple of them.
pub const END_SIZE: u64 = 4;

/// What a record is that kernel and guest share. Their form is the architecture's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum RecordKind {
    /// The guest is told of the time in which the vCPU was to run and others had its CPU: [`RECORD_SIZE`] bytes.
    StolenTime = 0,
    /// The guest ends interrupts without being left: [`END_SIZE`] bytes.
    EndOfInterrupt = 1,
}

impl RecordKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_raw(raw: u64) -> Option<Self> {
        match raw {
            0 => Some(Self::StolenTime),
            1 => Some(Self::EndOfInterrupt),
            _ => None,
        }
    }
}

/// Why a vCPU came back from the guest: bits 0 to 31 of the first word. Bits 32 to 63 are the length in bytes of the
/// instruction that caused the exit, 0 if it is not known. The words `a`, `b` and `c` say more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum ExitReason {
    /// [`VcpuKick`](crate::Call::VcpuKick) was called.
    Kicked = 0,
    /// An access to an I/O port. `a` is a [`PortAccess`], `b` the value of an output that is no string.
    Port = 1,
    /// An access to guest-physical memory that nothing is mapped at, or not with that right. `a` is the address, `b` a
    /// [`MemoryAccess`], `c` the linear address or 0 if it is not known. The instruction's bytes have to be fetched by
    /// the VMM. CR0, CR3, CR4 and EFER are valid.
    Memory = 2,
    /// CPUID of a leaf that the table does not have. `a` is the leaf, `b` the sub-leaf.
    Cpuid = 3,
    /// RDMSR that the policy leaves to the VMM. `a` is the register.
    MsrRead = 4,
    /// WRMSR that the policy leaves to the VMM. `a` is the register, `b` the value.
    MsrWrite = 5,
    /// A hypercall, other than KVM's; number and arguments are in the general registers.
    Hypercall = 6,
    /// The guest ended a level-triggered interrupt. `a` is the vector.
    ApicEoi = 7,
    /// The vCPU got an INIT: the VMM resets its registers, and runs it with [`RunFlags::WAIT_FOR_STARTUP`].
    Init = 8,
    /// The vCPU got a start-up message. `a` is the vector.
    Startup = 9,
    /// A triple fault.
    Shutdown = 10,
    /// A task switch. `a` is the selector, `b` what the hardware says of it.
    TaskSwitch = 11,
    /// The hardware refused the state that was to run. `a` is its reason.
    EntryFailed = 12,
    /// An instruction that needs the VMM. `a` is an [`Instruction`].
    Instruction = 13,
    /// An exit that this kernel does not know. `a` is the hardware's number, `b` and `c` what it says of it.
    Unknown = 14,
    /// A machine check that hit this guest.
    MachineCheck = 15,
}

impl ExitReason {
    /// Every reason.
    pub const ALL: [Self; 16] = [
        Self::Kicked,
        Self::Port,
        Self::Memory,
        Self::Cpuid,
        Self::MsrRead,
        Self::MsrWrite,
        Self::Hypercall,
        Self::ApicEoi,
        Self::Init,
        Self::Startup,
        Self::Shutdown,
        Self::TaskSwitch,
        Self::EntryFailed,
        Self::Instruction,
        Self::Unknown,
        Self::MachineCheck,
    ];

    /// The reason with this number, if there is one.
    #[must_use]
    pub fn from_raw(raw: u32) -> Option<Self> {
        Self::ALL.get(usize::try_from(raw).ok()?).copied()
    }
}

/// Instructions that are left to the VMM; the detail of [`ExitReason::Instruction`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Instruction {
    /// An access to a control register; the second detail is what the hardware says of it.
    ControlRegister = 0,
    /// XSETBV with a value that the guest may not have: to be answered with a general-protection exception.
    Xsetbv = 1,
    /// INVD: nothing has to be done, only be skipped.
    Invd = 2,
    /// An instruction of the virtualisation extension, or another one that the guest does not have: to be answered with
    /// an invalid-opcode exception.
    Undefined = 3,
    /// MONITOR, MWAIT or RDPMC.
    Other = 4,
}

/// An access to an I/O port: a detail of [`ExitReason::Port`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PortAccess(pub u64);

impl PortAccess {
    const IN: u64 = 1 << 24;
    const STRING: u64 = 1 << 25;
    const REPEATED: u64 = 1 << 26;

    /// An access of so many bytes, not by a string instruction.
    #[must_use]
    pub const fn new(port: u16, width: u8, is_in: bool) -> Self {
        Self(port as u64 | (width as u64) << 16 | if is_in { Self::IN } else { 0 })
    }

    /// By INS or OUTS, with a repeat prefix or without.
    #[must_use]
    pub const fn string(self, is_repeated: bool) -> Self {
        Self(self.0 | Self::STRING | if is_repeated { Self::REPEATED } else { 0 })
    }

    /// The port.
    #[must_use]
    pub const fn port(self) -> u16 {
        self.0 as u16
    }

    /// Bytes: 1, 2 or 4.
    #[must_use]
    pub const fn width(self) -> u8 {
        (self.0 >> 16) as u8
    }

    /// Whether it is an input.
    #[must_use]
    pub const fn is_in(self) -> bool {
        self.0 & Self::IN != 0
    }

    /// Whether it is INS or OUTS: CONTROL and SEGMENTS are valid, and the instruction has to be emulated.
    #[must_use]
    pub const fn is_string(self) -> bool {
        self.0 & Self::STRING != 0
    }

    /// Whether a string instruction has a repeat prefix.
    #[must_use]
    pub const fn is_repeated(self) -> bool {
        self.0 & Self::REPEATED != 0
    }
}

/// An access to guest-physical memory, and the mode of the code that made it: a detail of [`ExitReason::Memory`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryAccess(pub u64);

impl MemoryAccess {
    const PRIVILEGE_SHIFT: u32 = 32;
    const IS_64_BIT: u64 = 1 << 34;
    const IS_FINAL: u64 = 1 << 35;

    /// An access that needs this right, by code of a privilege level from 0 to 3.
    #[must_use]
    pub const fn new(right: Rights, privilege: u8, is_64_bit: bool, is_final: bool) -> Self {
        let privilege = ((privilege & 3) as u64) << Self::PRIVILEGE_SHIFT;
        let is_64_bit = if is_64_bit { Self::IS_64_BIT } else { 0 };
        let is_final = if is_final { Self::IS_FINAL } else { 0 };
        Self(right.bits() as u64 | privilege | is_64_bit | is_final)
    }

    /// READ, WRITE or EXECUTE.
    #[must_use]
    pub const fn right(self) -> Rights {
        Rights::from_bits_truncate(self.0 as u32)
    }

    /// The privilege level.
    #[must_use]
    pub const fn privilege(self) -> u8 {
        (self.0 >> Self::PRIVILEGE_SHIFT & 3) as u8
    }

    /// Whether it is 64-bit code.
    #[must_use]
    pub const fn is_64_bit(self) -> bool {
        self.0 & Self::IS_64_BIT != 0
    }

    /// Whether it is the instruction's own access, which the guest's page tables and segments allow; else, as far as the
    /// hardware tells, one to the tables.
    #[must_use]
    pub const fn is_final(self) -> bool {
        self.0 & Self::IS_FINAL != 0
    }
}

bitflags! {
    /// What `VcpuRun` does before it enters the guest. The register groups are those of the state page that the VMM has
    /// changed; the sixteen general registers are always taken.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct RunFlags: u64 {
        /// Takes RIP and RFLAGS.
        const POINTER = 1 << 0;
        /// Takes segments and descriptor tables.
        const SEGMENTS = 1 << 1;
        /// Takes control registers, EFER and XCR0.
        const CONTROL = 1 << 2;
        /// Takes debug registers.
        const DEBUG = 1 << 3;
        /// Takes model-specific registers.
        const MSRS = 1 << 4;
        /// Takes the event to inject and the interruptibility.
        const EVENT = 1 << 5;
        /// Skips the instruction that caused the last exit: its length is added to RIP. The length is the one in
        /// LENGTH, or if that is 0 the exit's.
        const SKIP = 1 << 8;
        /// Waits for a start-up message first.
        const WAIT_FOR_STARTUP = 1 << 9;
        /// How many bytes SKIP skips, 0 to 15. If it is not 0 RFLAGS.RF is cleared, too: the hardware sets it with an
        /// access to memory that is to be tried again (SDM 3C, "Saving RIP, RSP, RFLAGS, and SSP").
        const LENGTH = 0xf << RunFlags::LENGTH_SHIFT;
    }
}

impl RunFlags {
    /// All register groups.
    pub const GROUPS: Self = Self::from_bits_truncate(0x3f);

    const LENGTH_SHIFT: u32 = 16;

    /// Skips an instruction of so many bytes, below 16.
    #[must_use]
    pub const fn skip(length: u8) -> Self {
        Self::SKIP.union(Self::from_bits_truncate((length as u64) << Self::LENGTH_SHIFT))
    }

    /// How many bytes are to be skipped; 0 if the flags do not tell.
    #[must_use]
    pub const fn length(self) -> u32 {
        (self.intersection(Self::LENGTH).bits() >> Self::LENGTH_SHIFT) as u32
    }
}

bitflags! {
    /// How an MSR is handled without the VMM: argument of `VcpuMsr`. With neither a read bit nor a write bit that access
    /// goes to the VMM, as do registers that were never named and that the hardware or the kernel does not handle.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
    pub struct MsrPolicy: u64 {
        /// Reads give the value.
        const READ = 1 << 0;
        /// Writes replace the value.
        const WRITE = 1 << 1;
        /// Writes do nothing.
        const IGNORE_WRITES = 1 << 2;
    }
}

/// Where a doorbell is: argument of `VmDoorbell`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum DoorbellKind {
    /// A guest-physical address that nothing is mapped at.
    Memory = 0,
    /// An I/O port.
    Port = 1,
}

/// What runs virtual machines: first value of [`SystemItem::Virtualisation`](crate::SystemItem::Virtualisation).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Virtualisation {
    /// Nothing; `VmCreate` says `NotSupported`.
    None = 0,
    /// AMD SVM with nested paging.
    Svm = 1,
    /// Intel VT-x with EPT.
    Vmx = 2,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_found_by_their_numbers() {
        for reason in ExitReason::ALL {
            assert_eq!(ExitReason::from_raw(reason as u32), Some(reason));
        }
        assert_eq!(ExitReason::from_raw(16), None);
    }

    #[test]
    fn a_memory_access_keeps_what_it_was_made_of() {
        let access = MemoryAccess::new(Rights::WRITE, 3, true, false);
        assert_eq!((access.right(), access.privilege()), (Rights::WRITE, 3));
        assert!(access.is_64_bit() && !access.is_final());
        assert!(MemoryAccess::new(Rights::READ, 0, false, true).is_final());
    }

    #[test]
    fn the_length_to_skip_is_one_of_the_flags() {
        assert_eq!(RunFlags::skip(15).length(), 15);
        assert_eq!((RunFlags::skip(0), RunFlags::skip(16)), (RunFlags::SKIP, RunFlags::SKIP));
        assert_eq!(RunFlags::from_bits(RunFlags::skip(7).bits()), Some(RunFlags::skip(7)));
        assert!(!RunFlags::GROUPS.intersects(RunFlags::LENGTH));
    }

    #[test]
    fn a_port_access_keeps_what_it_was_made_of() {
        let access = PortAccess::new(0x3f8, 4, true).string(true);
        assert_eq!((access.port(), access.width()), (0x3f8, 4));
        assert!(access.is_in() && access.is_string() && access.is_repeated());
        assert!(!PortAccess::new(0xffff, 1, false).is_in());
    }
}
