//! What an exit to user space meets.

use std::io::Write;

/// Data register of the first serial port.
const SERIAL: u16 = 0x3f8;
/// PM1a control register: whatever is written to it switches the machine off.
const POWER: u16 = 0x604;

/// The machine's devices.
#[derive(Debug)]
pub struct Devices<W> {
    output: W,
}

/// What the machine does after a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It runs on.
    Run,
    /// It is off.
    Off,
}

impl<W: Write> Devices<W> {
    /// Devices whose serial port writes to `output`.
    pub fn new(output: W) -> Self {
        Self { output }
    }

    /// OUT of `data` to `port`.
    ///
    /// # Errors
    /// Fails when the output does.
    pub fn write_port(&mut self, port: u16, data: &[u8]) -> std::io::Result<Next> {
        match port {
            SERIAL => self.output.write_all(data)?,
            POWER => {
                self.output.flush()?;
                return Ok(Next::Off);
            }
            _ => {}
        }
        Ok(Next::Run)
    }
}

/// Answers a read from a port or address: all bits are set, so a serial port is always ready and no device is there.
pub fn read(data: &mut [u8]) {
    data.fill(0xff);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_serial_port_writes_to_the_output() {
        let mut devices = Devices::new(Vec::new());
        for byte in b"ok" {
            assert_eq!(devices.write_port(0x3f8, &[*byte]).unwrap(), Next::Run);
        }
        assert_eq!(devices.output, b"ok");
    }

    #[test]
    fn the_power_register_switches_the_machine_off() {
        assert_eq!(Devices::new(Vec::new()).write_port(0x604, &[0, 0x34]).unwrap(), Next::Off);
    }

    #[test]
    fn other_ports_are_ignored() {
        let mut devices = Devices::new(Vec::new());
        assert_eq!(devices.write_port(0x80, &[1]).unwrap(), Next::Run);
        assert!(devices.output.is_empty());
    }
}
