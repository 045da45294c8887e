//! What it takes to make a VM and to get rid of it.

use anyhow::Result;
use dragonfly_guest_bench::{Summary, summary_of_few};
use kvm_ioctls::Kvm;

use crate::{
    machine::{Machine, Start},
    memory::Memory,
    ticks::now,
};

/// VMs made to measure it. Each waits for all CPUs when it goes, so there are not many.
const VMS: usize = 16;
/// `out 0x80, al`, and an address that is free.
const CODE: &[u8] = &[0xe6, 0x80];
const ADDRESS: u16 = 0x1000;

/// What parts of a VM's life take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Life {
    /// From nothing to the first instruction, with the exit that shows it.
    pub create: Summary,
    /// From there to nothing.
    pub destroy: Summary,
}

/// Makes VMs with one vCPU and `memory_size` bytes, one after the other.
///
/// # Errors
/// Fails when a VM cannot be made or run.
pub fn measure(kvm: &Kvm, memory_size: usize) -> Result<Life> {
    let mut lives = Vec::new();
    for _ in 0..VMS {
        let start = now();
        let memory = Memory::new(memory_size)?;
        memory.write(ADDRESS.into(), CODE)?;
        let mut machine = Machine::new(kvm, memory, 1, Start::Real(ADDRESS))?;
        machine.run_to_first_exit()?;
        let running = now();
        drop(machine);
        lives.push([running - start, now() - running]);
    }
    let summary = |part: fn(&[u64; 2]) -> u64| {
        let mut next = lives.iter().map(part);
        summary_of_few::<VMS>(|| next.next().unwrap_or(0))
    };
    Ok(Life { create: summary(|[create, _]| *create), destroy: summary(|[_, destroy]| *destroy) })
}
