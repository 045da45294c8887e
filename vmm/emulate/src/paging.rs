//! The page walk (SDM 3A, "Paging"; APM 2, 5).

use dragonfly_hw::x86::control::{Cr0, Cr4};
use dragonfly_hw::x86::exception::PageFaultError;
use dragonfly_hw::x86::msr::Efer;
use dragonfly_hw::x86::paging::Entry;

use crate::cpu::Cpu;
use crate::memory::{GuestPhys, Memory};
use crate::outcome::{Fault, Stop};
use crate::tables::Format;
use crate::walk::{Step, Walk};

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

/// What translations depend on besides the tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Paging {
    /// Control register 0.
    pub cr0: u64,
    /// Control register 3.
    pub cr3: u64,
    /// Control register 4.
    pub cr4: u64,
    /// IA32_EFER.
    pub efer: u64,
    /// Current privilege level, 0 to 3.
    pub cpl: u8,
    /// RFLAGS.AC: SMAP stops nothing.
    pub allows_user_pages: bool,
    /// Width of guest-physical addresses; the bits above are reserved in page-table entries.
    pub physical_address_bits: u8,
}

impl Paging {
    /// Whether the same tables mean the same here and there, on the same vCPU and without RFLAGS.AC.
    #[inline]
    pub(crate) const fn has_rules_of(&self, other: &Self) -> bool {
        self.cr0 == other.cr0 && self.cr4 == other.cr4 && self.efer == other.efer && self.cpl == other.cpl
    }

    pub(crate) const fn cr0(&self) -> Cr0 {
        Cr0::from_bits_retain(self.cr0)
    }

    pub(crate) const fn cr4(&self) -> Cr4 {
        Cr4::from_bits_retain(self.cr4)
    }

    pub(crate) const fn is_long_mode(&self) -> bool {
        Efer::from_bits_retain(self.efer).contains(Efer::LMA)
    }

    pub(crate) const fn has_no_execute(&self) -> bool {
        Efer::from_bits_retain(self.efer).contains(Efer::NXE)
    }
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
    Ok(walk(&cpu.paging(), memory, linear, access)?.address(linear))
}

/// As [`translate`], with the way to the page. Outside of long mode the address has 32 bits.
pub fn walk(paging: &Paging, memory: &mut impl Memory, linear: u64, access: Access) -> Result<Walk, Stop> {
    let Some(format) = Format::of(paging) else { return Ok(Walk::without_paging()) };
    let fault = |error| Stop::from(Fault::page(linear, error | access_bits(paging, access)));

    let mut walk = Walk::without_paging();
    let mut rights = Rights::all();
    let mut table = paging.cr3 & format.root;
    let mut level = format.levels;
    loop {
        let shift = 12 + format.index_bits * (level - 1);
        let index = linear >> shift & ((1 << format.index_bits) - 1);
        let address = GuestPhys(table + index * format.entry_bytes as u64);
        let value = read_entry(memory, address, format.entry_bytes)?;
        let entry = Entry::from_bits_retain(value);
        if !entry.contains(Entry::P) {
            return Err(fault(PageFaultError::empty()));
        }
        let is_leaf = format.is_leaf(paging, level, entry);
        if value & format.reserved(paging, level, is_leaf) != 0 {
            return Err(fault(PageFaultError::P | PageFaultError::RSVD));
        }
        // The root entries of PAE paging have neither rights nor an accessed bit.
        if !format.is_pae_root(level) {
            rights = rights.and(entry);
            walk.steps.try_push(Step { address, value }).map_err(|_| Stop::Unsupported)?;
        }
        if is_leaf {
            walk.set_page(linear, format.page(level, value), (1 << shift) - 1);
            break;
        }
        table = format.next_table(value);
        level -= 1;
    }
    if !rights.allow(paging, access) {
        return Err(fault(PageFaultError::P));
    }
    mark(memory, &mut walk.steps, format.entry_bytes, access)?;
    Ok(walk)
}

fn read_entry(memory: &mut impl Memory, address: GuestPhys, size: usize) -> Result<u64, Stop> {
    if size == 8
        && let Some(value) = memory.ram_word(address)
    {
        return Ok(value);
    }
    let mut bytes = [0; 8];
    memory.read(address, bytes.get_mut(..size).unwrap_or_default())?;
    Ok(u64::from_le_bytes(bytes))
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
    fn allow(self, paging: &Paging, access: Access) -> bool {
        let by_user = paging.cpl == 3;
        let smap = paging.cr4().contains(Cr4::SMAP) && !paging.allows_user_pages;
        if by_user && !self.user {
            return false;
        }
        match access {
            Access::Execute => self.execute && !(!by_user && self.user && paging.cr4().contains(Cr4::SMEP)),
            Access::Read | Access::Write if !by_user && self.user && smap => false,
            Access::Read => true,
            Access::Write => self.write || (!by_user && !paging.cr0().contains(Cr0::WP)),
        }
    }
}

/// The bits of a page fault's error code that say what the access was.
fn access_bits(paging: &Paging, access: Access) -> PageFaultError {
    let mut bits = PageFaultError::empty();
    bits.set(PageFaultError::WR, access == Access::Write);
    bits.set(PageFaultError::US, paging.cpl == 3);
    // Old paging modes have no way to say so (SDM 3A, "Page-Fault Exceptions").
    let has_fetch_bit =
        paging.cr4().contains(Cr4::SMEP) || (paging.cr4().contains(Cr4::PAE) && paging.has_no_execute());
    bits.set(PageFaultError::ID, access == Access::Execute && has_fetch_bit);
    bits
}

/// Sets the accessed and dirty bits that are missing.
fn mark(memory: &mut impl Memory, steps: &mut [Step], entry_bytes: usize, access: Access) -> Result<(), Stop> {
    let leaf = steps.len().saturating_sub(1);
    for (index, step) in steps.iter_mut().enumerate() {
        let mut wanted = Entry::A;
        wanted.set(Entry::D, index == leaf && access == Access::Write);
        let new = step.value | wanted.bits();
        if new == step.value {
            continue;
        }
        let (current, bytes) = (step.value.to_le_bytes(), new.to_le_bytes());
        let current = current.get(..entry_bytes).unwrap_or_default();
        if !memory.compare_exchange(step.address, current, bytes.get(..entry_bytes).unwrap_or_default())? {
            return Err(Stop::Retry);
        }
        step.value = new;
    }
    Ok(())
}
