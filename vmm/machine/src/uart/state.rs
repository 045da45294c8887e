//! The port's saved state.

use arrayvec::ArrayVec;

use super::registers::{FifoControl, InterruptEnable, LineControl, LineStatus, ModemControl, ModemStatus};
use super::{FIFO_SIZE, INPUT_CAPACITY, OUTPUT_CAPACITY, Uart};
use crate::state::{Decoder, Encoder, StateError};

impl Uart {
    pub(crate) const STATE_VERSION: u16 = 1;

    pub(crate) fn save(&self, state: &mut Encoder) {
        state.u8(self.interrupt_enable.bits());
        state.u8(self.fifo_control.bits());
        state.u8(self.line_control.bits());
        state.u8(self.modem_control.bits());
        state.u8(self.line_errors.bits());
        state.u8(self.modem_status.bits());
        state.u8(self.scratch);
        state.u16(self.divisor);
        state.u8(self.transmitter_interrupt.into());
        state.long_bytes(&self.received);
        state.long_bytes(&self.output);
        let (first, second) = self.input.as_slices();
        state.long_bytes(&[first, second].concat());
    }

    pub(crate) fn restore(state: &mut Decoder<'_>, _version: u16) -> Result<Self, StateError> {
        let interrupt_enable = InterruptEnable::from_bits_truncate(state.u8()?);
        let fifo_control = FifoControl::from_bits_truncate(state.u8()?) & FifoControl::KEPT;
        let line_control = LineControl::from_bits_retain(state.u8()?);
        let modem_control = ModemControl::from_bits_truncate(state.u8()?);
        let line_errors = LineStatus::from_bits_truncate(state.u8()?) & LineStatus::OVERRUN;
        let modem_status = ModemStatus::from_bits_truncate(state.u8()?);
        let scratch = state.u8()?;
        let divisor = state.u16()?;
        let transmitter_interrupt = state.u8()? != 0;
        let received = bounded(state, FIFO_SIZE)?;
        let output = bounded(state, OUTPUT_CAPACITY)?;
        let input = bounded(state, INPUT_CAPACITY)?;
        Ok(Self {
            interrupt_enable,
            fifo_control,
            line_control,
            modem_control,
            line_errors,
            modem_status,
            scratch,
            divisor,
            transmitter_interrupt,
            received: ArrayVec::try_from(received).map_err(|_| StateError::Damaged)?,
            output: output.to_vec(),
            input: input.iter().copied().collect(),
        })
    }
}

fn bounded<'s>(state: &mut Decoder<'s>, maximum: usize) -> Result<&'s [u8], StateError> {
    state.long_bytes().and_then(|bytes| if bytes.len() <= maximum { Ok(bytes) } else { Err(StateError::Damaged) })
}
