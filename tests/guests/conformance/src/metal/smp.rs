//! Several CPUs.

use core::arch::asm;
use core::hint::spin_loop;
use core::sync::atomic::{AtomicU64, Ordering::SeqCst};

use dragonfly_guest_kit::interrupts::{NMI, count, count_of, forget, wait_for, window};
use dragonfly_guest_kit::smp::{cpus, give, is_up, start, start_all, wait};
use dragonfly_guest_kit::time::{ticks_per_ms, wait_until};
use dragonfly_guest_kit::{Check, apic, cpu, ensure, equal, this_cpu};
use dragonfly_hw::x86::apic::{
    DELIVERY_LOWEST, ICR_ALL, ICR_ALL_BUT_SELF, ICR_ASSERT, ICR_INIT, ICR_NMI, ID, LDR, LVT_TIMER, Lvt, TIMER_DIVIDE,
    TIMER_DIVIDE_1, TIMER_INITIAL_COUNT, icr_fixed, icr_startup,
};

pub fn each_cpu_starts() -> Check {
    for number in 1..cpus() {
        if !start(number) {
            return equal("a CPU that does not start", number as u64, 0);
        }
        // A second start-up message means nothing to a CPU that runs.
        apic::command(icr_startup(dragonfly_guest_kit::smp::START_PAGE), number as u32);
        ensure("a CPU works", on(number, |_| RESULT.store(apic::read(ID), SeqCst)))?;
        equal("its number", RESULT.load(SeqCst), number as u64)?;
    }
    Ok(())
}

static RESULT: AtomicU64 = AtomicU64::new(0);
static SUM: AtomicU64 = AtomicU64::new(0);

fn on(number: usize, work: fn(u64)) -> bool {
    give(number, work, 0);
    wait(number, 4000)
}

pub fn all_start_by_one_message() -> Check {
    ensure("all start", start_all())?;
    for number in 1..cpus() {
        ensure("a CPU works", on(number, |_| RESULT.store(this_cpu() as u64, SeqCst)))?;
        equal("its number", RESULT.load(SeqCst), number as u64)?;
    }
    Ok(())
}

fn all_up() -> Check {
    (1..cpus()).try_for_each(|number| ensure("a CPU starts", is_up(number) || start(number)))
}

fn others_have(vector: u8, times: u32) -> bool {
    wait_until(2000, || (1..cpus()).all(|number| count_of(number, vector) == times))
}

pub fn interrupts_reach_whom_they_name() -> Check {
    all_up()?;
    (1..cpus()).try_for_each(|number| ensure("a CPU forgets", on(number, |_| forget())))?;
    forget();
    for number in 1..cpus() {
        apic::command(icr_fixed(0x91), number as u32);
    }
    ensure("one to each", others_have(0x91, 1))?;
    apic::command(icr_fixed(0x92) | ICR_ALL_BUT_SELF, 0);
    ensure("to all but this", others_have(0x92, 1))?;
    window();
    equal("not to this", count(0x92).into(), 0)?;
    apic::command(icr_fixed(0x93) | ICR_ALL, 0);
    ensure("to all", others_have(0x93, 1))?;
    ensure("and this", wait_for(0x93, 1))?;
    apic::command(icr_fixed(0x94), u32::MAX);
    ensure("to the destination of all", others_have(0x94, 1))?;
    ensure("and this", wait_for(0x94, 1))?;
    // Logical: the cluster's first two CPUs.
    apic::command(icr_fixed(0x95) | 1 << 11, 0b11);
    ensure("a logical destination", wait_for(0x95, 1) && wait_until(2000, || count_of(1, 0x95) == 1))?;
    equal("not to others", (2..cpus()).map(|number| u64::from(count_of(number, 0x95))).sum(), 0)?;
    equal("logical ID", apic::read(LDR), 1)?;
    // One of them.
    apic::command(DELIVERY_LOWEST | ICR_ASSERT | 0x96 | 1 << 11, 0b11);
    let all = || (0..cpus()).map(|number| u64::from(count_of(number, 0x96))).sum::<u64>();
    cpu::allow_interrupts();
    let has_come = wait_until(2000, || all() > 0);
    wait_until(2, || false);
    cpu::forbid_interrupts();
    ensure("lowest priority", has_come)?;
    equal("only one", all(), 1)?;
    // A storm, to and fro.
    for round in 1..=100 {
        apic::command(icr_fixed(0x97) | ICR_ALL_BUT_SELF, 0);
        ensure("each of a storm", others_have(0x97, round))?;
    }
    Ok(())
}

pub fn nmis_reach_others() -> Check {
    all_up()?;
    for round in 0..10 {
        let before = count_of(1, NMI);
        apic::command(ICR_NMI, 1);
        if !wait_until(2000, || count_of(1, NMI) != before) {
            return equal("an NMI to another CPU", round, 10);
        }
    }
    (1..cpus()).try_for_each(|number| ensure("a CPU forgets", on(number, |_| forget())))?;
    forget();
    apic::command(ICR_NMI | ICR_ALL_BUT_SELF, 0);
    ensure("NMIs to all others", others_have(NMI, 1))?;
    equal("not to this", count(NMI).into(), 0)
}

