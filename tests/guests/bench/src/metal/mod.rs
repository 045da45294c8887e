//! The guest on its machine.
//!
//! It takes what every hypervisor here gives: RAM from 0 to 64 MiB at least, local APICs with x2APIC mode, a 16550 at
//! COM1 that is always ready, and the power-off register. It reads no tables.

mod apic;
mod boot;
mod cpu;
mod interrupts;
mod measure;
mod serial;

use core::{fmt::Write, panic::PanicInfo};

/// Measures everything, then says what it measured, so that writing disturbs nothing.
extern "C" fn run() -> ! {
    interrupts::install();
    apic::enable();
    x86_64::instructions::interrupts::enable();
    let figures = [
        ("empty", Some(measure::empty())),
        ("cpuid", Some(measure::cpuid())),
        ("hypercall", Some(measure::hypercall())),
        ("msr_read", Some(measure::msr_read())),
        ("port_write", Some(measure::port_write())),
        ("mmio_write", Some(measure::mmio_write())),
        ("injection", Some(measure::injection())),
        ("eoi", Some(measure::eoi())),
        ("timer_set", measure::timer_set()),
        ("timer", measure::timer()),
        ("timer_gap", measure::timer_gap()),
        ("hlt_wake", measure::hlt_wake()),
        ("page_fault", Some(measure::page_fault())),
        ("fresh_page", Some(measure::fresh_page())),
        ("ipi_round_trip", measure::ipi_round_trip()),
    ];
    let mut serial = serial::Com1;
    for (name, figure) in figures {
        // Writing to COM1 cannot fail.
        let _ = match figure {
            Some(summary) => writeln!(serial, "[bench] {name} {summary}"),
            None => writeln!(serial, "{name}: not on this machine"),
        };
    }
    let _ = writeln!(serial, "[bench] end");
    cpu::power_off()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    let _ = writeln!(serial::Com1, "guest-bench: {info}");
    cpu::power_off()
}
