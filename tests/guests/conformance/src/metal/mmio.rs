//! Instructions on memory that is a device: the I/O APIC's select register keeps a byte, its window an entry's low half;
//! configuration space reads as what the ports say; where nothing is, all bits are set.

use core::arch::asm;

use dragonfly_guest_kit::cpu::{peek, poke};
use dragonfly_guest_kit::playground::{BASE, PRESENT, SCRATCH, USER, USER_DATA, WRITABLE, map, prepare_user, unmap};
use dragonfly_guest_kit::{Check, USER_CODE, acpi, catch, cpu, enter_user, equal, playground};
use dragonfly_hw::x86::ioapic::{IOREGSEL, IOWIN, ioredtbl};

/// The I/O APIC's page.
pub const IO_APIC: u64 = 0xfec0_0000;
const SELECT: u64 = IO_APIC + IOREGSEL;
const WINDOW: u64 = IO_APIC + IOWIN;
/// Between the configuration space and the I/O APIC.
pub const NOTHING: u64 = 0xfe00_0000;

/// Address of configuration space, by the MCFG table.
pub fn configuration_space() -> u64 {
    acpi::find(b"MCFG").map_or(0xe000_0000, |table| table.field(44))
}

/// The host bridge's first double words, by ports.
pub fn configuration(register: u32) -> u32 {
    cpu::write_port(0xcf8, 0x8000_0000 | register);
    cpu::read_port(0xcfc)
}

/// Address of the window.
pub fn window() -> u64 {
    WINDOW
}

/// Gives the window the high half of pin 23, of which the upper 8 bits can be written.
pub fn choose_entry() {
    poke(SELECT, ioredtbl(23) + 1);
}

pub fn moves_of_each_width() -> Check {
    let ecam = configuration_space();
    let id = configuration(0);
    equal("8 bits", peek::<u8>(ecam).into(), (id & 0xff).into())?;
    equal("16 bits", peek::<u16>(ecam).into(), (id & 0xffff).into())?;
    equal("32 bits", peek::<u32>(ecam).into(), id.into())?;
    equal("64 bits", peek::<u64>(ecam), u64::from(id) | u64::from(configuration(4)) << 32)?;
    equal("the second byte", peek::<u8>(ecam + 1).into(), (id >> 8 & 0xff).into())?;
    equal("the second word", peek::<u16>(ecam + 2).into(), (id >> 16).into())?;
    equal("nothing, 8 bits", peek::<u8>(NOTHING).into(), 0xff)?;
    equal("nothing, 16 bits", peek::<u16>(NOTHING).into(), 0xffff)?;
    equal("nothing, 32 bits", peek::<u32>(NOTHING).into(), 0xffff_ffff)?;
    equal("nothing, 64 bits", peek::<u64>(NOTHING), u64::MAX)?;
    let mut byte = 0x1122_3344_5566_7788_u64;
    let mut word = byte;
    let mut double = byte;
    let (zero, sign, sign_32, high): (u64, u64, u64, u64);
    // SAFETY: reads where nothing is.
    unsafe {
        asm!("mov al, [{}]", in(reg) NOTHING, inout("rax") byte);
        asm!("mov ax, [{}]", in(reg) NOTHING, inout("rax") word);
        asm!("mov eax, [{}]", in(reg) NOTHING, inout("rax") double);
        asm!("movzx {}, byte ptr [{}]", out(reg) zero, in(reg) NOTHING);
        asm!("movsx {}, byte ptr [{}]", out(reg) sign, in(reg) NOTHING);
        asm!("movsxd {}, dword ptr [{}]", out(reg) sign_32, in(reg) NOTHING);
        asm!("mov eax, 0", "mov ah, [rcx]", in("rcx") NOTHING, out("rax") high);
    }
    equal("MOV to AL", byte, 0x1122_3344_5566_77ff)?;
    equal("MOV to AX", word, 0x1122_3344_5566_ffff)?;
    equal("MOV to EAX", double, 0xffff_ffff)?;
    equal("MOVZX", zero, 0xff)?;
    equal("MOVSX", sign, u64::MAX)?;
    equal("MOVSXD", sign_32, u64::MAX)?;
    equal("MOV to AH", high, 0xff00)?;
    choose_entry();
    poke(WINDOW, 0x5a00_0000_u32);
    equal("32 bits written", peek::<u32>(WINDOW).into(), 0x5a00_0000)?;
    // SAFETY: writes the same register by other forms.
    unsafe { asm!("mov dword ptr [{}], 0x77000000", in(reg) WINDOW) };
    equal("a constant written", peek::<u32>(WINDOW).into(), 0x7700_0000)?;
    poke(SELECT, 0x12_u8);
    equal("8 bits written", peek::<u8>(SELECT).into(), 0x12)?;
    poke(SELECT, 0x13_u16);
    equal("16 bits written", peek::<u16>(SELECT).into(), 0x13)?;
    poke(SELECT, 0x14_u64);
    equal("64 bits written", peek::<u8>(SELECT).into(), 0x14)?;
    let moved: u32;
    // SAFETY: the absolute form, of 8 bytes of address.
    unsafe { asm!(".byte 0xa1", ".quad {address}", address = const NOTHING, out("eax") moved) };
    equal("MOV from an absolute address", moved.into(), 0xffff_ffff)
}