pub fn all_cpus_answer_alike() -> Check {
    all_up()?;
    SUM.store(0, SeqCst);
    let sum = |_| {
        let mut sum = 0_u64;
        for leaf in [0, 1, 6, 7, 0xd, 0x4000_0000, 0x4000_0001, 0x8000_0000, 0x8000_0001, 0x8000_0008] {
            let [eax, mut ebx, ecx, edx] = cpu::cpuid(leaf, 0);
            if leaf == 1 {
                ebx &= 0xff_ffff;
            }
            for word in [eax, ebx, ecx, edx] {
                sum = sum.wrapping_mul(31).wrapping_add(word.into());
            }
        }
        SUM.store(sum, SeqCst);
    };
    sum(0);
    let first = SUM.load(SeqCst);
    for number in 1..cpus() {
        ensure("a CPU works", on(number, sum))?;
        equal("CPUID there", SUM.load(SeqCst), first)?;
    }
    Ok(())
}

static COUNTER: AtomicU64 = AtomicU64::new(0);
static UNLOCKED_BITS: AtomicU64 = AtomicU64::new(0);

pub fn locked_instructions_are_indivisible() -> Check {
    const TIMES: u64 = 20_000;
    all_up()?;
    COUNTER.store(0, SeqCst);
    UNLOCKED_BITS.store(0, SeqCst);
    let count = |number: u64| {
        for _ in 0..TIMES {
            COUNTER.fetch_add(1, SeqCst);
        }
        UNLOCKED_BITS.fetch_or(1 << number, SeqCst);
    };
    (1..cpus()).for_each(|number| give(number, count, number as u64));
    count(0);
    (1..cpus()).try_for_each(|number| ensure("a CPU ends", wait(number, 8000)))?;
    equal("increments", COUNTER.load(SeqCst), TIMES * cpus() as u64)?;
    equal("bits", UNLOCKED_BITS.load(SeqCst), (1 << cpus()) - 1)
}

pub fn who_waits_in_a_loop_leaves_others_their_timers() -> Check {
    const PATIENCE_MS: u64 = 2000;
    all_up()?;
    COUNTER.store(0, SeqCst);
    let sleep = |_| COUNTER.store(1 + u64::from(sleep_for_a_timer()), SeqCst);
    give(1, sleep, 0);
    // Nothing of this leaves the CPU's own registers and memory, and interrupts are forbidden: where both virtual CPUs
    // share one, the host gets it by the loop's exits alone.
    let last = cpu::tsc() + PATIENCE_MS * ticks_per_ms();
    while COUNTER.load(SeqCst) == 0 && cpu::tsc() < last {
        spin_loop();
    }
    let seen = COUNTER.load(SeqCst);
    ensure("a CPU ends", wait(1, 4000))?;
    equal("its timer has come", seen, 2)
}

/// Halts until this CPU's timer interrupts it. False if that does not come.
fn sleep_for_a_timer() -> bool {
    const VECTOR: u8 = 0x99;
    const COUNTS: u64 = 20_000_000;
    forget();
    apic::write(TIMER_DIVIDE, TIMER_DIVIDE_1.into());
    apic::write(LVT_TIMER, VECTOR.into());
    apic::write(TIMER_INITIAL_COUNT, COUNTS);
    cpu::sleep();
    let has_come = wait_for(VECTOR, 1);
    apic::write(LVT_TIMER, u64::from(Lvt::MASKED.bits()));
    has_come
}

pub fn init_stops_a_cpu_until_it_is_started() -> Check {
    all_up()?;
    COUNTER.store(0, SeqCst);
    // Work that never ends, with interrupts forbidden: INIT ends it all the same.
    give(
        1,
        |_| loop {
            COUNTER.fetch_add(1, SeqCst);
        },
        0,
    );
    ensure("it works", wait_until(2000, || COUNTER.load(SeqCst) > 100))?;
    apic::command(ICR_INIT, 1);
    // The emulator may have put that CPU aside for a while.
    let has_stopped = wait_until(2000, || {
        let before = COUNTER.load(SeqCst);
        wait_until(20, || false);
        COUNTER.load(SeqCst) == before
    });
    ensure("it is stopped", has_stopped)?;
    let stopped = COUNTER.load(SeqCst);
    // Interrupts do not start it, nor do NMIs.
    apic::command(icr_fixed(0x98), 1);
    wait_until(5, || false);
    equal("an interrupt does not start it", COUNTER.load(SeqCst), stopped)?;
    ensure("it starts again", start(1))?;
    ensure(
        "it works again",
        on(1, |_| {
            let control: u64;
            // SAFETY: reads a register.
            unsafe { asm!("mov {}, cr0", out(reg) control) };
            RESULT.store(control, SeqCst);
        }),
    )?;
    equal("CR0 there", RESULT.load(SeqCst), cpu::cr0())
}
