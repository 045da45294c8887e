//! A disk in memory.

use alloc::boxed::Box;
use alloc::vec;
use core::ops::Range;

use spin::RwLock;

use super::{BlockBackend, BlockError, Extent, Geometry, SECTOR_BYTES, Sector};

/// Bytes that one lock covers and that are given back as one.
const PIECE_BYTES: usize = 256 << 10;
const PIECE_SECTORS: u64 = (PIECE_BYTES / SECTOR_BYTES) as u64;

/// Absent if it is all zeros.
type Piece = RwLock<Option<Box<[u8]>>>;

/// A disk in memory that takes memory only for what was written, 256 KiB at a time. Several queues use it at once.
pub struct RamDisk {
    capacity_sectors: u64,
    pieces: Box<[Piece]>,
}

impl RamDisk {
    /// A disk of `capacity_sectors` sectors, all zeros.
    #[must_use]
    pub fn new(capacity_sectors: u64) -> Self {
        let pieces = (0..capacity_sectors.div_ceil(PIECE_SECTORS)).map(|_| RwLock::new(None)).collect();
        Self { capacity_sectors, pieces }
    }

    /// Bytes of memory that hold content.
    #[must_use]
    pub fn used_bytes(&self) -> usize {
        self.pieces.iter().filter(|piece| piece.read().is_some()).count() * PIECE_BYTES
    }

    /// Calls `work` for each piece that `extent` touches, with the bytes of the piece and the bytes of the extent that meet.
    fn for_each_piece(
        &self,
        extent: Extent,
        mut work: impl FnMut(&Piece, Range<usize>, Range<usize>),
    ) -> Result<(), BlockError> {
        self.geometry().check(extent)?;
        let end = extent.end()?.0;
        let mut at = extent.first.0;
        let mut done = 0;
        while at < end {
            let index = (at / PIECE_SECTORS) as usize;
            let count = (PIECE_SECTORS - at % PIECE_SECTORS).min(end - at);
            let start = (at % PIECE_SECTORS) as usize * SECTOR_BYTES;
            let bytes = count as usize * SECTOR_BYTES;
            let piece = self.pieces.get(index).ok_or(BlockError::OutOfRange)?;
            work(piece, start..start + bytes, done..done + bytes);
            at += count;
            done += bytes;
        }
        Ok(())
    }
}

impl BlockBackend for RamDisk {
    fn geometry(&self) -> Geometry {
        Geometry { capacity_sectors: self.capacity_sectors, block_bytes: 512, is_read_only: false }
    }

    fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
        self.for_each_piece(Extent::of_bytes(first, into.len())?, |piece, here, there| match &*piece.read() {
            Some(bytes) => into[there].copy_from_slice(&bytes[here]),
            None => into[there].fill(0),
        })
    }

    fn write(&self, first: Sector, from: &[u8]) -> Result<(), BlockError> {
        self.for_each_piece(Extent::of_bytes(first, from.len())?, |piece, here, there| {
            let mut piece = piece.write();
            let bytes = piece.get_or_insert_with(|| vec![0; PIECE_BYTES].into_boxed_slice());
            bytes[here].copy_from_slice(&from[there]);
        })
    }

    fn flush(&self) -> Result<(), BlockError> {
        Ok(())
    }

    fn discard(&self, extent: Extent) -> Result<(), BlockError> {
        self.write_zeroes(extent, true)
    }

    fn write_zeroes(&self, extent: Extent, may_unmap: bool) -> Result<(), BlockError> {
        self.for_each_piece(extent, |piece, here, _| {
            let mut piece = piece.write();
            if may_unmap && here.len() == PIECE_BYTES {
                *piece = None;
            } else if let Some(bytes) = piece.as_mut() {
                bytes[here].fill(0);
            }
        })
    }
}
