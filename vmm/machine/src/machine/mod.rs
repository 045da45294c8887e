//! The machine as a whole: what its owner calls for each access of a vCPU, and what comes of it.

mod ports;
mod state;
#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::string::String;

use dragonfly_guest_boot::GuestPhys;
use log::debug;

use crate::bus::Bus;
use crate::debug_port::DebugPort;
use crate::ioapic::IoApic;
use crate::message::Message;
use crate::pci::{DeviceFunction, Notice, PciBus};
use crate::platform::{COM1_PIN, ECAM, IOAPIC, SCI_PIN};
use crate::pm::Pm;
use crate::reset::Reset;
use crate::rtc::Rtc;
use crate::uart::Uart;
use crate::virtio::VirtioPci;
use ports::Port;

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
            ports: ports::bus(),
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

    /// Puts a virtio device onto the PCI bus, before the guest runs: as the next device, with its windows placed. Gives
    /// where it is, or nothing if the bus is full: after 31 devices.
    pub fn add_virtio(&mut self, mut device: VirtioPci) -> Option<DeviceFunction> {
        let number = self.pci.free_device()?;
        device.place(number);
        let at = DeviceFunction::first_of(number);
        self.pci.insert(at, Box::new(device));
        Some(at)
    }

    /// The configuration space of the virtio device there has changed: its driver is told.
    pub fn virtio_config_changed(&mut self, at: DeviceFunction) {
        self.pci.notice(at, Notice::ConfigChanged);
    }

    /// The virtio device there has failed: its queues are stopped, and its driver is told to reset it.
    pub fn virtio_failed(&mut self, at: DeviceFunction) {
        self.pci.notice(at, Notice::Failed);
    }

    /// Stops the queues of virtio devices, so that what is saved is all that is under way. The guest is to do nothing until
    /// [`resume`](Self::resume).
    pub fn pause(&mut self) {
        self.pci.notice_all(Notice::Pause);
    }

    /// Goes on after [`pause`](Self::pause) or [`restore`](Self::restore).
    pub fn resume(&mut self) {
        self.pci.notice_all(Notice::Resume);
    }

    /// IN of `width` bytes, 1, 2 or 4. The bits above are zero.
    pub fn port_in(&mut self, port: u16, width: u8, now_ns: u64) -> u32 {
        let mut bytes = [0; 4];
        let data = bytes.get_mut(..usize::from(width)).unwrap_or_default();
        match self.ports.find(u64::from(port), data.len()) {
            Some((device, offset)) => self.read_port(device, offset as u16, data, now_ns),
            None if self.pci.read_ports(port, data) => {}
            None => {
                data.fill(u8::MAX);
                if self.ports.count_unclaimed(u64::from(port)) {
                    debug!("IN from port {port:#x}, {width} bytes: no device");
                }
                return u32::from_le_bytes(bytes);
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
            None if self.pci.write_ports(port, data) => {}
            None => {
                if self.ports.count_unclaimed(u64::from(port)) {
                    debug!("OUT to port {port:#x}, {width} bytes: no device");
                }
                return;
            }
        }
        self.update_lines(now_ns);
    }

    /// Whether a device has this port, or could get it.
    #[must_use]
    pub fn has_port(&self, port: u16) -> bool {
        self.ports.find(u64::from(port), 1).is_some() || self.pci.can_have_port(port)
    }

    /// Reads memory that is not RAM, at most 64 bytes: the most that one instruction accesses. Whether a device has it; if
    /// none has, nothing changes and the time is not asked for.
    pub fn mmio_read(&mut self, address: GuestPhys, data: &mut [u8], now_ns: impl FnOnce() -> u64) -> bool {
        match self.memory.find(address.0, data.len()) {
            Some((Memory::IoApic, offset)) => self.ioapic.read(offset, data),
            Some((Memory::Ecam, offset)) => self.pci.read_ecam(offset, data),
            None if self.pci.read_memory(address.0, data) => {}
            None => {
                data.fill(u8::MAX);
                if self.memory.count_unclaimed(address.0) {
                    debug!("read of {} bytes at {address}: no device", data.len());
                }
                return false;
            }
        }
        self.update_lines(now_ns());
        true
    }

    /// Writes memory that is not RAM, at most 64 bytes. Whether a device has it; if none has, nothing changes
    /// and the time is not asked for.
    pub fn mmio_write(&mut self, address: GuestPhys, data: &[u8], now_ns: impl FnOnce() -> u64) -> bool {
        match self.memory.find(address.0, data.len()) {
            Some((Memory::IoApic, offset)) => self.ioapic.write(offset, data),
            Some((Memory::Ecam, offset)) => self.pci.write_ecam(offset, data),
            None if self.pci.write_memory(address.0, data) => {}
            None => {
                if self.memory.count_unclaimed(address.0) {
                    debug!("write of {} bytes at {address}: no device", data.len());
                }
                return false;
            }
        }
        self.update_lines(now_ns());
        true
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
        self.ioapic.take_message().or_else(|| self.pci.take_message())
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

    /// The I/O APIC sees what the devices' interrupt lines are after each access to one, and after each [`tick`](Self::tick).
    fn update_lines(&mut self, now_ns: u64) {
        self.ioapic.set_line(COM1_PIN, self.uart.interrupt());
        self.ioapic.set_line(SCI_PIN, self.pm.interrupt(now_ns));
    }

    const fn host_s(&self, now_ns: u64) -> u64 {
        self.start_s.saturating_add(now_ns / NS_PER_S)
    }
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
