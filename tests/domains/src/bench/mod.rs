//! Measures the kernel's fast paths, for `cargo xtask bench ipc`, and the life of virtual machines, for
//! `cargo xtask bench exits`.
//!
//! Where the emulator counts instructions, a tick of the time-stamp counter is an instruction, and figures repeat
//! exactly. Each figure is the least of several hundred runs, without what reading the counter costs.

use dragonfly_rt::{cpus, println, supervisor};

use crate::check::{Failure, Outcome};
use crate::light;
use crate::machine::tsc;

mod ipc;
mod memory;
mod objects;
mod vm;

/// Name of this program in the bundle.
const PROGRAM: &str = "bench-ipc";

/// Runs before those that count: caches, tables and pools fill.
const WARM_UP: u64 = 50;

/// Runs that count.
const RUNS: u64 = 500;

/// The entry of the program that measures the kernel's fast paths.
pub fn run() {
    finish(measure_all());
}

/// The entry of the program that makes virtual machines.
pub fn run_vm() {
    finish(measure_vm());
}

fn finish(result: Outcome) {
    let exit_code = match result {
        Ok(()) => 0,
        Err(failure) => {
            println!("the measurement failed: {failure}");
            1
        }
    };
    println!("[bench] end");
    let _ = supervisor::finish(exit_code);
}

fn measure_all() -> Outcome {
    light::set_program(light::load(&light::find_program(PROGRAM)?)?);
    print("null_syscall", ipc::null_system_call()?);
    print("one_way_same_cpu", ipc::round_trip(0, 0)?.div_ceil(2));
    print("round_trip_same_cpu", ipc::round_trip(0, 0)?);
    print("round_trip_bulk_4k", ipc::round_trip(0, dragonfly_abi::MESSAGE_DATA_SIZE)?);
    if cpus() > 1 {
        print("round_trip_cross_cpu", ipc::round_trip(1, 0)?);
    }
    print("notification_wake", ipc::notification_wake()?);
    print("thread_switch", ipc::thread_switch()?);
    print("page_fault", memory::page_fault()?);
    print("demand_page_fault", memory::demand_page_fault()?);
    print("map_unmap_4k", memory::map_and_unmap(4096)?);
    print("map_unmap_2m", memory::map_and_unmap(2 << 20)?);
    print("domain_create_destroy", objects::domain()?);
    print("thread_create_destroy", objects::thread()?);
    Ok(())
}

fn measure_vm() -> Outcome {
    let vm::Life { create, destroy } = vm::life()?;
    print("vm_create", create);
    print("vm_destroy", destroy);
    Ok(())
}

fn print(name: &str, value: u64) {
    println!("[bench] {name} {value}");
}

/// The least that a step takes, in ticks.
///
/// # Errors
/// What the step gives, and a failure if time stands still.
#[inline(always)]
fn least(step: impl FnMut() -> Outcome) -> Outcome<u64> {
    least_of(step, |()| Ok(()))
}

/// The same for a step whose result is checked, which does not count.
///
/// # Errors
/// What the step or the check gives, and a failure if time stands still.
#[inline(always)]
fn least_of<T>(mut step: impl FnMut() -> Outcome<T>, check: impl Fn(T) -> Outcome) -> Outcome<u64> {
    let (mut best, mut nothing) = (u64::MAX, u64::MAX);
    for round in 0..WARM_UP + RUNS {
        let start = tsc();
        let result = step()?;
        let ticks = tsc().wrapping_sub(start);
        let start = tsc();
        let empty = tsc().wrapping_sub(start);
        check(result)?;
        if round >= WARM_UP {
            best = best.min(ticks);
            nothing = nothing.min(empty);
        }
    }
    let stands_still = || Failure::new("the time-stamp counter stands still");
    best.checked_sub(nothing).filter(|ticks| *ticks > 0).ok_or_else(stands_still)
}
