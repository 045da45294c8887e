//! Accesses to linear memory: each is translated, with all its faults, before anything is read or written.

use arrayvec::ArrayVec;

use crate::cpu::{CodeSize, Cpu};
use crate::memory::{GuestPhys, Memory};
use crate::outcome::Stop;
use crate::paging::{Access, translate};

const PAGE: u64 = 4096;
/// Most bytes of an access: CMPXCHG16B's.
pub const MAX_BYTES: usize = 16;

/// Memory that may be accessed: translated, and at most [`MAX_BYTES`].
#[derive(Clone, Debug)]
pub struct Span {
    /// One piece, or two if the memory crosses a page boundary.
    pieces: ArrayVec<(GuestPhys, usize), 2>,
}

impl Span {
    /// Translates `size` bytes at a linear address that [`linear_address`](crate::segmentation::linear_address) gave.
    pub fn new(cpu: &Cpu, memory: &mut impl Memory, linear: u64, size: usize, access: Access) -> Result<Self, Stop> {
        let size = size.min(MAX_BYTES);
        let in_first = usize::try_from(PAGE - linear % PAGE).unwrap_or(size).min(size);
        let first = translate(cpu, memory, linear, access)?;
        let mut pieces: ArrayVec<_, 2> = ArrayVec::new();
        pieces.push((first, in_first));
        if in_first < size {
            let second = linear.wrapping_add(in_first as u64);
            let second = if cpu.code_size() == CodeSize::Bits64 { second } else { second & 0xffff_ffff };
            pieces.push((translate(cpu, memory, second, access)?, size - in_first));
        }
        Ok(Self { pieces })
    }

    /// Whether it begins at a multiple of a size that a page holds several times.
    pub fn is_aligned_to(&self, size: u64) -> bool {
        self.pieces.first().is_some_and(|(address, _)| address.0.is_multiple_of(size))
    }

    pub fn read(&self, memory: &mut impl Memory) -> Result<[u8; MAX_BYTES], Stop> {
        let mut bytes = [0; MAX_BYTES];
        let mut rest = bytes.as_mut_slice();
        for (address, size) in &self.pieces {
            let Some((piece, after)) = rest.split_at_mut_checked(*size) else { break };
            memory.read(*address, piece)?;
            rest = after;
        }
        Ok(bytes)
    }

    pub fn write(&self, memory: &mut impl Memory, bytes: &[u8; MAX_BYTES]) -> Result<(), Stop> {
        let mut rest = bytes.as_slice();
        for (address, size) in &self.pieces {
            let Some((piece, after)) = rest.split_at_checked(*size) else { break };
            memory.write(*address, piece)?;
            rest = after;
        }
        Ok(())
    }

    /// Writes `new` where `current` was read before, in one step unless the memory crosses a page boundary.
    pub fn exchange(
        &self,
        memory: &mut impl Memory,
        current: &[u8; MAX_BYTES],
        new: &[u8; MAX_BYTES],
    ) -> Result<(), Stop> {
        match self.pieces.as_slice() {
            [(address, size)] => {
                let current = current.get(..*size).unwrap_or_default();
                let new = new.get(..*size).unwrap_or_default();
                if memory.compare_exchange(*address, current, new)? { Ok(()) } else { Err(Stop::Retry) }
            }
            _ => self.write(memory, new),
        }
    }
}
