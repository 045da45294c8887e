//! What of an ELF file is to be where in memory.

use alloc::vec::Vec;

use dragonfly_abi::{PAGE_SIZE, Rights};
use elf::ElfBytes;
use elf::abi::{EM_X86_64, ET_EXEC, PF_R, PF_W, PF_X, PT_DYNAMIC, PT_INTERP, PT_LOAD, PT_TLS};
use elf::endian::LittleEndian;
use elf::file::Class;
use elf::segment::ProgramHeader;
use thiserror::Error;

use super::layout::{PROGRAM_END, PROGRAM_START};

/// The most segments that a program may have.
const MAX_SEGMENTS: usize = 16;

/// Why a file cannot be started as a program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ProgramError {
    /// It is no ELF file, or a damaged one.
    #[error("the file is no ELF file or is damaged")]
    Malformed,
    /// It is an ELF file for another machine.
    #[error("the file is for another machine")]
    WrongMachine,
    /// It is not linked to fixed addresses, or wants a dynamic linker or thread-local storage.
    #[error("the file is not linked statically to fixed addresses: link with domain.ld")]
    NotStatic,
    /// It has no segment to load.
    #[error("the file has nothing to load")]
    Empty,
    /// It has more segments than the loader takes.
    #[error("the file has more than {MAX_SEGMENTS} segments")]
    TooManySegments,
    /// A segment lies outside the addresses for programs.
    #[error("the segment at {address:#x} is not within {PROGRAM_START:#x} to {PROGRAM_END:#x}: link with domain.ld")]
    OutOfRange {
        /// Where it was to be.
        address: u64,
    },
    /// Two segments share a page.
    #[error("two segments share the page at {address:#x}")]
    Overlap {
        /// The address of the page.
        address: u64,
    },
    /// A segment is both writable and executable, or not readable.
    #[error("the segment at {address:#x} is writable and executable, or not readable")]
    BadRights {
        /// Where it was to be.
        address: u64,
    },
    /// The first instruction lies in no executable segment.
    #[error("the entry {address:#x} is in no executable segment")]
    BadEntry {
        /// Its address.
        address: u64,
    },
}

/// Pages of a program with the same rights.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Address of the first page.
    pub address: u64,
    /// Size in bytes, whole pages.
    pub size: u64,
    /// READ with WRITE or EXECUTE or neither.
    pub rights: Rights,
    /// Where in the pages the data begins; all else is zero.
    pub offset: u64,
    /// What the file holds of it.
    pub data: &'a [u8],
}

/// A program that is fit to be started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program<'a> {
    /// Address of the first instruction.
    pub entry: u64,
    /// What to map, by rising address.
    pub segments: Vec<Segment<'a>>,
}

impl<'a> Program<'a> {
    /// Checks an ELF file and finds its segments.
    ///
    /// # Errors
    /// Each [`ProgramError`].
    pub fn parse(file: &'a [u8]) -> Result<Self, ProgramError> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| ProgramError::Malformed)?;
        if elf.ehdr.class != Class::ELF64 || elf.ehdr.e_machine != EM_X86_64 {
            return Err(ProgramError::WrongMachine);
        }
        let headers = elf.segments().ok_or(ProgramError::Empty)?;
        if elf.ehdr.e_type != ET_EXEC
            || headers.iter().any(|header| matches!(header.p_type, PT_DYNAMIC | PT_INTERP | PT_TLS))
        {
            return Err(ProgramError::NotStatic);
        }
        let mut segments = Vec::new();
        for header in headers.iter().filter(|header| header.p_type == PT_LOAD && header.p_memsz > 0) {
            if segments.len() == MAX_SEGMENTS {
                return Err(ProgramError::TooManySegments);
            }
            segments.push(segment(file, &header)?);
        }
        segments.sort_by_key(|segment| segment.address);
        for (lower, upper) in segments.iter().zip(segments.iter().skip(1)) {
            if lower.address + lower.size > upper.address {
                return Err(ProgramError::Overlap { address: upper.address });
            }
        }
        if segments.is_empty() {
            return Err(ProgramError::Empty);
        }
        let entry = elf.ehdr.e_entry;
        let holds_entry = |segment: &Segment<'_>| {
            segment.rights.contains(Rights::EXECUTE)
                && (segment.address..segment.address + segment.size).contains(&entry)
        };
        if !segments.iter().any(holds_entry) {
            return Err(ProgramError::BadEntry { address: entry });
        }
        Ok(Self { entry, segments })
    }
}

/// The pages of one program header. Its addresses are below 2^30 once checked, so that sums of them cannot overflow.
fn segment<'a>(file: &'a [u8], header: &ProgramHeader) -> Result<Segment<'a>, ProgramError> {
    let out_of_range = ProgramError::OutOfRange { address: header.p_vaddr };
    let end = header.p_vaddr.checked_add(header.p_memsz).ok_or(out_of_range)?;
    if header.p_vaddr < PROGRAM_START || end > PROGRAM_END {
        return Err(out_of_range);
    }
    let flags = header.p_flags & (PF_R | PF_W | PF_X);
    let rights = match flags {
        PF_R => Rights::READ,
        _ if flags == PF_R | PF_W => Rights::READ | Rights::WRITE,
        _ if flags == PF_R | PF_X => Rights::READ | Rights::EXECUTE,
        _ => return Err(ProgramError::BadRights { address: header.p_vaddr }),
    };
    let data = data(file, header).ok_or(ProgramError::Malformed)?;
    let address = header.p_vaddr & !(PAGE_SIZE - 1);
    let size = end.next_multiple_of(PAGE_SIZE) - address;
    Ok(Segment { address, size, rights, offset: header.p_vaddr - address, data })
}

/// The part of the file that a program header names. `None` if it lies outside the file or is longer than the segment.
fn data<'a>(file: &'a [u8], header: &ProgramHeader) -> Option<&'a [u8]> {
    if header.p_filesz > header.p_memsz {
        return None;
    }
    let start = usize::try_from(header.p_offset).ok()?;
    let end = start.checked_add(usize::try_from(header.p_filesz).ok()?)?;
    file.get(start..end)
}

#[cfg(test)]
#[path = "program_tests.rs"]
mod tests;
