//! Reader of the bundle: a cpio archive in the "newc" format.
//!
//! The format, as the Linux kernel documents it for its initramfs ("initramfs buffer format"): each member is a header
//! of 110 ASCII characters, its name with a NUL at the end, and its data; name and data are padded with zeros so that
//! the next part starts at a multiple of four bytes. A member named `TRAILER!!!` ends the archive. Modes, owners and
//! times are not looked at.
//!
//! The kernel reads the archive before any other code runs, and it may come from a network or a disk: nothing in it
//! is believed. Every step moves forward by at least a header, so reading always ends.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

use core::fmt;

/// Size of a member's header: a magic of six characters and thirteen fields of eight.
const HEADER_SIZE: usize = 110;

/// The name of the member that ends an archive.
const TRAILER: &str = "TRAILER!!!";

/// Places of the two header fields that are used.
const FILE_SIZE_FIELD: usize = 6;
const NAME_SIZE_FIELD: usize = 11;

/// Why an archive cannot be read; the offset is the one of the member's header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveError {
    /// The archive ends within a member, or without its last one.
    Truncated {
        /// Offset of the member in bytes.
        offset: usize,
    },
    /// No header of the "newc" format is where one should be.
    BadMagic {
        /// Offset of the member in bytes.
        offset: usize,
    },
    /// A field of the header is not a hexadecimal number.
    BadNumber {
        /// Offset of the member in bytes.
        offset: usize,
    },
    /// The name is empty, not UTF-8, or has its NUL elsewhere than at its end.
    BadName {
        /// Offset of the member in bytes.
        offset: usize,
    },
}

impl fmt::Display for ArchiveError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, offset) = match self {
            Self::Truncated { offset } => ("ends within the member", offset),
            Self::BadMagic { offset } => ("has no \"newc\" header", offset),
            Self::BadNumber { offset } => ("has a header field that is no hexadecimal number", offset),
            Self::BadName { offset } => ("has a malformed name for the member", offset),
        };
        write!(formatter, "the archive {what} at byte {offset}")
    }
}

impl core::error::Error for ArchiveError {}

/// A file of the archive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its name, without the NUL.
    pub name: &'a str,
    /// What it holds.
    pub data: &'a [u8],
}

/// A cpio archive in memory.
#[derive(Clone, Copy, Debug)]
pub struct Archive<'a> {
    bytes: &'a [u8],
}

impl<'a> Archive<'a> {
    /// An archive that starts with the first of these bytes. Bytes after its trailer are ignored.
    #[must_use]
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The files in the order in which they were stored. An error is the last item.
    #[must_use]
    pub const fn entries(&self) -> Entries<'a> {
        Entries { bytes: self.bytes, offset: 0, finished: false }
    }

    /// The first file with this name, or `None` if the archive has none.
    ///
    /// # Errors
    /// The first fault of the archive, if it comes before the file.
    pub fn find(&self, name: &str) -> Result<Option<Entry<'a>>, ArchiveError> {
        for entry in self.entries() {
            let entry = entry?;
            if entry.name == name {
                return Ok(Some(entry));
            }
        }
        Ok(None)
    }
}

/// The files of an [`Archive`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    bytes: &'a [u8],
    offset: usize,
    finished: bool,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, ArchiveError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let item = self.read_member();
        self.finished = !matches!(item, Some(Ok(_)));
        item
    }
}

impl<'a> Entries<'a> {
    /// Reads the member at the current offset and moves past it; `None` at the trailer.
    fn read_member(&mut self) -> Option<Result<Entry<'a>, ArchiveError>> {
        let offset = self.offset;
        let member = (|| {
            let header = self.take(HEADER_SIZE)?;
            // "070702" is the variant with checksums, which Linux does not check either.
            if !header.starts_with(b"070701") && !header.starts_with(b"070702") {
                return Err(ArchiveError::BadMagic { offset });
            }
            let file_size = field(header, FILE_SIZE_FIELD).ok_or(ArchiveError::BadNumber { offset })?;
            let name_size = field(header, NAME_SIZE_FIELD).ok_or(ArchiveError::BadNumber { offset })?;
            let name = terminated(self.take(name_size)?).ok_or(ArchiveError::BadName { offset })?;
            self.pad();
            let data = self.take(file_size)?;
            self.pad();
            Ok(Entry { name, data })
        })();
        match member {
            Ok(entry) if entry.name == TRAILER => None,
            Err(ArchiveError::Truncated { .. }) => Some(Err(ArchiveError::Truncated { offset })),
            other => Some(other),
        }
    }

    fn take(&mut self, size: usize) -> Result<&'a [u8], ArchiveError> {
        let truncated = ArchiveError::Truncated { offset: self.offset };
        let end = self.offset.checked_add(size).ok_or(truncated)?;
        let part = self.bytes.get(self.offset..end).ok_or(truncated)?;
        self.offset = end;
        Ok(part)
    }

    /// Moves to a multiple of four. Past the end of the bytes is possible: the next read then fails.
    fn pad(&mut self) {
        self.offset = self.offset.next_multiple_of(4);
    }
}

/// The header's field with this number. Eight hexadecimal digits cannot overflow 32 bits.
fn field(header: &[u8], index: usize) -> Option<usize> {
    let digits = header.get(6 + index * 8..)?.get(..8)?;
    let value = digits.iter().try_fold(0_u32, |value, digit| Some(value << 4 | char::from(*digit).to_digit(16)?))?;
    usize::try_from(value).ok()
}

/// The name in these bytes, whose last is the only NUL.
fn terminated(bytes: &[u8]) -> Option<&str> {
    let (last, name) = bytes.split_last()?;
    if *last != 0 || name.is_empty() || name.contains(&0) {
        return None;
    }
    str::from_utf8(name).ok()
}

#[cfg(test)]
mod tests;
