//! Metadata that is replaced as a whole: two places on a disk that are written by turns.
//!
//! Each slot holds, little-endian: magic (8 bytes), version (4), CRC-32 of the whole slot with this field as zeros (4),
//! generation (8), eight zeros, then the payload. The valid slot of the higher generation counts. Power loss during a
//! write leaves the other slot as it was, and a slot that is not valid; opening wipes that, or a later write of the same
//! generation that is cut short too could make it whole.

use alloc::vec;
use alloc::vec::Vec;

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::backend::{BlockBackend, BlockError, SECTOR_BYTES, Sector};

/// What a slot is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SlotFormat {
    pub(crate) magic: [u8; 8],
    pub(crate) version: u32,
    /// Where the first slot starts; the second follows it.
    pub(crate) first: Sector,
    /// Size of each, in bytes: a multiple of every block size that a disk below may have.
    pub(crate) bytes: usize,
}

/// Why there is nothing to read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum SlotError {
    Block(BlockError),
    /// Neither slot has the magic.
    Absent,
    /// The newest is of another version.
    Version(u32),
}

impl From<BlockError> for SlotError {
    fn from(error: BlockError) -> Self {
        Self::Block(error)
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct SlotHeader {
    magic: [u8; 8],
    version: U32,
    checksum: U32,
    generation: U64,
    reserved: U64,
}

const HEADER_BYTES: usize = size_of::<SlotHeader>();

/// Generations end long before their numbers do, so a number as large as this was never written.
const MAX_GENERATION: u64 = u64::MAX / 2;

/// Two slots, one of which is current.
#[derive(Debug)]
pub(crate) struct Slots {
    format: SlotFormat,
    current: u64,
    generation: u64,
}

impl Slots {
    /// Writes `payload` as generation 1, and makes sure that nothing older is found there.
    pub(crate) fn create<B: BlockBackend>(disk: &B, format: SlotFormat, payload: &[u8]) -> Result<Self, BlockError> {
        disk.write(format.first, &vec![0; 2 * format.bytes])?;
        disk.flush()?;
        let mut slots = Self { format, current: 1, generation: 0 };
        slots.replace(disk, payload)?;
        Ok(slots)
    }

    /// Finds the current slot; returns its payload too, with the zeros that follow it.
    ///
    /// What is found is then safe from power loss, though it may have come from a cache that was not.
    pub(crate) fn open<B: BlockBackend>(disk: &B, format: SlotFormat) -> Result<(Self, Vec<u8>), SlotError> {
        let mut newest: Option<(Self, Vec<u8>, u32)> = None;
        let mut has_magic = false;
        let mut broken = None;
        for current in [0, 1] {
            let mut bytes = vec![0; format.bytes];
            disk.read(position(&format, current)?, &mut bytes)?;
            let Ok((header, _)) = SlotHeader::read_from_prefix(&bytes) else { continue };
            has_magic |= header.magic == format.magic;
            if !is_valid(&header, &format, &mut bytes) {
                broken = Some(current);
                continue;
            }
            let generation = header.generation.get();
            if newest.as_ref().is_none_or(|(slots, ..)| slots.generation < generation) {
                let payload = bytes.split_off(HEADER_BYTES);
                newest = Some((Self { format, current, generation }, payload, header.version.get()));
            }
        }
        match newest {
            Some((slots, payload, version)) if version == format.version => {
                let geometry = disk.geometry();
                if let Some(slot) = broken.filter(|_| !geometry.is_read_only) {
                    // The header alone: it is either wiped or not.
                    let zeros = vec![0; HEADER_BYTES.next_multiple_of(geometry.block_bytes as usize)];
                    disk.write(position(&format, slot)?, &zeros)?;
                }
                disk.flush()?;
                Ok((slots, payload))
            }
            Some((.., version)) => Err(SlotError::Version(version)),
            None if has_magic => Err(SlotError::Block(BlockError::Corrupt)),
            None => Err(SlotError::Absent),
        }
    }

    /// Generation of the current slot.
    pub(crate) fn generation(&self) -> u64 {
        self.generation
    }

    /// Writes `payload` as the next generation. When this returns it is safe from power loss; if it fails, either
    /// generation may be found the next time.
    pub(crate) fn replace<B: BlockBackend>(&mut self, disk: &B, payload: &[u8]) -> Result<(), BlockError> {
        let (generation, current) = (self.generation + 1, 1 - self.current);
        let mut bytes = vec![0; self.format.bytes];
        let room = bytes.get_mut(HEADER_BYTES..HEADER_BYTES + payload.len()).ok_or(BlockError::NoSpace)?;
        room.copy_from_slice(payload);
        let mut header = SlotHeader {
            magic: self.format.magic,
            version: self.format.version.into(),
            checksum: 0.into(),
            generation: generation.into(),
            reserved: 0.into(),
        };
        bytes[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        header.checksum = crc32fast::hash(&bytes).into();
        bytes[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        disk.write(position(&self.format, current)?, &bytes)?;
        disk.flush()?;
        (self.generation, self.current) = (generation, current);
        Ok(())
    }
}

fn position(format: &SlotFormat, slot: u64) -> Result<Sector, BlockError> {
    format.first.plus(slot * (format.bytes / SECTOR_BYTES) as u64)
}

/// Clears the checksum in `bytes`.
fn is_valid(header: &SlotHeader, format: &SlotFormat, bytes: &mut [u8]) -> bool {
    let without_checksum = SlotHeader { checksum: 0.into(), ..*header };
    bytes[..HEADER_BYTES].copy_from_slice(without_checksum.as_bytes());
    let is_generation_valid = (1..=MAX_GENERATION).contains(&header.generation.get());
    header.magic == format.magic && is_generation_valid && crc32fast::hash(bytes) == header.checksum.get()
}
