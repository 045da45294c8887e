//! Vectors: which interrupt has which, and what comes of it.

use dragonfly_memory::Lock;

use super::{KERNEL, X86, apic, io_apic};
use crate::arch::{Arch, Trigger};
use crate::cpu::Cpu;

/// First vector of interrupt lines; line `n` has vector `LINES + n`.
pub const LINES: u8 = 0x30;
/// How many lines there are vectors for.
pub const LINE_COUNT: u32 = (TIMER - LINES) as u32;
/// The local timer.
pub const TIMER: u8 = 0xf0;
/// A kick from another CPU.
pub const KICK: u8 = 0xf1;
/// The local APIC's own errors.
pub const APIC_ERROR: u8 = 0xfe;
/// Interrupts that went away before they were taken (SDM 3A, "Spurious Interrupt"): no end of interrupt.
pub const SPURIOUS: u8 = 0xff;

/// Keeps changes of the I/O APICs apart: each takes two accesses.
static ROUTING: Lock<(), <X86 as Arch>::Relax> = Lock::new(());

/// Does what an interrupt is for.
pub fn dispatch(cpu: &mut Cpu<X86>, vector: u8) {
    match vector {
        SPURIOUS => return,
        TIMER => KERNEL.timer(cpu),
        KICK => KERNEL.kicked(cpu),
        APIC_ERROR => log::warn!("local APIC error {:#x}", apic::take_error()),
        LINES..TIMER => KERNEL.interrupt(cpu, u32::from(vector - LINES)),
        _ => log::warn!("interrupt with unused vector {vector:#x}"),
    }
    apic::end_of_interrupt();
}

/// Routes a line to a CPU.
pub fn connect(line: u32, apic_id: u32, trigger: Trigger) -> bool {
    let _routing = ROUTING.lock();
    let (Ok(offset), Ok(apic_id)) = (u8::try_from(line), u8::try_from(apic_id)) else { return false };
    line < LINE_COUNT && io_apic::route(line, LINES + offset, apic_id, trigger)
}

/// Holds a line back, or lets it come.
pub fn set_masked(line: u32, is_masked: bool) {
    let _routing = ROUTING.lock();
    io_apic::set_masked(line, is_masked);
}
