//! The record of stolen time as guests of KVM know it (Linux, `Documentation/virt/kvm/x86/msr.rst`,
//! `MSR_KVM_STEAL_TIME`): nanoseconds in word 0; a version in the lower half of word 1, odd while the record is written; in
//! the lowest byte of word 2 what the vCPU's CPU is about.

use core::sync::atomic::{AtomicU64, Ordering};

use dragonfly_abi::guest::RECORD_WORDS;

/// The vCPU has no CPU.
const PREEMPTED: u64 = 1 << 0;
/// Other vCPUs want its TLB flushed before it goes on.
const FLUSH_TLB: u64 = 1 << 1;
/// The byte of both.
const STATE: u64 = 0xff;

pub fn tell_away(record: &[AtomicU64; RECORD_WORDS]) {
    record[2].fetch_or(PREEMPTED, Ordering::Release);
}

/// Whether the TLB is to be flushed.
pub fn tell_back(record: &[AtomicU64; RECORD_WORDS], stolen_ns: u64) -> bool {
    // Acquire: page tables that were changed before the flag was set are seen after the flush. From here on others send
    // interrupts again.
    let state = record[2].fetch_and(!STATE, Ordering::AcqRel);
    if stolen_ns > 0 {
        // Only this CPU writes; the guest reads again what it has read under an odd or another version.
        let version = record[1].load(Ordering::Relaxed);
        let next = |version: u64| version & !0xffff_ffff | u64::from((version as u32).wrapping_add(1));
        record[1].store(next(version), Ordering::Relaxed);
        let stolen = record[0].load(Ordering::Relaxed).wrapping_add(stolen_ns);
        record[0].store(stolen, Ordering::Release);
        record[1].store(next(next(version)), Ordering::Release);
    }
    state & FLUSH_TLB != 0
}
