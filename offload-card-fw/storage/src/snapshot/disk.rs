//! A volume of which snapshots can be made.

use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;

use super::header::{Header, SnapshotId, SnapshotInfo};
use super::node::Pointer;
use super::state::{Part, State};
use super::view::Snapshot;
use super::{BLOCK_BYTES, BLOCK_SECTORS, SnapshotError};
use crate::backend::{BlockBackend, BlockError, Extent, Geometry, SECTOR_BYTES, Sector};

/// The shape of a new volume.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Format {
    /// Size of the volume, in sectors: a multiple of 8. It may be larger than the disk, which can then become full.
    pub capacity_sectors: u64,
    /// Bytes that are copied when a snapshot first differs, and for which there is a pointer of 16 bytes: a power of two from
    /// 4096 to 1 MiB. [`Format::CHUNK_BYTES`] unless there is a reason.
    pub chunk_bytes: u32,
}

impl Format {
    /// A chunk that is cheap to copy, and to map.
    pub const CHUNK_BYTES: u32 = 64 << 10;
}

/// A live volume on a disk, whose space it takes as it is written, with snapshots beside it.
///
/// Requests are served one after another. A full disk fails writes to where nothing is yet, or what a snapshot shares, with
/// [`BlockError::NoSpace`]. After a flush or commit that failed nothing is written any more, until it is opened anew.
pub struct SnapshotDisk<B> {
    disk: B,
    geometry: Geometry,
    state: Mutex<State>,
}

impl<B: BlockBackend> SnapshotDisk<B> {
    /// Makes an empty volume on `disk`, whatever was there.
    ///
    /// # Errors
    /// [`SnapshotError::Shape`], [`SnapshotError::TooSmall`], and what the disk says.
    pub fn format(disk: B, format: Format) -> Result<Self, SnapshotError> {
        if !(format.chunk_bytes as usize).is_multiple_of(BLOCK_BYTES) {
            return Err(SnapshotError::Shape);
        }
        let header = Header {
            capacity_sectors: format.capacity_sectors,
            blocks: disk.geometry().capacity_sectors / BLOCK_SECTORS,
            chunk_blocks: u64::from(format.chunk_bytes) / BLOCK_BYTES as u64,
            root: Pointer::HOLE,
            snapshots: Vec::new(),
        };
        let state = State::format(&disk, header)?;
        Ok(Self::new(disk, state))
    }

    /// Opens the volume on `disk`, as its last commit left it: after power loss too.
    ///
    /// # Errors
    /// [`SnapshotError::NotFormatted`], [`SnapshotError::Version`], and what the disk says: [`BlockError::Corrupt`] if
    /// anything about it cannot be.
    pub fn open(disk: B) -> Result<Self, SnapshotError> {
        let state = State::open(&disk)?;
        Ok(Self::new(disk, state))
    }

    fn new(disk: B, state: State) -> Self {
        let below = disk.geometry();
        let geometry = Geometry { capacity_sectors: state.header.capacity_sectors, ..below };
        Self { disk, geometry, state: Mutex::new(state) }
    }

    /// Its snapshots, oldest first.
    pub fn snapshots(&self) -> Vec<SnapshotInfo> {
        self.state.lock().header.snapshots.iter().map(|record| record.info.clone()).collect()
    }

    /// The newest snapshot of this name.
    ///
    /// # Errors
    /// [`SnapshotError::NoSuchSnapshot`].
    pub fn find(&self, name: &str) -> Result<SnapshotId, SnapshotError> {
        let state = self.state.lock();
        let found = state.header.snapshots.iter().rev().find(|record| record.info.name.as_str() == name);
        found.map(|record| record.info.id).ok_or(SnapshotError::NoSuchSnapshot)
    }

    /// Keeps the volume as it is now, safe from power loss.
    ///
    /// # Errors
    /// [`SnapshotError::Name`], [`SnapshotError::TooMany`], and what the disk says: then there may be a snapshot when the
    /// volume is opened again.
    pub fn create_snapshot(&self, name: &str) -> Result<SnapshotId, SnapshotError> {
        self.state.lock().create_snapshot(&self.disk, name)
    }

    /// Deletes a snapshot. Time and memory are proportional to what only it had.
    ///
    /// # Errors
    /// [`SnapshotError::NoSuchSnapshot`], and what the disk says.
    pub fn delete_snapshot(&self, id: SnapshotId) -> Result<(), SnapshotError> {
        self.state.lock().delete_snapshot(&self.disk, id)
    }

