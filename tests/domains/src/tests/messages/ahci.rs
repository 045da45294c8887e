//! As much of an AHCI controller's driver as makes the drive say what it is.

use core::sync::atomic::Ordering;

use dragonfly_abi::{PAGE_SIZE, Rights};
use dragonfly_rt::Mapping;
use dragonfly_rt::sys::{Commit, InterruptMessage, Memory, Owned, System};

use crate::check::Outcome;
use crate::probe::expect_that;

/// Vendor and device of the controller, and its place: bus 0, device 31, function 2.
const ID: u32 = 0x2922_8086;
const PLACE: u64 = (31 << 3 | 2) * PAGE_SIZE;

/// Configuration registers.
const COMMAND: u64 = 0x04;
const BAR5: u64 = 0x24;
const CAPABILITIES: u64 = 0x34;
const MEMORY_AND_MASTER: u32 = 6;
const MSI: u32 = 5;
const MSI_ENABLE: u32 = 1 << 16;
const MSI_64: u32 = 1 << 23;

/// Registers of the controller.
const CONTROL: u64 = 0x04;
const INTERRUPTS: u64 = 0x08;
const PORTS: u64 = 0x0c;
const CONTROL_AHCI_AND_INTERRUPTS: u32 = 1 << 31 | 1 << 1;

/// Registers of a port.
const COMMAND_LIST: u64 = 0x00;
const RECEIVED: u64 = 0x08;
const PORT_INTERRUPTS: u64 = 0x10;
const PORT_INTERRUPTS_ENABLED: u64 = 0x14;
const PORT_COMMAND: u64 = 0x18;
const PORT_STATUS: u64 = 0x28;
const PORT_ERRORS: u64 = 0x30;
const ISSUED: u64 = 0x38;
const START: u32 = 1 << 0;
const RECEIVE: u32 = 1 << 4;
const RECEIVES: u32 = 1 << 14;
const RUNS: u32 = 1 << 15;
/// A device is there and talks.
const PRESENT: u32 = 3;
/// A register frame and a set-up frame for data have arrived.
const FRAMES: u32 = 3;

/// Where things are in the first page of the memory that the controller uses; data is the second.
const RECEIVED_FRAMES: u64 = 1024;
const TABLE: u64 = 2048;
const REGIONS: u64 = TABLE + 128;

/// The controller, its port with a drive, and memory that both use.
pub struct Controller {
    configuration: Mapping,
    registers: Mapping,
    /// Where the port's registers begin.
    port: u64,
    /// Where the capability for messages begins.
    msi: u64,
    memory: Owned<Memory>,
    view: Mapping,
}

fn device_memory(address: u64, size: u64) -> Outcome<Mapping> {
    let memory = System::OWN.device_memory(address, size)?;
    Ok(Mapping::new(*memory, 0, size, Rights::READ | Rights::WRITE)?)
}

fn read(mapping: &Mapping, offset: u64) -> Outcome<u32> {
    Ok(mapping.word32(offset)?.load(Ordering::Acquire))
}

fn write(mapping: &Mapping, offset: u64, value: u32) -> Outcome {
    mapping.word32(offset)?.store(value, Ordering::Release);
    Ok(())
}

/// Waits until bits of a register are zero.
fn wait_clear(mapping: &Mapping, offset: u64, bits: u32) -> Outcome {
    let register = mapping.word32(offset)?;
    expect_that(|| register.load(Ordering::Acquire) & bits == 0, "an answer of the controller")
}

impl Controller {
    /// Takes the machine's controller into use, if there is one with a drive.
    pub fn find() -> Outcome<Option<Self>> {
        let Some(segment) = System::OWN.pci_segment(0)? else { return Ok(None) };
        let configuration = device_memory(segment.address + PLACE, PAGE_SIZE)?;
        if read(&configuration, 0)? != ID {
            return Ok(None);
        }
        let mut msi = u64::from(read(&configuration, CAPABILITIES)? & 0xfc);
        while msi != 0 && read(&configuration, msi)? & 0xff != MSI {
            msi = u64::from(read(&configuration, msi)? >> 8 & 0xfc);
        }
        write(&configuration, COMMAND, read(&configuration, COMMAND)? & 0xffff | MEMORY_AND_MASTER)?;
        let registers = device_memory(u64::from(read(&configuration, BAR5)? & !0xf), PAGE_SIZE)?;
        let implemented = read(&registers, PORTS)?;
        let ports = (0..32).filter(|port| implemented >> port & 1 != 0).map(|port| 0x100 + 0x80 * port);
        for port in ports {
            if read(&registers, port + PORT_STATUS)? & 0xf == PRESENT && msi != 0 {
                let memory = Memory::create(2 * PAGE_SIZE, Commit::Explicit)?;
                memory.commit(0, 2 * PAGE_SIZE)?;
                let view = Mapping::new(*memory, 0, 2 * PAGE_SIZE, Rights::READ | Rights::WRITE)?;
                let controller = Self { configuration, registers, port, msi, memory, view };
                controller.start()?;
                return Ok(Some(controller));
            }
        }
        Ok(None)
    }

