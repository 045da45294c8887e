//! Requests to a virtio-blk device (virtio 1.2 5.2.6), laid out in a slot of the queue.

use core::ops::Range;

use dragonfly_storage::{BlockError, SECTOR_BYTES, Sector};

use crate::error::Fault;

/// Bytes of data in a request at most.
pub(super) const DATA_BYTES: usize = 64 << 10;

/// Where in a slot what is: `struct virtio_blk_req`'s header, a range to discard or zero, data; the status follows what the
/// request has last.
const HEADER: Range<usize> = 0..16;
const RANGE: Range<usize> = 16..32;
const DATA: usize = SECTOR_BYTES;

/// Bytes of a slot: the largest request with its status.
pub(super) const SLOT_BYTES: usize = DATA + DATA_BYTES + 1;

/// Bytes of a serial number.
pub(super) const ID_BYTES: usize = 20;

/// What stands where the device has not written a status.
const NO_STATUS: u8 = 0xff;

/// Of a range to fill with zeros: its space may be given up.
const FLAG_UNMAP: u32 = 1;

/// What is asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Makes what was written safe.
    Flush,
    /// Tells the serial number.
    GetId,
    /// Forgets a range.
    Discard,
    /// Fills a range with zeros.
    WriteZeroes { may_unmap: bool },
}

/// One request, of at most [`DATA_BYTES`] of data.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Piece {
    pub(super) kind: Kind,
    /// Where it begins.
    pub(super) first: Sector,
    /// How many.
    pub(super) sectors: u64,
}

/// Which parts of the slot the device reads and writes.
#[derive(Debug)]
pub(super) struct Layout {
    /// The header, and then what the driver sends.
    pub(super) readable: [Range<usize>; 2],
    /// What the device sends, and then the status.
    pub(super) writable: [Range<usize>; 2],
}

impl Piece {
    /// Bytes of data that go either way.
    pub(super) fn data_bytes(&self) -> usize {
        match self.kind {
            // Requests with data have few sectors.
            Kind::Read | Kind::Write => self.sectors as usize * SECTOR_BYTES,
            Kind::GetId => ID_BYTES,
            Kind::Flush | Kind::Discard | Kind::WriteZeroes { .. } => 0,
        }
    }

    /// Where its data is in the slot.
    pub(super) fn data(&self) -> Range<usize> {
        DATA..DATA + self.data_bytes()
    }

    /// Where the device puts the status.
    pub(super) fn status(&self) -> usize {
        match self.kind {
            Kind::Discard | Kind::WriteZeroes { .. } => RANGE.end,
            _ => self.data().end,
        }
    }

    /// The parts; those that are empty are left out when the request is made.
    pub(super) fn layout(&self) -> Layout {
        let none = self.status()..self.status();
        let (sent, received) = match self.kind {
            Kind::Write => (self.data(), none),
            Kind::Read | Kind::GetId => (none.start..none.start, self.data()),
            Kind::Discard | Kind::WriteZeroes { .. } => (RANGE, none),
            Kind::Flush => (none.clone(), none),
        };
        Layout { readable: [HEADER, sent], writable: [received, self.status()..self.status() + 1] }
    }

    /// Header and range, from the start of the slot.
    pub(super) fn head(&self) -> [u8; RANGE.end] {
        let (kind, flags) = match self.kind {
            Kind::Read => (0_u32, 0),
            Kind::Write => (1, 0),
            Kind::Flush => (4, 0),
            Kind::GetId => (8, 0),
            Kind::Discard => (11, 0),
            Kind::WriteZeroes { may_unmap } => (13, if may_unmap { FLAG_UNMAP } else { 0 }),
        };
        // The sector stands in the header for data, in the range for the others; where it is not asked for it is 0.
        let position = if self.data_bytes() > 0 { self.first.0 } else { 0 };
        let count = u32::try_from(self.sectors).unwrap_or(u32::MAX);
        let mut head = [0; RANGE.end];
        let fields = [
            &kind.to_le_bytes()[..],
            &0_u32.to_le_bytes(),
            &position.to_le_bytes(),
            &self.first.0.to_le_bytes(),
            &count.to_le_bytes(),
            &flags.to_le_bytes(),
        ];
        head.iter_mut().zip(fields.into_iter().flatten()).for_each(|(to, from)| *to = *from);
        head
    }

    /// What the status and the number of bytes written mean.
    ///
    /// # Errors
    /// The outer error: the device lies. The inner: it could not do it.
    pub(super) fn judge(&self, status: u8, written: usize) -> Result<Result<(), BlockError>, Fault> {
        let wanted = if self.kind == Kind::Write { 1 } else { self.data_bytes() + 1 };
        match status {
            // What is missing would be what an earlier request left there.
            0 if written != wanted => Err(Fault::Length),
            0 => Ok(Ok(())),
            // VIRTIO_BLK_S_IOERR and _UNSUPP.
            1 | 2 => Ok(Err(BlockError::Medium)),
            _ => Err(Fault::Status),
        }
    }

    /// What stands where the status will be.
    pub(super) const fn no_status() -> [u8; 1] {
        [NO_STATUS]
    }
}
