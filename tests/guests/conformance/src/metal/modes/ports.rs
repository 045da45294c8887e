//! Ports, single and in strings, with addresses of 16 and 32 bits.

use dragonfly_guest_kit::cpu::{peek, poke};
use dragonfly_guest_kit::{Check, cpu, equal};

use super::code::{address_16, address_32, code};
use super::layout::{ABSENT, LOW, MEMORY, READ_ONLY, low};
use super::mode::{Mode, Paging, Size};
use super::switch::Registers;

const NO_DEVICE: u32 = 0xe0;
/// The serial port's scratch register.
const SCRATCH_REGISTER: u32 = 0x3ff;
/// Address and data port of PCI's configuration space.
const PCI_ADDRESS: u32 = 0xcf8;
const PCI_DATA: u32 = 0xcfc;
/// The upper half of registers that 16-bit addresses are in.
const UPPER: u32 = 0x5555_0000;

pub fn check(mode: &Mode) -> Check {
    single(mode)?;
    strings(mode)?;
    if mode.size != Size::Bits64 {
        strings_by_16_bits(mode)?;
        strings_end_at_the_limit(mode)?;
    }
    if mode.paging != Paging::None {
        strings_fault(mode)?;
    }
    Ok(())
}

/// The host bridge's first double word.
fn identity() -> u32 {
    cpu::write_port(PCI_ADDRESS as u16, 0x8000_0000_u32);
    cpu::read_port(PCI_DATA as u16)
}

fn single(mode: &Mode) -> Check {
    let start = Registers { eax: 0x1122_3344, edx: NO_DEVICE, ..Registers::default() };
    equal("IN of a byte", mode.finish("IN of a byte", &code!("in al, dx"), start)?.rax, 0x1122_33ff)?;
    equal("IN of a word", mode.finish("IN of a word", &code!("in ax, dx"), start)?.rax, 0x1122_ffff)?;
    equal("IN of a double word", mode.finish("IN of a double word", &code!("in eax, dx"), start)?.rax, 0xffff_ffff)?;
    let after = mode.finish("IN by number", &code!("in ax, 0xe0"), start)?;
    equal("IN by number", after.rax, 0x1122_ffff)?;
    let start = Registers { eax: 0xa5, edx: SCRATCH_REGISTER, ..Registers::default() };
    let after = mode.finish("OUT of a byte", &code!("out dx, al", "not al", "in al, dx"), start)?;
    equal("OUT of a byte", after.rax, 0xa5)?;
    let id = identity();
    let start = Registers { eax: 0x8000_0000, edx: PCI_ADDRESS, ..Registers::default() };
    let code = code!(
        "out dx, eax",
        "in eax, dx",
        "mov ecx, eax",
        "add dx, 4",
        "in eax, dx",
        "mov esi, eax",
        "in ax, dx",
        "mov edi, eax",
        "add dx, 2",
        "in ax, dx",
        "mov ebx, eax",
        "in al, dx"
    );
    let after = mode.finish("configuration space", &code, start)?;
    equal("its address", after.rcx, 0x8000_0000)?;
    equal("its double word", after.rsi, id.into())?;
    equal("its first word", after.rdi & 0xffff, (id & 0xffff).into())?;
    equal("its second word", after.rbx & 0xffff, (id >> 16).into())?;
    equal("its third byte", after.rax & 0xff, (id >> 16 & 0xff).into())?;
    let start = Registers { eax: 0xffff_ffff, ..Registers::default() };
    let after = mode.finish("the board's clock", &code!("mov al, 0xd", "out 0x70, al", "in al, 0x71"), start)?;
    equal("the board's clock", after.rax & 0xff, 0x80)
}

