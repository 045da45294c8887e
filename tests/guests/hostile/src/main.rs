//! A PVH guest that attacks its hypervisor: random exits, registers, ports, device memory, tables, interrupts, on all its
//! vCPUs. What it does follows from its seed. It ends by itself; everybody else has to live on.
//!
//! | word of the command line | meaning |
//! | --- | --- |
//! | `steps=N` | how many attacks, on all vCPUs together; 10000 |
//! | `seed=S` | 1 |
//! | `driver=T` | attacks the machine's disk and then its network as a driver that lies, for T seconds; then an honest driver uses both |
//! | `end=fault`, `tables`, `reserved`, `device` | the last attack, which no guest survives: a triple fault, page tables that are none, a reserved bit of CR4, code in a device; else it switches itself off |
#![cfg_attr(target_os = "none", no_std, no_main)]

#[cfg(target_os = "none")]
mod metal;

#[cfg(not(target_os = "none"))]
fn main() {
    eprintln!("guest-hostile runs on a machine of its own: build it for x86_64-unknown-none");
}
