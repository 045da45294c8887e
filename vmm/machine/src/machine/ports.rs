//! The ports: which device has which, and what an access to it does.

use super::{Event, Machine, claimed};
use crate::bus::Bus;
use crate::debug_port;
use crate::platform::{
    COM1_PORTS, DEBUG_PORT, KEYBOARD_COMMAND_PORT, PCI_ADDRESS_PORTS, PCI_DATA_PORTS, PM_PORTS, RESET_PORT, RTC_PORTS,
    SYSTEM_CONTROL_PORT,
};

/// A device on the ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Port {
    Com1,
    Rtc,
    KeyboardCommand,
    SystemControl,
    Debug,
    Pm,
    PciAddress,
    PciData,
}

/// All ports that devices have.
pub(super) fn bus() -> Bus<Port> {
    let one = |port: u16| port..port + 1;
    claimed([
        (RTC_PORTS, Port::Rtc),
        (one(KEYBOARD_COMMAND_PORT), Port::KeyboardCommand),
        (one(SYSTEM_CONTROL_PORT), Port::SystemControl),
        (COM1_PORTS, Port::Com1),
        (one(DEBUG_PORT), Port::Debug),
        (PM_PORTS, Port::Pm),
        (PCI_ADDRESS_PORTS, Port::PciAddress),
        (PCI_DATA_PORTS, Port::PciData),
    ])
}

impl Machine {
    /// Reads a port of a device that has all of the access.
    pub(super) fn read_port(&mut self, device: Port, offset: u16, data: &mut [u8], now_ns: u64) {
        match device {
            Port::Pm => fill(data, self.pm.read(offset, now_ns)),
            Port::PciAddress if data.len() == 4 => fill(data, self.pci.read_address()),
            Port::PciAddress if is_reset(offset, data) => data.fill(self.reset.read_control()),
            Port::PciAddress => data.fill(u8::MAX),
            Port::PciData => self.pci.read_data(offset, data),
            // The others are eight bits wide: a wider access is one of each byte (ISA bus).
            Port::Com1 => (0u8..).zip(data).for_each(|(index, byte)| *byte = self.uart.read(offset as u8 + index)),
            Port::Rtc => {
                let host_s = self.host_s(now_ns);
                for (port, byte) in (offset..).zip(data) {
                    *byte = if port == 0 { u8::MAX } else { self.rtc.read_data(host_s) };
                }
            }
            Port::KeyboardCommand => data.fill(self.reset.read_keyboard_status()),
            Port::SystemControl => data.fill(self.reset.read_system_control()),
            Port::Debug => data.fill(debug_port::PRESENT),
        }
    }

    /// Writes a port of a device that has all of the access.
    pub(super) fn write_port(&mut self, device: Port, offset: u16, data: &[u8], now_ns: u64) {
        match device {
            Port::PciAddress => {
                if let Some(address) = data.first_chunk() {
                    self.pci.write_address(u32::from_le_bytes(*address));
                } else if is_reset(offset, data) {
                    let is_reset = data.iter().any(|value| self.reset.write_control(*value));
                    self.raise(Event::Reset, is_reset);
                }
                return;
            }
            Port::PciData => return self.pci.write_data(offset, data),
            _ => {}
        }
        for (port, value) in (offset..).zip(data.iter().copied()) {
            match device {
                Port::Com1 => self.uart.write(port as u8, value),
                Port::Rtc if port == 0 => self.rtc.write_index(value),
                Port::Rtc => self.rtc.write_data(value, self.host_s(now_ns)),
                Port::KeyboardCommand => self.raise(Event::Reset, self.reset.write_keyboard_command(value)),
                Port::SystemControl => self.raise(Event::Reset, self.reset.write_system_control(value)),
                Port::Debug => self.debug_port.write(value),
                Port::Pm => {
                    let is_off = self.pm.write(port, value, now_ns);
                    self.raise(Event::PowerOff, is_off);
                }
                Port::PciAddress | Port::PciData => {}
            }
        }
    }

    fn raise(&mut self, event: Event, is_raised: bool) {
        if is_raised {
            self.event = Some(event);
        }
    }
}

/// Whether an access to the PCI address port is one to the reset control register, which is its second byte.
fn is_reset(offset: u16, data: &[u8]) -> bool {
    offset == RESET_PORT - PCI_ADDRESS_PORTS.start && data.len() == 1
}

fn fill(data: &mut [u8], value: u32) {
    for (byte, value) in data.iter_mut().zip(value.to_le_bytes()) {
        *byte = value;
    }
}
