//! Layouts of payloads, in the machine's byte order as the protocol has it.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{error::MessageError, request::Request};

/// The most bytes of configuration space in one message.
pub const MAX_CONFIG: usize = 256;

/// A ring and a number: its size, its base, or whether it is enabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct VringState {
    /// Index of the queue.
    pub index: u32,
    /// The number.
    pub num: u32,
}

/// Where the parts of a ring are, in addresses of the front end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct VringAddress {
    /// Index of the queue.
    pub index: u32,
    /// Bit 0: writes to the used ring are logged.
    pub flags: u32,
    /// Descriptor table, or descriptor ring of a packed ring.
    pub descriptor: u64,
    /// Used ring, or the device's event suppression area.
    pub used: u64,
    /// Available ring, or the driver's event suppression area.
    pub available: u64,
    /// Where writes to the used ring are logged.
    pub log: u64,
}

/// A region of the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct MemoryRegion {
    /// Guest-physical address.
    pub guest_address: u64,
    /// Bytes.
    pub size: u64,
    /// Address in the front end.
    pub user_address: u64,
    /// Where in the resource it begins.
    pub mmap_offset: u64,
}

/// What stands before the regions of `SET_MEM_TABLE`.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct MemoryTable {
    /// Number of regions.
    pub regions: u32,
    /// Nothing.
    pub padding: u32,
}

/// What `ADD_MEM_REG` and `REM_MEM_REG` carry.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct SingleRegion {
    /// Nothing.
    pub padding: u64,
    /// The region.
    pub region: MemoryRegion,
}

/// What stands before bytes of the configuration space.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct ConfigAccess {
    /// First byte.
    pub offset: u32,
    /// Number of bytes.
    pub size: u32,
    /// 0: the guest writes to a field that it may write to; 1: state of a migration.
    pub flags: u32,
}

/// Memory for the state of requests under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub struct InflightArea {
    /// Bytes.
    pub mmap_size: u64,
    /// Where in the resource it begins.
    pub mmap_offset: u64,
    /// Number of queues.
    pub queues: u16,
    /// Descriptors of each queue.
    pub queue_size: u16,
    /// Front ends that lay their messages out as C does send these too.
    pub padding: u32,
}

/// Bytes of an [`InflightArea`] without its padding.
const INFLIGHT_UNPADDED: usize = 20;

/// A payload that is exactly a `T`.
pub(crate) fn exactly<T: FromBytes>(request: Request, payload: &[u8]) -> Result<T, MessageError> {
    T::read_from_bytes(payload).map_err(|_| MessageError::WrongLength { request, size: payload.len() })
}

/// A `T` at the beginning of a payload, and the rest.
pub(crate) fn prefix<T: FromBytes>(request: Request, payload: &[u8]) -> Result<(T, &[u8]), MessageError> {
    T::read_from_prefix(payload).map_err(|_| MessageError::WrongLength { request, size: payload.len() })
}

/// An [`InflightArea`], with or without padding.
pub(crate) fn inflight(request: Request, payload: &[u8]) -> Result<InflightArea, MessageError> {
    let mut padded = [0; size_of::<InflightArea>()];
    match padded.get_mut(..payload.len()) {
        Some(start) if payload.len() >= INFLIGHT_UNPADDED => start.copy_from_slice(payload),
        _ => return Err(MessageError::WrongLength { request, size: payload.len() }),
    }
    exactly(request, &padded)
}
