//! The ACPI root pointer where the boot loader gives none: a PC's BIOS leaves it in low memory (ACPI 6.5, 5.2.5.1).

/// Size of the part that every version has, in bytes; its checksum covers it (ACPI 6.5, 5.2.5.3).
pub const RSDP_V1_SIZE: usize = 20;

/// Size from version 2 on, in bytes.
pub const RSDP_V2_SIZE: usize = 36;

/// The root pointer in `memory`, which begins at a multiple of 16, where root pointers do.
pub fn find(memory: &[u8]) -> Option<&[u8]> {
    (0..memory.len()).step_by(16).find_map(|at| starts(memory.get(at..)?))
}

/// The root pointer that `bytes` begin with, if its first checksum is right.
fn starts(bytes: &[u8]) -> Option<&[u8]> {
    let first = bytes.get(..RSDP_V1_SIZE)?;
    let sum = first.iter().fold(0, |sum: u8, byte| sum.wrapping_add(*byte));
    if !first.starts_with(b"RSD PTR ") || sum != 0 {
        return None;
    }
    let revision = first.get(15)?;
    bytes.get(..if *revision < 2 { RSDP_V1_SIZE } else { RSDP_V2_SIZE })
}
