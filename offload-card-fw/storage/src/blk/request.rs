//! One request (virtio 1.2 5.2.6): decoded whole, then performed.

use alloc::vec::Vec;

use arrayvec::ArrayVec;
use dragonfly_virtqueue::{Chain, ChainError, GuestMemory, Reader, Writer};
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::config::Features;
use super::device::{BlockDevice, ID_BYTES};
use crate::backend::{BlockBackend, BlockError, Extent, SECTOR_BYTES, Sector};

/// Ranges in a request to discard.
pub(super) const MAX_RANGES: usize = 16;

/// Sectors of a range to discard: the work of a request is bounded.
pub(super) const MAX_DISCARD_SECTORS: u32 = 1 << 21;

/// Sectors of a range to fill with zeros, which on some disks means to write them.
pub(super) const MAX_WRITE_ZEROES_SECTORS: u32 = 1 << 16;

const TYPE_IN: u32 = 0;
const TYPE_OUT: u32 = 1;
const TYPE_FLUSH: u32 = 4;
const TYPE_GET_ID: u32 = 8;
const TYPE_DISCARD: u32 = 11;
const TYPE_WRITE_ZEROES: u32 = 13;

/// Of a range to fill with zeros: its space may be given up.
const FLAG_UNMAP: u32 = 1;

/// `struct virtio_blk_req`, as far as it precedes the data.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Header {
    kind: U32,
    reserved: U32,
    sector: U64,
}

/// `struct virtio_blk_discard_write_zeroes`.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct Range {
    sector: U64,
    sectors: U32,
    flags: U32,
}

/// How a request ended, as the driver sees it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Status {
    /// `VIRTIO_BLK_S_OK`.
    Ok = 0,
    /// `VIRTIO_BLK_S_IOERR`: the request cannot be, or the disk failed.
    IoError = 1,
    /// `VIRTIO_BLK_S_UNSUPP`: the device does not do that.
    Unsupported = 2,
}

impl From<BlockError> for Status {
    fn from(_: BlockError) -> Self {
        Self::IoError
    }
}

/// Memory that is not there, or too little of it: the driver's fault, as a sector beyond the end is.
impl From<ChainError> for Status {
    fn from(_: ChainError) -> Self {
        Self::IoError
    }
}

/// What a request asks for. All of it is on the disk and allowed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Action {
    /// Reads.
    Read(Extent),
    /// Writes.
    Write(Extent),
    /// Makes what was written safe.
    Flush,
    /// Returns the serial number.
    GetId,
    /// Discards at most 16 ranges.
    Discard(Vec<Extent>),
    /// Fills with zeros.
    WriteZeroes {
        /// What.
        extent: Extent,
        /// Whether its space may be given up.
        may_unmap: bool,
    },
}

/// A request that has been decoded.
///
/// For a disk whose work ends later there are [`data_reader`](Self::data_reader), [`data_writer`](Self::data_writer) and
/// [`complete`](Self::complete) in place of [`perform`](Self::perform).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Request {
    /// What is asked for.
    pub action: Action,
}

impl Request {
    /// Decodes and checks the request in `chain`.
    ///
    /// # Errors
    /// The status to [`complete`](Self::complete) it with.
    pub fn decode<B, M: GuestMemory>(chain: &Chain, memory: &M, device: &BlockDevice<B>) -> Result<Self, Status> {
        let mut reader = chain.reader(memory);
        let header: Header = reader.read_value()?;
        let first = Sector(header.sector.get());
        let geometry = device.geometry;
        let action = match header.kind.get() {
            TYPE_IN => {
                let extent = extent_of(first, chain.writable_len().saturating_sub(1))?;
                geometry.check(extent)?;
                Action::Read(extent)
            }
            TYPE_OUT => {
                let extent = extent_of(first, reader.remaining())?;
                geometry.check_change(extent)?;
                Action::Write(extent)
            }
            TYPE_FLUSH => Action::Flush,
            TYPE_GET_ID => Action::GetId,
            TYPE_DISCARD if device.has(Features::DISCARD) => {
                let ranges = read_ranges::<MAX_RANGES, M>(&mut reader)?;
                if ranges.iter().any(|range| range.flags.get() != 0) {
                    return Err(Status::Unsupported);
                }
                let mut extents = Vec::with_capacity(ranges.len());
                for range in &ranges {
                    let extent = checked_range(range, MAX_DISCARD_SECTORS)?;
                    geometry.check_change(extent)?;
                    extents.push(extent);
                }
                Action::Discard(extents)
            }
            TYPE_WRITE_ZEROES if device.has(Features::WRITE_ZEROES) => {
                let ranges = read_ranges::<1, M>(&mut reader)?;
                let range = ranges.first().ok_or(Status::IoError)?;
                if range.flags.get() & !FLAG_UNMAP != 0 {
                    return Err(Status::Unsupported);
                }
                let extent = checked_range(range, MAX_WRITE_ZEROES_SECTORS)?;
                geometry.check_change(extent)?;
                Action::WriteZeroes { extent, may_unmap: range.flags.get() & FLAG_UNMAP != 0 }
            }
            _ => return Err(Status::Unsupported),
        };
        Ok(Self { action })
    }

    /// Bytes that count against the limit on bytes.
    #[must_use]
    pub fn cost_bytes(&self) -> u64 {
        match &self.action {
            Action::Read(extent) | Action::Write(extent) | Action::WriteZeroes { extent, .. } => {
                extent.count.saturating_mul(SECTOR_BYTES as u64)
            }
            Action::Flush | Action::GetId | Action::Discard(_) => 0,
        }
    }

