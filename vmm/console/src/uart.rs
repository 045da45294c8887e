//! Driver of a 16550A serial port (Texas Instruments TL16C550C, "Principles of operation").

use alloc::collections::VecDeque;

use dragonfly_abi::Status;
use dragonfly_rt::sys::Ports;

/// First port of the machine's second serial port.
const BASE: u16 = 0x2f8;

/// Bytes that the transmitter's FIFO holds.
const FIFO_SIZE: usize = 16;

/// The most causes of interrupts that are served one after the other: a device that always has one more would keep the
/// server for ever.
const MAX_CAUSES: usize = 4096;

/// The registers, by their offsets from the first port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u16)]
pub(crate) enum Register {
    /// Receiver and transmitter; low byte of the divisor.
    Data = 0,
    /// Which interrupts are wanted; high byte of the divisor.
    InterruptEnable = 1,
    /// What the interrupt is about; written: FIFO control.
    InterruptIdentification = 2,
    /// Form of a character; access to the divisor.
    LineControl = 3,
    /// Outputs of the modem interface.
    ModemControl = 4,
    /// State of receiver and transmitter.
    LineStatus = 5,
    /// Inputs of the modem interface.
    ModemStatus = 6,
    /// Holds a byte and does nothing.
    Scratch = 7,
}

const RECEIVED: u8 = 1 << 0;
const TRANSMITTER_EMPTY: u8 = 1 << 1;

const NO_INTERRUPT: u8 = 1 << 0;
const CAUSE: u8 = 0x0e;
const CAUSE_MODEM: u8 = 0x00;
const CAUSE_TRANSMITTER: u8 = 0x02;
const CAUSE_LINE: u8 = 0x06;

/// FIFOs on and cleared; an interrupt when eight bytes have come, or fewer for some time.
const FIFO_CONTROL: u8 = 0x87;
const EIGHT_BITS: u8 = 0x03;
const DIVISOR_ACCESS: u8 = 0x80;
/// DTR, RTS, and OUT2, which connects the interrupt on PCs.
const MODEM_ON: u8 = 0x0b;

const DATA_READY: u8 = 1 << 0;
const THR_EMPTY: u8 = 1 << 5;
const ALL_SENT: u8 = 1 << 6;

/// Access to the registers.
pub(crate) trait Registers {
    /// Reads a register.
    fn read(&mut self, register: Register) -> Result<u8, Status>;
    /// Writes a register.
    fn write(&mut self, register: Register, value: u8) -> Result<(), Status>;
}

impl Registers for Ports {
    fn read(&mut self, register: Register) -> Result<u8, Status> {
        Self::read(*self, BASE + register as u16, 1).map(|value| value as u8)
    }

    fn write(&mut self, register: Register, value: u8) -> Result<(), Status> {
        Self::write(*self, BASE + register as u16, 1, value.into())
    }
}

/// The serial port, at 115200 baud.
pub(crate) struct Uart<R> {
    registers: R,
    enabled: u8,
}

impl<R: Registers> Uart<R> {
    /// Takes the port into use; `None` if there is none.
    pub(crate) fn start(mut registers: R) -> Result<Option<Self>, Status> {
        // Where nothing is, reads give all ones.
        for value in [0x5a, 0xa5] {
            registers.write(Register::Scratch, value)?;
            if registers.read(Register::Scratch)? != value {
                return Ok(None);
            }
        }
        registers.write(Register::InterruptEnable, 0)?;
        registers.write(Register::LineControl, DIVISOR_ACCESS)?;
        registers.write(Register::Data, 1)?;
        registers.write(Register::InterruptEnable, 0)?;
        registers.write(Register::LineControl, EIGHT_BITS)?;
        registers.write(Register::InterruptIdentification, FIFO_CONTROL)?;
        registers.write(Register::ModemControl, MODEM_ON)?;
        registers.write(Register::InterruptEnable, RECEIVED)?;
        Ok(Some(Self { registers, enabled: RECEIVED }))
    }

    /// Sends as much of the queue as the transmitter takes now, and asks for an interrupt if some is left.
    pub(crate) fn transmit(&mut self, queue: &mut VecDeque<u8>) -> Result<(), Status> {
        while !queue.is_empty() && self.registers.read(Register::LineStatus)? & THR_EMPTY != 0 {
            for byte in queue.drain(..queue.len().min(FIFO_SIZE)) {
                self.registers.write(Register::Data, byte)?;
            }
        }
        self.enable(if queue.is_empty() { RECEIVED } else { RECEIVED | TRANSMITTER_EMPTY })
    }

    /// Whether the last byte has left the transmitter.
    pub(crate) fn has_sent_all(&mut self) -> Result<bool, Status> {
        self.registers.read(Register::LineStatus).map(|status| status & ALL_SENT != 0)
    }

