//! The attacker's life.
#![expect(unsafe_code, reason = "attacks are made of instructions")]

mod attacks;
mod driver;
mod honest;
mod interrupts;
mod memory;
mod registers;
mod virtio;

use core::arch::asm;
use core::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use dragonfly_guest_kit::{
    Random, apic, argument, catch, cpu, finish, interrupts as arrivals, number_argument, print, put_serial_in_order,
    set_idt, smp, this_cpu, time,
};
use virtio::Function;

/// Attacks in a row before the CPU is put in order.
const ROW: u64 = 64;
/// How long a CPU may take to come back before it is started anew.
const PATIENCE_MS: u64 = 20_000;
/// Whether CPUs send each other NMIs. If not they break their descriptor tables: an NMI then would be this guest's end.
static HAS_NMIS: AtomicBool = AtomicBool::new(false);
static EXCEPTIONS: AtomicU64 = AtomicU64::new(0);
static STEPS: AtomicU64 = AtomicU64::new(0);

#[expect(unsafe_code, reason = "the kit calls the program by its name")]
#[unsafe(no_mangle)]
fn guest_main() {
    let (steps, seed) = (number_argument("steps", 10_000), number_argument("seed", 1));
    if let seconds @ 1.. = number_argument("driver", 0) {
        lie(seconds, seed);
    }
    print!("[hostile] start: {steps} steps, seed {seed}\n");
    HAS_NMIS.store(seed.is_multiple_of(2), Relaxed);
    let cpus = smp::cpus();
    let each = steps / cpus as u64;
    for number in 1..cpus {
        if smp::start(number) {
            smp::give(number, attack, each << 32 | (seed + number as u64));
        }
    }
    attack(each << 32 | seed);
    put_in_order();
    // Those that another one's INIT has stopped have no part in the rest.
    for number in 1..cpus {
        if !smp::wait(number, PATIENCE_MS) {
            print!("[hostile] CPU {number} does not answer\n");
        }
    }
    put_serial_in_order();
    print!("\n[hostile] end: {} steps, {} exceptions\n", STEPS.load(Relaxed), EXCEPTIONS.load(Relaxed));
    end()
}

/// Attacks a disk and a network for so many seconds; then finds out whether they are in order.
fn lie(seconds: u64, seed: u64) -> ! {
    print!("[hostile] start: {seconds} s, seed {seed}\n");
    let functions = [1, 2].map(Function::new);
    let mut random = Random::new(seed);
    let end = cpu::tsc() + seconds * 1000 * time::ticks_per_ms();
    let mut steps = 0;
    while cpu::tsc() < end {
        if steps % ROW == 0 {
            functions.iter().for_each(Function::restore);
            put_in_order();
        }
        driver::step(&functions, &mut random);
        steps += 1;
    }
    put_in_order();
    print!("[hostile] {steps} steps\n");
    let (disk, network) = (honest::disk(&functions[0]), honest::network(&functions[1]));
    print!("[hostile] end: disk {disk}, network {network}\n");
    finish()
}

/// So many attacks (upper half) from a seed (lower half).
fn attack(what: u64) {
    let mut random = Random::new(what & 0xffff_ffff);
    for step in 0..what >> 32 {
        if step % ROW == 0 {
            put_in_order();
        }
        if catch(|| attacks::one(&mut random)).is_some() {
            EXCEPTIONS.fetch_add(1, Relaxed);
        }
        STEPS.fetch_add(1, Relaxed);
    }
    put_in_order();
}

/// Makes this CPU such that it can go on: its interrupts, its control registers.
fn put_in_order() {
    cpu::forbid_interrupts();
    cpu::set_dr7(0x400);
    set_idt(None);
    memory::restore();
    let _ = catch(apic::enable);
    let _ = catch(interrupts::stop_timer);
    let _ = catch(apic::end_all);
    arrivals::window();
    arrivals::forget();
}

fn end() -> ! {
    debug_assert_eq!(this_cpu(), 0);
    match argument("end") {
        Some("fault") => {
            set_idt(Some((0, 0)));
            // SAFETY: the end is what is asked for.
            unsafe { asm!("ud2") };
        }
        Some("tables") => cpu::set_cr3(0xff_ffff_f000),
        Some("reserved") => {
            let _ = catch(|| cpu::set_cr4(cpu::cr4() | 1 << 63));
            cpu::cpuid(0, 0);
        }
        // SAFETY: as above.
        Some("device") => unsafe { asm!("jmp {}", in(reg) 0xfec0_0000_u64) },
        _ => {}
    }
    finish()
}