    /// A snapshot, as a disk that cannot be written.
    ///
    /// # Errors
    /// [`SnapshotError::NoSuchSnapshot`].
    pub fn snapshot(self: &Arc<Self>, id: SnapshotId) -> Result<Snapshot<B>, SnapshotError> {
        let exists = self.state.lock().snapshot_root(id).is_some();
        if exists { Ok(Snapshot::new(Arc::clone(self), id)) } else { Err(SnapshotError::NoSuchSnapshot) }
    }

    /// Bytes that can still be written to where nothing is yet.
    pub fn free_bytes(&self) -> u64 {
        self.state.lock().free_bytes()
    }

    /// Reads from a snapshot.
    pub(super) fn read_snapshot(&self, id: SnapshotId, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
        self.geometry.check(Extent::of_bytes(first, into.len())?)?;
        let mut state = self.state.lock();
        let root = state.snapshot_root(id).ok_or(BlockError::Deleted)?;
        self.read_from(&mut state, root, first, into)
    }

    fn read_from(&self, state: &mut State, root: Pointer, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
        let mut rest = into;
        for part in parts(state.chunk_bytes(), first, rest.len()) {
            let (now, later) = rest.split_at_mut(part.bytes);
            state.read(&self.disk, root, part, now)?;
            rest = later;
        }
        Ok(())
    }
}

impl<B: BlockBackend> BlockBackend for SnapshotDisk<B> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
        self.geometry.check(Extent::of_bytes(first, into.len())?)?;
        let mut state = self.state.lock();
        let root = state.header.root;
        self.read_from(&mut state, root, first, into)
    }

    fn write(&self, first: Sector, from: &[u8]) -> Result<(), BlockError> {
        self.geometry.check_change(Extent::of_bytes(first, from.len())?)?;
        let mut state = self.state.lock();
        let mut rest = from;
        for part in parts(state.chunk_bytes(), first, from.len()) {
            let (now, later) = rest.split_at(part.bytes);
            state.write(&self.disk, part, now)?;
            rest = later;
        }
        Ok(())
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.state.lock().flush(&self.disk)
    }

    /// Gives up the chunks that lie wholly in `extent`; the rest stays as it is.
    fn discard(&self, extent: Extent) -> Result<(), BlockError> {
        self.geometry.check_change(extent)?;
        let mut state = self.state.lock();
        let chunk_sectors = (state.chunk_bytes() / SECTOR_BYTES) as u64;
        let first = extent.first.0.div_ceil(chunk_sectors);
        // The last chunk may be cut short by the end of the volume.
        let end = match extent.end()?.0 {
            end if end == self.geometry.capacity_sectors => end.div_ceil(chunk_sectors),
            end => end / chunk_sectors,
        };
        (first..end).try_for_each(|chunk| state.unmap(&self.disk, chunk))
    }

    fn write_zeroes(&self, extent: Extent, may_unmap: bool) -> Result<(), BlockError> {
        const ZEROES: [u8; BLOCK_BYTES] = [0; BLOCK_BYTES];
        self.geometry.check_change(extent)?;
        let mut state = self.state.lock();
        let chunk_sectors = (state.chunk_bytes() / SECTOR_BYTES) as u64;
        let (mut at, end) = (extent.first.0, extent.end()?.0);
        while at < end {
            let chunk = at / chunk_sectors;
            let end_of_chunk = (chunk + 1).saturating_mul(chunk_sectors).min(self.geometry.capacity_sectors);
            let now = end_of_chunk.min(end) - at;
            if may_unmap && at.is_multiple_of(chunk_sectors) && at + now == end_of_chunk {
                state.unmap(&self.disk, chunk)?;
            } else if !state.is_hole(&self.disk, chunk)? {
                for sector in (at..at + now).step_by(BLOCK_SECTORS as usize) {
                    let bytes = (at + now - sector).min(BLOCK_SECTORS) as usize * SECTOR_BYTES;
                    let offset = (sector % chunk_sectors) as usize * SECTOR_BYTES;
                    state.write(&self.disk, Part { chunk, offset, bytes }, &ZEROES[..bytes])?;
                }
            }
            at += now;
        }
        Ok(())
    }
}

/// Cuts a request at the ends of chunks.
fn parts(chunk_bytes: usize, first: Sector, bytes: usize) -> impl Iterator<Item = Part> {
    let chunk_sectors = (chunk_bytes / SECTOR_BYTES) as u64;
    let mut chunk = first.0 / chunk_sectors;
    let mut offset = (first.0 % chunk_sectors) as usize * SECTOR_BYTES;
    let mut left = bytes;
    core::iter::from_fn(move || {
        let part = Part { chunk, offset, bytes: left.min(chunk_bytes - offset) };
        chunk += 1;
        offset = 0;
        left -= part.bytes;
        (part.bytes > 0).then_some(part)
    })
}
