//! The block's saved state.

use super::{BM_RLD, Events, Pm, SLP_TYP};
use crate::state::{Decoder, Encoder, StateError};

impl Pm {
    pub(crate) const STATE_VERSION: u16 = 1;

    pub(crate) fn save(&self, state: &mut Encoder) {
        state.u16(self.status.bits());
        state.u16(self.enable.bits());
        state.u16(self.control);
        state.u64(self.seen_changes);
    }

    pub(crate) fn restore(state: &mut Decoder<'_>, _version: u16) -> Result<Self, StateError> {
        Ok(Self {
            status: Events::from_bits_truncate(state.u16()?),
            enable: Events::from_bits_truncate(state.u16()?),
            control: state.u16()? & (SLP_TYP | BM_RLD),
            seen_changes: state.u64()?,
        })
    }
}
