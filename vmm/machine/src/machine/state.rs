//! The machine's saved state: what its devices hold, not what its owner was told already.

use alloc::vec::Vec;

use super::Machine;
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
    /// The state of all devices. Messages and events are to be taken first; virtio devices are to be
    /// [paused](Self::pause).
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        let mut state = Encoder::default();
        state.section(COM1, Uart::STATE_VERSION, |section| self.uart.save(section));
        state.section(RTC, Rtc::STATE_VERSION, |section| self.rtc.save(section));
        state.section(IOAPIC, IoApic::STATE_VERSION, |section| self.ioapic.save(section));
        state.section(PM, Pm::STATE_VERSION, |section| self.pm.save(section));
        state.section(RESET, RESET_VERSION, |section| section.u8(self.reset.control));
        state.section(PCI, PCI_VERSION, |section| section.u32(self.pci.read_address()));
        self.pci.save(&mut state);
        state.finish()
    }

    /// Makes a machine with the same devices, where no guest has run, go on from a saved state: after
    /// [`resume`](Self::resume). Its time goes on from there.
    ///
    /// # Errors
    /// If the state is damaged, of a later release, or of a machine with other devices.
    pub fn restore(mut self, state: &[u8]) -> Result<Self, StateError> {
        let mut state = Decoder::new(state);
        self.uart = state.section(COM1, Uart::STATE_VERSION, Uart::restore)?;
        self.rtc = state.section(RTC, Rtc::STATE_VERSION, Rtc::restore)?;
        self.ioapic = state.section(IOAPIC, IoApic::STATE_VERSION, IoApic::restore)?;
        self.pm = state.section(PM, Pm::STATE_VERSION, Pm::restore)?;
        self.reset = state.section(RESET, RESET_VERSION, |section, _| Ok(Reset { control: section.u8()? }))?;
        let address = state.section(PCI, PCI_VERSION, |section, _| section.u32())?;
        self.pci.write_address(address);
        self.pci.restore(&mut state)?;
        state.end()?;
        Ok(self)
    }
}
