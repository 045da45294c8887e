//! The log: lines on the first serial port, with time, level and CPU.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};

use dragonfly_memory::Lock;
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::{X86, clock, registers};
use crate::arch::Arch;

/// First serial port.
const COM1: u16 = 0x3f8;
/// Line status register, from the port's base (16550 data sheet).
const LINE_STATUS: u16 = 5;
/// Line status: the transmitter takes a byte.
const TRANSMITTER_EMPTY: u32 = 1 << 5;
/// Line status: everything has been sent.
const TRANSMITTER_IDLE: u32 = 1 << 6;
/// How often the status is read before a byte is given up: a port that is not there must not hang the kernel.
const PATIENCE: u32 = 100_000;

/// Holds lines of several CPUs apart.
static PORT: Lock<(), <X86 as Arch>::Relax> = Lock::new(());
static IS_PRESENT: AtomicBool = AtomicBool::new(false);

/// The log's back end.
struct Serial;

/// Writes to the port, `\n` as `\r\n`.
struct Port;

impl Write for Port {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_bytes(text.as_bytes());
        Ok(())
    }
}

impl Log for Serial {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        let level = match record.level() {
            Level::Error => "error",
            Level::Warn => "warn ",
            Level::Info => "info ",
            Level::Debug => "debug",
            Level::Trace => "trace",
        };
        let _port = PORT.lock();
        let _ = prefix().and_then(|()| writeln!(Port, "{level} {}", record.args()));
    }

    fn flush(&self) {}
}

fn prefix() -> fmt::Result {
    let ns = clock::since_boot_ns();
    write!(Port, "[{:5}.{:06}] ", ns / 1_000_000_000, ns / 1000 % 1_000_000)
}

/// Brings the port up and makes it the log's back end.
pub fn start() {
    // 115200 baud, 8N1, FIFOs on (16550 data sheet, tables "Summary of Registers" and "Baud Rates").
    for (register, value) in [(1, 0), (3, 0x80), (0, 1), (1, 0), (3, 0x03), (2, 0xc7), (4, 0x03)] {
        registers::port_out(COM1 + register, 1, value);
    }
    // The scratch register holds what is written, if there is a port at all.
    registers::port_out(COM1 + 7, 1, 0x5a);
    IS_PRESENT.store(registers::port_in(COM1 + 7, 1) == 0x5a, Ordering::Release);
    if log::set_logger(&Serial).is_ok() {
        log::set_max_level(LevelFilter::Info);
    }
}

/// Sets the level, as the command line says.
pub fn set_level(level: &str) {
    match level.parse() {
        Ok(level) => log::set_max_level(level),
        Err(_) => log::warn!("unknown log level {level:?}: error, warn, info, debug or trace"),
    }
}

/// Writes a domain's text as a line.
pub fn domain_line(text: &[u8]) {
    let _port = PORT.lock();
    let _ = prefix();
    // A domain's text may hold anything; what is not printable could hide what the terminal shows.
    for &byte in text.trim_ascii_end() {
        write_bytes(&[if byte.is_ascii_graphic() || byte == b' ' || byte >= 0x80 { byte } else { b'.' }]);
    }
    write_bytes(b"\n");
}

/// Writes without the lock, for a panic: the CPU that holds it may have been stopped.
pub fn panic_line(arguments: fmt::Arguments) {
    let _ = writeln!(Port, "{arguments}");
}

/// Waits until the port has sent everything.
pub fn drain() {
    for _ in 0..PATIENCE {
        if registers::port_in(COM1 + LINE_STATUS, 1) & TRANSMITTER_IDLE != 0 {
            break;
        }
    }
}

fn write_bytes(bytes: &[u8]) {
    if !IS_PRESENT.load(Ordering::Relaxed) {
        return;
    }
    for &byte in bytes {
        if byte == b'\n' {
            write_byte(b'\r');
        }
        write_byte(byte);
    }
}

fn write_byte(byte: u8) {
    for _ in 0..PATIENCE {
        if registers::port_in(COM1 + LINE_STATUS, 1) & TRANSMITTER_EMPTY != 0 {
            break;
        }
    }
    registers::port_out(COM1, 1, u32::from(byte));
}
