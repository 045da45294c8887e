//! Interrupts that came.

use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};

use super::block::{Block, this};
use super::{apic, cpu, smp, time};

/// Vector of non-maskable interrupts.
pub const NMI: u8 = 2;

pub(super) fn arrived(block: &Block, vector: u8) {
    let count = &block.counts[usize::from(vector)];
    count.store(count.load(Relaxed).wrapping_add(1), Release);
    if vector == smp::WAKE || vector == smp::DONE {
        apic::end();
        return;
    }
    let logged = block.logged.load(Relaxed);
    block.log[logged % block.log.len()].store(vector, Relaxed);
    block.logged.store(logged + 1, Release);
    if block.ends_itself.load(Relaxed) && (vector != apic::SPURIOUS || apic::is_in_service(vector)) {
        apic::end();
    }
}

pub(super) fn arrived_unmaskable(block: &Block) {
    let count = &block.counts[usize::from(NMI)];
    count.store(count.load(Relaxed).wrapping_add(1), Release);
}

/// How often a vector has come to this CPU since [`forget`].
pub fn count(vector: u8) -> u32 {
    this().counts[usize::from(vector)].load(Acquire)
}

/// How often a vector has come to that CPU.
pub fn count_of(cpu: usize, vector: u8) -> u32 {
    super::block::BLOCKS[cpu % smp::MAX_CPUS].counts[usize::from(vector)].load(Acquire)
}

/// The interrupts that have come to this CPU since [`forget`], in their order.
pub fn log(into: &mut [u8]) -> &[u8] {
    let block = this();
    let logged = block.logged.load(Acquire).min(into.len());
    for (to, from) in into.iter_mut().zip(&block.log) {
        *to = from.load(Relaxed);
    }
    &into[..logged]
}

/// Forgets what came to this CPU.
pub fn forget() {
    let block = this();
    block.logged.store(0, Relaxed);
    for count in &block.counts {
        count.store(0, Relaxed);
    }
}

/// Whether handlers of this CPU end their interrupts.
pub fn end_by_themselves(do_so: bool) {
    this().ends_itself.store(do_so, Relaxed);
}

/// Lets come what is pending.
pub fn window() {
    cpu::allow_interrupts();
    // The instruction after STI is not interrupted.
    core::hint::spin_loop();
    core::hint::spin_loop();
    cpu::forbid_interrupts();
}

/// Waits with interrupts allowed until `vector` has come `times` times, for a second at most. Whether it has.
pub fn wait_for(vector: u8, times: u32) -> bool {
    cpu::allow_interrupts();
    let has_come = time::wait_until(1000, || count(vector) >= times);
    cpu::forbid_interrupts();
    has_come
}
