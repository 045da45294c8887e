//! A frame in the card's own memory.

use alloc::vec::Vec;

use dragonfly_vswitch::{Frame, Offload};

/// A frame, and what is left to do about it.
#[derive(Debug, Default)]
pub struct Buffered {
    pub bytes: Vec<u8>,
    pub offload: Offload,
}

impl Buffered {
    /// A frame that is as it is on the wire.
    pub fn finished(bytes: Vec<u8>) -> Self {
        Self { bytes, offload: Offload::default() }
    }
}

impl Frame for Buffered {
    fn head(&self) -> &[u8] {
        &self.bytes
    }

    fn length(&self) -> usize {
        self.bytes.len()
    }

    fn offload(&self) -> Offload {
        self.offload
    }
}
