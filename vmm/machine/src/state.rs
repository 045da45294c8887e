//! The encoding of the machine's state: sections with a name and a version, each of little-endian numbers.
//!
//! A saved state may come from another machine or a damaged file: it is checked like any foreign input. A section's
//! version goes up when its content changes, and the decoder goes on reading the old ones.

use alloc::vec::Vec;

/// Names of sections.
pub type SectionName = [u8; 4];

/// Bytes of a section's header: name, version, length.
const HEADER_SIZE: usize = 10;

/// Why a saved state cannot be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum StateError {
    /// The state ends too early, or a section does.
    #[error("the saved state is cut off: save it again")]
    CutOff,
    /// A section that should come here does not.
    #[error("the saved state has no section {} here: it was saved by another program", .0.escape_ascii())]
    Missing(SectionName),
    /// A section of a later format.
    #[error("section {} of the saved state has version {version}, which is too new: use a later release", .name.escape_ascii())]
    TooNew {
        /// The section.
        name: SectionName,
        /// Its version.
        version: u16,
    },
    /// A function on the PCI bus is not what it was when the state was saved.
    #[error("the saved state is of a machine with other devices: give it the same disks and networks")]
    OtherFunctions,
    /// Values that a device cannot have, or bytes too many.
    #[error("the saved state is damaged: save it again")]
    Damaged,
}

/// Writes a state.
#[derive(Default)]
pub(crate) struct Encoder {
    bytes: Vec<u8>,
}

impl Encoder {
    /// Adds a section with what `content` writes.
    pub fn section(&mut self, name: SectionName, version: u16, content: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        content(&mut inner);
        self.bytes.extend(name);
        self.u16(version);
        self.long_bytes(&inner.bytes);
    }

    pub fn u8(&mut self, value: u8) {
        self.bytes.push(value);
    }

    pub fn u16(&mut self, value: u16) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn u32(&mut self, value: u32) {
        self.bytes.extend(value.to_le_bytes());
    }

    pub fn u64(&mut self, value: u64) {
        self.bytes.extend(value.to_le_bytes());
    }

    /// Bytes whose number the decoder knows.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    /// Bytes with their number.
    pub fn long_bytes(&mut self, bytes: &[u8]) {
        // Nothing that a machine has is longer than 32 bits can say: devices bound what they keep.
        self.u32(bytes.len() as u32);
        self.bytes(bytes);
    }

    pub fn finish(self) -> Vec<u8> {
        self.bytes
    }
}

/// Reads a state.
pub(crate) struct Decoder<'s> {
    bytes: &'s [u8],
}

impl<'s> Decoder<'s> {
    pub const fn new(bytes: &'s [u8]) -> Self {
        Self { bytes }
    }

    /// Reads the section that comes next with `content`, which is given its version: at most `newest`.
    pub fn section<T>(
        &mut self,
        name: SectionName,
        newest: u16,
        content: impl FnOnce(&mut Decoder<'s>, u16) -> Result<T, StateError>,
    ) -> Result<T, StateError> {
        if self.bytes.len() < HEADER_SIZE {
            return Err(StateError::CutOff);
        }
        if self.array()? != name {
            return Err(StateError::Missing(name));
        }
        let version = self.u16()?;
        if version > newest {
            return Err(StateError::TooNew { name, version });
        }
        let mut inner = Decoder::new(self.long_bytes()?);
        let value = content(&mut inner, version)?;
        inner.end()?;
        Ok(value)
    }

    /// Nothing may be left.
    pub const fn end(&self) -> Result<(), StateError> {
        if self.bytes.is_empty() { Ok(()) } else { Err(StateError::Damaged) }
    }

    pub fn u8(&mut self) -> Result<u8, StateError> {
        self.array().map(u8::from_le_bytes)
    }

    pub fn u16(&mut self) -> Result<u16, StateError> {
        self.array().map(u16::from_le_bytes)
    }

    pub fn u32(&mut self) -> Result<u32, StateError> {
        self.array().map(u32::from_le_bytes)
    }

    pub fn u64(&mut self) -> Result<u64, StateError> {
        self.array().map(u64::from_le_bytes)
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], StateError> {
        let (array, rest) = self.bytes.split_first_chunk().ok_or(StateError::CutOff)?;
        self.bytes = rest;
        Ok(*array)
    }

    pub fn long_bytes(&mut self) -> Result<&'s [u8], StateError> {
        let length = self.u32()? as usize;
        let (bytes, rest) = self.bytes.split_at_checked(length).ok_or(StateError::CutOff)?;
        self.bytes = rest;
        Ok(bytes)
    }
}
