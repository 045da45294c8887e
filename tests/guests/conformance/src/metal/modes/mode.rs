//! What a mode is.

/// How code is decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    Bits16,
    Bits32,
    Bits64,
}

/// Page tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paging {
    None,
    /// 32-bit paging, with pages of 4 MiB.
    TwoLevels,
    Pae,
    FourLevels,
    FiveLevels,
}

/// Privilege and segments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Real,
    /// Privilege level 0.
    Protected,
    /// Privilege level 3.
    Program,
    Virtual8086,
}

/// A mode of the processor.
#[derive(Clone, Copy, Debug)]
pub struct Mode {
    pub size: Size,
    pub paging: Paging,
    pub kind: Kind,
    /// The least privilege that may use ports and the interrupt flag.
    pub io_privilege: u32,
}

const fn mode(size: Size, paging: Paging, kind: Kind) -> Mode {
    Mode { size, paging, kind, io_privilege: if matches!(kind, Kind::Real | Kind::Protected) { 0 } else { 3 } }
}

pub const REAL: Mode = mode(Size::Bits16, Paging::None, Kind::Real);
pub const PROTECTED_16: Mode = mode(Size::Bits16, Paging::None, Kind::Protected);
pub const PROTECTED_32: Mode = mode(Size::Bits32, Paging::None, Kind::Protected);
pub const PAGING_32: Mode = mode(Size::Bits32, Paging::TwoLevels, Kind::Protected);
pub const PAE: Mode = mode(Size::Bits32, Paging::Pae, Kind::Protected);
pub const PROGRAM_32: Mode = mode(Size::Bits32, Paging::Pae, Kind::Program);
pub const VIRTUAL_8086: Mode = mode(Size::Bits16, Paging::TwoLevels, Kind::Virtual8086);
pub const COMPATIBILITY_16: Mode = mode(Size::Bits16, Paging::FourLevels, Kind::Protected);
pub const COMPATIBILITY_32: Mode = mode(Size::Bits32, Paging::FourLevels, Kind::Protected);
pub const LONG: Mode = mode(Size::Bits64, Paging::FourLevels, Kind::Protected);
pub const FIVE_LEVELS: Mode = mode(Size::Bits64, Paging::FiveLevels, Kind::Protected);

impl Mode {
    /// Long mode, with its handlers.
    pub fn is_long(&self) -> bool {
        matches!(self.paging, Paging::FourLevels | Paging::FiveLevels)
    }

    /// Whether code may do what only the most privileged may.
    pub fn is_privileged(&self) -> bool {
        matches!(self.kind, Kind::Real | Kind::Protected)
    }

    /// Whether a program runs, as page faults say.
    pub fn is_user(&self) -> bool {
        !self.is_privileged()
    }

    /// Whether segments come from descriptors.
    pub fn has_descriptors(&self) -> bool {
        matches!(self.kind, Kind::Protected | Kind::Program)
    }

    /// The code's name for an offset in low memory: segments begin there, but in 64-bit mode.
    pub fn at(&self, offset: u32) -> u32 {
        if self.size == Size::Bits64 { super::layout::low(offset) } else { offset }
    }
}
