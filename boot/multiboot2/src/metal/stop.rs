//! The end of a boot that failed: one line for the user, then the emulator stops, or the CPU does.

use core::fmt::{Display, Write};
use core::sync::atomic::{AtomicU8, Ordering};

use dragonfly_handoff::CommandLine;
use x86_64::instructions::{hlt, interrupts, port::Port};

use super::console::{Screen, Serial};

/// Exit code of a loader's error, for the tools that started the emulator.
const EXIT_CODE: u32 = 0x7f;

const NONE: u8 = 0;
const QEMU: u8 = 1;
const BOCHS: u8 = 2;

/// How the emulator is stopped. Atomic only to be a static: one CPU runs.
static EXIT: AtomicU8 = AtomicU8::new(NONE);

/// Learns from `exit=` on the command line what emulator there is to stop.
pub fn choose_exit(command_line: CommandLine<'_>) {
    let exit = match command_line.value("exit") {
        Some("qemu") => QEMU,
        Some("bochs") => BOCHS,
        _ => NONE,
    };
    EXIT.store(exit, Ordering::Relaxed);
}

/// Shows the error on the serial line and on a text screen, and stops.
pub fn with_error(error: &dyn Display) -> ! {
    // Writing to either cannot fail, and there would be nowhere to say so.
    let _ = writeln!(Screen::new(), "loader: {error}");
    if let Some(mut serial) = Serial::new() {
        let _ = writeln!(serial, "loader: {error}\ndragonfly: exit {EXIT_CODE}");
        serial.flush();
    }
    match EXIT.load(Ordering::Relaxed) {
        // SAFETY: the user says that this is QEMU, where the port is isa-debug-exit's.
        QEMU => unsafe { Port::new(0xf4).write(EXIT_CODE) },
        BOCHS => {
            for byte in b"Shutdown" {
                // SAFETY: the user says that this is Bochs, where the port takes this word.
                unsafe { Port::new(0x8900).write(*byte) };
            }
        }
        _ => {}
    }
    interrupts::disable();
    loop {
        hlt();
    }
}
