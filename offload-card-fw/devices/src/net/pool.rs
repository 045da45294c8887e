//! Memory for frames.

use alloc::vec::Vec;

use super::LONGEST_FRAME;

/// Bytes for a frame that is as long as on the wire.
const SMALL: usize = 2048;

/// How much of each kind is kept: 2 MiB.
const MAX_SMALL: usize = 1024;
const MAX_LARGE: usize = 32;

/// The memory of frames that are gone, for those to come.
#[derive(Debug, Default)]
pub struct Pool {
    small: Vec<Vec<u8>>,
    large: Vec<Vec<u8>>,
}

impl Pool {
    /// Memory for a frame, of `len` bytes that mean nothing.
    pub fn take(&mut self, len: usize) -> Vec<u8> {
        let mut frame = self.take_any(len);
        // What was there before is overwritten anyway, so it is not cleared.
        frame.resize(len, 0);
        frame
    }

    /// A copy of a frame.
    pub fn copy(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut copy = self.take_any(frame.len());
        copy.clear();
        copy.extend_from_slice(frame);
        copy
    }

    /// Memory with room for `len` bytes.
    fn take_any(&mut self, len: usize) -> Vec<u8> {
        let (kept, capacity) = if len <= SMALL { (&mut self.small, SMALL) } else { (&mut self.large, LONGEST_FRAME) };
        kept.pop().unwrap_or_else(|| Vec::with_capacity(capacity))
    }

    /// Takes a frame's memory back.
    pub fn put(&mut self, frame: Vec<u8>) {
        let (kept, most) = match frame.capacity() {
            LONGEST_FRAME.. => (&mut self.large, MAX_LARGE),
            SMALL.. => (&mut self.small, MAX_SMALL),
            _ => return,
        };
        if kept.len() < most {
            kept.push(frame);
        }
    }
}
