//! Instructions that a guest executes again and again, kept as they were decoded.
//!
//! A driver accesses its device by the same few instructions each time. An [`Emulator`] keeps them with what they were
//! decoded from: the code's bytes, and the way to them through the page tables. All of that is in the guest's RAM, is
//! read again at each use and must be what it was; so there is nothing that a guest would have to invalidate, and what is
//! done is what decoding anew would come to. Where the access goes the processor has said when it left the guest.

use dragonfly_hw::x86::control::Rflags;
use iced_x86::Instruction;

use crate::cpu::{CodeSize, Cpu};
use crate::emulate::{Cause, Seen, execute};
use crate::memory::{GuestPhys, Memory, Miss, Ports};
use crate::moves::{Kind, Move};
use crate::outcome::{EmulateError, MAX_INSTRUCTION_BYTES, Outcome};
use crate::paging::{Access, Paging, walk};
use crate::walk::Walk;

/// Instructions that are kept.
const SITES: usize = 16;

/// Flags with which more is to be done than the move: single steps, alignment checks.
const SPECIAL: Rflags = Rflags::TF.union(Rflags::AC);

const PAGE: u64 = 4096;
const WORD: u64 = 8;

/// The registers of a vCPU where they are, so that only those are touched that an instruction needs.
pub trait Registers {
    /// The general register with this number below 16, in the order of instruction encodings.
    fn general(&self, number: u8) -> u64;
    /// Sets it.
    fn set_general(&mut self, number: u8, value: u64);
    /// Instruction pointer.
    fn rip(&self) -> u64;
    /// Flags.
    fn rflags(&self) -> u64;
    /// Whether the code segment is one of 64-bit mode.
    fn is_64_bit(&self) -> bool;
    /// What translations depend on. The width of physical addresses is always the same.
    fn paging(&self) -> Paging;
}

/// The access that the guest was left for: the processor has found that segments and page tables allow it to the
/// instruction at RIP, and where in guest-physical memory it goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translated {
    /// Address of its first byte.
    pub address: GuestPhys,
    /// Reading or writing.
    pub access: Access,
}

/// Emulates the instructions of one vCPU, and keeps those that may come again.
#[derive(Clone, Debug)]
pub struct Emulator {
    sites: [Option<Site>; SITES],
}

/// An instruction of 64-bit mode that is kept.
#[derive(Clone, Debug)]
struct Site {
    rip: u64,
    /// The mode that it was executed in, whatever CR3 was.
    paging: Paging,
    action: Move,
    bytes: Bytes,
    /// The way to them.
    walk: Walk,
}

impl Default for Emulator {
    fn default() -> Self {
        Self::new()
    }
}

impl Emulator {
    /// One that has seen nothing.
    #[must_use]
    pub const fn new() -> Self {
        Self { sites: [const { None }; SITES] }
    }

    /// Executes the instruction at RIP if it is a move that [`emulate`](Self::emulate) has executed before, as that would
    /// do it with [`Cause::Memory`] and the outcome [`Done`](Outcome::Done), but leaves RIP and RFLAGS.RF to the caller:
    /// gives the bytes to move on. If it is not, it does nothing.
    ///
    /// The bytes at RIP are those that are executed. Should another vCPU have put them there since the guest was left,
    /// they get the access that the code before them was allowed: of their own kind, at their own offset in a page, but
    /// in the page of that code.
    #[inline]
    pub fn repeat(
        &mut self,
        registers: &mut impl Registers,
        memory: &mut impl Memory,
        translated: Translated,
    ) -> Option<u8> {
        let rip = registers.rip();
        let site = self.sites.get_mut(place(rip))?.as_mut()?;
        if site.rip != rip || !registers.is_64_bit() {
            return None;
        }
        site.repeat(registers, memory, translated)
    }

    /// As [`emulate`](crate::emulate()).
    ///
    /// # Errors
    /// As that.
    pub fn emulate<B: Memory + Ports>(
        &mut self,
        cpu: &mut Cpu,
        bus: &mut B,
        cause: Cause,
        max_iterations: u32,
    ) -> Result<Outcome, EmulateError> {
        let (rip, paging, is_64_bit) = (cpu.rip, cpu.paging(), cpu.code_size() == CodeSize::Bits64);
        let mut seen = Seen::default();
        let outcome = execute(cpu, bus, cause, max_iterations, &mut seen)?;
        if outcome == Outcome::Done
            && is_64_bit
            && let Some(instruction) = &seen.instruction
            && let Some(site) = Site::new(rip, paging, &seen.code, instruction)
            && let Some(kept) = self.sites.get_mut(place(rip))
        {
            *kept = Some(site);
        }
        Ok(outcome)
    }
}

/// Where an instruction is kept: those of one function beside each other.
#[inline]
const fn place(rip: u64) -> usize {
    (rip ^ rip >> 4 ^ rip >> 12) as usize % SITES
}

