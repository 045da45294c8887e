//! The machine as firmware describes it: interrupt controllers, the HPET, and what is a device.
#![expect(unsafe_code, reason = "it reads firmware's tables and takes controllers into use")]

use core::ptr;

use dragonfly_acpi::{Acpi, TableMemory};
use dragonfly_handoff::{Handoff, MemoryKind, PhysAddr};
use dragonfly_hw::x86::cpuid::Leaf1Ecx;
use dragonfly_hw::x86::msr::{APIC_BASE_ADDRESS, ApicBase, IA32_APIC_BASE};
use dragonfly_hw::x86::{hpet, pic};
use dragonfly_memory::{HostPhys, Lock, PAGE_SIZE, PhysicalMemory};
use spin::Once;

use super::handoff::{BOOT, command_line};
use crate::arch::x86_64::features::Features;
use crate::arch::x86_64::{RelaxCpu, X86, apic, clock, io_apic, kernel_space, registers};

/// What firmware says of the machine; nothing before [`discover`].
pub static ACPI: Lock<Acpi, RelaxCpu> = Lock::new(Acpi::absent());
/// Where the HPET's main counter is, for the calibration.
static HPET_COUNTER: Once<usize> = Once::new();

/// Which physical ranges firmware's tables may be read from: RAM that the kernel does not use itself.
struct Tables;

impl TableMemory for Tables {
    fn map(&self, address: u64, length: usize) -> Option<&[u8]> {
        let end = address.checked_add(length as u64)?;
        let boot = BOOT.get()?;
        let is_readable = |kind: MemoryKind| kind.is_ram() || kind == MemoryKind::RESERVED;
        let mut at = address;
        while at < end {
            let (range, _) = boot
                .map
                .iter()
                .find(|(range, kind)| is_readable(*kind) && (range.base().0..range.end().0).contains(&at))?;
            at = range.end().0;
        }
        // The loader's direct map is gone: what is no RAM has to be mapped first, and stays so.
        let start = if boot.map.kind_at(PhysAddr(address)).is_some_and(MemoryKind::is_ram) {
            X86.pointer(HostPhys::new(address)).as_ptr()
        } else {
            kernel_space::map_device(address, length as u64)?.cast()
        };
        // SAFETY: Mapped above or by the direct map; firmware's tables are written by nobody.
        Some(unsafe { core::slice::from_raw_parts(start, length) })
    }
}

/// Reads firmware's tables. Without them the machine has one CPU and no interrupt lines.
pub fn discover(handoff: &Handoff) {
    let Some(rsdp) = handoff.acpi_rsdp else {
        ::log::warn!("no ACPI: one CPU, no interrupt lines");
        return;
    };
    let mut report = |problem| ::log::warn!("ACPI: {problem}: going on without it");
    let mut acpi = ACPI.lock();
    if let Err(error) = acpi.discover(&Tables, rsdp.0, &mut report) {
        ::log::warn!("ACPI: {error}: one CPU, no interrupt lines");
    }
    ::log::info!(
        "ACPI: {} processors, {} I/O APICs, {} PCIe segments, {} NUMA CPU entries; DMA remapping units: VT-d {}, AMD-Vi {}",
        acpi.madt.processors.len(),
        acpi.madt.io_apics.len(),
        acpi.mcfg.segments.len(),
        acpi.srat.processors.len(),
        acpi.dmar.units.len(),
        acpi.ivrs.units.len()
    );
}

/// Takes x2APIC mode where the CPU has it and the command line does not forbid it, else the memory-mapped registers.
pub fn choose_apic(features: Features) {
    let base = registers::read_msr(IA32_APIC_BASE) & APIC_BASE_ADDRESS;
    let was_x2apic = ApicBase::from_bits_retain(registers::read_msr(IA32_APIC_BASE)).contains(ApicBase::EXTD);
    let has_x2apic = features.leaf_1_ecx.contains(Leaf1Ecx::X2APIC);
    let is_wanted = command_line().value("x2apic") != Some("off") || was_x2apic;
    let is_x2apic = has_x2apic && is_wanted;
    let registers = if is_x2apic { None } else { kernel_space::map_device(base, PAGE_SIZE) };
    let registers = registers.unwrap_or(ptr::null_mut());
    if !is_x2apic && registers.is_null() {
        panic!("the local APIC at {base:#x} cannot be mapped");
    }
    let has_deadline = features.leaf_1_ecx.contains(Leaf1Ecx::TSC_DEADLINE);
    // SAFETY: The registers are mapped for good, or the CPU has x2APIC mode.
    unsafe { apic::choose(is_x2apic, has_deadline, registers) };
}

