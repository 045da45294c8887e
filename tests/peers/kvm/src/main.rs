//! `kvm-peer exits GUEST VCPUS`: measures what a VM costs, then runs the PVH guest in the file GUEST on so many vCPUs.
//!
//! `kvm-peer count FILE PROGRAM [ARGUMENT]...`: prints what PROGRAM, which runs a guest, prints before `[bench] end`, and
//! the exits that KVM has counted in FILE by then.
//!
//! `kvm-peer start MARKER PROGRAM [ARGUMENT]...`: measures the time from starting PROGRAM to a line that holds MARKER.

use std::{env, fs, process::Command};

use anyhow::{Context, Result, bail};
use dragonfly_peer_kvm::{
    image, life,
    machine::{Machine, Start},
    memory::Memory,
    start,
};
use kvm_ioctls::Kvm;

/// Memory of each guest, in bytes: the least that one has.
const MEMORY: usize = 64 << 20;

/// The guest's last line.
const END: &str = "[bench] end";

fn main() -> Result<()> {
    let arguments: Vec<_> = env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["exits", guest, vcpus] => exits(guest, vcpus.parse().context("VCPUS is not a number")?),
        ["start", marker, program, arguments @ ..] => {
            let ticks = start::measure(Command::new(program).args(arguments), marker)?;
            println!("[bench] guest_start {ticks} {ticks}");
            Ok(())
        }
        ["count", file, program, arguments @ ..] => count(file, Command::new(program).args(arguments)),
        _ => bail!(
            "usage: kvm-peer exits GUEST VCPUS | kvm-peer count FILE PROGRAM [ARGUMENT]... | \
             kvm-peer start MARKER PROGRAM [ARGUMENT]..."
        ),
    }
}

fn count(file: &str, command: &mut Command) -> Result<()> {
    // The counters go with the guest.
    let (lines, exits) = start::run_until(command, END, |lines| (lines.to_vec(), fs::read_to_string(file)))?;
    let exits = exits.with_context(|| format!("cannot read {file}"))?;
    println!("{}\n[bench] exits {} 0\n{END}", lines.join("\n"), exits.trim_end());
    Ok(())
}

fn exits(guest: &str, vcpus: u32) -> Result<()> {
    let guest = fs::read(guest).with_context(|| format!("cannot read {guest}"))?;
    let kvm = Kvm::new().context("cannot open /dev/kvm")?;
    let life = life::measure(&kvm, MEMORY)?;
    let memory = Memory::new(MEMORY)?;
    let entry = image::load(&guest, &memory)?;
    // A serial port that writes while the guest measures would interrupt it.
    let mut output = Vec::new();
    let result = Machine::new(&kvm, memory, vcpus, Start::Protected32(entry))?.run(&mut output);
    println!("[bench] vm_create {}", life.create);
    println!("[bench] vm_destroy {}", life.destroy);
    print!("{}", String::from_utf8_lossy(&output));
    result
}
