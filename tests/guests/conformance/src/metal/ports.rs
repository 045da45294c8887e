//! Port accesses of every width, single and in strings.

use core::arch::asm;

use dragonfly_guest_kit::playground::{BASE, PRESENT, SCRATCH, WRITABLE, map, unmap};
use dragonfly_guest_kit::{Check, catch, cpu, ensure, equal};

/// The serial port's scratch register.
const SCRATCH_REGISTER: u16 = 0x3ff;
/// Address and data port of PCI's configuration space.
const PCI_ADDRESS: u16 = 0xcf8;
const PCI_DATA: u16 = 0xcfc;
const NO_DEVICE: u16 = 0xe0;

pub fn each_width() -> Check {
    let (mut byte, mut word, mut double) = (0x1122_3344_5566_7788_u64, 0x1122_3344_5566_7788_u64, u64::MAX);
    // SAFETY: there is no device.
    unsafe {
        asm!("in al, dx", inout("rax") byte, in("dx") NO_DEVICE);
        asm!("in ax, dx", inout("rax") word, in("dx") NO_DEVICE);
        asm!("in eax, dx", inout("rax") double, in("dx") NO_DEVICE);
    }
    equal("IN of a byte", byte, 0x1122_3344_5566_77ff)?;
    equal("IN of a word", word, 0x1122_3344_5566_ffff)?;
    equal("IN of a double word", double, 0xffff_ffff)?;
    for value in [0xa5_u8, 0, 0xff] {
        cpu::write_port(SCRATCH_REGISTER, value);
        equal("the scratch register", cpu::read_port::<u8>(SCRATCH_REGISTER).into(), value.into())?;
    }
    cpu::write_port(PCI_ADDRESS, 0x8000_0000_u32);
    equal("the address of configuration space", cpu::read_port::<u32>(PCI_ADDRESS).into(), 0x8000_0000)?;
    let id: u32 = cpu::read_port(PCI_DATA);
    equal("its first word", cpu::read_port::<u16>(PCI_DATA).into(), (id & 0xffff).into())?;
    equal("its second word", cpu::read_port::<u16>(PCI_DATA + 2).into(), (id >> 16).into())?;
    equal("its third byte", cpu::read_port::<u8>(PCI_DATA + 2).into(), (id >> 16 & 0xff).into())?;
    // By number: the board's clock, register D: valid.
    let value: u64;
    // SAFETY: chooses a register of the clock and reads it.
    unsafe { asm!("mov al, 0xd", "out 0x70, al", "in al, 0x71", out("rax") value) };
    equal("IN by number", value & 0xff, 0x80)?;
    // Needless prefixes make instructions longer.
    let value: u64;
    // SAFETY: as above.
    unsafe { asm!(".byte 0x48, 0xec", inout("rax") 0_u64 => value, in("dx") SCRATCH_REGISTER) };
    equal("IN with a prefix", value, 0xff)
}

/// INS or OUTS, with RCX, RDI or RSI, and RDX; gives the first two afterwards.
macro_rules! string {
    ($instruction:literal, $count:expr, $address:expr, $port:expr) => {{
        let (count, to, from): (u64, u64, u64);
        // SAFETY: the memory is the playground's, and the direction flag is clear afterwards.
        unsafe {
            asm!($instruction, "cld", inout("rcx") $count => count, inout("rdi") $address => to,
                inout("rsi") $address => from, in("dx") $port);
        }
        (count, to, from)
    }};
}

