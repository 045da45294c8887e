//! The authority over the machine, the clock, and the call that does nothing.

use dragonfly_abi::guest::Virtualisation;
use dragonfly_abi::{Call, StartHandles, Status, SystemItem};

use super::handle::{Owned, define_object};
use super::{Interrupt, Memory, Object, Polarity, Ports, Trigger, call};

define_object! {
    /// The authority over the machine: devices, log, figures.
    System
}

/// What one step of a walk of the caller's page tables found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageTableAudit {
    /// Leaves seen.
    pub leaves: u64,
    /// Leaves that are writable and executable.
    pub writable_executable: u64,
    /// Leaves of the kernel's half that a domain may access.
    pub kernel_accessible: u64,
    /// Where to go on; `None` at the end.
    pub next: Option<u64>,
}

/// A range of buses of the machine whose functions have their configuration registers in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PciSegment {
    /// Physical address of bus 0, even where the range begins with another bus. Each has 1 MiB.
    pub address: u64,
    /// Segment group.
    pub group: u16,
    /// The first bus.
    pub first_bus: u8,
    /// The last bus.
    pub last_bus: u8,
}

/// Where a device finds a part of a memory object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DmaRange {
    /// Physical address of its first byte.
    pub address: u64,
    /// How many bytes of the object lie there one after the other, at least.
    pub length: u64,
}

impl System {
    /// The handle from the start. What it may do depends on what the domain was granted.
    pub const OWN: Self = Self(StartHandles::SYSTEM);

    /// One of the machine's figures: up to four words.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without READ, [`Status::BadArgument`].
    pub fn info(self, item: SystemItem, argument: u64) -> Result<[u64; 4], Status> {
        let [w0, w1, w2, w3, ..] = call(Call::SystemInfo, [self.word(), item as u64, argument])?;
        Ok([w0, w1, w2, w3])
    }

    /// Free memory and all memory, in 4 KiB pages.
    ///
    /// # Errors
    /// As [`System::info`].
    pub fn free_pages(self) -> Result<(u64, u64), Status> {
        self.info(SystemItem::FreePages, 0).map(|[free, total, ..]| (free, total))
    }

    /// What runs virtual machines.
    ///
    /// # Errors
    /// As [`System::info`].
    pub fn virtualisation(self) -> Result<Virtualisation, Status> {
        let [raw, ..] = self.info(SystemItem::Virtualisation, 0)?;
        let known = [Virtualisation::None, Virtualisation::Svm, Virtualisation::Vmx];
        Ok(known.into_iter().find(|known| *known as u64 == raw).unwrap_or(Virtualisation::None))
    }

    /// One of the ranges of PCI buses that firmware describes, counted from 0; nothing past the last.
    ///
    /// # Errors
    /// As [`System::info`].
    pub fn pci_segment(self, index: u64) -> Result<Option<PciSegment>, Status> {
        let [address, group, first_bus, last_bus] = self.info(SystemItem::PciSegment, index)?;
        let segment = PciSegment { address, group: group as u16, first_bus: first_bus as u8, last_bus: last_bus as u8 };
        Ok((address != 0).then_some(segment))
    }

    /// Walks the live page tables of the caller's address space, on from an address; 0 starts.
    ///
    /// # Errors
    /// As [`System::info`].
    pub fn audit_page_tables(self, from: u64) -> Result<PageTableAudit, Status> {
        let [leaves, writable_executable, kernel_accessible, next] = self.info(SystemItem::AuditPageTables, from)?;
        Ok(PageTableAudit { leaves, writable_executable, kernel_accessible, next: (next != 0).then_some(next) })
    }

    /// Writes so many bytes of the message buffer's data to the kernel's log. [`console`](crate::console) does it
    /// for texts of any kind.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without LOG, [`Status::BadArgument`].
    pub fn log_write(self, length: usize) -> Result<(), Status> {
        call(Call::LogWrite, [self.word(), length as u64]).map(drop)
    }

    /// Makes a range of I/O ports.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without DEVICES, [`Status::BadArgument`],
    /// [`Status::Busy`] for ports that the kernel or another range has, [`Status::NoHandles`],
    /// [`Status::QuotaExceeded`], [`Status::OutOfMemory`].
    pub fn ports(self, first: u16, count: u32) -> Result<Owned<Ports>, Status> {
        call(Call::DevicePorts, [self.word(), first.into(), count.into()]).map(|words| Owned::from_word(words[0]))
    }

    /// Makes a memory object of device registers, which are not cached.
    ///
    /// # Errors
    /// As [`System::ports`]; [`Status::BadArgument`] also where the machine's RAM is.
    pub fn device_memory(self, physical_address: u64, size: u64) -> Result<Owned<Memory>, Status> {
        call(Call::DeviceMemory, [self.word(), physical_address, size]).map(|words| Owned::from_word(words[0]))
    }

    /// Tells where a device finds a memory object from a byte offset on. It stays there until the object goes: whoever
    /// has given the address to a device stops the device before that.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without DMA or, of the memory, WRITE,
    /// [`Status::BadArgument`] past the object's end, for device memory and for the bundle, [`Status::NotMapped`] where
    /// the object has no frames yet.
    pub fn memory_address(self, memory: Memory, offset: u64) -> Result<DmaRange, Status> {
        let [address, length, ..] = call(Call::MemoryAddress, [self.word(), memory.handle().0.into(), offset])?;
        Ok(DmaRange { address, length })
    }

    /// Makes an interrupt line of an interrupt number (ACPI's global system interrupt).
    ///
    /// # Errors
    /// As [`System::ports`].
    pub fn interrupt(self, number: u32, trigger: Trigger, polarity: Polarity) -> Result<Owned<Interrupt>, Status> {
        let flags = u64::from(trigger == Trigger::Level) | u64::from(polarity == Polarity::ActiveLow) << 1;
        call(Call::DeviceInterrupt, [self.word(), number.into(), flags]).map(|words| Owned::from_word(words[0]))
    }

    /// Makes a message-signalled interrupt; [`Interrupt::bind_message`] tells what its device is to write.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without DMA, [`Status::NoHandles`] also if the
    /// machine has no more, [`Status::QuotaExceeded`], [`Status::OutOfMemory`].
    pub fn message_interrupt(self) -> Result<Owned<Interrupt>, Status> {
        call(Call::DeviceMessage, [self.word()]).map(|words| Owned::from_word(words[0]))
    }
}

/// Time since the kernel started, in nanoseconds.
#[must_use]
pub fn clock_now_ns() -> u64 {
    // Without arguments nothing can be wrong with the call.
    call(Call::ClockNow, []).map_or(0, |words| words[0])
}

/// Does nothing; for measuring what a call costs.
///
/// # Errors
/// None from a working kernel.
#[inline(always)]
pub fn nop() -> Result<(), Status> {
    call(Call::Nop, []).map(drop)
}
