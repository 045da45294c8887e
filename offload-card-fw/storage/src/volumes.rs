//! A disk partitioned into volumes.
//!
//! # Format, version 1
//! All numbers are little-endian. Sectors 0 to 31 and 32 to 63 are two slots, written by turns, each with magic, version,
//! CRC-32 and generation. Payload: number of volumes (4 bytes), 12 zeros; then for each volume, in the order of their places,
//! 64 bytes: name in UTF-8 padded with zeros (32), first sector (8), sectors (8), 16 zeros. Volumes start at multiples
//! of 2048 sectors, the first not before that.

use alloc::vec::Vec;

use spin::Mutex;
use thiserror::Error;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::backend::{BlockBackend, BlockError, Extent, Geometry, Sector};
use crate::name::{MAX_NAME_BYTES, Name, checked_name, decode_name, encode_name};
use crate::slots::{SlotError, SlotFormat, Slots};

/// Most volumes of a disk.
pub const MAX_VOLUMES: usize = 128;

/// Where volumes can start: multiples of 1 MiB.
const ALIGNMENT_SECTORS: u64 = 2048;

/// Sectors that are zeroed at once.
const ZERO_SECTORS: u64 = 1 << 21;

const SLOTS: SlotFormat = SlotFormat { magic: *b"DFvols\0\0", version: 1, first: Sector(0), bytes: 16 << 10 };

/// Why the table of volumes cannot be read or changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum VolumeError {
    /// The disk's fault, or as it says.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// The disk was never partitioned.
    #[error("the disk has no table of volumes")]
    NotFormatted,
    /// The table was written by a newer program: use that.
    #[error("the table of volumes has version {0}, which is not known here")]
    Version(u32),
    /// There are [`MAX_VOLUMES`]: delete one.
    #[error("there are {MAX_VOLUMES} volumes already")]
    TooMany,
    /// No gap is large enough: delete a volume.
    #[error("the disk has no room for the volume in one piece")]
    NoRoom,
    /// The caller's fault: a name has 1 to [`MAX_NAME_BYTES`] bytes and no zeros, and a volume at least a sector.
    #[error("a volume has a name of 1 to {MAX_NAME_BYTES} bytes and a size above 0")]
    Invalid,
    /// The caller's fault: choose another name.
    #[error("there is a volume of that name already")]
    Exists,
    /// The caller's fault: it was deleted, or never made.
    #[error("there is no such volume")]
    NoSuchVolume,
}

impl From<SlotError> for VolumeError {
    fn from(error: SlotError) -> Self {
        match error {
            SlotError::Block(error) => Self::Block(error),
            SlotError::Absent => Self::NotFormatted,
            SlotError::Version(version) => Self::Version(version),
        }
    }
}