pub fn strings() -> Check {
    map(BASE, SCRATCH, PRESENT | WRITABLE);
    map(BASE + 0x1000, SCRATCH + 0x5000, PRESENT | WRITABLE);
    cpu::write_port(SCRATCH_REGISTER, 0x5a_u8);
    cpu::write_port(PCI_ADDRESS, 0x8000_0000_u32);
    let id: u32 = cpu::read_port(PCI_DATA);
    // Across two pages that are apart in RAM.
    let near_end = BASE + 0xff0;
    (0..64).for_each(|offset| cpu::poke(near_end + offset, 0_u8));
    let (count, to, _) = string!("rep insb", 32_u64, near_end, SCRATCH_REGISTER);
    equal("count after REP INSB", count, 0)?;
    equal("RDI after REP INSB", to, near_end + 32)?;
    for offset in 0..32 {
        equal("bytes of REP INSB", cpu::peek::<u8>(near_end + offset).into(), 0x5a)?;
    }
    equal("the byte behind", cpu::peek::<u8>(near_end + 32).into(), 0)?;
    let (count, to, _) = string!("rep insw", 3_u64, BASE, PCI_DATA);
    equal("RDI after REP INSW", to, BASE + 6)?;
    equal("count after REP INSW", count, 0)?;
    equal("words of REP INSW", cpu::peek::<u16>(BASE + 4).into(), (id & 0xffff).into())?;
    // An element that is itself across two pages.
    let (_, to, _) = string!("rep insd", 2_u64, BASE + 0xffa, PCI_DATA);
    equal("RDI after REP INSD", to, BASE + 0x1002)?;
    equal("an element across two pages", cpu::peek::<u32>(BASE + 0xffe).into(), id.into())?;
    let (count, to, _) = string!("insd", 7_u64, BASE + 0x100, PCI_DATA);
    equal("RCX after INSD", count, 7)?;
    equal("RDI after INSD", to, BASE + 0x104)?;
    equal("element of INSD", cpu::peek::<u32>(BASE + 0x100).into(), id.into())?;
    let (_, to, _) = string!("rep insb", 0_u64, BASE + 0x200, SCRATCH_REGISTER);
    equal("RDI after nothing", to, BASE + 0x200)?;
    let (_, to, _) = string!("std\n rep insw", 3_u64, BASE + 0x204, PCI_DATA);
    equal("RDI after going down", to, BASE + 0x1fe)?;
    // OUTS: the last byte stays.
    (0..8).for_each(|offset| cpu::poke(BASE + 0x300 + offset, 0x10_u8 + offset as u8));
    let (count, _, from) = string!("rep outsb", 5_u64, BASE + 0x300, SCRATCH_REGISTER);
    equal("RCX after REP OUTSB", count, 0)?;
    equal("RSI after REP OUTSB", from, BASE + 0x305)?;
    equal("the last byte of REP OUTSB", cpu::read_port::<u8>(SCRATCH_REGISTER).into(), 0x14)?;
    let (_, _, from) = string!("std\n rep outsb", 3_u64, BASE + 0x307, SCRATCH_REGISTER);
    equal("RSI after going down", from, BASE + 0x304)?;
    equal("the last byte going down", cpu::read_port::<u8>(SCRATCH_REGISTER).into(), 0x15)?;
    cpu::poke(BASE + 0x400, 0x8000_0008_u32);
    let (_, _, from) = string!("outsd", 1_u64, BASE + 0x400, PCI_ADDRESS);
    equal("RSI after OUTSD", from, BASE + 0x404)?;
    equal("element of OUTSD", cpu::read_port::<u32>(PCI_ADDRESS).into(), 0x8000_0008)?;
    // More elements than are emulated at once.
    let (count, to, _) = string!("rep insb", 3000_u64, BASE, SCRATCH_REGISTER);
    equal("count after many", count, 0)?;
    equal("RDI after many", to, BASE + 3000)?;
    equal("the last of many", cpu::peek::<u8>(BASE + 2999).into(), 0x15)?;
    let (_, to, _) = string!("addr32 rep insb", 4_u64, SCRATCH, SCRATCH_REGISTER);
    equal("EDI with 32-bit addresses", to, SCRATCH + 4)
}

pub fn strings_fault_in_the_middle() -> Check {
    map(BASE, SCRATCH, PRESENT | WRITABLE);
    unmap(BASE + 0x1000);
    let trap = catch(|| string!("rep insb", 16_u64, BASE + 0xffa, SCRATCH_REGISTER));
    let Some(trap) = trap else { return equal("REP INSB to nothing", u64::MAX, 14) };
    equal("vector", trap.frame.vector, 14)?;
    equal("error code", trap.frame.error, 2)?;
    equal("CR2", trap.cr2, BASE + 0x1000)?;
    equal("RCX", trap.frame.rcx, 10)?;
    equal("RDI", trap.frame.rdi, BASE + 0x1000)?;
    ensure("at the instruction", cpu::peek::<u16>(trap.frame.rip) == 0x6cf3)?;
    let trap = catch(|| string!("rep outsw", 4_u64, BASE + 0xffc, 0xe0_u16));
    let Some(trap) = trap else { return equal("REP OUTSW from nothing", u64::MAX, 14) };
    equal("error code of a read", trap.frame.error, 0)?;
    equal("RCX of OUTS", trap.frame.rcx, 2)?;
    equal("RSI of OUTS", trap.frame.rsi, BASE + 0x1000)?;
    map(BASE + 0x1000, SCRATCH, PRESENT);
    let trap = catch(|| string!("insd", 1_u64, BASE + 0xffe, 0xe0_u16));
    let Some(trap) = trap else { return equal("INSD to a read-only page", u64::MAX, 14) };
    equal("error code of a read-only page", trap.frame.error, 3)?;
    equal("CR2 of a read-only page", trap.cr2, BASE + 0x1000)?;
    let trap = catch(|| string!("insb", 1_u64, 0x8000_0000_0000_0000_u64, 0xe0_u16));
    equal("INSB to no canonical address", trap.map_or(u64::MAX, |trap| trap.frame.vector), 13)?;
    unmap(BASE + 0x1000);
    Ok(())
}
