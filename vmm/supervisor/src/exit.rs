//! Stops the machine, as far as it has a way to.

use core::time::Duration;

use dragonfly_abi::Status;
use dragonfly_rt::sys::System;
use dragonfly_rt::{argument, println, time};
use log::{info, warn};

/// How the machine is told to stop: the kernel's argument `exit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ExitDevice {
    /// QEMU's `isa-debug-exit` device at port 0xf4: ends the emulator with the status `2 * value + 1`.
    Qemu,
    /// Bochs's port 0x8900: ends the emulator when "Shutdown" is written to it byte by byte.
    Bochs,
    /// None.
    None,
}

const QEMU_PORT: u16 = 0xf4;
const BOCHS_PORT: u16 = 0x8900;

impl ExitDevice {
    fn from_argument(value: Option<&str>) -> Self {
        match value {
            Some("qemu") => Self::Qemu,
            Some("bochs") => Self::Bochs,
            _ => Self::None,
        }
    }

    fn stop(self, exit_code: u8) -> Result<(), Status> {
        match self {
            Self::Qemu => System::OWN.ports(QEMU_PORT, 4)?.write(QEMU_PORT, 4, exit_code.into()),
            Self::Bochs => {
                let ports = System::OWN.ports(BOCHS_PORT, 1)?;
                b"Shutdown".iter().try_for_each(|byte| ports.write(BOCHS_PORT, 1, (*byte).into()))
            }
            Self::None => Ok(()),
        }
    }
}

/// Says how it all ended, and stops the machine.
pub(crate) fn stop_machine(exit_code: u8) -> ! {
    // The line that tells tools how the run ended; see `cargo xtask run`.
    println!("dragonfly: exit {exit_code}");
    if let Err(status) = ExitDevice::from_argument(argument("exit")).stop(exit_code) {
        warn!("the machine cannot be stopped: {status}");
    }
    info!("halted");
    loop {
        time::sleep(Duration::MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::ExitDevice;

    #[test]
    fn only_known_devices_are_written_to() {
        assert_eq!(ExitDevice::from_argument(Some("qemu")), ExitDevice::Qemu);
        assert_eq!(ExitDevice::from_argument(Some("bochs")), ExitDevice::Bochs);
        for other in [None, Some(""), Some("none"), Some("QEMU")] {
            assert_eq!(ExitDevice::from_argument(other), ExitDevice::None);
        }
    }
}
