//! From the RSDP to every table that the kernel reads.

use crate::aml::{SleepType, sleep_type_s5};
use crate::dmar::Dmar;
use crate::fadt::Fadt;
use crate::fields::Fields;
use crate::hpet::Hpet;
use crate::ivrs::Ivrs;
use crate::madt::Madt;
use crate::mcfg::Mcfg;
use crate::memory::TableMemory;
use crate::problem::{AcpiError, Problem, Signature, TableFault};
use crate::rsdp::Rsdp;
use crate::slit::Slit;
use crate::spcr::SerialConsole;
use crate::srat::Srat;
use crate::table::{HEADER_SIZE, Table, signature_at};

/// Tables that the root table may list; further ones are ignored. Large servers have about a hundred, most of them
/// definition blocks.
pub const MAX_TABLES: usize = 256;

/// What the platform's ACPI tables say. A copy: firmware's tables are no longer needed once it is made.
///
/// It takes about 28 KiB, so it belongs in a static rather than on a kernel stack.
#[derive(Debug)]
pub struct Acpi {
    /// Whose firmware it is: the RSDP's OEM ID, zeros without ACPI.
    pub oem: [u8; 6],
    /// Revision of the RSDP: 0 for ACPI 1.0, 2 for everything later.
    pub revision: u8,
    /// Processors, I/O APICs, interrupt wiring.
    pub madt: Madt,
    /// Power management registers.
    pub fadt: Option<Fadt>,
    /// Values for power-off, from the DSDT.
    pub sleep_s5: Option<SleepType>,
    /// Memory-mapped PCI configuration.
    pub mcfg: Mcfg,
    /// High Precision Event Timer.
    pub hpet: Option<Hpet>,
    /// NUMA affinity.
    pub srat: Srat,
    /// NUMA distances.
    pub slit: Slit,
    /// Intel's IOMMUs.
    pub dmar: Dmar,
    /// AMD's IOMMUs.
    pub ivrs: Ivrs,
    /// Firmware's serial console.
    pub serial_console: Option<SerialConsole>,
}

impl Acpi {
    /// A platform without ACPI.
    #[must_use]
    pub const fn absent() -> Self {
        Self {
            oem: [0; 6],
            revision: 0,
            madt: Madt::ABSENT,
            fadt: None,
            sleep_s5: None,
            mcfg: Mcfg::ABSENT,
            hpet: None,
            srat: Srat::ABSENT,
            slit: Slit::ABSENT,
            dmar: Dmar::ABSENT,
            ivrs: Ivrs::ABSENT,
            serial_console: None,
        }
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
        self.clear();
        let rsdp = Rsdp::read(memory, rsdp_address)?;
        let root = root_table(memory, rsdp, report).ok_or(AcpiError::NoRootTable)?;
        self.oem = rsdp.oem;
        self.revision = rsdp.revision;
        self.read_tables(memory, root, report);
        self.read_dsdt(memory, report);
        Ok(())
    }

    fn clear(&mut self) {
        self.oem = [0; 6];
        self.revision = 0;
        self.madt.clear();
        self.fadt = None;
        self.sleep_s5 = None;
        self.mcfg.clear();
        self.hpet = None;
        self.srat.clear();
        self.slit.clear();
        self.dmar.clear();
        self.ivrs.clear();
        self.serial_console = None;
    }

    /// Reads each table of interest that `root` lists, the first of its kind only: that bounds the work.
    fn read_tables(&mut self, memory: &impl TableMemory, root: RootTable<'_>, report: &mut dyn FnMut(Problem)) {
        let mut wanted = [
            (Signature::MADT, false),
            (Signature::FADT, false),
            (Signature::MCFG, false),
            (Signature::HPET, false),
            (Signature::SRAT, false),
            (Signature::SLIT, false),
            (Signature::DMAR, false),
            (Signature::IVRS, false),
            (Signature::SPCR, false),
        ];
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
            Signature::FADT => self.fadt = Some(Fadt::read(table)?),
            Signature::MCFG => self.mcfg.read(table, report)?,
            Signature::HPET => self.hpet = Some(Hpet::read(table)?),
            Signature::SRAT => self.srat.read(table, report)?,
            Signature::SLIT => self.slit.read(table, report)?,
            Signature::DMAR => self.dmar.read(table, report)?,
            Signature::IVRS => self.ivrs.read(table, report)?,
            Signature::SPCR => self.serial_console = SerialConsole::read(table)?,
            _ => {}
        }
        Ok(())
    }

    /// Clears what a table filled before it turned out to be corrupt.
    fn forget(&mut self, signature: Signature) {
        match signature {
            Signature::MADT => self.madt.clear(),
            Signature::MCFG => self.mcfg.clear(),
            Signature::SRAT => self.srat.clear(),
            Signature::SLIT => self.slit.clear(),
            Signature::DMAR => self.dmar.clear(),
            Signature::IVRS => self.ivrs.clear(),
            // The others are set only when the whole table has been read.
            _ => {}
        }
    }

    fn read_dsdt(&mut self, memory: &impl TableMemory, report: &mut dyn FnMut(Problem)) {
        let Some(address) = self.fadt.map(|fadt| fadt.dsdt_address).filter(|address| *address != 0) else { return };
        match Table::read(memory, address, Signature::DSDT) {
            Ok(table) => self.sleep_s5 = sleep_type_s5(table.fields.0),
            Err(fault) => report(Problem::Corrupt { signature: Signature::DSDT, address, fault }),
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
