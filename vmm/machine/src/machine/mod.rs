//! The machine as a whole: what its owner calls for each access of a vCPU, and what comes of it.

mod state;
#[cfg(test)]
mod tests;

use alloc::string::String;

use dragonfly_guest_boot::GuestPhys;
use log::debug;

use crate::bus::Bus;
use crate::debug_port::{self, DebugPort};
use crate::ioapic::IoApic;
use crate::message::Message;
use crate::pci::PciBus;
use crate::platform::{
    COM1_PIN, COM1_PORTS, DEBUG_PORT, ECAM, IOAPIC, KEYBOARD_COMMAND_PORT, PCI_ADDRESS_PORTS, PCI_DATA_PORTS, PM_PORTS,
    RESET_PORT, RTC_PORTS, SCI_PIN, SYSTEM_CONTROL_PORT,
};
use crate::pm::Pm;
use crate::reset::Reset;
use crate::rtc::Rtc;
use crate::uart::Uart;

const NS_PER_S: u64 = 1_000_000_000;

/// What a machine is to be.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Config {
    /// vCPUs, 1 to [`MAX_VCPUS`](crate::platform::MAX_VCPUS); their APIC IDs are below it.
    pub vcpus: u32,
    /// The time when the machine's nanoseconds are 0, in seconds since 1970-01-01 UTC.
    pub start_s: u64,
}

/// What a guest did to its machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// Power off.
    PowerOff,
    /// Reset: the guest wants to begin again.
    Reset,
}

/// A device on the ports.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Port {
    Com1,
    Rtc,
    KeyboardCommand,
    SystemControl,
    Debug,
    Pm,
    PciAddress,
    PciData,
}

/// A device in memory.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Memory {
    IoApic,
    Ecam,
}

/// A guest's machine beside its vCPUs, their local APICs and its RAM.
///
/// After each call the owner sends what [`take_message`](Self::take_message) gives. Times are nanoseconds since the machine
/// was started; they must not go backwards.
pub struct Machine {
    start_s: u64,
    ports: Bus<Port>,
    memory: Bus<Memory>,
    uart: Uart,
    rtc: Rtc,
    ioapic: IoApic,
    pm: Pm,
    reset: Reset,
    debug_port: DebugPort,
    pci: PciBus,
    event: Option<Event>,
}

