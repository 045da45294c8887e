//! The page walk (SDM 3A, "Paging"; APM 2, 5).

use arrayvec::ArrayVec;
use dragonfly_hw::x86::control::{Cr0, Cr4, Rflags};
use dragonfly_hw::x86::exception::PageFaultError;
use dragonfly_hw::x86::paging::Entry;

use crate::cpu::Cpu;
use crate::memory::{GuestPhys, Memory};
use crate::outcome::{Fault, Stop};

/// What an access does.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Access {
    /// Reads data.
    Read,
    /// Writes data, or reads data that is then written.
    Write,
    /// Fetches an instruction.
    Execute,
}

/// Most levels of tables.
const MAX_LEVELS: usize = 5;

/// A paging mode: what its tables are like.
#[derive(Clone, Copy, Debug)]
struct Format {
    levels: u32,
    /// Bytes of an entry.
    entry_bytes: usize,
    /// Bits of the linear address that a table below the root translates.
    index_bits: u32,
    /// Bits of CR3 that are the root's address.
    root: u64,
}

/// 32-bit paging.
const LEGACY: Format = Format { levels: 2, entry_bytes: 4, index_bits: 10, root: 0xffff_f000 };
/// PAE paging, whose root has four entries of 8 bytes.
const PAE: Format = Format { levels: 3, entry_bytes: 8, index_bits: 9, root: 0xffff_ffe0 };
/// 4-level paging.
const FOUR_LEVEL: Format = Format { levels: 4, entry_bytes: 8, index_bits: 9, root: ADDRESS };
/// 5-level paging.
const FIVE_LEVEL: Format = Format { levels: 5, entry_bytes: 8, index_bits: 9, root: ADDRESS };

/// Address bits of an 8-byte entry.
const ADDRESS: u64 = 0x000f_ffff_ffff_f000;
/// The bits that 4-level and 5-level paging ignore and PAE paging reserves, between address and XD.
const IGNORED_IN_LONG_MODE: u64 = 0x7ff0_0000_0000_0000;

/// An entry on the way to the page.
#[derive(Clone, Copy, Debug)]
struct Step {
    address: GuestPhys,
    value: u64,
}

/// Translates a linear address and marks the entries accessed, the last one dirty if the access writes.
///
/// At CPL 3 the access is the user's; below it is an explicit one of the kernel, which SMAP stops at user pages unless
/// RFLAGS.AC is set. With paging off, addresses are physical.
///
/// # Errors
/// [`Stop::Fault`] with the page fault that the guest gets, [`Stop::Retry`] if another vCPU changed an entry in between,
/// [`Stop::Miss`] if a table lies where nothing is.
pub fn translate(cpu: &Cpu, memory: &mut impl Memory, linear: u64, access: Access) -> Result<GuestPhys, Stop> {
    let linear = if cpu.is_long_mode() { linear } else { linear & 0xffff_ffff };
    let Some(format) = Format::of(cpu) else { return Ok(GuestPhys(linear)) };
    let fault = |error| Stop::from(Fault::page(linear, error | access_bits(cpu, access)));

    let mut steps: ArrayVec<Step, MAX_LEVELS> = ArrayVec::new();
    let mut rights = Rights::all();
    let mut table = cpu.cr3 & format.root;
    let mut level = format.levels;
    let page = loop {
        let shift = 12 + format.index_bits * (level - 1);
        let index = linear >> shift & ((1 << format.index_bits) - 1);
        let address = GuestPhys(table + index * format.entry_bytes as u64);
        let mut bytes = [0; 8];
        memory.read(address, bytes.get_mut(..format.entry_bytes).unwrap_or_default())?;
        let value = u64::from_le_bytes(bytes);
        let entry = Entry::from_bits_retain(value);
        if !entry.contains(Entry::P) {
            return Err(fault(PageFaultError::empty()));
        }
        let is_leaf = format.is_leaf(cpu, level, entry);
        if value & format.reserved(cpu, level, is_leaf) != 0 {
            return Err(fault(PageFaultError::P | PageFaultError::RSVD));
        }
        // The root entries of PAE paging have neither rights nor an accessed bit.
        if !format.is_pae_root(level) {
            rights = rights.and(entry);
            steps.try_push(Step { address, value }).map_err(|_| Stop::Unsupported)?;
        }
        if is_leaf {
            let offset = (1 << shift) - 1;
            break (format.page(level, value) & !offset) | (linear & offset);
        }
        table = format.next_table(value);
        level -= 1;
    };
    if !rights.allow(cpu, access) {
        return Err(fault(PageFaultError::P));
    }
    mark(memory, &steps, &format, access)?;
    Ok(GuestPhys(page))
}

impl Format {
    /// The mode that the control registers choose; `None` if paging is off.
    fn of(cpu: &Cpu) -> Option<Self> {
        if !cpu.cr0().contains(Cr0::PG) {
            return None;
        }
        Some(match (cpu.is_long_mode(), cpu.cr4()) {
            (true, cr4) if cr4.contains(Cr4::LA57) => FIVE_LEVEL,
            (true, _) => FOUR_LEVEL,
            (false, cr4) if cr4.contains(Cr4::PAE) => PAE,
            (false, _) => LEGACY,
        })
    }

