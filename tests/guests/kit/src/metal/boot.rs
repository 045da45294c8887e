//! From the loader's hands to Rust, on all CPUs.

use core::arch::global_asm;
use core::sync::atomic::Ordering::Release;

use super::{apic, block, cpu, finish, smp, time, trap};

global_asm!(
    include_str!("long_mode.s"),
    include_str!("boot.s"),
    first = sym first,
    other = sym other,
    blocks = sym block::BLOCKS
);

unsafe extern "Rust" {
    /// The guest's program, on the first CPU, with interrupts forbidden.
    safe fn guest_main();
}

extern "C" fn first() -> ! {
    // On a machine with a PC's firmware the 8259s send what no handler here is for.
    cpu::write_port(0x21, 0xff_u8);
    cpu::write_port(0xa1, 0xff_u8);
    block::load();
    trap::build();
    trap::load();
    apic::enable();
    time::calibrate();
    block::this().is_up.store(true, Release);
    guest_main();
    finish()
}

extern "C" fn other() -> ! {
    block::load();
    trap::load();
    apic::enable();
    smp::serve()
}