/// Takes all I/O APICs into use.
pub fn add_io_apics(acpi: &Acpi) {
    for io_apic in &acpi.madt.io_apics {
        match kernel_space::map_device(io_apic.address, PAGE_SIZE) {
            Some(registers) => {
                // SAFETY: Mapped for good, at the address that firmware gives for an I/O APIC.
                let inputs = unsafe { io_apic::add(registers, io_apic.gsi_base) };
                ::log::debug!(
                    "I/O APIC at {:#x}: lines {} to {}",
                    io_apic.address,
                    io_apic.gsi_base,
                    io_apic.gsi_base + inputs - 1
                );
            }
            None => ::log::warn!("I/O APIC at {:#x} lies in RAM: going on without it", io_apic.address),
        }
    }
}

/// Lets the HPET count, if there is one that can be read.
pub fn find_hpet(acpi: &Acpi) -> Option<clock::Hpet> {
    let table = acpi.hpet.as_ref()?;
    let registers = kernel_space::map_device(table.address, PAGE_SIZE)?;
    // SAFETY: Mapped for good; capabilities and configuration are 64-bit registers of an HPET.
    let (capabilities, configuration) = unsafe {
        let capabilities = registers.byte_add(hpet::GCAP_ID as usize).cast::<u64>().read_volatile();
        (capabilities, registers.byte_add(hpet::GEN_CONF as usize).cast::<u64>())
    };
    let period = hpet::period_fs(capabilities);
    if period == 0 || period > hpet::MAX_PERIOD_FS {
        return None;
    }
    // SAFETY: As above; only the counter's run bit changes.
    unsafe {
        configuration.write_volatile(configuration.read_volatile() | hpet::GeneralConfiguration::ENABLE_CNF.bits())
    };
    HPET_COUNTER.call_once(|| registers as usize + hpet::MAIN_CNT as usize);
    let read = || match HPET_COUNTER.get() {
        // SAFETY: The counter's register, mapped for good.
        Some(&counter) => unsafe { (counter as *const u32).read_volatile() },
        None => 0,
    };
    Some(clock::Hpet { read, hz: hpet::FEMTOSECONDS_PER_SECOND / u64::from(period) })
}

/// Moves the 8259s away from the exceptions and masks them.
pub fn mask_8259() {
    for (port, value) in [
        (pic::MASTER_COMMAND, pic::ICW1_INIT),
        (pic::SLAVE_COMMAND, pic::ICW1_INIT),
        (pic::MASTER_DATA, 0x20),
        (pic::SLAVE_DATA, 0x28),
        (pic::MASTER_DATA, pic::ICW3_MASTER),
        (pic::SLAVE_DATA, pic::ICW3_SLAVE),
        (pic::MASTER_DATA, pic::ICW4_8086),
        (pic::SLAVE_DATA, pic::ICW4_8086),
        (pic::MASTER_DATA, pic::MASK_ALL),
        (pic::SLAVE_DATA, pic::MASK_ALL),
    ] {
        registers::port_out(port, 1, u32::from(value));
    }
}

/// Where configuration registers of PCI functions are: address of bus 0, segment group, first bus, last bus.
pub fn pci_segment(index: u64) -> Option<[u64; 4]> {
    let acpi = ACPI.lock();
    let segment = acpi.mcfg.segments.get(usize::try_from(index).ok()?)?;
    Some([segment.address, segment.group.into(), segment.first_bus.into(), segment.last_bus.into()])
}

/// Whether no part of a range is RAM or a controller of the kernel's.
pub fn is_device_memory(start: u64, size: u64) -> bool {
    let Some(boot) = BOOT.get() else { return false };
    let Some(end) = start.checked_add(size) else { return false };
    let overlaps = |first: u64, past: u64| first < end && start < past;
    let is_ram =
        |kind: MemoryKind| kind.is_ram() && kind != MemoryKind::ACPI_RECLAIMABLE && kind != MemoryKind::ACPI_NVS;
    if boot.map.iter().any(|(range, kind)| is_ram(kind) && overlaps(range.base().0, range.end().0)) {
        return false;
    }
    let apic = registers::read_msr(IA32_APIC_BASE) & APIC_BASE_ADDRESS;
    if overlaps(apic, apic + PAGE_SIZE) || end > 1 << boot.features.physical_bits.min(46) {
        return false;
    }
    !ACPI
        .lock()
        .madt
        .io_apics
        .iter()
        .any(|io_apic| overlaps(io_apic.address, io_apic.address.saturating_add(PAGE_SIZE)))
}