/// An instruction on the I/O APIC's window that held a value; gives what the window holds then, the register and the
/// flags.
macro_rules! on_window {
    ($instruction:literal, $before:expr, $register:expr) => {{
        choose_entry();
        poke(WINDOW, $before as u32);
        let (mut register, flags) = ($register as u64, 0_u64);
        let mut flags = flags;
        // SAFETY: what it changes is the window, ECX, EAX and the flags.
        unsafe {
            asm!("mov eax, 0x11000000", $instruction, "pushfq", "pop {flags}", address = in(reg) WINDOW,
                inout("rcx") register, flags = inout(reg) flags, out("rax") _);
        }
        (u64::from(peek::<u32>(WINDOW)), register, flags)
    }};
}

pub fn arithmetic() -> Check {
    const ZERO: u64 = 1 << 6;
    const CARRY: u64 = 1;
    let (value, ..) = on_window!("or [{address}], ecx", 0x1100_0000, 0x2200_0000);
    equal("OR", value, 0x3300_0000)?;
    let (value, _, flags) = on_window!("and [{address}], ecx", 0x1100_0000, 0x2200_0000);
    equal("AND", value, 0)?;
    equal("flags of AND", flags & ZERO, ZERO)?;
    let (value, _, flags) = on_window!("add [{address}], ecx", 0xf000_0000_u32, 0x2000_0000);
    equal("ADD", value, 0x1000_0000)?;
    equal("flags of ADD", flags & CARRY, CARRY)?;
    let (value, ..) = on_window!("xor dword ptr [{address}], 0x0f000000", 0x1100_0000, 0);
    equal("XOR of a constant", value, 0x1e00_0000)?;
    let (value, ..) = on_window!("sub [{address}], ecx", 0x3300_0000, 0x1100_0000);
    equal("SUB", value, 0x2200_0000)?;
    let (value, _, flags) = on_window!("cmp [{address}], ecx", 0x1100_0000, 0x1100_0000);
    equal("CMP", value, 0x1100_0000)?;
    equal("flags of CMP", flags & ZERO, ZERO)?;
    let (_, _, flags) = on_window!("test dword ptr [{address}], 0x80000000", 0x7f00_0000, 0);
    equal("flags of TEST", flags & ZERO, ZERO)?;
    let (value, register, _) = on_window!("xchg [{address}], ecx", 0x1100_0000, 0x2200_0000);
    equal("XCHG: memory", value, 0x2200_0000)?;
    equal("XCHG: register", register, 0x1100_0000)?;
    let (value, ..) = on_window!("not dword ptr [{address}]", 0x1100_0000, 0);
    equal("NOT", value, 0xee00_0000)?;
    let (value, ..) = on_window!("lock bts dword ptr [{address}], 25", 0x1100_0000, 0);
    equal("LOCK BTS", value, 0x1300_0000)?;
    let (_, _, flags) = on_window!("bt dword ptr [{address}], 28", 0x1100_0000, 0);
    equal("BT", flags & CARRY, CARRY)?;
    let (value, register, _) = on_window!("lock xadd [{address}], ecx", 0x1100_0000, 0x2200_0000);
    equal("LOCK XADD: memory", value, 0x3300_0000)?;
    equal("LOCK XADD: register", register, 0x1100_0000)?;
    let (value, _, flags) = on_window!("lock cmpxchg [{address}], ecx", 0x1100_0000, 0x2200_0000);
    equal("LOCK CMPXCHG", value, 0x2200_0000)?;
    equal("flags of LOCK CMPXCHG", flags & ZERO, ZERO)?;
    let (_, register, _) = on_window!("add ecx, [{address}]", 0x1100_0000, 0x2200_0000);
    equal("ADD to a register", register, 0x3300_0000)?;
    let (_, register, _) = on_window!("push qword ptr [{address} - 0x10]\n pop rcx", 0x1100_0000, 0);
    equal("PUSH", register & 0xff, u64::from(ioredtbl(23) + 1))
}