fn strings(mode: &Mode) -> Check {
    let id = identity();
    let memory = mode.at(MEMORY);
    let start = Registers { ecx: 5, edi: memory, edx: SCRATCH_REGISTER, ..Registers::default() };
    cpu::write_port(SCRATCH_REGISTER as u16, 0x5a_u8);
    poke(u64::from(low(MEMORY)), 0_u64);
    let after = mode.finish("REP INSB", &address_32!("rep insb"), start)?;
    equal("count after REP INSB", after.rcx, 0)?;
    equal("address after REP INSB", after.rdi, u64::from(memory) + 5)?;
    equal("bytes of REP INSB", peek(low(MEMORY).into()), 0x5a_5a5a_5a5a)?;
    let start = Registers { edx: PCI_DATA, ..start };
    let after = mode.finish("INSD", &address_32!("insd"), start)?;
    equal("count after INSD", after.rcx, 5)?;
    equal("address after INSD", after.rdi, u64::from(memory) + 4)?;
    equal("what INSD read", peek::<u32>(low(MEMORY).into()).into(), id.into())?;
    let code = code!(each ["std", ".byte 0x67", "rep insw", "cld"], ["std", "rep insw", "cld"],
        ["std", ".byte 0x67", "rep insw", "cld"]);
    let after = mode.finish("REP INSW downwards", &code, Registers { edi: memory + 0x104, ecx: 3, ..start })?;
    equal("address after going down", after.rdi, u64::from(memory) + 0xfe)?;
    equal("what REP INSW read", peek::<u16>(low(MEMORY + 0x100).into()).into(), (id & 0xffff).into())?;
    let start = Registers { ecx: 3000, edx: SCRATCH_REGISTER, edi: memory, ..Registers::default() };
    let after = mode.finish("many iterations", &address_32!("rep insb"), start)?;
    equal("address after many iterations", after.rdi, u64::from(memory) + 3000)?;
    let after = mode.finish("no iteration", &address_32!("rep insb"), Registers { ecx: 0, ..start })?;
    equal("address after no iteration", after.rdi, memory.into())?;
    // What was written last stays.
    (0..8).for_each(|offset| poke(u64::from(low(MEMORY)) + offset, 0x10 + offset as u8));
    let start = Registers { esi: memory + 1, ecx: 4, ..start };
    let after = mode.finish("REP OUTSB", &address_32!("rep outsb"), start)?;
    equal("address after REP OUTSB", after.rsi, u64::from(memory) + 5)?;
    equal("the last byte of REP OUTSB", cpu::read_port::<u8>(SCRATCH_REGISTER as u16).into(), 0x14)?;
    poke(u64::from(low(MEMORY)), 0x8000_0008_u32);
    let start = Registers { esi: memory, edx: PCI_ADDRESS, ..start };
    mode.finish("OUTSD", &address_32!("outsd"), start)?;
    equal("what OUTSD wrote", cpu::read_port::<u32>(PCI_ADDRESS as u16).into(), 0x8000_0008)?;
    // From a device to a port: the I/O APIC's select register, by FS.
    let select = code!(each
        ["mov byte ptr fs:[0], 0x2a", ".byte 0x64, 0x67, 0x6e"],
        ["mov byte ptr fs:[0], 0x2a", ".byte 0x64, 0x6e"],
        ["mov byte ptr fs:[0], 0x2a", ".byte 0x64, 0x67, 0x6e"]
    );
    mode.finish("OUTSB from a device", &select, Registers { edx: SCRATCH_REGISTER, esi: 0, ..start })?;
    equal("what OUTSB moved", cpu::read_port::<u8>(SCRATCH_REGISTER as u16).into(), 0x2a)
}

/// Only the low halves of the registers count.
fn strings_by_16_bits(mode: &Mode) -> Check {
    let id = identity();
    let first = u64::from(LOW);
    [first, first + 0xfff8].iter().for_each(|address| poke(*address, 0_u64));
    let start = Registers { ecx: UPPER | 3, edi: UPPER | 0xfffc, edx: PCI_DATA, ..Registers::default() };
    let after = mode.finish("REP INSW by 16 bits", &address_16!("rep insw"), start)?;
    equal("count of 16 bits", after.rcx, UPPER.into())?;
    equal("address of 16 bits", after.rdi, u64::from(UPPER) + 2)?;
    equal("words up to the end of the segment", peek::<u32>(first + 0xfffc).into(), u64::from(id & 0xffff) * 0x1_0001)?;
    equal("a word at its start", peek(first), u64::from(id & 0xffff))?;
    poke(u64::from(low(MEMORY)), 0x4433_2211_u32);
    let start = Registers { ecx: UPPER | 2, esi: UPPER | MEMORY, edx: SCRATCH_REGISTER, ..Registers::default() };
    let after = mode.finish("REP OUTSB by 16 bits", &address_16!("rep outsb"), start)?;
    equal("address after REP OUTSB by 16 bits", after.rsi, u64::from(UPPER | MEMORY) + 2)?;
    equal("the last byte by 16 bits", cpu::read_port::<u8>(SCRATCH_REGISTER as u16).into(), 0x22)
}

fn strings_end_at_the_limit(mode: &Mode) -> Check {
    let start = Registers { ecx: 4, edi: 0xfff8, edx: PCI_DATA, ..Registers::default() };
    let after = mode.fault("REP INSD beyond the limit", 13, 0, &address_32!("rep insd"), start)?;
    equal("what was left", after.rcx, 2)?;
    equal("where it ended", after.rdi, 0x1_0000)?;
    equal("the instruction that ended", after.at, 0)
}

fn strings_fault(mode: &Mode) -> Check {
    let user = if mode.is_user() { 4 } else { 0 };
    let start = Registers { ecx: 4, edi: mode.at(ABSENT) - 8, edx: PCI_DATA, ..Registers::default() };
    let after = mode.fault("REP INSD to nothing", 14, 2 | user, &address_32!("rep insd"), start)?;
    equal("address of nothing", after.cr2, low(ABSENT).into())?;
    equal("iterations left", after.rcx, 2)?;
    equal("address of the next", after.rdi, mode.at(ABSENT).into())?;
    let start = Registers { esi: mode.at(ABSENT) - 2, edx: NO_DEVICE, ..start };
    let after = mode.fault("REP OUTSW from nothing", 14, user, &address_32!("rep outsw"), start)?;
    equal("iterations left of REP OUTSW", after.rcx, 3)?;
    let start = Registers { edi: mode.at(READ_ONLY), ..start };
    let after = mode.fault("INSB to a read-only page", 14, 3 | user, &address_32!("insb"), start)?;
    equal("address of a read-only page", after.cr2, low(READ_ONLY).into())
}
