//! Attacks by memory: devices, page tables, control registers.

use core::arch::asm;

use dragonfly_guest_kit::Random;
use dragonfly_guest_kit::cpu::{self, peek, poke};
use dragonfly_guest_kit::playground::{self, BASE, PRESENT, SCRATCH, WRITABLE, map};

use super::attacks::drop_value;

/// I/O APIC, local APIC, configuration space, and what is beside them.
const PAGES: [u64; 6] = [0xfec0_0000, 0xfee0_0000, 0xe000_0000, 0xe000_1000, 0xe00f_f000, 0xfffc_0000];
const IO_APIC: u64 = 0xfec0_0000;
const INIT: u64 = 0x500;
/// Pages of the playground that attacks use.
const ATTACK_PAGES: u64 = 16;

/// An address where a device is, or nothing.
fn device_address(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => 0xc000_0000 + random.below(0x3fff_fff0),
        1 => PAGES[random.below(6) as usize % PAGES.len()] + random.below(0x1000),
        _ => PAGES[random.below(6) as usize % PAGES.len()] + random.below(0x40) * 16,
    }
}

/// A value that does not let the I/O APIC send INIT or the vectors of exceptions, which would end the attacks.
fn device_value(random: &mut Random) -> u64 {
    let value = random.awkward() | 0x20;
    if value & 0x700 == INIT { value & !INIT } else { value }
}

/// An address that may be written to: RAM without use, a device, or nothing that is mapped.
pub fn harmless(random: &mut Random) -> u64 {
    match random.below(4) {
        0 => SCRATCH + random.below(0x10_0000),
        1 => BASE + random.below(ATTACK_PAGES * 4096),
        2 => 0x8000_0000_0000_0000 | random.awkward(),
        _ => 0xd000_0000 + random.below(0x100_0000),
    }
}

/// One access of a device.
pub fn device(random: &mut Random) {
    let (address, value) = (device_address(random), device_value(random));
    match random.below(12) {
        0 => poke(address, value as u8),
        1 => poke(address, value as u16),
        2 | 3 => poke(address, value as u32),
        4 => poke(address, value & !(INIT << 32)),
        5 => drop_value(peek::<u8>(address)),
        6 => drop_value(peek::<u16>(address)),
        7 => drop_value(peek::<u32>(address)),
        8 => drop_value(peek::<u64>(address)),
        // SAFETY: devices again; an I/O APIC's entry that becomes INIT has no source but the serial port.
        9 => unsafe { asm!("lock add dword ptr [{}], 1", in(reg) address) },
        // SAFETY: as above.
        10 => unsafe { asm!("xchg [{}], {:e}", in(reg) address, inout(reg) value as u32 => _) },
        // SAFETY: as above.
        _ => unsafe { asm!("lock cmpxchg [{}], {:e}", in(reg) address, in(reg) value as u32, inout("eax") 0 => _) },
    }
}

/// A string instruction between devices, RAM and nothing.
pub fn device_string(random: &mut Random) {
    let (to, from, count) = (harmless(random), device_address(random), random.below(300));
    // SAFETY: what is written to is harmless, or faults.
    unsafe {
        match random.below(5) {
            0 => asm!("rep movsb", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") count => _),
            1 => asm!("rep movsq", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") count => _),
            2 => asm!("std", "rep movsd", "cld", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") count => _),
            3 => asm!("repe cmpsd", inout("rdi") to => _, inout("rsi") from => _, inout("rcx") count => _),
            _ => asm!("rep stosd", inout("rdi") IO_APIC + 0x80 => _, inout("rcx") count => _, in("eax") 0x123),
        }
    }
}

/// Page-table entries of any content.
pub fn entry(random: &mut Random) {
    let page = BASE + random.below(ATTACK_PAGES) * 4096;
    let physical = match random.below(4) {
        0 => SCRATCH + random.below(256) * 4096,
        1 => 1 << random.below(52),
        2 => random.awkward() & 0x000f_ffff_ffff_f000,
        _ => PAGES[random.below(6) as usize % PAGES.len()],
    };
    // RAM that is in use is not to be found by chance.
    let is_in_use = physical < SCRATCH || (SCRATCH + 0x7f_0000..1 << 30).contains(&physical);
    let physical = if is_in_use { SCRATCH } else { physical };
    map(page, physical, PRESENT | random.number() & 0x7ff0_0000_0000_0ffe | WRITABLE);
    match random.below(3) {
        0 => drop_value(peek::<u64>(page + random.below(4090))),
        1 => poke(page + random.below(4090), 0_u32),
        _ => drop_value(peek::<u8>(page)),
    }
}

/// Control registers with values that change what can be switched and switched back.
pub fn control(random: &mut Random) {
    // TSD, DE, PGE, PCE, OSFXSR, OSXMMEXCPT, UMIP, FSGSBASE, OSXSAVE, SMEP, SMAP, PKE.
    const CR4: u64 = 1 << 2 | 1 << 3 | 0x780 | 1 << 11 | 1 << 16 | 1 << 18 | 1 << 20 | 1 << 21 | 1 << 22;
    // MP, EM, TS, WP, AM, CD.
    const CR0: u64 = 0b1110 | 1 << 16 | 1 << 18 | 1 << 30;
    match random.below(4) {
        0 => cpu::set_cr4(cpu::cr4() ^ random.number() & CR4),
        1 => cpu::set_cr0(cpu::cr0() ^ random.number() & CR0),
        2 => cpu::set_cr0(random.number() & CR0 | 0x8000_0001),
        _ => cpu::set_cr3(cpu::cr3()),
    }
    cpu::cpuid(7, 0);
}

/// The control registers and tables that the kit has set.
pub fn restore() {
    cpu::set_cr0(0x8001_0031);
    cpu::set_cr4(1 << 5);
    for page in 0..ATTACK_PAGES {
        playground::unmap(BASE + page * 4096);
    }
}
