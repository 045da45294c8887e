//! The second stage's page tables: those of whichever back end this machine has.
#![expect(unsafe_code, reason = "it vouches for the formats that it chooses from")]

use dragonfly_memory::{Access, Entry, EptFormat, GuestPhys, HostPhys, NestedFormat, PageFormat, PageSize};

/// A second-stage format.
#[derive(Clone, Copy, Debug)]
pub enum GuestFormat {
    /// SVM's nested page tables.
    Nested(NestedFormat),
    /// VT-x's extended page tables.
    Extended(EptFormat),
}

// SAFETY: Each keeps the contract, and a table keeps its format.
unsafe impl PageFormat for GuestFormat {
    type Input = GuestPhys;

    fn levels(self) -> u32 {
        match self {
            Self::Nested(format) => format.levels(),
            Self::Extended(format) => format.levels(),
        }
    }

    fn largest_page(self) -> PageSize {
        match self {
            Self::Nested(format) => format.largest_page(),
            Self::Extended(format) => format.largest_page(),
        }
    }

    fn leaf(self, frame: HostPhys, size: PageSize, access: Access) -> u64 {
        match self {
            Self::Nested(format) => format.leaf(frame, size, access),
            Self::Extended(format) => format.leaf(frame, size, access),
        }
    }

    fn table(self, frame: HostPhys, count: u32) -> u64 {
        match self {
            Self::Nested(format) => format.table(frame, count),
            Self::Extended(format) => format.table(frame, count),
        }
    }

    fn decode(self, entry: u64, level: u32) -> Entry {
        match self {
            Self::Nested(format) => format.decode(entry, level),
            Self::Extended(format) => format.decode(entry, level),
        }
    }

    fn dirty(self) -> u64 {
        match self {
            Self::Nested(format) => format.dirty(),
            Self::Extended(format) => format.dirty(),
        }
    }

    fn dirty_below(self) -> u64 {
        match self {
            Self::Nested(format) => format.dirty_below(),
            Self::Extended(format) => format.dirty_below(),
        }
    }
}