    fn is_pae_root(&self, level: u32) -> bool {
        self.levels == PAE.levels && level == PAE.levels
    }

    /// Whether the entry maps a page: always at the lowest level, above it where large pages exist and PS asks for one.
    fn is_leaf(&self, cpu: &Cpu, level: u32, entry: Entry) -> bool {
        match level {
            1 => true,
            2 if self.entry_bytes == 4 => entry.contains(Entry::PS) && cpu.cr4().contains(Cr4::PSE),
            2 => entry.contains(Entry::PS),
            3 => self.levels >= 4 && entry.contains(Entry::PS),
            _ => false,
        }
    }

    /// Bits that must be clear in a present entry.
    fn reserved(&self, cpu: &Cpu, level: u32, is_leaf: bool) -> u64 {
        let width = u32::from(cpu.physical_address_bits.clamp(32, 52));
        let above_width = !((1 << width) - 1);
        if self.entry_bytes == 4 {
            // A 4 MiB page has its address's bits 39:32 in bits 20:13 (PSE-36).
            let above = (above_width >> 32 << 13) & 0x001f_e000;
            return if is_leaf && level == 2 { 1 << 21 | above } else { 0 };
        }
        if self.is_pae_root(level) {
            // The processor has looked at their reserved bits when it loaded them, and raised #GP (SDM 3A, "PDPTE
            // Registers"); a walk does not. QEMU's emulation marks them accessed, in a bit that is reserved.
            return 0;
        }
        let mut reserved = above_width & ADDRESS;
        if !cpu.has_no_execute() {
            reserved |= Entry::XD.bits();
        }
        if self.levels == PAE.levels {
            reserved |= IGNORED_IN_LONG_MODE;
        }
        match (level, is_leaf) {
            // Below the address of a large page, above its memory type's bit 12.
            (2, true) => reserved |= 0x001f_e000,
            (3, true) => reserved |= 0x3fff_e000,
            // PS, where no page is that large.
            (4.., _) => reserved |= Entry::PS.bits(),
            _ => {}
        }
        reserved
    }

    fn next_table(&self, value: u64) -> u64 {
        value & if self.entry_bytes == 4 { 0xffff_f000 } else { ADDRESS }
    }

    /// The page's address, with bits below the page's size that the caller removes.
    fn page(&self, level: u32, value: u64) -> u64 {
        if self.entry_bytes == 4 && level == 2 {
            return (value & 0xffc0_0000) | (value >> 13 & 0xff) << 32;
        }
        self.next_table(value)
    }
}

/// What all entries on the way allow.
#[derive(Clone, Copy, Debug)]
struct Rights {
    write: bool,
    user: bool,
    execute: bool,
}

impl Rights {
    const fn all() -> Self {
        Self { write: true, user: true, execute: true }
    }

    fn and(self, entry: Entry) -> Self {
        Self {
            write: self.write && entry.contains(Entry::RW),
            user: self.user && entry.contains(Entry::US),
            execute: self.execute && !entry.contains(Entry::XD),
        }
    }

    /// SDM 3A, "Determination of Access Rights".
    fn allow(self, cpu: &Cpu, access: Access) -> bool {
        let by_user = cpu.cpl == 3;
        let smap = cpu.cr4().contains(Cr4::SMAP) && !cpu.flags().contains(Rflags::AC);
        if by_user && !self.user {
            return false;
        }
        match access {
            Access::Execute => self.execute && !(!by_user && self.user && cpu.cr4().contains(Cr4::SMEP)),
            Access::Read | Access::Write if !by_user && self.user && smap => false,
            Access::Read => true,
            Access::Write => self.write || (!by_user && !cpu.cr0().contains(Cr0::WP)),
        }
    }
}

/// The bits of a page fault's error code that say what the access was.
fn access_bits(cpu: &Cpu, access: Access) -> PageFaultError {
    let mut bits = PageFaultError::empty();
    bits.set(PageFaultError::WR, access == Access::Write);
    bits.set(PageFaultError::US, cpu.cpl == 3);
    // Old paging modes have no way to say so (SDM 3A, "Page-Fault Exceptions").
    let has_fetch_bit = cpu.cr4().contains(Cr4::SMEP) || (cpu.cr4().contains(Cr4::PAE) && cpu.has_no_execute());
    bits.set(PageFaultError::ID, access == Access::Execute && has_fetch_bit);
    bits
}

/// Sets the accessed and dirty bits that are missing.
fn mark(memory: &mut impl Memory, steps: &[Step], format: &Format, access: Access) -> Result<(), Stop> {
    let leaf = steps.len().saturating_sub(1);
    for (index, step) in steps.iter().enumerate() {
        let mut wanted = Entry::A;
        wanted.set(Entry::D, index == leaf && access == Access::Write);
        let new = step.value | wanted.bits();
        if new == step.value {
            continue;
        }
        let (current, new) = (step.value.to_le_bytes(), new.to_le_bytes());
        let bytes = ..format.entry_bytes;
        let current = current.get(bytes).unwrap_or_default();
        if !memory.compare_exchange(step.address, current, new.get(bytes).unwrap_or_default())? {
            return Err(Stop::Retry);
        }
    }
    Ok(())
}