/// A string instruction; gives RCX, RDI and RSI.
macro_rules! string {
    ($instruction:literal, $count:expr, $to:expr, $from:expr) => {{
        let (count, to, from, value): (u64, u64, u64, u64);
        // SAFETY: memory of the playground and devices; the direction flag is clear afterwards.
        unsafe {
            asm!($instruction, "cld", inout("rcx") $count => count, inout("rdi") $to => to, inout("rsi") $from => from,
                inout("rax") 0x21_u64 => value);
        }
        (count, to, from, value)
    }};
}

pub fn strings() -> Check {
    let ecam = configuration_space();
    map(BASE, SCRATCH, PRESENT | WRITABLE);
    map(BASE + 0x1000, SCRATCH + 0x5000, PRESENT | WRITABLE);
    let near_end = BASE + 0xff8;
    let (count, to, from, _) = string!("rep movsd", 4_u64, near_end, ecam);
    equal("RCX after REP MOVSD", count, 0)?;
    equal("RDI after REP MOVSD", to, near_end + 16)?;
    equal("RSI after REP MOVSD", from, ecam + 16)?;
    for register in (0..16).step_by(4) {
        equal("what REP MOVSD moved", peek::<u32>(near_end + register).into(), configuration(register as u32).into())?;
    }
    string!("rep movsb", 16_u64, BASE, ecam);
    equal("what REP MOVSB moved", peek::<u32>(BASE + 8).into(), configuration(8).into())?;
    string!("rep movsq", 2_u64, BASE + 0x100, ecam);
    equal("what REP MOVSQ moved", peek::<u32>(BASE + 0x108).into(), configuration(8).into())?;
    let (count, to, ..) = string!("movsw", 9_u64, BASE + 0x200, ecam + 2);
    equal("RCX after MOVSW", count, 9)?;
    equal("RDI after MOVSW", to, BASE + 0x202)?;
    equal("what MOVSW moved", peek::<u16>(BASE + 0x200).into(), (configuration(0) >> 16).into())?;
    // From RAM to a device, from a device to a device.
    poke(BASE + 0x300, 0x17_u8);
    string!("movsb", 1_u64, SELECT, BASE + 0x300);
    equal("MOVSB to a device", peek::<u8>(SELECT).into(), 0x17)?;
    string!("movsb", 1_u64, SELECT, ecam);
    equal("MOVSB between devices", peek::<u8>(SELECT).into(), (configuration(0) & 0xff).into())?;
    string!("stosb", 1_u64, SELECT, BASE);
    equal("STOSB to a device", peek::<u8>(SELECT).into(), 0x21)?;
    let (count, to, ..) = string!("rep stosd", 600_u64, NOTHING, BASE);
    equal("RCX after REP STOSD", count, 0)?;
    equal("RDI after REP STOSD", to, NOTHING + 2400)?;
    let (.., value) = string!("lodsd", 1_u64, BASE, ecam);
    equal("LODSD", value, configuration(0).into())?;
    let (count, ..) = string!("repne scasb", 32_u64, NOTHING, BASE);
    equal("RCX after REPNE SCASB", count, 0)?;
    let (count, ..) = string!("repe cmpsd", 4_u64, ecam, BASE);
    equal("RCX after REPE CMPSD", count, 0)?;
    let (_, to, ..) = string!("std\n rep stosd", 2_u64, NOTHING + 0x100, BASE);
    equal("RDI going down", to, NOTHING + 0xf8)?;
    // A fault in the middle.
    unmap(BASE + 0x1000);
    let trap = catch(|| string!("rep movsd", 4_u64, near_end, ecam));
    let Some(trap) = trap else { return equal("REP MOVSD to nothing", u64::MAX, 14) };
    equal("error code", trap.frame.error, 2)?;
    equal("CR2", trap.cr2, BASE + 0x1000)?;
    equal("RCX", trap.frame.rcx, 2)?;
    equal("RSI", trap.frame.rsi, ecam + 8)
}

