//! Root System Description Pointer (ACPI 6.5, 5.2.5.3, table 5.3).

use crate::fields::Fields;
use crate::memory::TableMemory;
use crate::problem::AcpiError;
use crate::table::{adds_up_to_zero, map};

const SIGNATURE: [u8; 8] = *b"RSD PTR ";

/// Bytes that the first checksum covers: all that ACPI 1.0 knew.
const SIZE_1_0: usize = 20;
/// Bytes of the structure since ACPI 2.0.
const SIZE_2_0: u32 = 36;
/// A longer one than this is no RSDP; the specification has not added a field since ACPI 2.0.
const MAX_SIZE: u32 = 4096;

const OEM: usize = 9;
const REVISION: usize = 15;
const RSDT_ADDRESS: usize = 16;
const LENGTH: usize = 20;
const XSDT_ADDRESS: usize = 24;

/// What the RSDP says; addresses are host-physical, 0 if there is none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rsdp {
    pub(crate) oem: [u8; 6],
    pub(crate) revision: u8,
    pub(crate) rsdt_address: u64,
    pub(crate) xsdt_address: u64,
}

impl Rsdp {
    pub(crate) fn read(memory: &impl TableMemory, address: u64) -> Result<Self, AcpiError> {
        let unreachable = AcpiError::RsdpUnreachable;
        let bytes = map(memory, address, SIZE_1_0).ok_or(unreachable)?;
        let fields = Fields(bytes);
        if fields.array(0) != Some(SIGNATURE) {
            return Err(AcpiError::RsdpSignature);
        }
        if !adds_up_to_zero(bytes) {
            return Err(AcpiError::RsdpChecksum);
        }
        let oem = fields.array(OEM).ok_or(unreachable)?;
        let revision = fields.u8(REVISION).ok_or(unreachable)?;
        let rsdt_address = u64::from(fields.u32(RSDT_ADDRESS).ok_or(unreachable)?);
        // ACPI 1.0 has revision 0; there is no revision 1.
        if revision < 2 {
            return Ok(Self { oem, revision, rsdt_address, xsdt_address: 0 });
        }

        let length = Fields(map(memory, address, LENGTH + 4).ok_or(unreachable)?).u32(LENGTH).ok_or(unreachable)?;
        if !(SIZE_2_0..=MAX_SIZE).contains(&length) {
            return Err(AcpiError::RsdpLength { length });
        }
        let size = usize::try_from(length).map_err(|_| AcpiError::RsdpLength { length })?;
        let bytes = map(memory, address, size).ok_or(unreachable)?;
        if !adds_up_to_zero(bytes) {
            return Err(AcpiError::RsdpChecksum);
        }
        let xsdt_address = Fields(bytes).u64(XSDT_ADDRESS).ok_or(unreachable)?;
        Ok(Self { oem, revision, rsdt_address, xsdt_address })
    }
}
