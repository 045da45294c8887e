//! The state of a vCPU at a kernel's first instruction.

use dragonfly_hw::x86::control::{Cr0, Cr4, Rflags};
use dragonfly_hw::x86::msr::Efer;

use crate::GuestPhys;

/// Registers of a vCPU that the boot protocols speak of. All others are as after RESET.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct StartState {
    /// General registers.
    pub registers: GeneralRegisters,
    /// Instruction pointer.
    pub rip: u64,
    /// Flags: interrupts off.
    pub rflags: u64,
    /// Code segment.
    pub cs: Segment,
    /// Data segment.
    pub ds: Segment,
    /// Extra segment.
    pub es: Segment,
    /// Segment F.
    pub fs: Segment,
    /// Segment G.
    pub gs: Segment,
    /// Stack segment.
    pub ss: Segment,
    /// Task register.
    pub tr: Segment,
    /// Local descriptor table.
    pub ldtr: Segment,
    /// Global descriptor table.
    pub gdtr: DescriptorTable,
    /// Interrupt descriptor table: empty.
    pub idtr: DescriptorTable,
    /// Control register 0.
    pub cr0: u64,
    /// Control register 3: the root of the page tables.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
}

/// General registers; those that a protocol leaves open are 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[expect(missing_docs, reason = "the registers' own names")]
pub struct GeneralRegisters {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rsp: u64,
    pub rbp: u64,
    pub rsi: u64,
    pub rdi: u64,
    pub r8: u64,
    pub r9: u64,
    pub r10: u64,
    pub r11: u64,
    pub r12: u64,
    pub r13: u64,
    pub r14: u64,
    pub r15: u64,
}

/// A segment register with what the processor caches of its descriptor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
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

/// GDTR or IDTR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DescriptorTable {
    /// Linear address.
    pub base: u64,
    /// Size in bytes less one; 0 if the table is empty.
    pub limit: u16,
}

impl Segment {
    const fn flat(selector: u16, attributes: u32) -> Self {
        Self { selector, attributes, limit: u32::MAX, base: 0 }
    }

    /// Present, accessed, readable code of ring 0 in 64-bit mode.
    const fn code_64(selector: u16) -> Self {
        Self::flat(selector, 0xa09b)
    }

    /// Present, accessed, readable code of ring 0 in 32-bit mode.
    const fn code_32(selector: u16) -> Self {
        Self::flat(selector, 0xc09b)
    }

    /// Present, accessed, writable data of ring 0.
    const fn data(selector: u16) -> Self {
        Self::flat(selector, 0xc093)
    }

    /// A busy 32-bit TSS (64-bit in IA-32e mode) without contents: VM entry on VMX insists on a usable one.
    const NO_TASK: Self = Self { selector: 0, attributes: 0x8b, limit: 0x67, base: 0 };
    const UNUSABLE: Self = Self { selector: 0, attributes: 1 << 16, limit: 0, base: 0 };
}

impl DescriptorTable {
    const EMPTY: Self = Self { base: 0, limit: 0 };
}

/// Selectors of code and data that a protocol prescribes, and the table that they refer to.
#[derive(Clone, Copy, Debug)]
pub struct Selectors {
    pub code: u16,
    pub data: u16,
    pub gdtr: DescriptorTable,
}

impl StartState {
    /// 64-bit mode with paging by the tables at `root`.
    pub(crate) fn long_mode(entry: GuestPhys, root: GuestPhys, selectors: Selectors) -> Self {
        Self {
            cs: Segment::code_64(selectors.code),
            cr0: (Cr0::PE | Cr0::ET | Cr0::PG).bits(),
            cr3: root.0,
            cr4: Cr4::PAE.bits(),
            efer: (Efer::LME | Efer::LMA).bits(),
            ..Self::protected_mode(entry, selectors)
        }
    }

    /// 32-bit protected mode without paging.
    pub(crate) fn protected_mode(entry: GuestPhys, selectors: Selectors) -> Self {
        let data = Segment::data(selectors.data);
        Self {
            registers: GeneralRegisters::default(),
            rip: entry.0,
            rflags: Rflags::FIXED.bits(),
            cs: Segment::code_32(selectors.code),
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: data,
            tr: Segment::NO_TASK,
            ldtr: Segment::UNUSABLE,
            gdtr: selectors.gdtr,
            idtr: DescriptorTable::EMPTY,
            cr0: (Cr0::PE | Cr0::ET).bits(),
            cr3: 0,
            cr4: 0,
            efer: 0,
        }
    }
}
