//! Page tables, faults and what they say.

use core::arch::asm;

use dragonfly_guest_kit::playground::{
    self, ACCESSED, BASE, DIRTY, LARGE, NO_EXECUTE, PRESENT, SCRATCH, USER, WRITABLE, entry, map, unmap,
};
use dragonfly_guest_kit::{Check, USER_CODE, catch, cpu, ensure, equal, faults, run_user};
use dragonfly_hw::x86::msr::{Efer, IA32_EFER};

const PAGE: u64 = BASE;
const NEXT: u64 = BASE + 0x1000;
const WRITE_PROTECT: u64 = 1 << 16;

fn read(address: u64) -> impl FnMut() {
    move || {
        let _: u8 = cpu::peek(address);
    }
}

fn write(address: u64) -> impl FnMut() {
    move || cpu::poke(address, 0_u8)
}

/// Whether an access faults with this code and this address.
fn page_fault<T>(what: &'static str, error: u64, address: u64, access: impl FnMut() -> T) -> Check {
    let Some(trap) = catch(access) else { return equal(what, u64::MAX, 14) };
    equal(what, trap.frame.vector, 14)?;
    equal(what, trap.frame.error, error)?;
    equal(what, trap.cr2, address)
}

pub fn page_faults_say_why() -> Check {
    unmap(PAGE);
    page_fault("read of nothing", 0, PAGE + 5, read(PAGE + 5))?;
    page_fault("write to nothing", 2, PAGE + 6, write(PAGE + 6))?;
    map(PAGE, SCRATCH, PRESENT);
    page_fault("write to a read-only page", 3, PAGE + 7, write(PAGE + 7))?;
    map(PAGE, SCRATCH, PRESENT | 1 << 51);
    // Whether such an entry counts as present is what processors and emulators do not agree on.
    let error = catch(read(PAGE)).map_or(0, |trap| trap.frame.error);
    equal("reserved bit", error & !1, 8)?;
    map(PAGE, SCRATCH, PRESENT | WRITABLE);
    unmap(NEXT);
    page_fault("read across the end of a page", 0, NEXT, || {
        let _: u64 = cpu::peek(NEXT - 3);
    })?;
    cpu::poke(PAGE, 0xc3_u8);
    cpu::write_msr(IA32_EFER, cpu::read_msr(IA32_EFER) | Efer::NXE.bits());
    map(PAGE, SCRATCH, PRESENT | WRITABLE | NO_EXECUTE);
    // SAFETY: the page holds a RET; it cannot be executed.
    page_fault("execution of data", 0x11, PAGE, || unsafe { asm!("call {}", in(reg) PAGE) })?;
    map(PAGE, SCRATCH, PRESENT | WRITABLE);
    // SAFETY: as above, now it can.
    unsafe { asm!("call {}", in(reg) PAGE) };
    // mov al, [BASE]
    let mut code = [0xa0, 0, 0, 0, 0, 0, 0, 0, 0];
    code[1..].copy_from_slice(&PAGE.to_le_bytes());
    let program = |what, code: &[u8], error| {
        let Some(trap) = run_user(code, USER_CODE, 0) else { return equal(what, u64::MAX, 14) };
        equal(what, trap.frame.vector, 14)?;
        equal(what, trap.frame.error, error)?;
        equal(what, trap.cr2, PAGE)
    };
    program("a program's read of the kernel's", &code, 5)?;
    unmap(PAGE);
    program("a program's read of nothing", &code, 4)?;
    code[0] = 0xa2;
    program("a program's write to nothing", &code, 6)?;
    map(PAGE, SCRATCH, PRESENT | USER);
    program("a program's write to a read-only page", &code, 7)
}

