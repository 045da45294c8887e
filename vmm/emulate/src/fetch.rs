//! Fetches and decodes the instruction at RIP.

use arrayvec::ArrayVec;
use iced_x86::{Decoder, DecoderError, DecoderOptions, Instruction};

use crate::cpu::{CodeSize, Cpu, SegmentName};
use crate::memory::Memory;
use crate::outcome::{Fault, MAX_INSTRUCTION_BYTES, Stop};
use crate::paging::{Access, translate};
use crate::segmentation::linear_address;

/// The bytes of an instruction, as far as they had to be fetched.
pub type Code = ArrayVec<u8, MAX_INSTRUCTION_BYTES>;

const PAGE: u64 = 4096;

/// The instruction at RIP, and the bytes that were fetched for it. An instruction that the decoder does not know, and one
/// that does not exist, is [`Stop::Unsupported`]: the processor has executed it up to its memory access, so it does exist.
pub fn fetch(cpu: &Cpu, memory: &mut impl Memory, code: &mut Code) -> Result<Instruction, Stop> {
    let bitness = match cpu.code_size() {
        CodeSize::Bits16 => 16,
        CodeSize::Bits32 => 32,
        CodeSize::Bits64 => 64,
    };
    // The next page is fetched from only if the instruction goes on there: it may not be present.
    loop {
        fetch_to_page_end(cpu, memory, code)?;
        let mut decoder = Decoder::with_ip(bitness, code, cpu.rip, DecoderOptions::NONE);
        let instruction = decoder.decode();
        if !instruction.is_invalid() {
            return Ok(instruction);
        }
        // The decoder tells a lack of bytes from an error, but not beyond the longest instruction, which is #GP.
        if decoder.position() == MAX_INSTRUCTION_BYTES {
            return Err(Fault::GENERAL_PROTECTION.into());
        }
        if decoder.last_error() != DecoderError::NoMoreBytes {
            return Err(Stop::Unsupported);
        }
    }
}

/// Fetches at least one more byte, and not beyond the page that it is on.
fn fetch_to_page_end(cpu: &Cpu, memory: &mut impl Memory, code: &mut Code) -> Result<(), Stop> {
    let offset = offset_of(cpu, code.len());
    let linear = linear_address(cpu, SegmentName::Cs, offset, 1, Access::Execute)?;
    let on_page = usize::try_from(PAGE - linear % PAGE).unwrap_or(MAX_INSTRUCTION_BYTES);
    let mut size = on_page.min(code.remaining_capacity());
    // Up to the segment's last byte, if that comes first.
    while linear_address(cpu, SegmentName::Cs, offset, size as u64, Access::Execute).is_err() {
        size -= 1;
    }
    let address = translate(cpu, memory, linear, Access::Execute)?;
    let mut bytes = [0; MAX_INSTRUCTION_BYTES];
    let bytes = bytes.get_mut(..size).unwrap_or_default();
    memory.read(address, bytes)?;
    code.try_extend_from_slice(bytes).map_err(|_| Stop::Unsupported)
}

/// The offset in the code segment, so many bytes after RIP.
pub fn offset_of(cpu: &Cpu, bytes: usize) -> u64 {
    let offset = cpu.rip.wrapping_add(bytes as u64);
    if cpu.code_size() == CodeSize::Bits64 { offset } else { offset & 0xffff_ffff }
}
