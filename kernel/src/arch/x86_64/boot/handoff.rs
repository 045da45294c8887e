//! What the loader handed over, copied before its memory goes to others.
#![expect(unsafe_code, reason = "it reads what the loader left in memory")]

use dragonfly_handoff::{
    CommandLine, HANDOFF_SIZE, Handoff, HandoffError, MAX_COMMAND_LINE, MemoryMap, MemoryMapError, PhysAddr, PhysRange,
};
use spin::Once;

use crate::arch::x86_64::features::Features;

/// What the loader handed over, copied.
pub struct BootInfo {
    /// Where everything is.
    pub handoff: Handoff,
    /// All memory.
    pub map: MemoryMap,
    command_line: [u8; MAX_COMMAND_LINE],
    command_line_length: usize,
    /// Features of the boot CPU.
    pub features: Features,
}

/// Set once, on the boot CPU, before anything else reads it.
pub static BOOT: Once<BootInfo> = Once::new();

/// What is wrong with what the loader handed over.
pub enum BootError {
    /// The handoff itself, or the command line that it names.
    Handoff(HandoffError),
    /// The memory map that it names.
    Map(MemoryMapError),
}

impl core::fmt::Display for BootError {
    fn fmt(&self, formatter: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Handoff(error) => error.fmt(formatter),
            Self::Map(error) => error.fmt(formatter),
        }
    }
}

/// Features of the boot CPU.
pub fn features() -> Features {
    BOOT.get().map_or_else(Features::detect, |boot| boot.features)
}

/// Checks the handoff at an address that the loader gave, and copies it.
///
/// # Errors
/// The loader is at fault.
pub fn read(address: u64) -> Result<BootInfo, BootError> {
    // SAFETY: The loader's contract: the handoff, the memory map and the command line are in the direct map, and
    // nobody writes them.
    let bytes = |start: u64, length: u64| unsafe {
        core::slice::from_raw_parts(start as *const u8, usize::try_from(length).unwrap_or(0))
    };
    let handoff = Handoff::parse(bytes(address, HANDOFF_SIZE as u64)).map_err(BootError::Handoff)?;
    let virt = |range: PhysRange| handoff.direct_map.virt(range).map_or(0, |virt| virt.0);
    let features = Features::detect();
    let limit = PhysAddr(1 << features.physical_bits.clamp(32, 46));
    let map = handoff.memory_map;
    let map = MemoryMap::parse(bytes(virt(map), map.size()), limit).map_err(BootError::Map)?;
    let line = bytes(virt(handoff.command_line), handoff.command_line.size());
    let line = CommandLine::parse(line).map_err(BootError::Handoff)?.as_str().as_bytes();
    let mut command_line = [0; MAX_COMMAND_LINE];
    command_line[..line.len()].copy_from_slice(line);
    Ok(BootInfo { handoff, map, command_line, command_line_length: line.len(), features })
}

/// The words with which the kernel was started.
pub fn command_line() -> CommandLine<'static> {
    let bytes = BOOT.get().map_or(&[][..], |boot| &boot.command_line[..boot.command_line_length]);
    CommandLine::parse(bytes).unwrap_or_else(|_| CommandLine::parse(b"").unwrap_or_else(|_| panic!("no command line")))
}

/// Physical address of the RSDP, 0 for none.
pub fn acpi_rsdp() -> u64 {
    BOOT.get().and_then(|boot| boot.handoff.acpi_rsdp).map_or(0, |address| address.0)
}

/// Bytes of the bundle.
pub fn bundle_size() -> u64 {
    BOOT.get().map_or(0, |boot| boot.handoff.bundle.size())
}

/// Eight bytes of the command line.
pub fn command_line_word(offset: u64) -> u64 {
    let line = command_line().as_str().as_bytes();
    let tail = usize::try_from(offset).ok().and_then(|offset| line.get(offset..)).unwrap_or(&[]);
    let mut word = [0; 8];
    let length = tail.len().min(8);
    word[..length].copy_from_slice(&tail[..length]);
    u64::from_le_bytes(word)
}