    fn read(&self, register: u64) -> Outcome<u32> {
        read(&self.registers, self.port + register)
    }

    fn write(&self, register: u64, value: u32) -> Outcome {
        write(&self.registers, self.port + register, value)
    }

    /// The halves of the physical address of a place in the memory that both use.
    fn address(&self, offset: u64) -> Outcome<[u32; 2]> {
        let address = System::OWN.memory_address(*self.memory, offset)?.address;
        Ok([address as u32, (address >> 32) as u32])
    }

    /// Stops the port (AHCI 1.3.1, 10.1.2): firmware may have left it running.
    fn stop(&self) -> Outcome {
        self.write(PORT_COMMAND, self.read(PORT_COMMAND)? & !START)?;
        wait_clear(&self.registers, self.port + PORT_COMMAND, RUNS)?;
        self.write(PORT_COMMAND, self.read(PORT_COMMAND)? & !RECEIVE)?;
        wait_clear(&self.registers, self.port + PORT_COMMAND, RECEIVES)
    }

    fn start(&self) -> Outcome {
        write(&self.registers, CONTROL, CONTROL_AHCI_AND_INTERRUPTS)?;
        self.stop()?;
        for (register, offset) in [(COMMAND_LIST, 0), (RECEIVED, RECEIVED_FRAMES)] {
            let [low, high] = self.address(offset)?;
            self.write(register, low)?;
            self.write(register + 4, high)?;
        }
        self.write(PORT_ERRORS, u32::MAX)?;
        self.clear_interrupts()?;
        self.write(PORT_INTERRUPTS_ENABLED, FRAMES)?;
        self.write(PORT_COMMAND, self.read(PORT_COMMAND)? | RECEIVE)?;
        self.write(PORT_COMMAND, self.read(PORT_COMMAND)? | START)
    }

    fn clear_interrupts(&self) -> Outcome {
        self.write(PORT_INTERRUPTS, u32::MAX)?;
        write(&self.registers, INTERRUPTS, u32::MAX)
    }

    /// Lets the controller interrupt by this message.
    pub fn signal_by(&self, message: InterruptMessage) -> Outcome {
        let control = read(&self.configuration, self.msi)?;
        write(&self.configuration, self.msi, control & !MSI_ENABLE)?;
        write(&self.configuration, self.msi + 4, message.address as u32)?;
        let data = if control & MSI_64 != 0 {
            write(&self.configuration, self.msi + 8, (message.address >> 32) as u32)?;
            self.msi + 12
        } else {
            self.msi + 8
        };
        write(&self.configuration, data, message.data)?;
        write(&self.configuration, self.msi, control | MSI_ENABLE)
    }

    /// Asks the drive what it is, by the command IDENTIFY PACKET DEVICE in slot 0.
    pub fn identify(&self) -> Outcome {
        write(&self.view, PAGE_SIZE, 0)?;
        let ([table_low, table_high], [data_low, data_high]) = (self.address(TABLE)?, self.address(PAGE_SIZE)?);
        // The header: a frame of five words, one region of data.
        for (index, word) in [5 | 1 << 16, 0, table_low, table_high].into_iter().enumerate() {
            write(&self.view, 4 * index as u64, word)?;
        }
        // The frame: host to device, a command, 0xa1.
        for (index, word) in [0x27 | 1 << 15 | 0xa1 << 16, 0, 0, 0, 0].into_iter().enumerate() {
            write(&self.view, TABLE + 4 * index as u64, word)?;
        }
        // The region: 512 bytes.
        for (index, word) in [data_low, data_high, 0, 511].into_iter().enumerate() {
            write(&self.view, REGIONS + 4 * index as u64, word)?;
        }
        self.write(ISSUED, 1)
    }

    /// The first word of what the drive has said, once the command is done.
    pub fn identity(&self) -> Outcome<u16> {
        wait_clear(&self.registers, self.port + ISSUED, 1)?;
        self.clear_interrupts()?;
        Ok(read(&self.view, PAGE_SIZE)? as u16)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        // The memory goes to others.
        let _ = self.stop();
        let _ = read(&self.configuration, self.msi)
            .and_then(|control| write(&self.configuration, self.msi, control & !MSI_ENABLE));
        let _ = read(&self.configuration, COMMAND)
            .and_then(|command| write(&self.configuration, COMMAND, command & 0xffff & !MEMORY_AND_MASTER));
    }
}