impl Site {
    /// `None` if the instruction is no move, or not all on one page.
    fn new(rip: u64, paging: Paging, code: &[u8], instruction: &Instruction) -> Option<Self> {
        let action = Move::of(instruction)?;
        let code = code.get(..usize::from(action.length))?;
        if paging.allows_user_pages || rip % PAGE + u64::from(action.length) > PAGE {
            return None;
        }
        // The way is found when it comes again.
        Some(Self { rip, paging, action, bytes: Bytes::new(rip, code)?, walk: Walk::without_paging() })
    }

    #[inline]
    fn repeat(
        &mut self,
        registers: &mut impl Registers,
        memory: &mut impl Memory,
        translated: Translated,
    ) -> Option<u8> {
        let paging = registers.paging();
        if !paging.has_rules_of(&self.paging) || Rflags::from_bits_retain(registers.rflags()).intersects(SPECIAL) {
            return None;
        }
        if !self.walk.is_still(paging.cr3, memory) {
            self.find_code(registers, memory)?;
        }
        if !self.bytes.are_at(self.walk.address(self.rip), memory) {
            return None;
        }
        let Move { length, width, ref address, kind } = self.action;
        let offset = address.with(|number| registers.general(number)) % PAGE;
        // What crosses a page has two addresses.
        if offset != translated.address.0 % PAGE || offset + width.bytes() as u64 > PAGE {
            return None;
        }
        match (kind, translated.access) {
            (Kind::Store(register), Access::Write) => {
                let value = registers.general(register);
                memory.write(translated.address, value.to_le_bytes().get(..width.bytes())?).ok()?;
            }
            (Kind::StoreImmediate(value), Access::Write) => {
                memory.write(translated.address, value.to_le_bytes().get(..width.bytes())?).ok()?;
            }
            (Kind::Load { register, width: whole, is_signed }, Access::Read) => {
                let mut bytes = [0; 8];
                memory.read(translated.address, bytes.get_mut(..width.bytes())?).ok()?;
                let value = u64::from_le_bytes(bytes);
                let value = if is_signed { width.sign_extend(value) } else { value };
                registers.set_general(register, whole.merged(registers.general(register), value));
            }
            _ => return None,
        }
        Some(length)
    }

    /// The tables have changed, or were not looked at yet: `None` if the code cannot be fetched now.
    #[cold]
    #[inline(never)]
    fn find_code(&mut self, registers: &impl Registers, memory: &mut impl Memory) -> Option<()> {
        // Reading a device has effects: tables there are for `emulate`.
        self.walk = walk(&registers.paging(), &mut OnlyRam(memory), self.rip, Access::Execute).ok()?;
        Some(())
    }
}

/// Memory without devices.
struct OnlyRam<'m, M>(&'m mut M);

impl<M: Memory> Memory for OnlyRam<'_, M> {
    fn ram_word(&self, address: GuestPhys) -> Option<u64> {
        self.0.ram_word(address)
    }

    fn read(&mut self, address: GuestPhys, _bytes: &mut [u8]) -> Result<(), Miss> {
        Err(Miss(address))
    }

    fn write(&mut self, address: GuestPhys, _bytes: &[u8]) -> Result<(), Miss> {
        Err(Miss(address))
    }

    fn compare_exchange(&mut self, address: GuestPhys, current: &[u8], new: &[u8]) -> Result<bool, Miss> {
        self.0.compare_exchange(address, current, new)
    }
}

/// The bytes of an instruction, as they lie in the words of memory.
#[derive(Clone, Debug)]
struct Bytes {
    /// The bits of each word that are the instruction's, and what they are.
    words: [(u64, u64); WORDS],
    count: usize,
}

/// Words that an instruction may lie in.
const WORDS: usize = MAX_INSTRUCTION_BYTES.div_ceil(WORD as usize) + 1;

impl Bytes {
    /// `None` if they are too many.
    fn new(address: u64, code: &[u8]) -> Option<Self> {
        let start = (address % WORD) as usize;
        let (mut mask, mut value) = ([0; WORDS * WORD as usize], [0; WORDS * WORD as usize]);
        let end = start + code.len();
        mask.get_mut(start..end)?.fill(u8::MAX);
        value.get_mut(start..end)?.copy_from_slice(code);
        let mut words = [(0, 0); WORDS];
        let pairs = mask.as_chunks().0.iter().zip(value.as_chunks().0);
        for (word, (mask, value)) in words.iter_mut().zip(pairs) {
            *word = (u64::from_le_bytes(*mask), u64::from_le_bytes(*value));
        }
        Some(Self { words, count: end.div_ceil(WORD as usize) })
    }

    /// Whether the bytes are in memory, at an address on the page where they were.
    #[inline]
    fn are_at(&self, address: GuestPhys, memory: &impl Memory) -> bool {
        let words = self.words.iter().take(self.count);
        (address.0..).step_by(WORD as usize).zip(words).all(|(address, (mask, value))| {
            memory.ram_word(GuestPhys(address)).is_some_and(|word| word & mask == *value)
        })
    }
}
