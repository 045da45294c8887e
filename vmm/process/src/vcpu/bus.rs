//! Memory and ports, as an emulated instruction of a vCPU finds them.

use dragonfly_emulate::{GuestPhys, Memory, Miss, Ports};
use dragonfly_guest_boot as boot;
use dragonfly_rt::sys::Vcpu;

use crate::shared::Shared;

/// The page of the local APIC's registers (SDM 3A 11.4.1). Guests may move it, but none does.
const APIC_PAGE: u64 = 0xfee0_0000;
const APIC_PAGE_SIZE: u64 = 0x1000;

/// What one vCPU reaches by an emulated instruction.
pub(crate) struct Bus<'s> {
    /// RAM and devices.
    pub(crate) shared: &'s Shared,
    /// The vCPU, for its local APIC.
    pub(crate) vcpu: Vcpu,
}

impl Memory for Bus<'_> {
    #[inline]
    fn ram_word(&self, GuestPhys(address): GuestPhys) -> Option<u64> {
        self.shared.ram.word_at(address)
    }

    fn read(&mut self, GuestPhys(address): GuestPhys, bytes: &mut [u8]) -> Result<(), Miss> {
        if self.shared.ram.read(address, bytes).is_err() {
            self.read_beside_ram(address, bytes);
        }
        Ok(())
    }

    fn write(&mut self, GuestPhys(address): GuestPhys, bytes: &[u8]) -> Result<(), Miss> {
        if self.shared.ram.write(address, bytes).is_err() {
            self.write_beside_ram(address, bytes);
        }
        Ok(())
    }

    fn compare_exchange(&mut self, address: GuestPhys, current: &[u8], new: &[u8]) -> Result<bool, Miss> {
        match self.shared.ram.compare_exchange(address.0, current, new) {
            Ok(exchanged) => Ok(exchanged),
            Err(_) => self.write(address, new).map(|()| true),
        }
    }
}

impl Bus<'_> {
    fn read_beside_ram(&self, address: u64, bytes: &mut [u8]) {
        match apic_register(address, bytes.len()) {
            Some((register, start)) => {
                let value = self.vcpu.read_apic(register).unwrap_or(0).to_le_bytes();
                for (into, from) in bytes.iter_mut().zip(value.iter().skip(start)) {
                    *into = *from;
                }
            }
            None => {
                let now_ns = || self.shared.clock.now_ns();
                self.shared.with_memory(|machine| machine.mmio_read(boot::GuestPhys(address), bytes, now_ns));
            }
        }
    }

    fn write_beside_ram(&self, address: u64, bytes: &[u8]) {
        match (apic_register(address, bytes.len()), <[u8; 4]>::try_from(bytes)) {
            (Some((register, 0)), Ok(value)) => {
                // A register that is not there, or a value that it does not take, is the guest's error and changes nothing.
                let _ = self.vcpu.write_apic(register, u32::from_le_bytes(value));
            }
            // Only whole registers can be written (SDM 3A 11.4.1).
            (Some(_), _) => {}
            (None, _) => {
                let now_ns = || self.shared.clock.now_ns();
                self.shared.with_memory(|machine| machine.mmio_write(boot::GuestPhys(address), bytes, now_ns));
            }
        }
    }
}

/// The same for an access to a page of which it is known that it is not RAM.
pub(crate) struct BesideRam<'s>(pub(crate) Bus<'s>);

impl Memory for BesideRam<'_> {
    #[inline]
    fn ram_word(&self, address: GuestPhys) -> Option<u64> {
        self.0.ram_word(address)
    }

    fn read(&mut self, GuestPhys(address): GuestPhys, bytes: &mut [u8]) -> Result<(), Miss> {
        self.0.read_beside_ram(address, bytes);
        Ok(())
    }

    #[inline]
    fn write(&mut self, GuestPhys(address): GuestPhys, bytes: &[u8]) -> Result<(), Miss> {
        self.0.write_beside_ram(address, bytes);
        Ok(())
    }

    fn compare_exchange(&mut self, address: GuestPhys, current: &[u8], new: &[u8]) -> Result<bool, Miss> {
        self.0.compare_exchange(address, current, new)
    }
}

impl Ports for Bus<'_> {
    fn input(&mut self, port: u16, bytes: &mut [u8]) {
        let width = bytes.len() as u8;
        let value = self.shared.with_machine(|machine, now_ns| machine.port_in(port, width, now_ns));
        for (into, from) in bytes.iter_mut().zip(value.to_le_bytes()) {
            *into = from;
        }
    }

    fn output(&mut self, port: u16, bytes: &[u8]) {
        let mut value = [0; 4];
        for (into, from) in value.iter_mut().zip(bytes) {
            *into = *from;
        }
        let (width, value) = (bytes.len() as u8, u32::from_le_bytes(value));
        self.shared.with_machine(|machine, now_ns| machine.port_out(port, width, value, now_ns));
    }
}

/// The register of the local APIC that an access of so many bytes is part of, and the part's offset in it. Registers have
/// 32 bits each and are 16 bytes apart; what lies between is given to the kernel too, which knows of no register there.
fn apic_register(address: u64, size: usize) -> Option<(u32, usize)> {
    let offset = address.checked_sub(APIC_PAGE).filter(|offset| *offset < APIC_PAGE_SIZE)?;
    let start = (offset & 3) as usize;
    (start + size.min(5) <= 4).then_some(((offset & !3) as u32, start))
}

#[cfg(test)]
mod tests {
    use super::apic_register;

    #[test]
    fn the_registers_of_the_local_apic_are_whole_or_parts_of_them() {
        assert_eq!(apic_register(0xfee0_00b0, 4), Some((0xb0, 0)));
        assert_eq!(apic_register(0xfee0_0022, 2), Some((0x20, 2)));
        assert_eq!(apic_register(0xfee0_0ffc, 4), Some((0xffc, 0)));
    }

    #[test]
    fn other_accesses_are_none_of_the_local_apics() {
        for (address, size) in [(0xfedf_fffc, 4), (0xfee0_1000, 4), (0xfee0_0020, 8), (0xfee0_0021, 4), (0, usize::MAX)]
        {
            assert_eq!(apic_register(address, size), None, "{address:#x} {size}");
        }
    }
}
