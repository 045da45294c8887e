//! Registers in the forms of the kernel, the loaders and the emulation.

use dragonfly_abi::arch::guest::{DescriptorTable, Segment, VcpuState};
use dragonfly_abi::guest::MemoryAccess;
use dragonfly_emulate as emulate;
use dragonfly_guest_boot as boot;
use dragonfly_guest_boot::GeneralRegisters;
use dragonfly_rt::guest::StatePage;

/// Sets the registers that a boot protocol speaks of.
pub(crate) fn set_start(state: &mut VcpuState, start: &boot::StartState) {
    let GeneralRegisters { rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15 } =
        start.registers;
    state.general = [rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15];
    state.rip = start.rip;
    state.rflags = start.rflags;
    let segment = |from: boot::Segment| Segment {
        selector: from.selector.into(),
        attributes: from.attributes,
        limit: from.limit,
        reserved: 0,
        base: from.base,
    };
    state.es = segment(start.es);
    state.cs = segment(start.cs);
    state.ss = segment(start.ss);
    state.ds = segment(start.ds);
    state.fs = segment(start.fs);
    state.gs = segment(start.gs);
    state.tr = segment(start.tr);
    state.ldtr = segment(start.ldtr);
    let table = |from: boot::DescriptorTable| DescriptorTable { base: from.base, limit: from.limit.into() };
    state.gdtr = table(start.gdtr);
    state.idtr = table(start.idtr);
    state.cr0 = start.cr0;
    state.cr3 = start.cr3;
    state.cr4 = start.cr4;
    state.efer = start.efer;
}

/// Sets the code segment that a start-up message with this vector chooses: real mode, at the page with that number
/// (SDM 3A 10.4.4).
pub(crate) fn set_startup(state: &mut VcpuState, vector: u8) {
    state.cs.selector = u32::from(vector) << 8;
    state.cs.base = u64::from(vector) << 12;
    state.rip = 0;
}

/// What the emulation sees of a vCPU. Control registers and segments must be up to date.
pub(crate) fn for_emulation(state: &StatePage, physical_address_bits: u8) -> emulate::Cpu {
    let segments = state.segments();
    let [_, _, stack, ..] = segments;
    let [cr0, cr3, cr4, efer] = state.paging();
    emulate::Cpu {
        general: state.all_general(),
        rip: state.rip(),
        rflags: state.rflags(),
        segments: segments.map(|from| emulate::Segment {
            selector: from.selector as u16,
            attributes: from.attributes,
            limit: from.limit,
            base: from.base,
        }),
        cpl: privilege(stack),
        cr0,
        cr3,
        cr4,
        efer,
        physical_address_bits,
    }
}

/// A vCPU's registers in its state page, after it was left for an access to memory.
pub(crate) struct InPlace<'s> {
    /// The page. What paging depends on is up to date.
    pub(crate) state: &'s StatePage,
    /// What the guest was left for.
    pub(crate) access: MemoryAccess,
    /// How wide the guest's physical addresses are.
    pub(crate) physical_bits: u8,
}

impl emulate::Registers for InPlace<'_> {
    #[inline]
    fn general(&self, number: u8) -> u64 {
        self.state.general_numbered(number)
    }

    #[inline]
    fn set_general(&mut self, number: u8, value: u64) {
        self.state.set_general_numbered(number, value);
    }

    #[inline]
    fn rip(&self) -> u64 {
        self.state.rip()
    }

    #[inline]
    fn rflags(&self) -> u64 {
        self.state.rflags()
    }

    #[inline]
    fn is_64_bit(&self) -> bool {
        self.access.is_64_bit()
    }

    #[inline]
    fn paging(&self) -> emulate::Paging {
        let [cr0, cr3, cr4, efer] = self.state.paging();
        emulate::Paging {
            cr0,
            cr3,
            cr4,
            efer,
            cpl: self.access.privilege(),
            allows_user_pages: self.rflags() & ALLOW_USER_PAGES != 0,
            physical_address_bits: self.physical_bits,
        }
    }
}

/// RFLAGS.AC: lets the kernel read pages of programs in spite of SMAP.
pub(crate) const ALLOW_USER_PAGES: u64 = 1 << 18;

/// Current privilege level: that of the stack segment (SDM 3C, "Guest Register State").
pub(crate) const fn privilege(stack: Segment) -> u8 {
    (stack.attributes >> 5 & 3) as u8
}

/// The value of RAX after an input of so many bytes (SDM 1 3.4.1.1: 32-bit results clear the upper half).
#[inline]
pub(crate) const fn merged(rax: u64, width: u8, value: u32) -> u64 {
    match width {
        1 => rax & !0xff | value as u64 & 0xff,
        2 => rax & !0xffff | value as u64 & 0xffff,
        _ => value as u64,
    }
}

#[cfg(test)]
mod tests {
    use dragonfly_abi::arch::guest::{Segment, VcpuState};
    use zerocopy::FromZeros;

    use super::{merged, privilege, set_startup};

    #[test]
    fn an_input_changes_as_much_of_the_register_as_it_is_wide() {
        let rax = 0x1122_3344_5566_7788;
        assert_eq!(merged(rax, 1, 0xffff_ffaa), 0x1122_3344_5566_77aa);
        assert_eq!(merged(rax, 2, 0xffff_aabb), 0x1122_3344_5566_aabb);
        assert_eq!(merged(rax, 4, 0xaabb_ccdd), 0xaabb_ccdd);
    }

    #[test]
    fn a_start_up_message_names_the_page_of_the_first_instruction() {
        let mut state = VcpuState::new_zeroed();
        state.rip = 0xfff0;
        set_startup(&mut state, 0x9a);
        assert_eq!((state.cs.selector, state.cs.base, state.rip), (0x9a00, 0x9_a000, 0));
    }

    #[test]
    fn the_privilege_is_that_of_the_stack() {
        let stack = Segment { attributes: 0xc0f3, ..VcpuState::new_zeroed().ss };
        assert_eq!(privilege(stack), 3);
    }
}
