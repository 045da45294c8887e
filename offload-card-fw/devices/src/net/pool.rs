//! Memory for frames.

use alloc::vec::Vec;
use core::mem;

use dragonfly_vswitch::Offload;

use super::{LONGEST_FRAME, frame::Buffered};

/// Bytes for a frame that is as long as on the wire.
const SMALL: usize = 2048;

/// How much of each kind is kept: 2 MiB.
const MAX_SMALL: usize = 1024;
const MAX_LARGE: usize = 32;

/// The memory of frames that are gone, for those to come.
#[derive(Debug, Default)]
pub struct Pool {
    small: Vec<Buffered>,
    large: Vec<Buffered>,
    /// Frames whose bytes are outside.
    empty: Vec<Buffered>,
}

impl Pool {
    /// A frame of `len` bytes that mean nothing.
    #[inline]
    pub fn take(&mut self, len: usize, offload: Offload) -> Buffered {
        let mut frame = self.take_any(len, offload);
        // What was there before is overwritten anyway, so it is not cleared.
        frame.bytes.resize(len, 0);
        frame
    }

    /// A frame with these bytes.
    pub fn copy(&mut self, bytes: &[u8], offload: Offload) -> Buffered {
        let mut frame = self.take_any(bytes.len(), offload);
        frame.bytes.clear();
        frame.bytes.extend_from_slice(bytes);
        frame
    }

    /// A frame with room for `len` bytes.
    #[inline]
    fn take_any(&mut self, len: usize, offload: Offload) -> Buffered {
        let (kept, capacity) = if len <= SMALL { (&mut self.small, SMALL) } else { (&mut self.large, LONGEST_FRAME) };
        match kept.pop() {
            Some(mut frame) => {
                frame.offload = offload;
                frame
            }
            None => self.wrap(Vec::with_capacity(capacity), offload),
        }
    }

    /// Takes a frame's memory back.
    pub fn put(&mut self, frame: Buffered) {
        let (kept, most) = match frame.bytes.capacity() {
            LONGEST_FRAME.. => (&mut self.large, MAX_LARGE),
            SMALL.. => (&mut self.small, MAX_SMALL),
            _ => return,
        };
        if kept.len() < most {
            kept.push(frame);
        }
    }

    /// Makes a frame of bytes from outside.
    #[inline(never)]
    pub fn wrap(&mut self, bytes: Vec<u8>, offload: Offload) -> Buffered {
        let mut frame = self.empty.pop().unwrap_or_default();
        (frame.bytes, frame.offload) = (bytes, offload);
        frame
    }

    /// Lets a frame's bytes go outside.
    pub fn unwrap(&mut self, mut frame: Buffered) -> Vec<u8> {
        let bytes = mem::take(&mut frame.bytes);
        if self.empty.len() < MAX_SMALL {
            self.empty.push(frame);
        }
        bytes
    }
}