pub fn accesses_are_noted() -> Check {
    map(PAGE, SCRATCH, PRESENT | WRITABLE);
    equal("bits before", entry(PAGE) & (ACCESSED | DIRTY), 0)?;
    read(PAGE)();
    equal("bits after a read", entry(PAGE) & (ACCESSED | DIRTY), ACCESSED)?;
    write(PAGE)();
    equal("bits after a write", entry(PAGE) & (ACCESSED | DIRTY), ACCESSED | DIRTY)?;
    // A device sets them, too.
    map(PAGE, super::mmio::IO_APIC, PRESENT | WRITABLE | 1 << 4);
    let _: u32 = cpu::peek(PAGE);
    equal("bits after a read from a device", entry(PAGE) & (ACCESSED | DIRTY), ACCESSED)?;
    cpu::poke(PAGE, 0_u32);
    equal("bits after a write to a device", entry(PAGE) & (ACCESSED | DIRTY), ACCESSED | DIRTY)
}

pub fn write_protection_is_switchable() -> Check {
    map(PAGE, SCRATCH, PRESENT);
    let cr0 = cpu::cr0();
    cpu::set_cr0(cr0 & !WRITE_PROTECT);
    let trap = catch(write(PAGE));
    cpu::set_cr0(cr0);
    ensure("a write to a read-only page without protection", trap.is_none())?;
    faults("with protection", 14, 3, write(PAGE))
}

pub fn large_pages_translate() -> Check {
    // Pages of 4 KiB, 2 MiB and 1 GiB have the same RAM.
    map(PAGE, SCRATCH + 0x3000, PRESENT | WRITABLE);
    cpu::poke(SCRATCH + 0x3008, 0x1234_5678_u32);
    equal("4 KiB", cpu::peek::<u32>(PAGE + 8).into(), 0x1234_5678)?;
    let second = playground::directory_address() + 8;
    cpu::poke(second, SCRATCH | PRESENT | WRITABLE | LARGE);
    let address = BASE + (2 << 20) + 0x3008;
    cpu::flush(address);
    equal("2 MiB", cpu::peek::<u32>(address).into(), 0x1234_5678)?;
    // Split: the same by a table of pages, of which one is elsewhere.
    cpu::poke(second, cpu::peek::<u64>(playground::directory_address()));
    cpu::flush(address);
    equal("a large page that was split", cpu::peek::<u32>(BASE + (2 << 20) + 8).into(), 0x1234_5678)?;
    cpu::poke(second, 0_u64);
    cpu::flush(BASE + (2 << 20) + 8);
    faults("a large page that was taken away", 14, 0, read(BASE + (2 << 20) + 8))?;
    if cpu::cpuid(0x8000_0001, 0)[3] & 1 << 26 != 0 {
        let gigabyte = playground::directories_address() + 8;
        cpu::poke(gigabyte, PRESENT | WRITABLE | LARGE);
        let address = BASE + (1 << 30) + SCRATCH + 0x3008;
        cpu::flush(address);
        let seen = cpu::peek::<u32>(address);
        cpu::poke(gigabyte, 0_u64);
        cpu::flush(address);
        equal("1 GiB", seen.into(), 0x1234_5678)?;
    }
    Ok(())
}

pub fn supervisor_protection() -> Check {
    const EXECUTION: u64 = 1 << 20;
    const ACCESS: u64 = 1 << 21;
    let features = cpu::cpuid(7, 0)[1];
    let cr4 = cpu::cr4();
    map(PAGE, SCRATCH, PRESENT | WRITABLE | USER);
    cpu::poke(PAGE, 0xc3_u8);
    if features & 1 << 7 != 0 {
        cpu::set_cr4(cr4 | EXECUTION);
        // SAFETY: the page holds a RET; a program's page cannot be executed.
        let result =
            page_fault("execution of a program's page", 0x11, PAGE, || unsafe { asm!("call {}", in(reg) PAGE) });
        cpu::set_cr4(cr4);
        result?;
    }
    if features & 1 << 20 != 0 {
        cpu::set_cr4(cr4 | ACCESS);
        let result = page_fault("access to a program's page", 1, PAGE, read(PAGE));
        // SAFETY: sets and clears a flag.
        unsafe { asm!("stac") };
        let allowed = catch(read(PAGE));
        // SAFETY: as above.
        unsafe { asm!("clac") };
        cpu::set_cr4(cr4);
        result?;
        ensure("access that is allowed", allowed.is_none())?;
    }
    Ok(())
}
