//! `kvm-peer GUEST VCPUS`: measures what a VM costs, then runs the PVH guest in the file GUEST on so many vCPUs.
#![expect(unsafe_code, reason = "the time stamp counter is read")]

use std::{arch::x86_64::_rdtsc, env, fs};

use anyhow::{Context, Result};
use dragonfly_guest_bench::{Summary, summary_of_few};
use dragonfly_peer_kvm::{
    image,
    machine::{Machine, Start},
    memory::Memory,
};
use kvm_ioctls::Kvm;

/// Memory of each guest, in bytes: the least that one has.
const MEMORY: usize = 64 << 20;
/// VMs made to measure it. Each waits for all CPUs when it goes, so there are not many.
const VMS: usize = 16;

fn main() -> Result<()> {
    let usage = "usage: kvm-peer GUEST VCPUS";
    let [guest, vcpus] = env::args().skip(1).collect::<Vec<_>>().try_into().ok().context(usage)?;
    let vcpus = vcpus.parse().context(usage)?;
    let guest = fs::read(&guest).with_context(|| format!("cannot read {guest}"))?;
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let [create, destroy] = life_of_a_vm(&kvm)?;
    let memory = Memory::new(MEMORY)?;
    let entry = image::load(&guest, &memory)?;
    // A serial port that writes while the guest measures would interrupt it.
    let mut output = Vec::new();
    let result = Machine::new(&kvm, memory, vcpus, Start::Protected32(entry))?.run(&mut output);
    println!("[bench] vm_create {create}");
    println!("[bench] vm_destroy {destroy}");
    print!("{}", String::from_utf8_lossy(&output));
    result
}

/// What it takes to get a VM to its first instruction, and to get rid of it.
fn life_of_a_vm(kvm: &Kvm) -> Result<[Summary; 2]> {
    /// `out 0x80, al` at the first address that is free.
    const CODE: &[u8] = &[0xe6, 0x80];
    const ADDRESS: u16 = 0x1000;
    let mut lives = Vec::new();
    for _ in 0..VMS {
        let start = now();
        let memory = Memory::new(MEMORY)?;
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
    Ok([summary(|[create, _]| *create), summary(|[_, destroy]| *destroy)])
}

fn now() -> u64 {
    // SAFETY: each processor that has KVM has a time stamp counter.
    unsafe { _rdtsc() }
}
