//! The self-describing entries that follow the fixed fields of MADT, SRAT, DMAR and IVRS.

use crate::fields::Fields;
use crate::problem::TableFault;

/// How an entry states its type and length.
#[derive(Clone, Copy)]
pub(crate) enum Layout {
    /// Type: byte 0, length: byte 1 (MADT, SRAT, VT-d device scopes).
    Byte,
    /// Type: bytes 0–1, length: bytes 2–3 (DMAR).
    Word,
    /// Type: byte 0, length: bytes 2–3 (IVRS).
    ByteThenWord,
}

impl Layout {
    /// Bytes that type and length take: no entry can be shorter.
    const fn header_size(self) -> usize {
        match self {
            Self::Byte => 2,
            Self::Word | Self::ByteThenWord => 4,
        }
    }

    fn kind_and_length(self, fields: Fields<'_>) -> Option<(u16, usize)> {
        Some(match self {
            Self::Byte => (u16::from(fields.u8(0)?), usize::from(fields.u8(1)?)),
            Self::Word => (fields.u16(0)?, usize::from(fields.u16(2)?)),
            Self::ByteThenWord => (u16::from(fields.u8(0)?), usize::from(fields.u16(2)?)),
        })
    }
}

/// One entry, whole within its table.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'a> {
    pub(crate) kind: u16,
    /// Where it starts, from the table's start.
    pub(crate) offset: usize,
    /// The whole entry; offsets are from its start, as in the specification.
    pub(crate) fields: Fields<'a>,
}

impl Entry<'_> {
    /// Checks that the entry is long enough for its fields.
    pub(crate) fn at_least(self, size: usize) -> Result<(), TableFault> {
        if self.fields.len() < size { Err(self.wrong_length()) } else { Ok(()) }
    }

    pub(crate) fn wrong_length(self) -> TableFault {
        TableFault::EntryLength { offset: self.offset }
    }

    pub(crate) fn impossible(self, field: &'static str) -> TableFault {
        TableFault::EntryValue { offset: self.offset, field }
    }
}

/// The entries from `offset` to the end of `fields`. Ends after the first fault.
pub(crate) struct Entries<'a> {
    fields: Fields<'a>,
    offset: usize,
    layout: Layout,
}

impl<'a> Entries<'a> {
    pub(crate) fn new(fields: Fields<'a>, offset: usize, layout: Layout) -> Self {
        Self { fields, offset, layout }
    }
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, TableFault>;

    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.fields.tail(offset).filter(|rest| rest.len() > 0)?;
        let entry = self.layout.kind_and_length(rest).and_then(|(kind, length)| {
            let bytes = rest.0.get(..length)?;
            (length >= self.layout.header_size()).then_some(Entry { kind, offset, fields: Fields(bytes) })
        });
        match entry {
            Some(entry) => {
                self.offset = offset.saturating_add(entry.fields.len());
                Some(Ok(entry))
            }
            None => {
                self.offset = usize::MAX;
                Some(Err(TableFault::EntryLength { offset }))
            }
        }
    }
}
