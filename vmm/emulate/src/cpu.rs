//! The registers of a vCPU, as far as memory instructions depend on them.

use dragonfly_hw::x86::control::{Cr0, Cr4, Rflags};
use dragonfly_hw::x86::msr::Efer;
use iced_x86::Register;

use crate::paging::Paging;
use crate::width::Width;

/// Number of RAX in [`Cpu::general`].
pub const RAX: usize = 0;
/// Number of RCX.
pub const RCX: usize = 1;
/// Number of RDX.
pub const RDX: usize = 2;
/// Number of RBX.
pub const RBX: usize = 3;
/// Number of RSP.
pub const RSP: usize = 4;
/// Number of RSI.
pub const RSI: usize = 6;
/// Number of RDI.
pub const RDI: usize = 7;

/// A vCPU's registers.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Cpu {
    /// General registers in the order of instruction encodings: RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8 to R15.
    pub general: [u64; 16],
    /// Instruction pointer.
    pub rip: u64,
    /// Flags.
    pub rflags: u64,
    /// Segment registers, indexed by [`SegmentName`].
    pub segments: [Segment; 6],
    /// Current privilege level, 0 to 3.
    pub cpl: u8,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 3.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// Width of guest-physical addresses as CPUID reports it to the guest (leaf 0x8000_0008); the bits above are reserved in
    /// page-table entries.
    pub physical_address_bits: u8,
}

/// A segment register with what the processor caches of its descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Segment {
    /// Selector.
    pub selector: u16,
    /// VMX's segment access rights (SDM 3C, "Guest Register State"): bits 0-3 type, 4 S, 5-6 DPL, 7 P, 12 AVL, 13 L, 14 D/B,
    /// 15 G, 16 unusable.
    pub attributes: u32,
    /// Last offset, in bytes whatever G says.
    pub limit: u32,
    /// Linear address of offset 0.
    pub base: u64,
}

/// Segment registers in the order of instruction encodings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(usize)]
#[expect(missing_docs, reason = "the registers' own names")]
pub enum SegmentName {
    Es,
    Cs,
    Ss,
    Ds,
    Fs,
    Gs,
}

impl Segment {
    /// L: 64-bit code.
    pub(crate) const fn is_long(&self) -> bool {
        self.attributes & 1 << 13 != 0
    }

    /// D/B: 32-bit code, stack or limit.
    pub(crate) const fn is_big(&self) -> bool {
        self.attributes & 1 << 14 != 0
    }

    /// The null selector was loaded, or nothing at all.
    pub(crate) const fn is_unusable(&self) -> bool {
        self.attributes & 1 << 16 != 0
    }

    /// Type bit 3: code, else data.
    pub(crate) const fn is_code(&self) -> bool {
        self.attributes & 1 << 3 != 0
    }

    /// Type bit 2 of data: the valid offsets are those above the limit.
    pub(crate) const fn expands_down(&self) -> bool {
        !self.is_code() && self.attributes & 1 << 2 != 0
    }

    /// Type bit 1 of data.
    pub(crate) const fn is_writable(&self) -> bool {
        !self.is_code() && self.attributes & 1 << 1 != 0
    }

    /// Data, or code with type bit 1.
    pub(crate) const fn is_readable(&self) -> bool {
        !self.is_code() || self.attributes & 1 << 1 != 0
    }
}

impl SegmentName {
    /// The segment register that the decoder names.
    pub(crate) fn from_register(register: Register) -> Option<Self> {
        match register {
            Register::ES => Some(Self::Es),
            Register::CS => Some(Self::Cs),
            Register::SS => Some(Self::Ss),
            Register::DS => Some(Self::Ds),
            Register::FS => Some(Self::Fs),
            Register::GS => Some(Self::Gs),
            _ => None,
        }
    }
}

