//! Vectors: which interrupt has which, and what comes of it.

use dragonfly_hw::x86::msi;
use dragonfly_memory::Lock;

use super::{KERNEL, X86, apic, io_apic};
use crate::arch::{Arch, Trigger};
use crate::cpu::Cpu;

/// First vector of lines and messages; number `n` has vector `DEVICES + n` on whichever CPU it goes to.
const DEVICES: u8 = 0x30;
const _: () = assert!(crate::LINES + crate::MESSAGES == (TIMER - DEVICES) as u32);
/// The local timer.
pub const TIMER: u8 = 0xf0;
/// A kick from another CPU.
pub const KICK: u8 = 0xf1;
/// An interrupt was posted to a guest that was thought to run here: the processor sees to it within a guest, and behind
/// one whoever runs the guest next.
pub const POSTED: u8 = 0xf2;
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
        POSTED => {}
        APIC_ERROR => log::warn!("local APIC error {:#x}", apic::take_error()),
        DEVICES..TIMER => KERNEL.interrupt(cpu, u32::from(vector - DEVICES)),
        _ => log::warn!("interrupt with unused vector {vector:#x}"),
    }
    apic::end_of_interrupt();
}

/// Routes a line to a CPU.
pub fn connect(line: u32, apic_id: u32, trigger: Trigger) -> bool {
    let _routing = ROUTING.lock();
    let (Some(vector), Ok(apic_id)) = (vector(line), u8::try_from(apic_id)) else { return false };
    io_apic::route(line, vector, apic_id, trigger)
}

/// What a device writes to interrupt a CPU. Without interrupt remapping, that reaches APIC IDs of 8 bits only.
pub fn message(number: u32, apic_id: u32) -> Option<(u64, u32)> {
    let address = msi::Address::new(u8::try_from(apic_id).ok()?);
    // Fixed delivery, edge-triggered: the data is the vector alone.
    Some((address.bits(), vector(number)?.into()))
}

/// The vector of a line or a message.
fn vector(number: u32) -> Option<u8> {
    u8::try_from(number).ok()?.checked_add(DEVICES).filter(|vector| *vector < TIMER)
}

/// Holds a line back, or lets it come.
pub fn set_masked(line: u32, is_masked: bool) {
    let _routing = ROUTING.lock();
    io_apic::set_masked(line, is_masked);
}
