//! Leaf 0xd: the state that XSAVE handles (SDM 1, "Managing State Using the XSAVE Feature Set").

use alloc::vec::Vec;

use dragonfly_hw::x86::cpuid::LEAF_XSAVE;

use super::Registers;

const AVX: u64 = 1 << 2;
const AVX_512: u64 = 0b111 << 5;
const PKRU: u64 = 1 << 9;

/// Area of x87 and SSE state with the header after it: offsets of the other components are never below.
const LEGACY_SIZE: u32 = 576;
/// First component that has a sub-leaf.
const FIRST: u32 = 2;
/// XCR0 has 64 bits, the highest one is not a component.
const LAST: u32 = 62;

/// Sub-leaf 1 EAX: XSAVEOPT, XSAVEC, XGETBV of register 1. Not XSAVES, whose register IA32_XSS guests do not have, and not
/// the tracing of features for AMX.
const INSTRUCTIONS: u32 = 0b111;

/// Components that the guest may have.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Components {
    xcr0: u64,
    instructions: u32,
    /// Number, and the host's sub-leaf.
    sub_leaves: Vec<(u32, Registers)>,
}

impl Components {
    /// Those of `xcr0` that the host has.
    pub fn of_host(maximum_leaf: u32, xcr0: u64, host: &mut impl FnMut(u32, u32) -> Registers) -> Self {
        if maximum_leaf < LEAF_XSAVE {
            return Self { xcr0: 0, instructions: 0, sub_leaves: Vec::new() };
        }
        let [eax, _, _, edx] = host(LEAF_XSAVE, 0);
        let xcr0 = xcr0 & (u64::from(edx) << 32 | u64::from(eax));
        let numbers = (FIRST..=LAST).filter(|number| xcr0 & 1 << number != 0);
        let sub_leaves = numbers.map(|number| (number, host(LEAF_XSAVE, number))).collect();
        let [instructions, ..] = host(LEAF_XSAVE, 1);
        Self { xcr0, instructions: instructions & INSTRUCTIONS, sub_leaves }
    }

    pub const fn has_xsave(&self) -> bool {
        self.xcr0 != 0
    }

    pub const fn has_avx(&self) -> bool {
        self.xcr0 & AVX == AVX
    }

    pub const fn has_avx_512(&self) -> bool {
        self.xcr0 & (AVX | AVX_512) == AVX | AVX_512
    }

    pub const fn has_pkru(&self) -> bool {
        self.xcr0 & PKRU == PKRU
    }

    /// Sub-leaves with their numbers. EBX of the first two is what a guest sees that has all components on.
    pub fn leaves(&self) -> Vec<(u32, Registers)> {
        if !self.has_xsave() {
            return Vec::new();
        }
        let ends = self.sub_leaves.iter().map(|(_, [size, offset, ..])| size.saturating_add(*offset));
        let size = ends.fold(LEGACY_SIZE, u32::max);
        let mut leaves = Vec::new();
        leaves.push((0, [self.xcr0 as u32, size, size, (self.xcr0 >> 32) as u32]));
        leaves.push((1, [self.instructions, size, 0, 0]));
        // ECX bit 1: the component is aligned in the compacted format. Bit 0 would be one of IA32_XSS.
        let rest =
            self.sub_leaves.iter().map(|(number, [size, offset, ecx, _])| (*number, [*size, *offset, ecx & 2, 0]));
        leaves.extend(rest);
        leaves
    }
}