    /// Does what is asked for, with `buffer` for the data on its way: at least a block of the disk, and a multiple of it.
    /// Returns the status and how many bytes of data were written to the chain, for [`complete`](Self::complete).
    pub fn perform<B: BlockBackend, M: GuestMemory>(
        &self,
        chain: &Chain,
        memory: &M,
        device: &BlockDevice<B>,
        buffer: &mut [u8],
    ) -> (Status, u64) {
        let mut writer = Self::data_writer(chain, memory);
        let done = self.try_perform(Self::data_reader(chain, memory), &mut writer, device, buffer);
        let written = (chain.writable_len().saturating_sub(1)).saturating_sub(writer.remaining());
        (done.err().unwrap_or(Status::Ok), written)
    }

    /// Reads what the driver sent after the header.
    #[must_use]
    pub fn data_reader<'a, M: GuestMemory>(chain: &'a Chain, memory: &'a M) -> Reader<'a, M> {
        let mut reader = chain.reader(memory);
        // A chain without a whole header was not decoded.
        let _ = reader.skip(size_of::<Header>() as u64);
        reader
    }

    /// Writes what the driver shall receive before the status.
    #[must_use]
    pub fn data_writer<'a, M: GuestMemory>(chain: &'a Chain, memory: &'a M) -> Writer<'a, M> {
        let mut writer = chain.writer(memory);
        // Without room for a status there is none for data either.
        let _ = writer.split_at(chain.writable_len().saturating_sub(1));
        writer
    }

    /// Ends the request in `chain`: its last byte becomes the status, if there is room. `data_written` bytes of data precede
    /// it. Returns the length to give the chain back with: bytes written from its start without a gap (virtio 1.2 2.7.8.2).
    pub fn complete<M: GuestMemory>(chain: &Chain, memory: &M, status: Status, data_written: u64) -> u32 {
        let data_room = chain.writable_len().saturating_sub(1);
        let mut writer = chain.writer(memory);
        let is_status_written = writer.skip(data_room).and_then(|()| writer.write_all(&[status as u8])).is_ok();
        let is_whole = is_status_written && data_written >= data_room;
        let written = if is_whole { chain.writable_len() } else { data_written };
        u32::try_from(written).unwrap_or(u32::MAX)
    }

    fn try_perform<B: BlockBackend, M: GuestMemory>(
        &self,
        mut reader: Reader<'_, M>,
        writer: &mut Writer<'_, M>,
        device: &BlockDevice<B>,
        buffer: &mut [u8],
    ) -> Result<(), Status> {
        let disk = &device.disk;
        let is_change = match &self.action {
            Action::Read(extent) => {
                for_each_piece(*extent, buffer, |first, piece| {
                    disk.read(first, piece)?;
                    Ok(writer.write_all(piece)?)
                })?;
                false
            }
            Action::Write(extent) => {
                for_each_piece(*extent, buffer, |first, piece| {
                    reader.read_exact(piece)?;
                    Ok(disk.write(first, piece)?)
                })?;
                true
            }
            Action::Flush => {
                disk.flush()?;
                false
            }
            Action::GetId => {
                let room = usize::try_from(writer.remaining()).unwrap_or(ID_BYTES).min(ID_BYTES);
                writer.write_all(device.id.get(..room).unwrap_or_default())?;
                false
            }
            Action::Discard(extents) => {
                for extent in extents {
                    disk.discard(*extent)?;
                }
                true
            }
            Action::WriteZeroes { extent, may_unmap } => {
                disk.write_zeroes(*extent, *may_unmap)?;
                true
            }
        };
        if is_change && device.is_write_through() {
            disk.flush()?;
        }
        Ok(())
    }
}

fn extent_of(first: Sector, bytes: u64) -> Result<Extent, Status> {
    let bytes = usize::try_from(bytes).map_err(|_| Status::IoError)?;
    Ok(Extent::of_bytes(first, bytes)?)
}

/// At most `N` ranges, and nothing else.
fn read_ranges<const N: usize, M: GuestMemory>(reader: &mut Reader<'_, M>) -> Result<ArrayVec<Range, N>, Status> {
    let bytes = reader.remaining();
    let size = size_of::<Range>() as u64;
    if bytes == 0 || !bytes.is_multiple_of(size) || bytes / size > N as u64 {
        return Err(Status::IoError);
    }
    let mut ranges = ArrayVec::new();
    while reader.remaining() > 0 && !ranges.is_full() {
        ranges.push(reader.read_value()?);
    }
    Ok(ranges)
}

fn checked_range(range: &Range, max_sectors: u32) -> Result<Extent, Status> {
    if range.sectors.get() > max_sectors {
        return Err(Status::IoError);
    }
    Ok(Extent { first: Sector(range.sector.get()), count: range.sectors.get().into() })
}

/// Calls `work` for each part of `extent` that fits into `buffer`.
fn for_each_piece(
    extent: Extent,
    buffer: &mut [u8],
    mut work: impl FnMut(Sector, &mut [u8]) -> Result<(), Status>,
) -> Result<(), Status> {
    let (mut at, mut left) = (extent.first, extent.count);
    while left > 0 {
        let now = left.min((buffer.len() / SECTOR_BYTES) as u64);
        let piece = buffer.get_mut(..now as usize * SECTOR_BYTES).filter(|piece| !piece.is_empty());
        work(at, piece.ok_or(Status::IoError)?)?;
        at = at.plus(now)?;
        left -= now;
    }
    Ok(())
}
