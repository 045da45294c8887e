//! What is on the board: tables, configuration space, the clock, hypercalls.

use dragonfly_guest_kit::cpu::{self, peek, poke, read_port, write_port};
use dragonfly_guest_kit::interrupts::{forget, wait_for};
use dragonfly_guest_kit::{Check, USER_CODE, acpi, ensure, equal, run_user, smp, time};

use super::mmio::IO_APIC;

/// What an unknown hypercall gives, and one of a program (Linux, `include/uapi/linux/kvm_para.h`).
const NO_CALL: u64 = (-1000_i64).cast_unsigned();
const NOT_PERMITTED: u64 = (-1_i64).cast_unsigned();
const SEND_IPI: u64 = 10;
/// The feature that says so.
const SENDS_INTERRUPTS: u32 = 1 << 11;

pub fn acpi_tables() -> Check {
    acpi::check_root()?;
    let mut names = 0;
    for table in acpi::tables() {
        equal("sum of a table", table.sum().into(), 0)?;
        names += 1;
    }
    ensure("tables", names >= 4)?;
    let Some(fadt) = acpi::find(b"FACP") else { return ensure("FADT", false) };
    let dsdt: u64 = match fadt.length() {
        148.. => match fadt.field::<u64>(140) {
            0 => fadt.field::<u32>(40).into(),
            address => address,
        },
        _ => fadt.field::<u32>(40).into(),
    };
    let dsdt = acpi::at(dsdt);
    ensure("DSDT", dsdt.signature() == *b"DSDT")?;
    equal("sum of the DSDT", dsdt.sum().into(), 0)?;
    equal("PM timer in the FADT", fadt.field::<u32>(76).into(), 0x608)?;
    let Some(madt) = acpi::find(b"APIC") else { return ensure("MADT", false) };
    equal("local APICs' address", madt.field::<u32>(36).into(), 0xfee0_0000)?;
    let mut offset = 44;
    let mut io_apic = 0;
    while offset + 8 <= madt.length() {
        if madt.field::<u8>(offset) == 1 {
            io_apic = madt.field::<u32>(offset + 4).into();
        }
        offset += u64::from(madt.field::<u8>(offset + 1).max(2));
    }
    equal("I/O APIC's address", io_apic, IO_APIC)?;
    ensure("MCFG", acpi::find(b"MCFG").is_some())
}

fn both_ways_are_the_same() -> Check {
    let ecam = super::mmio::configuration_space();
    for register in (0..256_u32).step_by(4) {
        write_port(0xcf8, 0x8000_0000 | register);
        let by_port: u32 = read_port(0xcfc);
        equal("ports and memory", peek::<u32>(ecam + u64::from(register)).into(), by_port.into())?;
    }
    Ok(())
}

pub fn configuration_space() -> Check {
    both_ways_are_the_same()?;
    let ecam = super::mmio::configuration_space();
    equal("class of the host bridge", (peek::<u32>(ecam + 8) >> 16).into(), 0x0600)?;
    equal("a function that is not there", peek::<u32>(ecam + (19 << 15)).into(), 0xffff_ffff)?;
    write_port(0xcf8, 0x8000_0000_u32 | 19 << 11);
    equal("by ports", read_port::<u32>(0xcfc).into(), 0xffff_ffff)?;
    poke(ecam, 0_u32);
    ensure("its identification is read-only", peek::<u32>(ecam) != 0)?;
    write_port(0xcf8, 0_u32);
    equal("by ports, switched off", read_port::<u32>(0xcfc).into(), 0xffff_ffff)
}

fn clock(register: u8) -> u8 {
    write_port(0x70, register);
    read_port(0x71)
}

pub fn the_clock_of_the_board() -> Check {
    ensure("it is valid", clock(0xd) & 0x80 != 0)?;
    equal("24 hours, BCD", (clock(0xb) & 6).into(), 2)?;
    let is_bcd = |value: u8| value & 0xf < 10 && value >> 4 < 10;
    let fields = [(0, 0x59), (2, 0x59), (4, 0x23), (7, 0x31), (8, 0x12), (9, 0x99)];
    for (register, most) in fields {
        ensure("a part of the time", is_bcd(clock(register)) && clock(register) <= most)?;
    }
    ensure("century", clock(0x32) == 0x20)?;
    let second = || while clock(0xa) & 0x80 != 0 {};
    second();
    let start = clock(0);
    ensure("a second passes", time::wait_until(3000, || clock(0) != start))?;
    let (first, at) = (clock(0), cpu::tsc());
    ensure("another one", time::wait_until(3000, || clock(0) != first))?;
    let passed = cpu::tsc().wrapping_sub(at) / time::ticks_per_ms();
    ensure("it takes a second", (700..=1300).contains(&passed))?;
    // Memory behind the clock.
    write_port(0x70, 0x40_u8);
    write_port(0x71, 0xa5_u8);
    equal("a byte of its memory", clock(0x40).into(), 0xa5)
}

pub fn hypercalls() -> Check {
    equal("an unknown hypercall", cpu::hypercall(99, [0; 4]), NO_CALL)?;
    equal("a very unknown hypercall", cpu::hypercall(0x1234_5678, [0; 4]), NO_CALL)?;
    // mov eax, 99; vmmcall or vmcall
    let last = if cpu::is_intel() { 0xc1 } else { 0xd9 };
    let Some(trap) = run_user(&[0xb8, 99, 0, 0, 0, 0x0f, 0x01, last], USER_CODE, 0) else {
        return equal("a program's hypercall", u64::MAX, 6);
    };
    equal("vector behind a program's hypercall", trap.frame.vector, 6)?;
    equal("a program's hypercall", trap.frame.rax, NOT_PERMITTED)?;
    if cpu::cpuid(0x4000_0001, 0)[0] & SENDS_INTERRUPTS == 0 {
        return equal(
            "interrupts by a hypercall that is not offered",
            cpu::hypercall(SEND_IPI, [1, 0, 0, 0x66]),
            NO_CALL,
        );
    }
    forget();
    equal("an interrupt to this CPU", cpu::hypercall(SEND_IPI, [1, 0, 0, 0x66]), 1)?;
    ensure("it comes", wait_for(0x66, 1))?;
    equal("one to nobody", cpu::hypercall(SEND_IPI, [0, 0, 0, 0x66]), 0)?;
    if smp::cpus() > 1 && (smp::is_up(1) || smp::start(1)) {
        let before = dragonfly_guest_kit::interrupts::count_of(1, 0x67);
        equal("an interrupt to another CPU", cpu::hypercall(SEND_IPI, [2, 0, 0, 0x67]), 1)?;
        let has_come = || dragonfly_guest_kit::interrupts::count_of(1, 0x67) != before;
        ensure("it comes there", time::wait_until(1000, has_come))?;
    }
    Ok(())
}
