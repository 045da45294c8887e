//! A disk that holds only ciphertext.

use alloc::vec::Vec;

use spin::Mutex;

use super::{DataUnit, XtsAes256};
use crate::backend::{BlockBackend, BlockError, Extent, Geometry, SECTOR_BYTES, Sector, write_zeroes_by_writing};

/// Bytes that are encrypted into a buffer before they are written.
const BUFFER_BYTES: usize = 128 << 10;

/// Encrypts what is written to the disk below, with a key of its own: data unit `n` of this disk has the tweak `n`.
///
/// Discarded sectors read as noise. Snapshots belong above, so that what they never wrote reads as zeros.
pub struct EncryptedDisk<B> {
    inner: B,
    cipher: XtsAes256,
    unit: DataUnit,
    /// Buffers that are not in use: as many as there ever were writers at once.
    buffers: Mutex<Vec<Vec<u8>>>,
}

impl<B: BlockBackend> EncryptedDisk<B> {
    /// Encrypts on `inner` with `cipher`.
    ///
    /// # Errors
    /// [`BlockError::Unaligned`]: the disk's own blocks are larger than `unit` or its size no multiple of it.
    pub fn new(inner: B, cipher: XtsAes256, unit: DataUnit) -> Result<Self, BlockError> {
        let geometry = inner.geometry();
        let unit_sectors = (unit.bytes() / SECTOR_BYTES) as u64;
        if geometry.block_bytes as usize > unit.bytes() || !geometry.capacity_sectors.is_multiple_of(unit_sectors) {
            return Err(BlockError::Unaligned);
        }
        Ok(Self { inner, cipher, unit, buffers: Mutex::new(Vec::new()) })
    }

    fn unit_number(&self, sector: Sector) -> u64 {
        sector.0 / (self.unit.bytes() / SECTOR_BYTES) as u64
    }

    fn write_through(&self, first: Sector, from: &[u8], buffer: &mut [u8]) -> Result<(), BlockError> {
        let mut at = first;
        for piece in from.chunks(buffer.len()) {
            let ciphertext = &mut buffer[..piece.len()];
            ciphertext.copy_from_slice(piece);
            self.cipher.encrypt(self.unit_number(at), self.unit, ciphertext);
            self.inner.write(at, ciphertext)?;
            at = at.plus((piece.len() / SECTOR_BYTES) as u64)?;
        }
        Ok(())
    }
}

impl<B: BlockBackend> BlockBackend for EncryptedDisk<B> {
    fn geometry(&self) -> Geometry {
        Geometry { block_bytes: self.unit.bytes() as u32, ..self.inner.geometry() }
    }

    fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
        self.geometry().check(Extent::of_bytes(first, into.len())?)?;
        self.inner.read(first, into)?;
        self.cipher.decrypt(self.unit_number(first), self.unit, into);
        Ok(())
    }

    fn write(&self, first: Sector, from: &[u8]) -> Result<(), BlockError> {
        self.geometry().check_change(Extent::of_bytes(first, from.len())?)?;
        let spare = self.buffers.lock().pop();
        let mut buffer = spare.unwrap_or_else(|| alloc::vec![0; BUFFER_BYTES]);
        let result = self.write_through(first, from, &mut buffer);
        self.buffers.lock().push(buffer);
        result
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.inner.flush()
    }

    fn discard(&self, extent: Extent) -> Result<(), BlockError> {
        self.geometry().check_change(extent)?;
        self.inner.discard(extent)
    }

    /// Zeros are encrypted like anything else.
    fn write_zeroes(&self, extent: Extent, _may_unmap: bool) -> Result<(), BlockError> {
        write_zeroes_by_writing(self, extent)
    }
}