/// A volume's name and place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VolumeInfo {
    /// By which it is found: no two have the same.
    pub name: Name,
    /// Where it is on the disk.
    pub extent: Extent,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawTable {
    volumes: U32,
    reserved: [u8; 12],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct RawVolume {
    name: [u8; MAX_NAME_BYTES],
    first: U64,
    count: U64,
    reserved: [u8; 16],
}

/// A disk with a table of volumes. Changes are safe from power loss when they return: each happens whole, or not at all.
///
/// `B` is a pointer to the disk, which the volumes share.
pub struct VolumeTable<B> {
    disk: B,
    state: Mutex<TableState>,
}

struct TableState {
    slots: Slots,
    /// In the order of their places.
    volumes: Vec<VolumeInfo>,
}

impl<B: BlockBackend + Clone> VolumeTable<B> {
    /// Makes an empty table, whatever was there.
    ///
    /// # Errors
    /// What the disk says.
    pub fn format(disk: B) -> Result<Self, VolumeError> {
        let slots = Slots::create(&disk, SLOTS, &encode(&[]))?;
        Ok(Self { disk, state: Mutex::new(TableState { slots, volumes: Vec::new() }) })
    }

    /// Reads the table on `disk`.
    ///
    /// # Errors
    /// [`VolumeError::NotFormatted`], [`VolumeError::Version`], and what the disk says: [`BlockError::Corrupt`] if anything
    /// about the table cannot be.
    pub fn open(disk: B) -> Result<Self, VolumeError> {
        let (slots, payload) = Slots::open(&disk, SLOTS)?;
        let volumes = decode(&payload, disk.geometry().capacity_sectors)?;
        Ok(Self { disk, state: Mutex::new(TableState { slots, volumes }) })
    }

    /// The volumes, in the order of their places.
    pub fn volumes(&self) -> Vec<VolumeInfo> {
        self.state.lock().volumes.clone()
    }

    /// Makes a volume of `sectors` sectors in the first gap that is large enough, and fills it with zeros, so that it shows
    /// nothing of those that were there before.
    ///
    /// # Errors
    /// [`VolumeError::Invalid`], [`VolumeError::Exists`], [`VolumeError::TooMany`], [`VolumeError::NoRoom`], and what the
    /// disk says.
    pub fn create(&self, name: &str, sectors: u64) -> Result<Volume<B>, VolumeError> {
        let name = checked_name(name).filter(|_| sectors > 0).ok_or(VolumeError::Invalid)?;
        let mut state = self.state.lock();
        if state.volumes.iter().any(|volume| volume.name == name) {
            return Err(VolumeError::Exists);
        }
        if state.volumes.len() >= MAX_VOLUMES {
            return Err(VolumeError::TooMany);
        }
        let (index, extent) = self.find_gap(&state.volumes, sectors).ok_or(VolumeError::NoRoom)?;
        self.disk.geometry().check_change(extent)?;
        let volume = Volume { disk: self.disk.clone(), extent };
        for first in (0..sectors).step_by(ZERO_SECTORS as usize) {
            let part = Extent { first: Sector(first), count: ZERO_SECTORS.min(sectors - first) };
            volume.write_zeroes(part, true)?;
        }
        self.disk.flush()?;
        let mut volumes = state.volumes.clone();
        volumes.insert(index, VolumeInfo { name, extent });
        self.replace(&mut state, volumes)?;
        Ok(volume)
    }

    /// Deletes a volume. Its content stays until the place is used again; nobody may use it any more.
    ///
    /// # Errors
    /// [`VolumeError::NoSuchVolume`], and what the disk says.
    pub fn delete(&self, name: &str) -> Result<(), VolumeError> {
        let mut state = self.state.lock();
        let mut volumes = state.volumes.clone();
        volumes.retain(|volume| volume.name.as_str() != name);
        if volumes.len() == state.volumes.len() {
            return Err(VolumeError::NoSuchVolume);
        }
        self.replace(&mut state, volumes)
    }

    /// The volume called `name`, as a disk.
    ///
    /// # Errors
    /// [`VolumeError::NoSuchVolume`].
    pub fn volume(&self, name: &str) -> Result<Volume<B>, VolumeError> {
        let state = self.state.lock();
        let volume = state.volumes.iter().find(|volume| volume.name.as_str() == name);
        let extent = volume.ok_or(VolumeError::NoSuchVolume)?.extent;
        Ok(Volume { disk: self.disk.clone(), extent })
    }

    fn replace(&self, state: &mut TableState, volumes: Vec<VolumeInfo>) -> Result<(), VolumeError> {
        state.slots.replace(&self.disk, &encode(&volumes))?;
        state.volumes = volumes;
        Ok(())
    }

    /// The first place for `sectors` sectors, and which volume would follow.
    fn find_gap(&self, volumes: &[VolumeInfo], sectors: u64) -> Option<(usize, Extent)> {
        let capacity = self.disk.geometry().capacity_sectors;
        let mut first = ALIGNMENT_SECTORS;
        for index in 0..=volumes.len() {
            let end_of_gap = volumes.get(index).map_or(capacity, |next| next.extent.first.0);
            if first.checked_add(sectors)? <= end_of_gap {
                return Some((index, Extent { first: Sector(first), count: sectors }));
            }
            let end = volumes.get(index)?.extent.end().ok()?;
            first = end.0.checked_next_multiple_of(ALIGNMENT_SECTORS)?;
        }
        None
    }
}

fn encode(volumes: &[VolumeInfo]) -> Vec<u8> {
    let mut bytes = RawTable { volumes: (volumes.len() as u32).into(), reserved: [0; 12] }.as_bytes().to_vec();
    for volume in volumes {
        let raw = RawVolume {
            name: encode_name(&volume.name),
            first: volume.extent.first.0.into(),
            count: volume.extent.count.into(),
            reserved: [0; 16],
        };
        bytes.extend_from_slice(raw.as_bytes());
    }
    bytes
}

fn decode(payload: &[u8], capacity_sectors: u64) -> Result<Vec<VolumeInfo>, BlockError> {
    let (table, rest) = RawTable::ref_from_prefix(payload).map_err(|_| BlockError::Corrupt)?;
    let count = table.volumes.get() as usize;
    if count > MAX_VOLUMES {
        return Err(BlockError::Corrupt);
    }
    let (entries, _) = <[RawVolume]>::ref_from_prefix_with_elems(rest, count).map_err(|_| BlockError::Corrupt)?;
    let mut volumes: Vec<VolumeInfo> = Vec::with_capacity(count);
    let mut end = ALIGNMENT_SECTORS;
    for raw in entries {
        let name = decode_name(&raw.name).ok_or(BlockError::Corrupt)?;
        let extent = Extent { first: Sector(raw.first.get()), count: raw.count.get() };
        let is_placed = extent.first.0 >= end && extent.first.0.is_multiple_of(ALIGNMENT_SECTORS);
        end = extent.end().map_err(|_| BlockError::Corrupt)?.0;
        let is_known = volumes.iter().any(|volume| volume.name == name);
        if !is_placed || is_known || extent.count == 0 || end > capacity_sectors {
            return Err(BlockError::Corrupt);
        }
        volumes.push(VolumeInfo { name, extent });
    }
    Ok(volumes)
}

/// A part of a disk, as a disk.
#[derive(Clone, Debug)]
pub struct Volume<B> {
    disk: B,
    extent: Extent,
}

impl<B: BlockBackend> Volume<B> {
    fn place(&self, extent: Extent) -> Result<Extent, BlockError> {
        self.geometry().check(extent)?;
        Ok(Extent { first: self.extent.first.plus(extent.first.0)?, count: extent.count })
    }
}

impl<B: BlockBackend> BlockBackend for Volume<B> {
    fn geometry(&self) -> Geometry {
        Geometry { capacity_sectors: self.extent.count, ..self.disk.geometry() }
    }

    fn read(&self, first: Sector, into: &mut [u8]) -> Result<(), BlockError> {
        let place = self.place(Extent::of_bytes(first, into.len())?)?;
        self.disk.read(place.first, into)
    }

    fn write(&self, first: Sector, from: &[u8]) -> Result<(), BlockError> {
        let place = self.place(Extent::of_bytes(first, from.len())?)?;
        self.disk.write(place.first, from)
    }

    fn flush(&self) -> Result<(), BlockError> {
        self.disk.flush()
    }

    fn discard(&self, extent: Extent) -> Result<(), BlockError> {
        self.disk.discard(self.place(extent)?)
    }

    fn write_zeroes(&self, extent: Extent, may_unmap: bool) -> Result<(), BlockError> {
        self.disk.write_zeroes(self.place(extent)?, may_unmap)
    }
}