    /// Serves all causes of an interrupt: takes bytes in, sends from the queue.
    pub(crate) fn serve(&mut self, queue: &mut VecDeque<u8>, mut received: impl FnMut(u8)) -> Result<(), Status> {
        for _ in 0..MAX_CAUSES {
            let identification = self.registers.read(Register::InterruptIdentification)?;
            if identification & NO_INTERRUPT != 0 {
                return Ok(());
            }
            match identification & CAUSE {
                CAUSE_MODEM => drop(self.registers.read(Register::ModemStatus)?),
                CAUSE_TRANSMITTER => self.transmit(queue)?,
                // An overrun or a break: reading the status is all that helps.
                CAUSE_LINE => drop(self.registers.read(Register::LineStatus)?),
                _ => {
                    for _ in 0..FIFO_SIZE {
                        if self.registers.read(Register::LineStatus)? & DATA_READY == 0 {
                            break;
                        }
                        received(self.registers.read(Register::Data)?);
                    }
                }
            }
        }
        Ok(())
    }

    fn enable(&mut self, wanted: u8) -> Result<(), Status> {
        if self.enabled != wanted {
            self.enabled = wanted;
            self.registers.write(Register::InterruptEnable, wanted)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use dragonfly_abi::Status;

    use super::{FIFO_SIZE, RECEIVED, Register, Registers, TRANSMITTER_EMPTY, Uart};

    /// A port whose transmitter takes so many bytes before it is busy.
    #[derive(Default)]
    struct Fake {
        present: bool,
        scratch: u8,
        enabled: u8,
        divisor_access: bool,
        room: usize,
        sent: Vec<u8>,
        input: VecDeque<u8>,
    }

    impl Registers for &mut Fake {
        fn read(&mut self, register: Register) -> Result<u8, Status> {
            let transmitter = self.enabled & TRANSMITTER_EMPTY != 0 && self.room > 0;
            Ok(match register {
                _ if !self.present => 0xff,
                Register::Scratch => self.scratch,
                Register::LineStatus => u8::from(!self.input.is_empty()) | if self.room > 0 { 0x60 } else { 0 },
                Register::InterruptIdentification if !self.input.is_empty() => 0xc4,
                Register::InterruptIdentification if transmitter => 0xc2,
                Register::InterruptIdentification => 0xc1,
                Register::Data => self.input.pop_front().unwrap_or(0xee),
                _ => 0,
            })
        }

        fn write(&mut self, register: Register, value: u8) -> Result<(), Status> {
            match register {
                Register::Scratch => self.scratch = value,
                Register::LineControl => self.divisor_access = value & 0x80 != 0,
                Register::InterruptEnable if !self.divisor_access => self.enabled = value,
                Register::Data if !self.divisor_access => {
                    self.sent.push(value);
                    self.room = self.room.saturating_sub(1);
                }
                _ => {}
            }
            Ok(())
        }
    }

    fn fake(room: usize) -> Fake {
        Fake { present: true, room, ..Fake::default() }
    }

    #[test]
    fn a_port_that_reads_as_all_ones_is_none() {
        assert!(Uart::start(&mut Fake::default()).unwrap().is_none());
    }

    #[test]
    fn output_goes_out_at_once_while_the_transmitter_takes_it() {
        let mut fake = fake(100);
        let mut queue = VecDeque::from(vec![7; 40]);
        Uart::start(&mut fake).unwrap().unwrap().transmit(&mut queue).unwrap();
        assert_eq!((fake.sent.len(), queue.len(), fake.enabled), (40, 0, RECEIVED));
    }

    #[test]
    fn what_a_busy_transmitter_does_not_take_goes_out_with_its_interrupts() {
        let mut fake = fake(FIFO_SIZE);
        let mut queue: VecDeque<u8> = (0..20).collect();
        let mut uart = Uart::start(&mut fake).unwrap().unwrap();
        uart.transmit(&mut queue).unwrap();
        assert_eq!((uart.registers.sent.len(), uart.registers.enabled), (16, RECEIVED | TRANSMITTER_EMPTY));
        assert_eq!(uart.has_sent_all(), Ok(false));
        uart.registers.room = FIFO_SIZE;
        assert_eq!(uart.has_sent_all(), Ok(true));
        uart.serve(&mut queue, |_| {}).unwrap();
        assert_eq!(uart.registers.sent, Vec::from_iter(0..20));
        assert_eq!(uart.registers.enabled, RECEIVED);
    }

    #[test]
    fn all_input_is_taken_with_one_interrupt() {
        let mut fake = fake(1);
        fake.input = (0..100).collect();
        let mut received = Vec::new();
        let mut uart = Uart::start(&mut fake).unwrap().unwrap();
        uart.serve(&mut VecDeque::new(), |byte| received.push(byte)).unwrap();
        assert_eq!(received, Vec::from_iter(0..100));
    }

    #[test]
    fn a_port_that_goes_on_interrupting_does_not_keep_the_server() {
        let mut fake = fake(1);
        let mut uart = Uart::start(&mut fake).unwrap().unwrap();
        uart.registers.present = true;
        uart.registers.input = vec![1; 1 << 20].into();
        let mut count = 0_usize;
        uart.serve(&mut VecDeque::new(), |_| count += 1).unwrap();
        assert!(count < 1 << 20);
    }
}
