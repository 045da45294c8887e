//! From the RSDP to every table that the kernel reads.

use crate::fields::Fields;
use crate::madt::Madt;
use crate::mcfg::Mcfg;
use crate::memory::TableMemory;
use crate::problem::{AcpiError, Problem, Signature, TableFault};
use crate::rsdp::Rsdp;
use crate::table::{HEADER_SIZE, Table, signature_at};
use crate::{fadt, hpet};

/// Tables that the root table may list; further ones are ignored. Large servers have about a hundred, most of them
/// definition blocks.
pub const MAX_TABLES: usize = 256;

/// What the platform's ACPI tables say. A copy: firmware's tables are no longer needed once it is made.
#[derive(Debug)]
pub struct Acpi {
    /// Whose firmware it is: the RSDP's OEM ID, zeros without ACPI.
    pub oem: [u8; 6],
    /// Processors and I/O APICs.
    pub madt: Madt,
    /// Port of the power management timer, which counts 24 bits or more at 3.579545 MHz (ACPI 6.5, 4.8.3.3).
    pub pm_timer: Option<u16>,
    /// Memory-mapped PCI configuration.
    pub mcfg: Mcfg,
    /// Host-physical address of the registers of the High Precision Event Timer, which tell its period; never 0.
    pub hpet: Option<u64>,
}

impl Acpi {
    /// A platform without ACPI.
    #[must_use]
    pub const fn absent() -> Self {
        Self { oem: [0; 6], madt: Madt::ABSENT, pm_timer: None, mcfg: Mcfg::ABSENT, hpet: None }
    }

    /// Reads the tables that the RSDP at host-physical `rsdp_address` leads to, in place of what `self` held.
    ///
    /// Each table that is corrupt, cut short or there twice goes to `report`, at most a few hundred in all.
    ///
    /// # Errors
    /// If there is no way to any table; `self` is then as [`Acpi::absent`] makes it.
    pub fn discover(
        &mut self,
        memory: &impl TableMemory,
        rsdp_address: u64,
        report: &mut dyn FnMut(Problem),
    ) -> Result<(), AcpiError> {
        *self = Self::absent();
        let rsdp = Rsdp::read(memory, rsdp_address)?;
        let root = root_table(memory, rsdp, report).ok_or(AcpiError::NoRootTable)?;
        self.oem = rsdp.oem;
        self.read_tables(memory, root, report);
        Ok(())
    }

    /// Reads each table of interest that `root` lists, the first of its kind only: that bounds the work.
    fn read_tables(&mut self, memory: &impl TableMemory, root: RootTable<'_>, report: &mut dyn FnMut(Problem)) {
        let mut wanted = [Signature::MADT, Signature::FADT, Signature::MCFG, Signature::HPET].map(|name| (name, false));
        // A null pointer is an entry that firmware left unused.
        for address in root.addresses().take(MAX_TABLES).filter(|address| *address != 0) {
            let Some(signature) = signature_at(memory, address) else {
                report(Problem::Unreachable { address });
                continue;
            };
            let Some((_, seen)) = wanted.iter_mut().find(|(wanted, _)| *wanted == signature) else { continue };
            if core::mem::replace(seen, true) {
                report(Problem::Duplicate { signature, address });
                continue;
            }
            if let Err(fault) = Table::read(memory, address, signature).and_then(|table| self.read_table(table, report))
            {
                self.forget(signature);
                report(Problem::Corrupt { signature, address, fault });
            }
        }
        if let Some(dropped @ 1..) = root.addresses().len().checked_sub(MAX_TABLES) {
            report(Problem::Truncated { signature: root.signature, list: "tables", capacity: MAX_TABLES, dropped });
        }
    }

    fn read_table(&mut self, table: Table<'_>, report: &mut dyn FnMut(Problem)) -> Result<(), TableFault> {
        match table.signature {
            Signature::MADT => self.madt.read(table, report)?,
            Signature::FADT => self.pm_timer = fadt::pm_timer(table)?,
            Signature::MCFG => self.mcfg.read(table, report)?,
            Signature::HPET => self.hpet = Some(hpet::read(table)?),
            _ => {}
        }
        Ok(())
    }

    /// Clears what a table filled before it turned out to be corrupt.
    fn forget(&mut self, signature: Signature) {
        match signature {
            Signature::MADT => self.madt = Madt::ABSENT,
            Signature::MCFG => self.mcfg = Mcfg::ABSENT,
            // The others are set only when the whole table has been read.
            _ => {}
        }
    }
}

/// A validated XSDT or RSDT (ACPI 6.5, 5.2.7 and 5.2.8).
#[derive(Clone, Copy)]
struct RootTable<'a> {
    signature: Signature,
    entries: Fields<'a>,
    entry_size: usize,
}

impl<'a> RootTable<'a> {
    /// The host-physical addresses that it lists; a part of an entry at its end does not count.
    fn addresses(self) -> impl ExactSizeIterator<Item = u64> + 'a {
        self.entries.0.chunks_exact(self.entry_size).map(|entry| {
            let entry = Fields(entry);
            entry.u64(0).or_else(|| entry.u32(0).map(u64::from)).unwrap_or(0)
        })
    }
}

/// The XSDT where there is a usable one, else the RSDT (5.2.5.3 prefers the XSDT).
fn root_table<'a>(memory: &'a impl TableMemory, rsdp: Rsdp, report: &mut dyn FnMut(Problem)) -> Option<RootTable<'a>> {
    [(Signature::XSDT, rsdp.xsdt_address, 8), (Signature::RSDT, rsdp.rsdt_address, 4)]
        .into_iter()
        .filter(|(_, address, _)| *address != 0)
        .find_map(|(signature, address, entry_size)| {
            let table = Table::read(memory, address, signature)
                .map_err(|fault| report(Problem::Corrupt { signature, address, fault }))
                .ok()?;
            Some(RootTable { signature, entries: table.fields.tail(HEADER_SIZE)?, entry_size })
        })
}
