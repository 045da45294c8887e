//! A frame in the card's own memory.

use alloc::{boxed::Box, vec::Vec};
use core::ops::{Deref, DerefMut};

use dragonfly_vswitch::{Frame, Offload};

/// A frame, and what is left to do about it.
///
/// It goes from list to list while stores to guests' memory wait for their lines, and a CPU can only pass on what it has
/// stored itself and not yet written if it is read as it was stored. So it is one word, in a box.
#[derive(Debug, Default)]
pub struct Buffered(Box<Contents>);

/// What is in a [`Buffered`].
#[derive(Debug, Default)]
pub struct Contents {
    pub bytes: Vec<u8>,
    pub offload: Offload,
}

impl Deref for Buffered {
    type Target = Contents;

    fn deref(&self) -> &Contents {
        &self.0
    }
}

impl DerefMut for Buffered {
    fn deref_mut(&mut self) -> &mut Contents {
        &mut self.0
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
