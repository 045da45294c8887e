//! Leaves out of an ELF file what only a debugger reads: emulated CD drives are slow.

use std::{fs, path::Path};

use anyhow::{Context, Result, ensure};

/// Reads the ELF file at `path` without its sections.
///
/// # Errors
/// Fails when the file cannot be read or is not a 64-bit little-endian ELF file with all its segments.
pub fn read_stripped(path: &Path) -> Result<Vec<u8>> {
    let bytes = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    strip(bytes).with_context(|| format!("{} is not a whole 64-bit ELF file", path.display()))
}

/// Cuts the file off after its last segment and ends it with a table of one empty section, without which GRUB takes the
/// file for damaged.
///
/// Offsets are those of `Elf64_Ehdr` and `Elf64_Phdr` (System V ABI, chapters 4 and 5).
fn strip(mut bytes: Vec<u8>) -> Result<Vec<u8>> {
    const HEADER: usize = 64;
    const PROGRAM_HEADER: usize = 56;
    const SECTION_HEADER: usize = 64;
    ensure!(bytes.len() >= HEADER && bytes.starts_with(b"\x7fELF\x02\x01"), "bad ELF header");
    ensure!(field::<2>(&bytes, 54)? == PROGRAM_HEADER as u64, "bad program header size");
    let table = usize::try_from(field::<8>(&bytes, 32)?)?;
    let count = usize::try_from(field::<2>(&bytes, 56)?)?;
    let mut end = table.checked_add(count * PROGRAM_HEADER).context("program headers wrap around")?;
    for index in 0..count {
        let header = table + index * PROGRAM_HEADER;
        let offset = usize::try_from(field::<8>(&bytes, header + 8)?)?;
        let size = usize::try_from(field::<8>(&bytes, header + 32)?)?;
        end = end.max(offset.checked_add(size).context("a segment wraps around")?);
    }
    ensure!(end <= bytes.len(), "a segment lies outside the file");
    let sections = end.max(HEADER).next_multiple_of(8);
    bytes.truncate(sections);
    bytes.resize(sections + SECTION_HEADER, 0);
    bytes[40..48].copy_from_slice(&(sections as u64).to_le_bytes()); // e_shoff
    bytes[58..60].copy_from_slice(&(SECTION_HEADER as u16).to_le_bytes()); // e_shentsize
    bytes[60..62].copy_from_slice(&1_u16.to_le_bytes()); // e_shnum
    bytes[62..64].fill(0); // e_shstrndx
    Ok(bytes)
}

fn field<const SIZE: usize>(bytes: &[u8], offset: usize) -> Result<u64> {
    let field = offset.checked_add(SIZE).and_then(|end| bytes.get(offset..end)).context("the file is cut off")?;
    let mut value = [0; 8];
    value[..SIZE].copy_from_slice(field);
    Ok(u64::from_le_bytes(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one segment of 16 bytes at offset 128, then 100 bytes of sections.
    fn elf() -> Vec<u8> {
        let mut bytes = vec![0xaa; 244];
        bytes[..128].fill(0);
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64; // e_phoff
        bytes[40] = 150; // e_shoff
        bytes[54] = 56; // e_phentsize
        bytes[56] = 1; // e_phnum
        bytes[60] = 3; // e_shnum
        bytes[64 + 8] = 128; // p_offset
        bytes[64 + 32] = 16; // p_filesz
        bytes
    }

    #[test]
    fn one_empty_section_follows_the_last_segment() {
        let stripped = strip(elf()).unwrap();
        assert_eq!(stripped.len(), 144 + 64);
        assert_eq!(field::<8>(&stripped, 40).unwrap(), 144);
        assert_eq!(field::<2>(&stripped, 60).unwrap(), 1);
        assert_eq!(stripped[128..144], [0xaa; 16]);
        assert_eq!(stripped[144..], [0; 64]);
    }

    #[test]
    fn a_segment_outside_the_file_is_refused() {
        let mut bytes = elf();
        bytes[64 + 34] = 1;
        assert!(strip(bytes).is_err());
    }

    #[test]
    fn offsets_that_wrap_around_are_refused() {
        for offset in [32, 64 + 8, 64 + 32] {
            let mut bytes = elf();
            bytes[offset..offset + 8].fill(0xff);
            assert!(strip(bytes).is_err(), "field at {offset}");
        }
    }

    #[test]
    fn what_is_no_elf_file_is_refused() {
        assert!(strip(b"#!/bin/sh\n".to_vec()).is_err());
        assert!(strip(elf()[..63].to_vec()).is_err());
    }
}
