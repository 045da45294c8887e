//! The machine's saved state: what its devices hold, not what its owner was told already.

use alloc::vec::Vec;

use super::{Config, Machine};
use crate::ioapic::IoApic;
use crate::pm::Pm;
use crate::reset::Reset;
use crate::rtc::Rtc;
use crate::state::{Decoder, Encoder, SectionName, StateError};
use crate::uart::Uart;

const COM1: SectionName = *b"COM1";
const RTC: SectionName = *b"RTC ";
const IOAPIC: SectionName = *b"IOAP";
const PM: SectionName = *b"PM1A";
const RESET: SectionName = *b"RSET";
const PCI: SectionName = *b"PCI0";

const RESET_VERSION: u16 = 1;
const PCI_VERSION: u16 = 1;

impl Machine {
    /// The state of all devices. Messages and events are to be taken first.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut state = Encoder::default();
        state.section(COM1, Uart::STATE_VERSION, |section| self.uart.save(section));
        state.section(RTC, Rtc::STATE_VERSION, |section| self.rtc.save(section));
        state.section(IOAPIC, IoApic::STATE_VERSION, |section| self.ioapic.save(section));
        state.section(PM, Pm::STATE_VERSION, |section| self.pm.save(section));
        state.section(RESET, RESET_VERSION, |section| section.u8(self.reset.control));
        state.section(PCI, PCI_VERSION, |section| section.u32(self.pci.read_address()));
        state.finish()
    }

    /// A machine that goes on from a saved state. `config` says what it was made with; its time goes on from there.
    ///
    /// # Errors
    /// If the state is damaged or of a later release.
    pub fn restore(config: &Config, state: &[u8]) -> Result<Self, StateError> {
        let mut machine = Self::new(config);
        let mut state = Decoder::new(state);
        machine.uart = state.section(COM1, Uart::STATE_VERSION, Uart::restore)?;
        machine.rtc = state.section(RTC, Rtc::STATE_VERSION, Rtc::restore)?;
        machine.ioapic = state.section(IOAPIC, IoApic::STATE_VERSION, IoApic::restore)?;
        machine.pm = state.section(PM, Pm::STATE_VERSION, Pm::restore)?;
        machine.reset = state.section(RESET, RESET_VERSION, |section, _| Ok(Reset { control: section.u8()? }))?;
        let address = state.section(PCI, PCI_VERSION, |section, _| section.u32())?;
        machine.pci.write_address(address);
        state.end()?;
        Ok(machine)
    }
}
