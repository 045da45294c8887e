//! The clock's saved state.

use super::calendar::DateTime;
use super::{INDEX_MASK, Rtc};
use crate::state::{Decoder, Encoder, StateError};

impl Rtc {
    pub(crate) const STATE_VERSION: u16 = 1;

    pub(crate) fn save(&self, state: &mut Encoder) {
        state.u8(self.index);
        state.u64(self.difference_s.cast_unsigned());
        state.u64(self.seen_s);
        state.bytes(&self.memory);
        state.u8(self.stopped.is_some().into());
        state.u64(self.stopped.map_or(0, DateTime::seconds));
    }

    pub(crate) fn restore(state: &mut Decoder<'_>, _version: u16) -> Result<Self, StateError> {
        let index = state.u8()? & INDEX_MASK;
        let difference_s = state.u64()?.cast_signed();
        let seen_s = state.u64()?;
        let memory = state.array()?;
        let is_stopped = state.u8()? != 0;
        let stopped_s = state.u64()?;
        let stopped = is_stopped.then(|| DateTime::from_seconds(stopped_s));
        Ok(Self { index, difference_s, stopped, seen_s, memory })
    }
}
