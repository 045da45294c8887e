//! The guest on its machine.
#![expect(unsafe_code, reason = "instructions, tables and addresses are what a guest is made of")]

pub mod acpi;
pub mod apic;
mod arguments;
mod block;
mod boot;
pub mod cpu;
pub mod interrupts;
pub mod playground;
mod report;
mod serial;
pub mod smp;
pub mod time;
mod trap;
pub mod virtio;

pub use arguments::{argument, memory_end, number_argument, rsdp_address};
pub use block::{
    CODE_16, CODE_32, CODE_64, DATA, DATA_16, SPARE, TSS, USER_CODE, USER_CODE_32, USER_DATA, descriptor,
    set_descriptor, set_tss_limit, this_cpu,
};
pub use report::{Check, Failure, Report, ensure, equal};
pub use serial::{Com1, put_serial_in_order};
pub use trap::{Frame, Trap, catch, enter_user, faults, run_user, set_gate_present, set_gate_stack, set_hook, set_idt};

/// Switches the machine off, or resets it if the command line has `end=reset`.
pub fn finish() -> ! {
    match argument("end") {
        // Reset control register: CPU and system (the value that the FADT names).
        Some("reset") => cpu::write_port(0xcf9, 6_u8),
        Some("keyboard") => cpu::write_port(0x64, 0xfe_u8),
        // PM1a control register: SLP_TYP 5, SLP_EN (ACPI 4.8.3.2.1).
        _ => cpu::write_port(0x604, 5_u16 << 10 | 1 << 13),
    }
    loop {
        cpu::halt();
    }
}

#[panic_handler]
fn panic(info: &core::panic::PanicInfo<'_>) -> ! {
    put_serial_in_order();
    crate::print!("[check] fail panic: {info}\n");
    finish()
}
