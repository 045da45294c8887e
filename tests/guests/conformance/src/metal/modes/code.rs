//! Instructions, assembled for each size of code.

use super::mode::Size;

/// The same instructions for code of each size; empty where they do not exist.
#[derive(Clone, Copy, Debug)]
pub struct Code {
    pub bits_16: &'static [u8],
    pub bits_32: &'static [u8],
    pub bits_64: &'static [u8],
}

impl Code {
    /// The bytes for a size.
    pub fn bytes(&self, size: Size) -> &'static [u8] {
        match size {
            Size::Bits16 => self.bits_16,
            Size::Bits32 => self.bits_32,
            Size::Bits64 => self.bits_64,
        }
    }
}

/// Bytes between two addresses in this program's code.
///
/// # Safety
/// They are there, in this order.
pub unsafe fn between(start: usize, end: usize) -> &'static [u8] {
    // SAFETY: the caller's contract; code is not written.
    unsafe { core::slice::from_raw_parts(core::ptr::with_exposed_provenance(start), end - start) }
}

/// Assembles lines by a directive of the assembler.
macro_rules! assembled {
    ($size:literal, $($line:expr),+) => {{
        let (start, end): (usize, usize);
        // SAFETY: only takes addresses; what is assembled is jumped over.
        unsafe {
            core::arch::asm!("lea {0}, [rip + 28f]", "lea {1}, [rip + 29f]", "jmp 29f", $size, "28:", $($line,)+ ".code64",
                "29:", out(reg) start, out(reg) end, options(nomem, nostack, preserves_flags));
            super::code::between(start, end)
        }
    }};
}

/// [`Code`](super::code::Code) of instructions that mean the same in each size, of those that only 16- and 32-bit code
/// have, or of some for each size.
macro_rules! code {
    (legacy $($line:expr),+ $(,)?) => {
        super::code::Code {
            bits_16: super::code::assembled!(".code16", $($line),+),
            bits_32: super::code::assembled!(".code32", $($line),+),
            bits_64: &[],
        }
    };
    (each [$($line_16:expr),+], [$($line_32:expr),+], [$($line_64:expr),+]) => {
        super::code::Code {
            bits_16: super::code::assembled!(".code16", $($line_16),+),
            bits_32: super::code::assembled!(".code32", $($line_32),+),
            bits_64: super::code::assembled!(".code64", $($line_64),+),
        }
    };
    ($($line:expr),+ $(,)?) => {
        super::code::Code {
            bits_16: super::code::assembled!(".code16", $($line),+),
            bits_32: super::code::assembled!(".code32", $($line),+),
            bits_64: super::code::assembled!(".code64", $($line),+),
        }
    };
}

pub(super) use {assembled, code};

/// A string instruction with addresses of 16 bits; of 32 in 64-bit code, which has none of 16.
macro_rules! address_16 {
    ($instruction:literal) => {
        super::code::code!(each[$instruction], [".byte 0x67", $instruction], [".byte 0x67", $instruction])
    };
}

/// A string instruction with addresses of 32 bits.
macro_rules! address_32 {
    ($instruction:literal) => {
        super::code::code!(each [".byte 0x67", $instruction], [$instruction], [".byte 0x67", $instruction])
    };
}

pub(super) use {address_16, address_32};
