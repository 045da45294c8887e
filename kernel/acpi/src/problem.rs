//! What can be wrong with firmware's tables, and how it is said.

use core::fmt;

use thiserror::Error;

/// The four characters that name a table.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Signature(pub [u8; 4]);

impl Signature {
    /// Root System Description Table.
    pub const RSDT: Self = Self(*b"RSDT");
    /// Extended System Description Table.
    pub const XSDT: Self = Self(*b"XSDT");
    /// Multiple APIC Description Table.
    pub const MADT: Self = Self(*b"APIC");
    /// Fixed ACPI Description Table.
    pub const FADT: Self = Self(*b"FACP");
    /// Differentiated System Description Table.
    pub const DSDT: Self = Self(*b"DSDT");
    /// PCI Express memory-mapped configuration.
    pub const MCFG: Self = Self(*b"MCFG");
    /// High Precision Event Timer.
    pub const HPET: Self = Self(*b"HPET");
    /// System Resource Affinity Table.
    pub const SRAT: Self = Self(*b"SRAT");
    /// System Locality Information Table.
    pub const SLIT: Self = Self(*b"SLIT");
    /// DMA Remapping Reporting (Intel VT-d).
    pub const DMAR: Self = Self(*b"DMAR");
    /// I/O Virtualization Reporting Structure (AMD-Vi).
    pub const IVRS: Self = Self(*b"IVRS");
    /// Serial Port Console Redirection.
    pub const SPCR: Self = Self(*b"SPCR");

    /// What a platform goes without when this table is ignored.
    const fn purpose(self) -> &'static str {
        match self {
            Self::RSDT | Self::XSDT => "root table",
            Self::MADT => "other processors and I/O APICs",
            Self::FADT => "power management registers",
            Self::DSDT => "power-off",
            Self::MCFG => "memory-mapped PCI configuration",
            Self::HPET => "HPET",
            Self::SRAT => "NUMA affinity",
            Self::SLIT => "NUMA distances",
            Self::DMAR => "VT-d",
            Self::IVRS => "AMD-Vi",
            Self::SPCR => "firmware's serial console",
            Self(_) => "unknown table",
        }
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// Why no table could be found at all. The platform boots as if it had no ACPI.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum AcpiError {
    /// Loader's fault: it passes the address.
    #[error("the RSDP lies outside readable memory")]
    RsdpUnreachable,
    /// Loader's fault.
    #[error("there is no RSDP at the address that the loader passed")]
    RsdpSignature,
    /// Firmware's fault.
    #[error("the RSDP states a length of {length} bytes")]
    RsdpLength {
        /// The length that it states, in bytes.
        length: u32,
    },
    /// Firmware's fault.
    #[error("the RSDP's checksum is wrong")]
    RsdpChecksum,
    /// Firmware's fault; what is wrong with each was reported as a [`Problem`].
    #[error("neither XSDT nor RSDT is usable")]
    NoRootTable,
}

/// Something wrong with one table: firmware's fault, or memory that the kernel was not told of. Discovery goes on.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum Problem {
    /// The table counts as absent.
    #[error("{signature} at {address:#x} is ignored: {fault} (lost: {})", signature.purpose())]
    Corrupt {
        /// Which table.
        signature: Signature,
        /// Its host-physical address.
        address: u64,
        /// What is wrong with it.
        fault: TableFault,
    },
    /// The root table points to something that may not be read.
    #[error("the table at {address:#x} is ignored: it lies outside readable memory")]
    Unreachable {
        /// The host-physical address in the root table.
        address: u64,
    },
    /// A second table of a kind that exists once; the first counts.
    #[error("{signature} at {address:#x} is ignored: it is the second of its kind")]
    Duplicate {
        /// Which table.
        signature: Signature,
        /// Host-physical address of the one that is ignored.
        address: u64,
    },
    /// The platform has more of something than the kernel has room for; the first ones count.
    #[error("{signature} has too many {list}: {capacity} are used, {dropped} are not")]
    Truncated {
        /// Which table.
        signature: Signature,
        /// What there is too much of.
        list: &'static str,
        /// How many are kept.
        capacity: usize,
        /// How many are not.
        dropped: usize,
    },
}

/// What makes a table corrupt.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum TableFault {
    /// Some of it may not be read.
    #[error("it lies outside readable memory")]
    Unreachable,
    /// It is not the table that should be there.
    #[error("its signature is {found}")]
    Signature {
        /// What is there instead.
        found: Signature,
    },
    /// Its length is below what its fields take, or above [`MAX_TABLE_SIZE`](crate::MAX_TABLE_SIZE).
    #[error("a length of {length} bytes cannot be")]
    Length {
        /// The length that its header states, in bytes.
        length: u32,
    },
    /// Its bytes do not add up to zero.
    #[error("its checksum is wrong")]
    Checksum,
    /// An entry is shorter than its kind takes, or reaches over the end of the table.
    #[error("the entry at byte {offset} has a wrong length")]
    EntryLength {
        /// Where the entry starts, in bytes from the table's start.
        offset: usize,
    },
    /// An entry has a value that cannot be.
    #[error("the entry at byte {offset} has an impossible {field}")]
    EntryValue {
        /// Where the entry starts, in bytes from the table's start.
        offset: usize,
        /// Which value, by the specification's name.
        field: &'static str,
    },
    /// A field has a value that cannot be.
    #[error("it has an impossible {field}")]
    Value {
        /// Which field, by the specification's name.
        field: &'static str,
    },
}