pub fn unaligned_and_across_pages() -> Check {
    let ecam = configuration_space();
    let (first, second) = (u64::from(configuration(0)), u64::from(configuration(4)));
    let both = first | second << 32;
    for offset in 1..4 {
        equal("unaligned 32 bits", peek::<u32>(ecam + offset).into(), both >> (8 * offset) & 0xffff_ffff)?;
        equal("unaligned 16 bits", peek::<u16>(ecam + offset).into(), both >> (8 * offset) & 0xffff)?;
    }
    // The next function's page has no device behind it.
    equal("across the end of a function", peek::<u32>(ecam + 0xffe).into(), 0xffff_0000)?;
    equal("64 bits across", peek::<u64>(ecam + 0xffc), 0xffff_ffff_0000_0000)?;
    // RAM and a device side by side: the page before is the guest's, the next the host bridge's.
    map(BASE, SCRATCH, PRESENT | WRITABLE);
    map(BASE + 0x1000, ecam, PRESENT | WRITABLE);
    poke(BASE + 0xffe, 0x3412_u16);
    equal("RAM, then a device", peek::<u32>(BASE + 0xffe).into(), 0x3412 | (first & 0xffff) << 16)?;
    map(BASE, ecam, PRESENT | WRITABLE);
    map(BASE + 0x1000, SCRATCH, PRESENT | WRITABLE);
    poke(SCRATCH, 0x7856_u16);
    equal("a device, then RAM", peek::<u32>(BASE + 0xffe).into(), 0x7856_0000)?;
    poke(BASE + 0xffe, 0xaabb_ccdd_u32);
    equal("a write to a device, then RAM", peek::<u16>(SCRATCH).into(), 0xaabb)?;
    unmap(BASE + 0x1000);
    let trap = catch(|| peek::<u32>(BASE + 0xffe));
    let Some(trap) = trap else { return equal("a device, then nothing", u64::MAX, 14) };
    equal("vector", trap.frame.vector, 14)?;
    equal("CR2", trap.cr2, BASE + 0x1000)
}

pub fn instructions_at_the_end_of_a_page() -> Check {
    // mov eax, [rdi]; ret
    const LOAD: [u8; 3] = [0x8b, 0x07, 0xc3];
    // in al, dx; ret
    const IN: [u8; 2] = [0xec, 0xc3];
    // cpuid; ret - with RBX kept in RSI
    const CPUID: [u8; 9] = [0x48, 0x89, 0xde, 0x0f, 0xa2, 0x48, 0x89, 0xf3, 0xc3];
    let ecam = configuration_space();
    let id = configuration(0);
    map(BASE, SCRATCH, PRESENT | WRITABLE);
    map(BASE + 0x1000, SCRATCH + 0x5000, PRESENT | WRITABLE);
    let call = |code: &[u8], start: u64| {
        for (address, byte) in (start..).zip(code) {
            poke(address, *byte);
        }
        let value: u64;
        // SAFETY: the code returns, and changes the registers named.
        unsafe {
            asm!("call {start}", start = in(reg) start, inout("rax") 0_u64 => value, in("rdi") ecam, inout("edx") 0x3ff => _,
                inout("ecx") 0 => _, out("rsi") _);
        }
        value
    };
    cpu::write_port(0x3ff, 0x66_u8);
    // The end of the page falls before, into and behind the instruction.
    for back in 1..=3 {
        equal("a load from a device", call(&LOAD, BASE + 0x1000 - back), id.into())?;
        equal("IN", call(&IN, BASE + 0x1000 - back), 0x66)?;
    }
    for back in 1..=8 {
        equal("CPUID", call(&CPUID, BASE + 0x1000 - back), cpu::cpuid(0, 0)[0].into())?;
    }
    // The next page is not there: only the instruction's bytes count.
    unmap(BASE + 0x1000);
    for (address, byte) in (BASE + 0xffe..).zip([0x8b_u8, 0x07]) {
        poke(address, byte);
    }
    // SAFETY: the load is the last that can be executed; the exception ends it.
    let trap = catch(|| unsafe { asm!("call {}", in(reg) BASE + 0xffe, in("rdi") ecam, out("rax") _) });
    let Some(trap) = trap else { return equal("code that is not there", u64::MAX, 14) };
    equal("vector", trap.frame.vector, 14)?;
    equal("address", trap.frame.rip, BASE + 0x1000)?;
    equal("CR2", trap.cr2, BASE + 0x1000)?;
    equal("what was loaded", trap.frame.rax, id.into())
}

pub fn programs_reach_devices_that_are_mapped_for_them() -> Check {
    let ecam = configuration_space();
    // mov eax, [rdi]
    prepare_user(&[0x48, 0xbf]);
    let mut code = [0x48, 0xbf, 0, 0, 0, 0, 0, 0, 0, 0, 0x8b, 0x07];
    code[2..10].copy_from_slice(&USER_DATA.to_le_bytes());
    prepare_user(&code);
    let run = || {
        catch(|| {
            enter_user(playground::USER_CODE, playground::USER_STACK, 2, USER_CODE, dragonfly_guest_kit::USER_DATA)
        })
    };
    map(USER_DATA, ecam, PRESENT | WRITABLE | USER);
    let Some(trap) = run() else { return equal("a program", u64::MAX, 6) };
    equal("vector", trap.frame.vector, 6)?;
    equal("what a program loads", trap.frame.rax, configuration(0).into())?;
    map(USER_DATA, ecam, PRESENT | WRITABLE);
    let Some(trap) = run() else { return equal("a program", u64::MAX, 14) };
    equal("vector of the kernel's device", trap.frame.vector, 14)?;
    equal("its error code", trap.frame.error, 5)
}
