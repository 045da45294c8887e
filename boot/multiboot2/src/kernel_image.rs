//! The kernel's file: a static ELF64 executable whose segments keep code and data apart.

use arrayvec::ArrayVec;
use dragonfly_handoff::{KERNEL_BASE, MAX_KERNEL_SEGMENTS, PAGE_SIZE, SegmentFlags, VirtAddr};
use elf::abi::{EM_X86_64, ET_EXEC, PF_W, PF_X, PT_LOAD};
use elf::endian::LittleEndian;
use elf::segment::ProgramHeader;
use elf::{ElfBytes, file::Class};

/// Why the kernel's file was refused. Each of them is a fault of how the kernel was built, or damage. Segments are numbered
/// as the file does, from 0, without those that are not loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KernelImageError {
    /// No ELF file, or its headers point outside of it.
    #[error("the file is not ELF or is cut off")]
    NotElf,
    /// For another machine.
    #[error("the file is not ELF for 64-bit x86")]
    WrongMachine,
    /// Position-independent, relocatable or shared.
    #[error("the file is no executable with fixed addresses; link it with --no-pie")]
    NotExecutable,
    /// Nothing to load.
    #[error("the file has no segment to load")]
    NoSegment,
    /// More than the handoff has room for.
    #[error("the file has more than {MAX_KERNEL_SEGMENTS} segments to load")]
    TooManySegments,
    /// The segment's bytes are not all in the file.
    #[error("segment {0} is cut off")]
    CutOff(usize),
    /// More bytes in the file than in memory.
    #[error("segment {0} has more bytes in the file than in memory")]
    LargerThanItsMemory(usize),
    /// Below the top 2 GiB, or beyond the last address.
    #[error("segment {0} does not lie in the top 2 GiB of the address space")]
    OutsideKernelSpace(usize),
    /// Code that can be changed.
    #[error("segment {0} is writable and executable")]
    WritableAndExecutable(usize),
    /// Shares a page with the segment before it, or comes before it.
    #[error("segment {0} shares a page with the one before it, or is not in ascending order")]
    Overlap(usize),
    /// Execution would begin outside the code in the file.
    #[error("the entry point {0} is not in an executable segment")]
    EntryOutsideCode(VirtAddr),
}

/// A checked kernel file.
///
/// The segments are in ascending order, share no page, lie at or above [`KERNEL_BASE`], and are not both writable and
/// executable; execution begins at bytes of an executable one.
#[derive(Clone, Debug)]
pub struct KernelImage<'f> {
    /// Where execution begins.
    pub entry: VirtAddr,
    /// What is to be loaded.
    pub segments: ArrayVec<Segment<'f>, MAX_KERNEL_SEGMENTS>,
}

/// A segment of the kernel, widened to whole pages.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'f> {
    /// First byte of the first page.
    pub virtual_base: VirtAddr,
    /// Size of the pages in bytes.
    pub size: u64,
    /// Where in the first page `contents` begin.
    pub offset: u64,
    /// The bytes of the file; all else is zero.
    pub contents: &'f [u8],
    /// What the segment may be used for beside reading.
    pub flags: SegmentFlags,
}

impl<'f> KernelImage<'f> {
    /// Checks the file.
    ///
    /// # Errors
    /// Any of [`KernelImageError`].
    pub fn parse(file: &'f [u8]) -> Result<Self, KernelImageError> {
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(|_| KernelImageError::NotElf)?;
        if elf.ehdr.class != Class::ELF64 || elf.ehdr.e_machine != EM_X86_64 {
            return Err(KernelImageError::WrongMachine);
        }
        if elf.ehdr.e_type != ET_EXEC {
            return Err(KernelImageError::NotExecutable);
        }
        let headers = elf.segments().ok_or(KernelImageError::NoSegment)?;
        let mut segments = ArrayVec::new();
        let mut end_of_last = KERNEL_BASE.0;
        for (index, header) in headers.iter().filter(|h| h.p_type == PT_LOAD && h.p_memsz > 0).enumerate() {
            let segment = Segment::new(file, &header, index)?;
            if segment.virtual_base.0 < end_of_last {
                return Err(KernelImageError::Overlap(index));
            }
            end_of_last = segment.virtual_base.0.saturating_add(segment.size);
            segments.try_push(segment).map_err(|_| KernelImageError::TooManySegments)?;
        }
        if segments.is_empty() {
            return Err(KernelImageError::NoSegment);
        }
        let entry = VirtAddr(elf.ehdr.e_entry);
        if !segments.iter().any(|segment| segment.has_code_at(entry)) {
            return Err(KernelImageError::EntryOutsideCode(entry));
        }
        Ok(Self { entry, segments })
    }
}

impl<'f> Segment<'f> {
    fn new(file: &'f [u8], header: &ProgramHeader, index: usize) -> Result<Self, KernelImageError> {
        if header.p_filesz > header.p_memsz {
            return Err(KernelImageError::LargerThanItsMemory(index));
        }
        let start = usize::try_from(header.p_offset).ok();
        let end = header.p_offset.checked_add(header.p_filesz).and_then(|end| usize::try_from(end).ok());
        let contents = start.zip(end).and_then(|(start, end)| file.get(start..end));
        let contents = contents.ok_or(KernelImageError::CutOff(index))?;

        let offset = header.p_vaddr % PAGE_SIZE;
        let virtual_base = VirtAddr(header.p_vaddr.saturating_sub(offset));
        // The last page stays free, so that no segment ends where addresses do.
        let end = header.p_vaddr.checked_add(header.p_memsz).and_then(|end| end.checked_next_multiple_of(PAGE_SIZE));
        let end = end.filter(|_| virtual_base >= KERNEL_BASE);
        let end = end.ok_or(KernelImageError::OutsideKernelSpace(index))?;

        let mut flags = SegmentFlags::empty();
        flags.set(SegmentFlags::WRITE, header.p_flags & PF_W != 0);
        flags.set(SegmentFlags::EXECUTE, header.p_flags & PF_X != 0);
        if flags.contains(SegmentFlags::WRITE | SegmentFlags::EXECUTE) {
            return Err(KernelImageError::WritableAndExecutable(index));
        }
        Ok(Self { virtual_base, size: end.saturating_sub(virtual_base.0), offset, contents, flags })
    }

    fn has_code_at(&self, address: VirtAddr) -> bool {
        let start = self.virtual_base.0.saturating_add(self.offset);
        let length = self.contents.len() as u64;
        self.flags.contains(SegmentFlags::EXECUTE) && address.0.checked_sub(start).is_some_and(|at| at < length)
    }
}
