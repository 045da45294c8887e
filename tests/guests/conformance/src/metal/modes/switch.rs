//! Runs a few instructions in another mode until an exception or an interrupt ends them.

use core::arch::global_asm;

use dragonfly_guest_kit::cpu::{peek, poke};
use dragonfly_guest_kit::{Failure, apic, cpu, equal, set_tss_limit};
use dragonfly_hw::x86::apic::{EOI, x2apic_msr};
use dragonfly_hw::x86::msr::{Efer, IA32_EFER};

use super::code::Code;
use super::layout::{
    CODE, CODE_32, CODE_64, CONFIGURATION, COUNT, DATA, DATA_OF_MODE, KERNEL_STACK, LOW, LOW_CODE, LOW_DATA,
    LOW_OFFSET, MODE_CODE, PLAN, RESULT, STACK, TASK, USER_CODE, USER_DATA, WINDOW, low,
};
use super::mode::{Kind, Mode, Paging, Size};
use super::tables;

global_asm!(
    include_str!("switch.s"),
    include_str!("handlers.s"),
    include_str!("low.s"),
    efer = const IA32_EFER,
    eoi = const x2apic_msr(EOI),
    plan = const low(PLAN),
    plan_offset = const PLAN,
    result = const low(RESULT),
    result_offset = const RESULT,
    count = const low(COUNT),
    count_offset = const COUNT,
    low_offset = const LOW_OFFSET,
    segment = const LOW >> 4,
    stack = const KERNEL_STACK,
    code_64 = const CODE_64,
    code_32 = const CODE_32,
    code_16 = const LOW_CODE,
    data = const DATA,
    data_16 = const LOW_DATA,
    task = const TASK,
    window = const WINDOW,
    configuration = const CONFIGURATION,
);

unsafe extern "C" {
    fn modes_go();
    static modes_entries_32: u8;
    static modes_count_32: u8;
    static modes_entries_64: u8;
    static modes_count_64: u8;
    static modes_low: u8;
    static modes_count_16: u8;
    static modes_low_end: u8;
}

/// Handler of a vector in real mode: its offset in low memory.
pub fn entry_16(vector: u64) -> u32 {
    LOW_OFFSET + 4 * vector as u32
}

/// Handler of a vector in 32-bit protected mode.
pub fn entry_32(vector: u64) -> u64 {
    (&raw const modes_entries_32).addr() as u64 + 16 * vector
}

/// Handler of a vector in long mode.
pub fn entry_64(vector: u64) -> u64 {
    (&raw const modes_entries_64).addr() as u64 + 16 * vector
}

/// Handler that counts, of 16-bit code: its offset in low memory.
pub fn count_16() -> u32 {
    LOW_OFFSET + ((&raw const modes_count_16).addr() - (&raw const modes_low).addr()) as u32
}

/// Handler that counts.
pub fn count_32() -> u64 {
    (&raw const modes_count_32).addr() as u64
}

/// Handler that counts, in long mode.
pub fn count_64() -> u64 {
    (&raw const modes_count_64).addr() as u64
}

/// What the code begins with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Registers {
    pub eax: u32,
    pub ecx: u32,
    pub edx: u32,
    pub ebx: u32,
    pub ebp: u32,
    pub esi: u32,
    pub edi: u32,
    pub flags: u32,
}

/// What it ended with.
#[derive(Clone, Copy, Debug)]
pub struct After {
    pub rax: u64,
    pub rcx: u64,
    pub rdx: u64,
    pub rbx: u64,
    pub rsi: u64,
    pub rdi: u64,
    /// The exception or interrupt that ended it.
    pub vector: u64,
    pub error: u64,
    /// Offset in the code.
    pub at: u64,
    pub flags: u64,
    pub cr2: u64,
    /// How often a handler that counts was called.
    pub count: u64,
}

/// Words of the plan, by their offsets in `switch.s`.
fn plan(offset: u32, value: u32) {
    poke(u64::from(low(PLAN + offset)), value);
}

impl Mode {
    /// Runs code, behind which is UD2.
    pub fn run(&self, code: &Code, registers: Registers) -> After {
        let bytes = code.bytes(self.size);
        for (address, byte) in (u64::from(low(CODE))..).zip(bytes.iter().chain(&[0x0f, 0x0b])) {
            poke(address, *byte);
        }
        self.prepare(registers);
        // SAFETY: the plan is complete, and what it leads to comes back by a handler with all registers that count.
        unsafe { modes_go() };
        set_tss_limit(None);
        self.after()
    }

    /// Runs code to its end.
    ///
    /// # Errors
    /// Something else ended it.
    pub fn finish(&self, what: &'static str, code: &Code, registers: Registers) -> Result<After, Failure> {
        let after = self.fault(what, 6, 0, code, registers)?;
        equal(what, after.at, code.bytes(self.size).len() as u64)?;
        Ok(after)
    }

