//! Features and the configuration space (virtio 1.2 5.2.3, 5.2.4).

use bitflags::bitflags;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{Immutable, IntoBytes};

use super::request::{MAX_DISCARD_SECTORS, MAX_RANGES, MAX_WRITE_ZEROES_SECTORS};
use crate::backend::{Geometry, SECTOR_BYTES};

bitflags! {
    /// Feature bits of the device, apart from those of rings and transport (virtio 1.2 5.2.3).
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Features: u64 {
        /// `size_max` is valid.
        const SIZE_MAX = 1 << 1;
        /// `seg_max` is valid.
        const SEG_MAX = 1 << 2;
        /// The device is read-only.
        const RO = 1 << 5;
        /// `blk_size` is valid.
        const BLK_SIZE = 1 << 6;
        /// There is a cache, and a command to flush it.
        const FLUSH = 1 << 9;
        /// `topology` is valid.
        const TOPOLOGY = 1 << 10;
        /// The driver may switch the cache off and on.
        const CONFIG_WCE = 1 << 11;
        /// There are several queues.
        const MQ = 1 << 12;
        /// There is a command to discard.
        const DISCARD = 1 << 13;
        /// There is a command to write zeroes.
        const WRITE_ZEROES = 1 << 14;
    }
}

/// Bytes of the configuration space: up to and without the fields for features that are not offered.
pub const CONFIG_BYTES: usize = 60;

/// Where `writeback` is, the only field that the driver writes.
pub(super) const WRITEBACK_OFFSET: usize = 32;

/// Segments of data in a request. Two more make the 128 descriptors of the smallest usual ring.
const SEGMENTS_MAX: u32 = 126;

/// Bytes of a segment.
const SEGMENT_BYTES_MAX: u32 = 1 << 20;

/// Bytes that the disk writes best at once: that of most media.
const PHYSICAL_BLOCK_BYTES: u32 = 4096;

/// `struct virtio_blk_config`.
#[derive(Clone, Copy, IntoBytes, Immutable)]
#[repr(C)]
pub(super) struct Config {
    capacity: U64,
    size_max: U32,
    seg_max: U32,
    /// Cylinders, heads, sectors: not offered.
    geometry: [u8; 4],
    blk_size: U32,
    /// Physical blocks are of 2^this logical ones.
    physical_block_exp: u8,
    alignment_offset: u8,
    min_io_size: U16,
    opt_io_size: U32,
    writeback: u8,
    unused0: u8,
    num_queues: U16,
    max_discard_sectors: U32,
    max_discard_seg: U32,
    discard_sector_alignment: U32,
    max_write_zeroes_sectors: U32,
    max_write_zeroes_seg: U32,
    write_zeroes_may_unmap: u8,
    unused1: [u8; 3],
}

const _: () = assert!(size_of::<Config>() == CONFIG_BYTES);

/// What a device with such a disk offers.
pub(super) fn offered(geometry: &Geometry, queues: u16) -> Features {
    let mut features =
        Features::SIZE_MAX | Features::SEG_MAX | Features::BLK_SIZE | Features::FLUSH | Features::TOPOLOGY;
    features |= if geometry.is_read_only {
        Features::RO
    } else {
        Features::CONFIG_WCE | Features::DISCARD | Features::WRITE_ZEROES
    };
    if queues > 1 {
        features |= Features::MQ;
    }
    features
}

impl Config {
    pub(super) fn new(geometry: &Geometry, queues: u16, is_write_back: bool) -> Self {
        let block_bytes = geometry.block_bytes.max(SECTOR_BYTES as u32);
        let physical_blocks = (PHYSICAL_BLOCK_BYTES / block_bytes).max(1);
        Self {
            capacity: geometry.capacity_sectors.into(),
            size_max: SEGMENT_BYTES_MAX.into(),
            seg_max: SEGMENTS_MAX.into(),
            geometry: [0; 4],
            blk_size: block_bytes.into(),
            physical_block_exp: physical_blocks.ilog2() as u8,
            alignment_offset: 0,
            min_io_size: (physical_blocks as u16).into(),
            opt_io_size: 0.into(),
            writeback: is_write_back.into(),
            unused0: 0,
            num_queues: queues.into(),
            max_discard_sectors: MAX_DISCARD_SECTORS.into(),
            max_discard_seg: (MAX_RANGES as u32).into(),
            discard_sector_alignment: (block_bytes / SECTOR_BYTES as u32).into(),
            max_write_zeroes_sectors: MAX_WRITE_ZEROES_SECTORS.into(),
            max_write_zeroes_seg: 1.into(),
            write_zeroes_may_unmap: 1,
            unused1: [0; 3],
        }
    }
}