impl Machine {
    /// A machine that was just switched on.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            start_s: config.start_s,
            ports: ports(),
            memory: memory(),
            uart: Uart::new(),
            rtc: Rtc::new(),
            ioapic: IoApic::new(config.vcpus as u8),
            pm: Pm::new(),
            reset: Reset::default(),
            debug_port: DebugPort::default(),
            pci: PciBus::new(),
            event: None,
        }
    }

    /// IN of `width` bytes, 1, 2 or 4. The bits above are zero.
    pub fn port_in(&mut self, port: u16, width: u8, now_ns: u64) -> u32 {
        let mut bytes = [0; 4];
        let data = bytes.get_mut(..usize::from(width)).unwrap_or_default();
        match self.ports.find(u64::from(port), data.len()) {
            Some((device, offset)) => self.read_port(device, offset as u16, data, now_ns),
            None => {
                data.fill(u8::MAX);
                if self.ports.count_unclaimed(u64::from(port)) {
                    debug!("IN from port {port:#x}, {width} bytes: no device");
                }
            }
        }
        self.update_lines(now_ns);
        u32::from_le_bytes(bytes)
    }

    /// OUT of `width` bytes, 1, 2 or 4.
    pub fn port_out(&mut self, port: u16, width: u8, value: u32, now_ns: u64) {
        let bytes = value.to_le_bytes();
        let data = bytes.get(..usize::from(width)).unwrap_or_default();
        match self.ports.find(u64::from(port), data.len()) {
            Some((device, offset)) => self.write_port(device, offset as u16, data, now_ns),
            None => {
                if self.ports.count_unclaimed(u64::from(port)) {
                    debug!("OUT to port {port:#x}, {width} bytes: no device");
                }
            }
        }
        self.update_lines(now_ns);
    }

    /// Reads memory that is not RAM, at most 64 bytes: the most that one instruction accesses.
    pub fn mmio_read(&mut self, address: GuestPhys, data: &mut [u8], now_ns: u64) {
        match self.memory.find(address.0, data.len()) {
            Some((Memory::IoApic, offset)) => self.ioapic.read(offset, data),
            Some((Memory::Ecam, offset)) => self.pci.read_ecam(offset, data),
            None => {
                data.fill(u8::MAX);
                if self.memory.count_unclaimed(address.0) {
                    debug!("read of {} bytes at {address}: no device", data.len());
                }
            }
        }
        self.update_lines(now_ns);
    }

    /// Writes memory that is not RAM, at most 64 bytes.
    pub fn mmio_write(&mut self, address: GuestPhys, data: &[u8], now_ns: u64) {
        match self.memory.find(address.0, data.len()) {
            Some((Memory::IoApic, offset)) => self.ioapic.write(offset, data),
            Some((Memory::Ecam, offset)) => self.pci.write_ecam(offset, data),
            None => {
                if self.memory.count_unclaimed(address.0) {
                    debug!("write of {} bytes at {address}: no device", data.len());
                }
            }
        }
        self.update_lines(now_ns);
    }

    /// A local APIC ended a level-triggered interrupt.
    pub fn end_of_interrupt(&mut self, vector: u8) {
        self.ioapic.end_of_interrupt(vector);
    }

    /// Time has passed: to be called when [`deadline_ns`](Self::deadline_ns) is reached.
    pub fn tick(&mut self, now_ns: u64) {
        self.update_lines(now_ns);
    }

    /// When [`tick`](Self::tick) is to be called at the latest, if no other call comes before.
    #[must_use]
    pub fn deadline_ns(&self, now_ns: u64) -> Option<u64> {
        self.pm.deadline_ns(now_ns)
    }

    /// The next interrupt to send.
    pub fn take_message(&mut self) -> Option<Message> {
        self.ioapic.take_message()
    }

    /// What the guest did to its machine, once.
    pub fn take_event(&mut self) -> Option<Event> {
        self.event.take()
    }

    /// The next line that the guest wrote to the debug port.
    pub fn take_debug_line(&mut self) -> Option<String> {
        self.debug_port.take_line()
    }

    /// What the guest wrote to its console and the owner has not taken. It is bounded: a full console keeps the guest waiting.
    #[must_use]
    pub fn console_output(&self) -> &[u8] {
        self.uart.output()
    }

    /// The owner has taken the first `count` bytes of the console's output.
    pub fn console_output_taken(&mut self, count: usize, now_ns: u64) {
        self.uart.output_taken(count);
        self.update_lines(now_ns);
    }

    /// Input for the guest's console; gives how many bytes were taken. For the others there is room later.
    pub fn console_input(&mut self, bytes: &[u8], now_ns: u64) -> usize {
        let taken = self.uart.offer_input(bytes);
        self.update_lines(now_ns);
        taken
    }

    /// Presses the power button: asks the guest to power off.
    pub fn press_power_button(&mut self, now_ns: u64) {
        self.pm.press_power_button();
        self.update_lines(now_ns);
    }

    /// How many accesses no device answered: ports and memory.
    #[must_use]
    pub const fn unclaimed(&self) -> (u64, u64) {
        (self.ports.unclaimed(), self.memory.unclaimed())
    }

    /// Reads a port of a device that has all of the access.
    fn read_port(&mut self, device: Port, offset: u16, data: &mut [u8], now_ns: u64) {
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
    fn write_port(&mut self, device: Port, offset: u16, data: &[u8], now_ns: u64) {
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

    /// The I/O APIC sees what the devices' interrupt lines are after each access.
    fn update_lines(&mut self, now_ns: u64) {
        self.ioapic.set_line(COM1_PIN, self.uart.interrupt());
        self.ioapic.set_line(SCI_PIN, self.pm.interrupt(now_ns));
    }

    const fn host_s(&self, now_ns: u64) -> u64 {
        self.start_s.saturating_add(now_ns / NS_PER_S)
    }
}

fn ports() -> Bus<Port> {
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

fn memory() -> Bus<Memory> {
    claimed([(IOAPIC, Memory::IoApic), (ECAM, Memory::Ecam)])
}

/// A bus with devices whose ranges do not overlap: a test sees to that.
fn claimed<T: Copy, A: Into<u64>, const N: usize>(claims: [(core::ops::Range<A>, T); N]) -> Bus<T> {
    let mut bus = Bus::new();
    for (range, target) in claims {
        let claim = bus.claim(range.start.into()..range.end.into(), target);
        debug_assert!(claim.is_ok(), "devices overlap");
    }
    bus
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
