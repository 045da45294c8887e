//! Kernels as ELF files, 32-bit or 64-bit, loaded at their physical addresses.

use core::ops::Range;

use arrayvec::ArrayVec;
use elf::ElfBytes;
use elf::abi::{EM_386, EM_X86_64, PT_LOAD, PT_NOTE};
use elf::endian::LittleEndian;
use elf::note::{Note, NoteAny};
use elf::segment::ProgramHeader;

use crate::{GuestMemory, GuestPhys, LoadError, Loader};

/// Most segments with memory: Linux has five.
const MAX_SEGMENTS: usize = 32;

/// A checked ELF file.
#[derive(Debug)]
pub struct ElfImage<'f> {
    elf: ElfBytes<'f, LittleEndian>,
    segments: ArrayVec<Segment<'f>, MAX_SEGMENTS>,
}

/// A segment to be loaded.
#[derive(Clone, Debug)]
struct Segment<'f> {
    /// Guest-physical memory; never empty.
    memory: Range<u64>,
    /// The first bytes, not more than the memory; the rest is zero.
    contents: &'f [u8],
}

impl<'f> ElfImage<'f> {
    /// Whether the file claims to be one.
    pub fn is_one(file: &[u8]) -> bool {
        file.starts_with(b"\x7fELF")
    }

    /// Checks all that is loaded.
    pub fn parse(file: &'f [u8]) -> Result<Self, LoadError> {
        // EI_DATA, before the reader refuses what is not little-endian.
        if file.get(5) == Some(&2) {
            return Err(LoadError::WrongMachine);
        }
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| LoadError::CutOff)?;
        if !matches!(elf.ehdr.e_machine, EM_386 | EM_X86_64) {
            return Err(LoadError::WrongMachine);
        }
        let headers = elf.segments().ok_or(LoadError::ElfWithoutEntry)?;
        let mut segments = ArrayVec::new();
        for (index, header) in headers.iter().enumerate().filter(|(_, h)| h.p_type == PT_LOAD && h.p_memsz > 0) {
            let segment = Segment::new(&elf, &header, index)?;
            segments.try_push(segment).map_err(|_| LoadError::TooManySegments(MAX_SEGMENTS))?;
        }
        Ok(Self { elf, segments })
    }

    /// Where execution begins unless a note or header says otherwise.
    pub fn entry(&self) -> u64 {
        self.elf.ehdr.e_entry
    }

    /// The notes of the file, up to the first that is malformed.
    pub fn notes(&self) -> impl Iterator<Item = NoteAny<'f>> {
        let headers = self.elf.segments().into_iter().flat_map(|headers| headers.iter());
        headers
            .filter(|header| header.p_type == PT_NOTE)
            .filter_map(|header| self.elf.segment_data_as_notes(&header).ok())
            .flatten()
            .filter_map(|note| if let Note::Unknown(note) = note { Some(note) } else { None })
    }

    /// Writes the segments.
    pub fn load(&self, loader: &mut Loader<'_, impl GuestMemory>, entry: u64) -> Result<(), LoadError> {
        if !self.segments.iter().any(|segment| segment.memory.contains(&entry)) {
            return Err(LoadError::EntryOutside(GuestPhys(entry)));
        }
        // The one that reaches furthest says how much memory is needed.
        let highest = self.segments.iter().map(|segment| &segment.memory).max_by_key(|memory| memory.end);
        for memory in highest.into_iter().chain(self.segments.iter().map(|segment| &segment.memory)) {
            if !loader.room.is_ram(memory) {
                return Err(loader.why_not_ram(memory));
            }
        }
        for (index, segment) in self.segments.iter().enumerate() {
            if !loader.room.take(segment.memory.clone()) {
                return Err(LoadError::SegmentsOverlap(index));
            }
            segment.write(loader.memory)?;
        }
        Ok(())
    }
}

impl<'f> Segment<'f> {
    fn new(elf: &ElfBytes<'f, LittleEndian>, header: &ProgramHeader, index: usize) -> Result<Self, LoadError> {
        if header.p_filesz > header.p_memsz {
            return Err(LoadError::SegmentLargerThanItsMemory(index));
        }
        let end = header.p_paddr.checked_add(header.p_memsz);
        let end = end.ok_or(LoadError::OutsideMemory(GuestPhys(header.p_paddr)))?;
        let contents = elf.segment_data(header).map_err(|_| LoadError::CutOff)?;
        Ok(Self { memory: header.p_paddr..end, contents })
    }

    fn write(&self, memory: &mut impl GuestMemory) -> Result<(), LoadError> {
        let Range { start, end } = self.memory;
        let rest = start.saturating_add(self.contents.len() as u64);
        memory.write(GuestPhys(start), self.contents)?;
        Ok(memory.zero(GuestPhys(rest), end.saturating_sub(rest))?)
    }
}
