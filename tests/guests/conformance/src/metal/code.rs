//! Code that changes.

use core::arch::asm;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use dragonfly_guest_kit::cpu::poke;
use dragonfly_guest_kit::playground::{BASE, PRESENT, SCRATCH, WRITABLE, map};
use dragonfly_guest_kit::{Check, cpu, ensure, equal, smp, time};

/// mov eax, NUMBER; ret
fn write_function(address: u64, number: u32) {
    poke(address, 0xb8_u8);
    poke(address + 1, number);
    poke(address + 5, 0xc3_u8);
}

fn call(address: u64) -> u64 {
    let value: u64;
    // SAFETY: a function as above is there.
    unsafe { asm!("call {}", in(reg) address, out("rax") value) };
    value
}

pub fn code_that_changes_itself() -> Check {
    map(BASE, SCRATCH, PRESENT | WRITABLE);
    map(BASE + 0x1000, SCRATCH, PRESENT | WRITABLE);
    map(BASE + 0x2000, SCRATCH + 0x6000, PRESENT | WRITABLE);
    for number in 1..50 {
        write_function(BASE, number);
        equal("code by its own address", call(BASE), number.into())?;
        write_function(BASE + 0x1000, number + 100);
        equal("code by another address", call(BASE), u64::from(number) + 100)?;
    }
    write_function(BASE, 1);
    write_function(BASE + 0x2000, 2);
    equal("the first page", call(BASE), 1)?;
    map(BASE, SCRATCH + 0x6000, PRESENT | WRITABLE);
    equal("another page at its address", call(BASE), 2)?;
    let value: u64;
    // SAFETY: the instruction after the store is overwritten by it: INC instead of DEC.
    unsafe {
        asm!("lea {0}, [rip + 2f]", "mov byte ptr [{0} + 1], 0xc0", "jmp 2f", "2: .byte 0xff, 0xc8",
            "mov byte ptr [{0} + 1], 0xc8", out(reg) _, inout("rax") 5_u64 => value);
    }
    equal("the very next instruction", value, 6)
}

static NUMBER: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

pub fn code_that_another_cpu_changes() -> Check {
    map(BASE, SCRATCH, PRESENT | WRITABLE);
    write_function(BASE, 0);
    NUMBER.store(0, SeqCst);
    SEEN.store(0, SeqCst);
    if !smp::is_up(1) {
        ensure("the other CPU starts", smp::start(1))?;
    }
    smp::give(
        1,
        |_| {
            for number in 1..20 {
                while NUMBER.load(SeqCst) < number {
                    core::hint::spin_loop();
                }
                cpu::cpuid(0, 0);
                SEEN.store(number << 32 | call(BASE), SeqCst);
            }
        },
        0,
    );
    for number in 1..20 {
        write_function(BASE, number as u32 * 3);
        NUMBER.store(number, SeqCst);
        ensure("the other CPU answers", time::wait_until(4000, || SEEN.load(SeqCst) >> 32 == number))?;
        equal("what it executes", SEEN.load(SeqCst) & 0xffff_ffff, number * 3)?;
    }
    ensure("the other CPU ends", smp::wait(1, 4000))
}
