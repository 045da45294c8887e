//! The header that all tables but the RSDP and FACS share (ACPI 6.5, 5.2.6, table 5.4), and its validation.

use crate::fields::Fields;
use crate::memory::TableMemory;
use crate::problem::{Signature, TableFault};

/// Longer tables count as corrupt. Tables of real servers stay below 1 MiB; the bound keeps a corrupt length from
/// costing more than a moment.
pub const MAX_TABLE_SIZE: usize = 1 << 20;

/// Bytes of the common header.
pub(crate) const HEADER_SIZE: usize = 36;

const LENGTH: usize = 4;
const REVISION: usize = 8;

/// A table whose length and checksum are right.
#[derive(Clone, Copy)]
pub(crate) struct Table<'a> {
    pub(crate) signature: Signature,
    pub(crate) revision: u8,
    /// The whole table; offsets are from the start of its header, as in the specification.
    pub(crate) fields: Fields<'a>,
}

impl<'a> Table<'a> {
    /// Validates the table at host-physical `address`, which must have this `signature`.
    pub(crate) fn read(memory: &'a impl TableMemory, address: u64, signature: Signature) -> Result<Self, TableFault> {
        let header = Fields(map(memory, address, HEADER_SIZE).ok_or(TableFault::Unreachable)?);
        let found = Signature(header.array(0).ok_or(TableFault::Unreachable)?);
        let length = header.u32(LENGTH).ok_or(TableFault::Unreachable)?;
        let revision = header.u8(REVISION).ok_or(TableFault::Unreachable)?;
        if found != signature {
            return Err(TableFault::Signature { found });
        }
        let size = usize::try_from(length).unwrap_or(usize::MAX);
        if !(HEADER_SIZE..=MAX_TABLE_SIZE).contains(&size) {
            return Err(TableFault::Length { length });
        }
        let bytes = map(memory, address, size).ok_or(TableFault::Unreachable)?;
        if !adds_up_to_zero(bytes) {
            return Err(TableFault::Checksum);
        }
        Ok(Self { signature, revision, fields: Fields(bytes) })
    }

    /// Checks that the table is long enough for its fixed fields.
    pub(crate) fn at_least(self, size: usize) -> Result<(), TableFault> {
        if self.fields.len() < size { Err(self.wrong_length()) } else { Ok(()) }
    }

    /// The fault of a table that ends before a field that it must have.
    pub(crate) fn wrong_length(self) -> TableFault {
        // The length fits: it is at most MAX_TABLE_SIZE.
        TableFault::Length { length: u32::try_from(self.fields.len()).unwrap_or(u32::MAX) }
    }
}

/// The signature of whatever is at host-physical `address`.
pub(crate) fn signature_at(memory: &impl TableMemory, address: u64) -> Option<Signature> {
    Fields(map(memory, address, HEADER_SIZE)?).array(0).map(Signature)
}

/// Exactly `length` bytes at `address`, whatever the implementor of [`TableMemory`] makes of it.
pub(crate) fn map(memory: &impl TableMemory, address: u64, length: usize) -> Option<&[u8]> {
    address.checked_add(u64::try_from(length).ok()?)?;
    memory.map(address, length)?.get(..length)
}

/// The checksum rule of ACPI 6.5, 5.2.5.3 and 5.2.6.
pub(crate) fn adds_up_to_zero(bytes: &[u8]) -> bool {
    bytes.iter().fold(0u8, |sum, byte| sum.wrapping_add(*byte)) == 0
}
