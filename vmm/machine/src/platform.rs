//! Where things are: guest-physical addresses, ports and interrupt pins of the machine.

use core::ops::Range;

use dragonfly_guest_boot::{GuestPhys, HIGH_RAM_BASE, MemoryLayout};

/// Most vCPUs. With the I/O APIC they share the numbers below 255 that an 8-bit APIC ID has.
pub const MAX_VCPUS: u32 = 64;

/// RAM below 4 GiB ends here at the latest; the rest goes on at 4 GiB.
pub const LOW_RAM_END: u64 = 3 << 30;

/// ACPI tables with the root pointer at their start, where firmware's read-only memory would be: kernels find the root
/// pointer by looking for it from 0xe0000 to 0xfffff (ACPI 6.5, 5.2.5.1).
pub const ACPI_TABLES: Range<u64> = 0xe_0000..0xf_0000;

/// Configuration space of the PCI bus 0, memory-mapped (ECAM).
pub const ECAM: Range<u64> = 0xe000_0000..0xe010_0000;
/// Where the memory of PCI functions can be placed below 4 GiB.
pub const PCI_WINDOW: Range<u64> = 0xe800_0000..0xfec0_0000;
/// Bytes of the window for the memory of PCI functions above the RAM.
pub const PCI_HIGH_WINDOW_SIZE: u64 = 64 << 30;
/// Where the ports of PCI functions can be placed: above all that devices elsewhere have.
pub const PCI_IO_WINDOW: Range<u64> = 0x1000..0x1_0000;
/// I/O APIC.
pub const IOAPIC: Range<u64> = 0xfec0_0000..0xfec0_1000;
/// Local APIC of each vCPU: not of this crate, but no device may be there.
pub const LOCAL_APIC: u64 = 0xfee0_0000;

/// Real-time clock: index and data.
pub const RTC_PORTS: Range<u16> = 0x70..0x72;
/// Status and command of the keyboard controller, of which only the reset command is there.
pub const KEYBOARD_COMMAND_PORT: u16 = 0x64;
/// System control port A, of which only the fast reset is there.
pub const SYSTEM_CONTROL_PORT: u16 = 0x92;
/// First serial port.
pub const COM1_PORTS: Range<u16> = 0x3f8..0x400;
/// What is written here goes to the log.
pub const DEBUG_PORT: u16 = 0x402;
/// Power management registers (ACPI 6.5, 4.8).
pub const PM_PORTS: Range<u16> = 0x600..0x60c;
/// PCI configuration address; the reset control register is its second byte.
pub const PCI_ADDRESS_PORTS: Range<u16> = 0xcf8..0xcfc;
/// Reset control register.
pub const RESET_PORT: u16 = 0xcf9;
/// PCI configuration data.
pub const PCI_DATA_PORTS: Range<u16> = 0xcfc..0xd00;

/// Pin of the I/O APIC that the first serial port is wired to: edge, active high.
pub const COM1_PIN: u8 = 4;
/// Pin that power management is wired to: level, active high.
pub const SCI_PIN: u8 = 9;

/// Where the RAM of a guest with so many bytes lies, with what a kernel must know beside it.
#[must_use]
pub fn memory_layout(memory_bytes: u64) -> MemoryLayout {
    let low_ram_bytes = memory_bytes.min(LOW_RAM_END);
    MemoryLayout {
        low_ram_bytes,
        high_ram_bytes: memory_bytes.saturating_sub(low_ram_bytes),
        acpi_tables: GuestPhys(ACPI_TABLES.start)..GuestPhys(ACPI_TABLES.end),
        rsdp: GuestPhys(ACPI_TABLES.start),
        ecam: GuestPhys(ECAM.start)..GuestPhys(ECAM.end),
    }
}

/// Where the memory of PCI functions can be placed above the RAM: naturally aligned, so that page tables stay small.
#[must_use]
pub fn pci_high_window(memory_bytes: u64) -> Range<u64> {
    let ram_end = HIGH_RAM_BASE.0.saturating_add(memory_bytes.saturating_sub(LOW_RAM_END));
    let base = ram_end.checked_next_multiple_of(PCI_HIGH_WINDOW_SIZE).unwrap_or(0);
    base..base.saturating_add(PCI_HIGH_WINDOW_SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ram_of_up_to_3_gib_is_all_low() {
        let layout = memory_layout(3 << 30);
        assert_eq!((layout.low_ram_bytes, layout.high_ram_bytes), (3 << 30, 0));
    }

    #[test]
    fn ram_beyond_3_gib_goes_on_at_4_gib() {
        let layout = memory_layout(5 << 30);
        assert_eq!((layout.low_ram_bytes, layout.high_ram_bytes), (3 << 30, 2 << 30));
    }

    #[test]
    fn the_high_window_is_above_all_ram_and_aligned() {
        assert_eq!(pci_high_window(256 << 20), 64 << 30..128 << 30);
        assert_eq!(pci_high_window(100 << 30), 128 << 30..192 << 30);
    }
}