/// How instructions at RIP are decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CodeSize {
    /// Real mode, virtual-8086 mode, or a segment for the 80286.
    Bits16,
    /// 32-bit protected mode or compatibility mode.
    Bits32,
    /// 64-bit mode.
    Bits64,
}

impl Cpu {
    pub(crate) fn segment(&self, name: SegmentName) -> &Segment {
        let [es, cs, ss, ds, fs, gs] = &self.segments;
        match name {
            SegmentName::Es => es,
            SegmentName::Cs => cs,
            SegmentName::Ss => ss,
            SegmentName::Ds => ds,
            SegmentName::Fs => fs,
            SegmentName::Gs => gs,
        }
    }

    pub(crate) fn code_size(&self) -> CodeSize {
        let cs = self.segment(SegmentName::Cs);
        if self.is_long_mode() && cs.is_long() {
            CodeSize::Bits64
        } else if cs.is_big() {
            CodeSize::Bits32
        } else {
            CodeSize::Bits16
        }
    }

    pub(crate) const fn cr0(&self) -> Cr0 {
        Cr0::from_bits_retain(self.cr0)
    }

    pub(crate) const fn cr4(&self) -> Cr4 {
        Cr4::from_bits_retain(self.cr4)
    }

    pub(crate) const fn flags(&self) -> Rflags {
        Rflags::from_bits_retain(self.rflags)
    }

    pub(crate) const fn is_long_mode(&self) -> bool {
        Efer::from_bits_retain(self.efer).contains(Efer::LMA)
    }

    pub(crate) const fn paging(&self) -> Paging {
        Paging {
            cr0: self.cr0,
            cr3: self.cr3,
            cr4: self.cr4,
            efer: self.efer,
            cpl: self.cpl,
            allows_user_pages: self.flags().contains(Rflags::AC),
            physical_address_bits: self.physical_address_bits,
        }
    }

    /// Segments have limits and types; in real and virtual-8086 mode they have limits only.
    pub(crate) const fn has_segment_types(&self) -> bool {
        self.cr0().contains(Cr0::PE) && !self.flags().contains(Rflags::VM)
    }

    /// Sets those flags that `mask` names to what they are in `values`.
    pub(crate) fn set_flags(&mut self, mask: Rflags, values: Rflags) {
        self.rflags = (self.rflags & !mask.bits()) | (values & mask).bits();
    }

    /// A whole general register by its number.
    pub(crate) fn general(&self, number: usize) -> u64 {
        self.general.get(number).copied().unwrap_or_default()
    }

    /// Writes the part of a general register that an operand of this width is: 32-bit results clear the upper half, smaller
    /// ones leave the rest (SDM 1, "General-Purpose Registers in 64-Bit Mode").
    pub(crate) fn set_general(&mut self, number: usize, width: Width, value: u64) {
        let Some(register) = self.general.get_mut(number) else { return };
        *register = width.merged(*register, value);
    }

    /// The value of a general register as the decoder names it, or `None` if it is another register.
    pub(crate) fn register(&self, register: Register) -> Option<u64> {
        if !register.is_gpr() {
            return None;
        }
        let whole = self.general(register.full_register().number());
        Some(if is_high_byte(register) {
            whole >> 8 & 0xff
        } else {
            whole & Width::from_bytes(register.size())?.mask()
        })
    }

    /// Writes a general register as the decoder names it; `None` if it is another register.
    pub(crate) fn set_register(&mut self, register: Register, value: u64) -> Option<()> {
        if !register.is_gpr() {
            return None;
        }
        let number = register.full_register().number();
        if is_high_byte(register) {
            let whole = self.general(number);
            self.set_general(number, Width::Qword, (whole & !0xff00) | (value & 0xff) << 8);
        } else {
            self.set_general(number, Width::from_bytes(register.size())?, value);
        }
        Some(())
    }
}

fn is_high_byte(register: Register) -> bool {
    matches!(register, Register::AH | Register::CH | Register::DH | Register::BH)
}
