//! What is measured, one function each. All are in ticks, and with those of reading the counter (see [`empty`]).

use dragonfly_guest_bench::{Summary, summary, summary_of_few};

use super::{apic, boot, cpu, interrupts};

/// RAM that nothing has touched before [`page_fault`] and [`fresh_page`], half of it for each.
pub const FRESH_START: usize = 16 << 20;
/// Its end: the least RAM that a guest has.
pub const FRESH_END: usize = 64 << 20;
/// Pages of a small guest are as small as this, those of a large one as large as the next.
const PAGE_SIZE: usize = 4 << 10;
const LARGE_PAGE_SIZE: usize = 2 << 20;
/// Large pages for each of the two.
const LARGE_PAGES: usize = (FRESH_END - FRESH_START) / LARGE_PAGE_SIZE / 2;

/// From arming the timer to its deadline while the CPU is busy.
const BUSY_TICKS: u64 = 100_000;
/// The same while it sleeps: longer than hypervisors wait for a wake-up before they let the host's CPU sleep.
const SLEEP_TICKS: u64 = 1_000_000;

/// Nothing: what measuring itself costs.
pub fn empty() -> Summary {
    summary(|| cpu::ticks(|| ()))
}

/// CPUID.
pub fn cpuid() -> Summary {
    summary(|| cpu::ticks(cpu::cpuid))
}

/// A hypercall that the hypervisor's kernel answers.
pub fn hypercall() -> Summary {
    if cpu::is_intel() { summary(|| cpu::ticks(cpu::vmcall)) } else { summary(|| cpu::ticks(cpu::vmmcall)) }
}

/// Reading an MSR that the hypervisor's kernel emulates.
pub fn msr_read() -> Summary {
    summary(|| cpu::ticks(cpu::read_msr))
}

/// Writing to a port that the user-level machine ignores.
pub fn port_write() -> Summary {
    summary(|| cpu::ticks(cpu::write_port))
}

/// Writing to an address that the user-level machine ignores.
pub fn mmio_write() -> Summary {
    summary(|| cpu::ticks(cpu::write_mmio))
}

/// From an interrupt to the own CPU to its handler.
pub fn injection() -> Summary {
    summary(|| {
        interrupts::expect();
        let start = cpu::tsc();
        apic::interrupt_self(interrupts::MEASURED);
        interrupts::arrival().wrapping_sub(start)
    })
}

/// The end of such an interrupt, by an MSR.
pub fn eoi() -> Summary {
    summary(|| {
        interrupts::expect();
        apic::interrupt_self(interrupts::MEASURED);
        interrupts::arrival();
        interrupts::ending()
    })
}

/// Setting the timer's deadline; none where it has no deadlines, as for the next ones.
pub fn timer_set() -> Option<Summary> {
    with_deadlines(|| {
        let deadline = cpu::tsc() + BUSY_TICKS;
        cpu::ticks(|| apic::set_deadline(deadline))
    })
}

/// From the timer's deadline to its handler on a busy CPU.
pub fn timer() -> Option<Summary> {
    lateness(BUSY_TICKS, interrupts::arrival)
}

/// How long a busy CPU stands still for the timer before the handler begins: a hypervisor that is punctual because it
/// stops the guest early and waits shows it here.
pub fn timer_gap() -> Option<Summary> {
    with_deadlines(|| {
        interrupts::expect();
        let mut last = cpu::tsc();
        apic::set_deadline(last + BUSY_TICKS);
        loop {
            let now = cpu::tsc();
            match interrupts::arrived() {
                Some(arrival) => return arrival.wrapping_sub(last),
                None => last = now,
            }
        }
    })
}

/// From the timer's deadline to its handler on a CPU that sleeps.
pub fn hlt_wake() -> Option<Summary> {
    lateness(SLEEP_TICKS, interrupts::arrival_asleep)
}

fn lateness(ticks: u64, arrival: fn() -> u64) -> Option<Summary> {
    with_deadlines(|| {
        interrupts::expect();
        let deadline = cpu::tsc() + ticks;
        apic::set_deadline(deadline);
        // A hypervisor that allows for its own delay may be early.
        arrival().saturating_sub(deadline)
    })
}

fn with_deadlines(measure: impl FnMut() -> u64) -> Option<Summary> {
    cpu::has_tsc_deadline().then(|| {
        apic::use_deadlines(interrupts::MEASURED);
        summary(measure)
    })
}

/// The first write to RAM, far from any other.
pub fn page_fault() -> Summary {
    let mut next = (FRESH_START..).step_by(LARGE_PAGE_SIZE);
    summary_of_few::<LARGE_PAGES>(|| {
        let address = next.next().unwrap_or(FRESH_START);
        cpu::ticks(|| cpu::touch(address))
    })
}

/// The first write to each page of RAM in turn, per page: dear and rare or cheap and frequent, it is the same work.
pub fn fresh_page() -> Summary {
    const START: usize = FRESH_START + LARGE_PAGES * LARGE_PAGE_SIZE;
    let mut next = (START..).step_by(LARGE_PAGE_SIZE);
    summary_of_few::<LARGE_PAGES>(|| {
        let start = next.next().unwrap_or(START);
        let pages = (start..start + LARGE_PAGE_SIZE).step_by(PAGE_SIZE);
        cpu::ticks(|| pages.for_each(cpu::touch)) / (LARGE_PAGE_SIZE / PAGE_SIZE) as u64
    })
}

/// From an interrupt to the other CPU to the handler of the one it answers with; none where there is no other.
pub fn ipi_round_trip() -> Option<Summary> {
    boot::start_second_cpu().then(|| {
        summary(|| {
            interrupts::expect();
            let start = cpu::tsc();
            apic::interrupt(apic::SECOND, interrupts::PING);
            interrupts::arrival().wrapping_sub(start)
        })
    })
}
