//! The I/O APIC, with the serial port as a source of interrupts.

use dragonfly_guest_kit::cpu::{peek, poke, read_port, write_port};
use dragonfly_guest_kit::interrupts::{count, end_by_themselves, forget, wait_for, window};
use dragonfly_guest_kit::{Check, apic, ensure, equal, smp};
use dragonfly_hw::x86::apic::{IRR, ISR, TMR};
use dragonfly_hw::x86::ioapic::{IOAPICID, IOAPICVER, IOREGSEL, IOWIN, ioredtbl};

use super::interrupts::bit;
use super::mmio::IO_APIC;

const PIN: u8 = 4;
const VECTOR: u8 = 0x55;
// Low half of an entry.
const LEVEL: u32 = 1 << 15;
const REMOTE_IRR: u32 = 1 << 14;
const MASKED: u32 = 1 << 16;

/// Interrupt enable and identification register of the serial port.
const INTERRUPT_ENABLE: u16 = 0x3f9;
const INTERRUPT_IDENTIFICATION: u16 = 0x3fa;
const MODEM_CONTROL: u16 = 0x3fc;
/// Its output to the interrupt line is connected.
const OUT2: u8 = 1 << 3;
const TRANSMITTER_EMPTY: u8 = 1 << 1;

fn read(register: u32) -> u32 {
    poke(IO_APIC + IOREGSEL, register);
    peek(IO_APIC + IOWIN)
}

fn write(register: u32, value: u32) {
    poke(IO_APIC + IOREGSEL, register);
    poke(IO_APIC + IOWIN, value);
}

fn low() -> u32 {
    read(ioredtbl(PIN))
}

fn set_low(value: u32) {
    write(ioredtbl(PIN), value);
}

/// Asserts the serial port's line: it says that its transmitter is empty.
fn assert_line() {
    write_port(INTERRUPT_ENABLE, TRANSMITTER_EMPTY);
}

/// Reading the identification is what clears it.
fn clear_line() {
    let _: u8 = read_port(INTERRUPT_IDENTIFICATION);
    write_port(INTERRUPT_ENABLE, 0_u8);
}

pub fn registers() -> Check {
    equal("pins", (read(IOAPICVER) >> 16 & 0xff).into(), 23)?;
    equal("ID's reserved bits", (read(IOAPICID) & 0x00ff_ffff).into(), 0)?;
    for pin in 0..24 {
        let entry = ioredtbl(pin);
        write(entry + 1, 0x0300_0000);
        write(entry, MASKED | LEVEL | 0x2000 | 0x1a5);
        equal("low half", (read(entry) & !REMOTE_IRR).into(), u64::from(MASKED | LEVEL | 0x2000 | 0x1a5))?;
        equal("high half", (read(entry + 1) >> 24).into(), 3)?;
        write(entry, MASKED);
        write(entry + 1, 0);
    }
    write(IOAPICVER, 0);
    equal("version after a write", (read(IOAPICVER) >> 16 & 0xff).into(), 23)?;
    equal("no register", read(0x80).into(), 0)
}

fn with_serial_line(check: impl FnOnce() -> Check) -> Check {
    let modem: u8 = read_port(MODEM_CONTROL);
    write_port(MODEM_CONTROL, modem | OUT2);
    clear_line();
    write(ioredtbl(PIN) + 1, 0);
    forget();
    let result = check();
    clear_line();
    set_low(MASKED);
    (0..4).for_each(|_| apic::end());
    write_port(MODEM_CONTROL, modem);
    end_by_themselves(true);
    result
}

pub fn edges() -> Check {
    with_serial_line(|| {
        set_low(VECTOR.into());
        for round in 1..=3 {
            assert_line();
            ensure("an edge", wait_for(VECTOR, round))?;
            window();
            equal("one interrupt for an edge", count(VECTOR).into(), round.into())?;
            clear_line();
        }
        ensure("trigger mode", !bit(TMR, VECTOR))?;
        // An edge on a masked pin is lost.
        set_low(u32::from(VECTOR) | MASKED);
        assert_line();
        clear_line();
        set_low(VECTOR.into());
        window();
        equal("a masked edge", count(VECTOR).into(), 3)
    })
}

pub fn levels() -> Check {
    with_serial_line(|| {
        end_by_themselves(false);
        set_low(u32::from(VECTOR) | LEVEL);
        assert_line();
        ensure("an asserted line", wait_for(VECTOR, 1))?;
        ensure("in service, level-triggered", bit(ISR, VECTOR) && bit(TMR, VECTOR))?;
        ensure("the entry waits for its end", low() & REMOTE_IRR != 0)?;
        window();
        ensure("nothing more before its end", count(VECTOR) == 1 && !bit(IRR, VECTOR))?;
        apic::end();
        ensure("again, as the line is still asserted", wait_for(VECTOR, 2))?;
        clear_line();
        apic::end();
        window();
        equal("none after the line is clear", count(VECTOR).into(), 2)?;
        ensure("the entry waits no more", low() & REMOTE_IRR == 0)?;
        // A masked level comes when it is unmasked.
        set_low(u32::from(VECTOR) | LEVEL | MASKED);
        assert_line();
        window();
        equal("a masked level", count(VECTOR).into(), 2)?;
        set_low(u32::from(VECTOR) | LEVEL);
        ensure("a level that was unmasked", wait_for(VECTOR, 3))?;
        clear_line();
        apic::end();
        window();
        if smp::cpus() > 1 && (smp::is_up(1) || smp::start(1)) {
            write(ioredtbl(PIN) + 1, 1 << 24);
            let before = dragonfly_guest_kit::interrupts::count_of(1, VECTOR);
            assert_line();
            let to_other = || dragonfly_guest_kit::interrupts::count_of(1, VECTOR) > before;
            let has_come = dragonfly_guest_kit::time::wait_until(1000, to_other);
            clear_line();
            write(ioredtbl(PIN) + 1, 0);
            ensure("a level for another CPU", has_come)?;
        }
        Ok(())
    })
}