    /// Runs code until an exception or interrupt that is to be this one, with this error code.
    ///
    /// # Errors
    /// It was another.
    pub fn fault(
        &self,
        what: &'static str,
        vector: u64,
        error: u64,
        code: &Code,
        registers: Registers,
    ) -> Result<After, Failure> {
        let after = self.run(code, registers);
        equal(what, after.vector, vector)?;
        // Real mode has no error codes.
        equal(what, after.error, if self.kind == Kind::Real { 0 } else { error })?;
        Ok(after)
    }

    fn prepare(&self, registers: Registers) {
        copy_low_code();
        tables::free_task();
        for offset in (0..0x58).step_by(8) {
            poke(u64::from(low(RESULT + offset)), 0_u64);
        }
        let (cr0, cr4) = self.control();
        let flags = registers.flags | 2 | self.io_privilege << 12;
        let Registers { eax, ecx, edx, ebx, ebp, esi, edi, .. } = registers;
        let [window, configuration] = tables::device_selectors(self).map(u32::from);
        let (code, data) = match self.kind {
            Kind::Protected if self.size == Size::Bits64 => (CODE_64, DATA),
            Kind::Protected => (MODE_CODE, DATA_OF_MODE),
            Kind::Program => (USER_CODE | 3, USER_DATA | 3),
            Kind::Real | Kind::Virtual8086 => ((LOW >> 4) as u16, (LOW >> 4) as u16),
        };
        let (code, data) = (u32::from(code), u32::from(data));
        let (start, stack) = (self.at(CODE), self.at(STACK));
        // What IRET takes, the last word first.
        let virtual_8086 = 1 << 17;
        let frame: &[u32] = match self.kind {
            Kind::Real | Kind::Protected => &[flags, code, start],
            Kind::Program => &[data, stack, flags, code, start],
            Kind::Virtual8086 => &[configuration, window, data, data, data, stack, flags | virtual_8086, code, start],
        };
        let (stack, data) = match self.kind {
            Kind::Real | Kind::Protected => ([data, stack], data),
            Kind::Program => ([DATA.into(), KERNEL_STACK], data),
            Kind::Virtual8086 => ([DATA.into(), KERNEL_STACK], DATA.into()),
        };
        let devices = if self.kind == Kind::Virtual8086 { [0, 0] } else { [window, configuration] };
        let words = [cr0, tables::root(self.paging), cr4, self.efer(), eax, ecx, edx, ebx, ebp, esi, edi];
        let segments = [stack[0], stack[1], data, data, devices[0], devices[1], frame.len() as u32];
        for (offset, word) in (0..).step_by(4).zip(words.iter().chain(&segments).chain(frame)) {
            plan(offset, *word);
        }
        plan(0x6c, u32::from(self.kind == Kind::Real));
        for (offset, (limit, base)) in [(0x70, tables::descriptors()), (0x80, tables::handlers(self))] {
            poke(u64::from(low(PLAN + offset)), limit);
            poke(u64::from(low(PLAN + offset + 2)), u64::from(base));
        }
    }

    /// CR0 and CR4.
    fn control(&self) -> (u32, u32) {
        const PAGING: u32 = 1 << 31;
        const FIVE_LEVELS: u32 = 1 << 12;
        const ADDRESSES: u32 = 1 << 5;
        const LARGE_PAGES: u32 = 1 << 4;
        let cr0 = cpu::cr0() as u32;
        match self.paging {
            Paging::None => (cr0 & !PAGING, 0),
            Paging::TwoLevels => (cr0, LARGE_PAGES),
            Paging::Pae | Paging::FourLevels => (cr0, ADDRESSES),
            Paging::FiveLevels => (cr0, ADDRESSES | FIVE_LEVELS),
        }
    }

    fn efer(&self) -> u32 {
        let long = if self.is_long() { Efer::LME } else { Efer::empty() };
        (long | Efer::NXE).bits() as u32
    }

    /// Reads what a handler has written down, and ends the interrupt if it was one.
    fn after(&self) -> After {
        let word = |offset: u32| peek::<u64>(u64::from(low(RESULT + offset)));
        let after = After {
            rax: word(0),
            rcx: word(8),
            rdx: word(0x10),
            rbx: word(0x18),
            rsi: word(0x20),
            rdi: word(0x28),
            vector: word(0x30),
            error: word(0x38),
            at: word(0x40).wrapping_sub(self.at(CODE).into()),
            flags: word(0x48),
            cr2: word(0x50),
            count: peek::<u32>(u64::from(low(COUNT))).into(),
        };
        poke(u64::from(low(COUNT)), 0_u32);
        if after.vector >= 32 {
            apic::end();
        }
        after
    }
}

/// Puts the 16-bit code where real mode reaches it.
fn copy_low_code() {
    let (from, end) = (&raw const modes_low, &raw const modes_low_end);
    let to = core::ptr::with_exposed_provenance_mut::<u8>(low(LOW_OFFSET) as usize);
    // SAFETY: both symbols lie in switch.s, the first before the second, and low memory is RAM that nothing else uses.
    unsafe { core::ptr::copy_nonoverlapping(from, to, end.offset_from_unsigned(from)) };
}
