//! Operand widths.

/// Bytes of an integer operand.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Width {
    Byte,
    Word,
    Dword,
    Qword,
}

impl Width {
    /// The width of so many bytes.
    pub const fn from_bytes(bytes: usize) -> Option<Self> {
        match bytes {
            1 => Some(Self::Byte),
            2 => Some(Self::Word),
            4 => Some(Self::Dword),
            8 => Some(Self::Qword),
            _ => None,
        }
    }

    pub const fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Word => 2,
            Self::Dword => 4,
            Self::Qword => 8,
        }
    }

    pub const fn bits(self) -> u32 {
        match self {
            Self::Byte => 8,
            Self::Word => 16,
            Self::Dword => 32,
            Self::Qword => 64,
        }
    }

    /// All bits of the width set.
    pub const fn mask(self) -> u64 {
        u64::MAX >> (64 - self.bits())
    }

    /// The highest bit.
    pub const fn sign(self) -> u64 {
        1 << (self.bits() - 1)
    }

    /// Whether the highest bit of the value is set.
    pub const fn is_negative(self, value: u64) -> bool {
        value & self.sign() != 0
    }

    /// A register of 64 bits after a value of this width was written to it: 32-bit results clear the upper half, narrower
    /// ones leave the rest (SDM 1, "General-Purpose Registers in 64-Bit Mode").
    pub const fn merged(self, register: u64, value: u64) -> u64 {
        match self {
            Self::Byte | Self::Word => (register & !self.mask()) | (value & self.mask()),
            Self::Dword | Self::Qword => value & self.mask(),
        }
    }

    /// The value with its highest bit copied to all above.
    pub const fn sign_extend(self, value: u64) -> u64 {
        let unused = 64 - self.bits();
        ((value << unused) as i64 >> unused) as u64
    }
}
