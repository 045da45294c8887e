//! Virtual CPUs: the calls. [`crate::guest::VirtualCpu`] is a vCPU together with its state page.

use dragonfly_abi::arch::guest::TscRatio;
use dragonfly_abi::guest::{MsrPolicy, RecordKind, RunFlags};
use dragonfly_abi::{Call, Status};

use super::handle::{Owned, define_object};
use super::{Memory, Object, Vm, call};

define_object! {
    /// A virtual CPU.
    Vcpu
}

/// Why a vCPU came back from the guest, as the kernel says it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RawExit {
    /// Number of an [`ExitReason`](dragonfly_abi::guest::ExitReason).
    pub reason: u32,
    /// Length in bytes of the instruction that caused the exit, 0 if it is not known.
    pub length: u32,
    /// Details, as the reason says.
    pub details: [u64; 3],
}

/// An entry of a vCPU's CPUID table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CpuidEntry {
    /// The leaf.
    pub leaf: u32,
    /// The sub-leaf; `None` if the leaf has none.
    pub sub_leaf: Option<u32>,
    /// EAX.
    pub eax: u32,
    /// EBX.
    pub ebx: u32,
    /// ECX.
    pub ecx: u32,
    /// EDX.
    pub edx: u32,
}

impl Vcpu {
    /// Makes a vCPU and maps its state page into the own domain.
    ///
    /// # Errors
    /// As [`crate::guest::VirtualCpu::create`]; [`Status::Overlap`] if something is mapped at the address.
    pub(crate) fn create(vm: Vm, number: u32, state_page: u64) -> Result<Owned<Self>, Status> {
        call(Call::VcpuCreate, [vm.handle().0.into(), number.into(), state_page])
            .map(|words| Owned::from_word(words[0]))
    }

    /// Runs the guest until it needs the caller.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, [`Status::BadArgument`] for
    /// unknown flags, [`Status::Busy`] if another thread runs it, [`Status::Aborted`] if it is going.
    #[inline(always)]
    pub fn run(self, flags: RunFlags) -> Result<RawExit, Status> {
        let [reason, a, b, c, ..] = call(Call::VcpuRun, [self.word(), flags.bits()])?;
        Ok(RawExit { reason: reason as u32, length: (reason >> 32) as u32, details: [a, b, c] })
    }

    /// Lets its time-stamp counter run at a frequency; gives the ratio to the host's.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, [`Status::BadArgument`] if no ratio
    /// expresses it, [`Status::NotSupported`] if it is not the host's and the processor does not scale,
    /// [`Status::Busy`] if a thread runs the vCPU.
    pub fn set_tsc_frequency(self, hz: u64) -> Result<TscRatio, Status> {
        let [bits, ..] = call(Call::VcpuTscFrequency, [self.word(), hz])?;
        Ok(TscRatio::from_bits(bits).unwrap_or(TscRatio::ONE))
    }

    /// Lets the one who runs it come back, now or at its next [`Vcpu::run`].
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without SEND.
    pub fn kick(self) -> Result<(), Status> {
        call(Call::VcpuKick, [self.word()]).map(drop)
    }

    /// Brings register groups of the state page up to date.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, [`Status::BadArgument`] for what
    /// are no groups, [`Status::Busy`] if another thread runs it.
    pub fn sync(self, groups: RunFlags) -> Result<(), Status> {
        call(Call::VcpuSync, [self.word(), groups.bits()]).map(drop)
    }

    /// Sets an entry of the CPUID table.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, [`Status::BadArgument`] for a
    /// sub-leaf above 65,535, [`Status::NoHandles`] if the table is full, [`Status::Busy`] if a thread runs the vCPU.
    pub fn set_cpuid(self, entry: &CpuidEntry) -> Result<(), Status> {
        let pair = |low: u32, high: u32| u64::from(low) | u64::from(high) << 32;
        let flags = u64::from(entry.sub_leaf.is_some());
        let arguments = [
            self.word(),
            pair(entry.leaf, entry.sub_leaf.unwrap_or(0)),
            pair(entry.eax, entry.ebx),
            pair(entry.ecx, entry.edx),
            flags,
        ];
        call(Call::VcpuCpuid, arguments).map(drop)
    }

    /// Says how a model-specific register is handled without the VMM. Those that the kernel or the hardware handles stay
    /// as they are.
    ///
    /// # Errors
    /// As [`Vcpu::set_cpuid`].
    pub fn set_msr(self, register: u32, value: u64, policy: MsrPolicy) -> Result<(), Status> {
        call(Call::VcpuMsr, [self.word(), register.into(), value, policy.bits()]).map(drop)
    }

    /// Says where the guest is told of the time in which the vCPU was to run and did not: at a multiple of
    /// [`RECORD_SIZE`](dragonfly_abi::guest::RECORD_SIZE) in a memory object, or nowhere. The form of the record is the
    /// architecture's.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, or READ and WRITE of the memory,
    /// [`Status::BadArgument`] for another offset, [`Status::NotMapped`] where the object has no frame of its own.
    pub fn set_record(self, place: Option<(Memory, u64)>) -> Result<(), Status> {
        self.share(place, RecordKind::StolenTime)
    }

    /// Says where the guest ends interrupts without being left, where the kernel has set bit 0 for that: at a multiple of
    /// [`END_SIZE`](dragonfly_abi::guest::END_SIZE) in a memory object, or nowhere. The form is the architecture's.
    ///
    /// # Errors
    /// As [`Vcpu::set_record`], and [`Status::Busy`] if a thread runs the vCPU.
    pub fn set_end_record(self, place: Option<(Memory, u64)>) -> Result<(), Status> {
        self.share(place, RecordKind::EndOfInterrupt)
    }

    fn share(self, place: Option<(Memory, u64)>, kind: RecordKind) -> Result<(), Status> {
        let (memory, offset) = place.map_or((0, 0), |(memory, offset)| (u64::from(memory.handle().0), offset));
        call(Call::VcpuRecord, [self.word(), memory, offset, kind as u64]).map(drop)
    }

    /// Reads a 32-bit register of the local APIC by its offset in the register page (SDM 3A 11.4.1).
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, [`Status::Busy`] if a thread runs
    /// the vCPU.
    pub fn read_apic(self, offset: u32) -> Result<u32, Status> {
        call(Call::VcpuApic, [self.word(), offset.into(), 0, 0]).map(|words| words[0] as u32)
    }

    /// Writes a 32-bit register of the local APIC.
    ///
    /// # Errors
    /// As [`Vcpu::read_apic`].
    pub fn write_apic(self, offset: u32, value: u32) -> Result<(), Status> {
        call(Call::VcpuApic, [self.word(), offset.into(), value.into(), 1]).map(drop)
    }
}
