//! Loading of PVH guests.

use anyhow::{Context, Result, bail};
use elf::{ElfBytes, abi::PT_LOAD, abi::PT_NOTE, endian::LittleEndian, note::Note};

use crate::memory::Memory;

/// XEN_ELFNOTE_PHYS32_ENTRY: where a PVH guest is entered (Xen, public/elfnote.h).
const PVH_ENTRY: u64 = 18;

/// Loads the ELF image `image` into `memory` and returns its entry point.
///
/// # Errors
/// Fails when this is no PVH image, or one that does not fit.
pub fn load(image: &[u8], memory: &Memory) -> Result<u64> {
    let elf = ElfBytes::<LittleEndian>::minimal_parse(image).context("not an ELF image")?;
    let mut entry = None;
    for segment in elf.segments().context("no program headers")? {
        match segment.p_type {
            // The memory is all zeroes, as what follows the segment's bytes is to be.
            PT_LOAD => memory.write(segment.p_paddr, elf.segment_data(&segment)?)?,
            PT_NOTE => entry = elf.segment_data_as_notes(&segment)?.find_map(pvh_entry).or(entry),
            _ => {}
        }
    }
    match entry {
        Some(entry) => Ok(entry),
        None => bail!("no PVH entry point"),
    }
}

fn pvh_entry(note: Note<'_>) -> Option<u64> {
    let Note::Unknown(note) = note else { return None };
    let is_entry = note.n_type == PVH_ENTRY && note.name.strip_suffix(b"\0").unwrap_or(note.name) == b"Xen";
    let (low, _) = note.desc.split_first_chunk::<4>().filter(|_| is_entry)?;
    Some(u64::from(u32::from_le_bytes(*low)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF image with a segment of two bytes at 0x1000 and, if wanted, a PVH note.
    fn image(note_type: Option<u32>) -> Vec<u8> {
        const HEADER: u64 = 64;
        const PROGRAM_HEADER: u64 = 56;
        let data = HEADER + 2 * PROGRAM_HEADER;
        let mut image = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
        let mut put = |number: u64, size: usize| image.extend(number.to_le_bytes().get(..size).unwrap());
        let header = [(2, 2), (62, 2), (1, 4), (0, 8), (HEADER, 8), (0, 8), (0, 4), (64, 2), (56, 2), (2, 2)];
        header.into_iter().chain([(64, 2), (0, 2), (0, 2)]).for_each(|(number, size)| put(number, size));
        let mut segment = |kind: u32, offset: u64, address: u64, size: u64| {
            put(kind.into(), 4);
            put(7, 4);
            [offset, address, address, size, size, 4].into_iter().for_each(|number| put(number, 8));
        };
        segment(PT_LOAD, data, 0x1000, 2);
        segment(PT_NOTE, data + 4, 0, 24);
        image.extend(b"\x12\x34\0\0");
        let note = [4, 8, note_type.unwrap_or(0), u32::from_le_bytes(*b"Xen\0"), 0x1001, 0];
        image.extend(note.into_iter().flat_map(u32::to_le_bytes));
        image
    }

    #[test]
    fn a_pvh_guest_starts_where_its_note_says() {
        let memory = Memory::new(0x2000).unwrap();
        assert_eq!(load(&image(Some(18)), &memory).unwrap(), 0x1001);
    }

    #[test]
    fn an_image_without_the_note_is_refused() {
        let memory = Memory::new(0x2000).unwrap();
        assert!(load(&image(None), &memory).unwrap_err().to_string().contains("PVH"));
    }

    #[test]
    fn an_image_that_does_not_fit_is_refused() {
        let memory = Memory::new(0x1001).unwrap();
        assert!(load(&image(Some(18)), &memory).unwrap_err().to_string().contains("outside"));
    }

    #[test]
    fn what_is_no_elf_image_is_refused() {
        let memory = Memory::new(0x2000).unwrap();
        assert!(load(b"MZ", &memory).is_err());
        assert!(load(image(Some(18)).get(..100).unwrap(), &memory).is_err());
    }
}
