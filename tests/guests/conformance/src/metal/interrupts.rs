//! Interrupts of one CPU: priorities, shadows, commands, NMIs.

use core::arch::asm;
use core::sync::atomic::{AtomicU32, Ordering::Relaxed};

use dragonfly_guest_kit::interrupts::{NMI, count, end_by_themselves, forget, log, window};
use dragonfly_guest_kit::{Check, Frame, apic, cpu, ensure, equal, faults, set_hook, time};
use dragonfly_hw::x86::apic::{
    DELIVERY_LOWEST, EOI, ESR, ICR_ASSERT, ICR_NMI, ICR_SELF, ID, IRR, ISR, LDR, PPR, SELF_IPI, SVR, TMR, TPR, VERSION,
    icr_fixed, vector_register, x2apic_msr,
};

/// Whether a vector's bit is set in ISR, IRR or TMR.
pub fn bit(set: u32, vector: u8) -> bool {
    apic::read(set + vector_register(vector)) >> (vector & 31) & 1 != 0
}

/// Compares the vectors that have come.
fn came(what: &'static str, wanted: &[u8]) -> Check {
    let mut buffer = [0; 16];
    let seen = log(&mut buffer);
    equal(what, seen.len() as u64, wanted.len() as u64)?;
    seen.iter().zip(wanted).try_for_each(|(seen, wanted)| equal(what, (*seen).into(), (*wanted).into()))
}

pub fn the_highest_comes_first() -> Check {
    forget();
    for vector in [0x41, 0x83, 0x60, 0x62, 0x20, 0xdf] {
        apic::interrupt_self(vector);
        ensure("request", bit(IRR, vector))?;
    }
    came("while they are forbidden", &[])?;
    window();
    came("order", &[0xdf, 0x83, 0x62, 0x60, 0x41, 0x20])?;
    ensure("none left", !bit(IRR, 0x20) && !bit(ISR, 0x20))
}

pub fn what_is_in_service_holds_back_lower_ones() -> Check {
    forget();
    end_by_themselves(false);
    let result = (|| {
        apic::interrupt_self(0x52);
        window();
        came("first", &[0x52])?;
        ensure("in service", bit(ISR, 0x52) && !bit(IRR, 0x52))?;
        equal("priority", apic::read(PPR), 0x50)?;
        apic::interrupt_self(0x5f);
        apic::interrupt_self(0x31);
        window();
        came("the same class and a lower one", &[0x52])?;
        ensure("requested", bit(IRR, 0x5f) && bit(IRR, 0x31))?;
        apic::interrupt_self(0x60);
        window();
        came("a higher class", &[0x52, 0x60])?;
        equal("priority", apic::read(PPR), 0x60)?;
        apic::end();
        ensure("the higher one's end", !bit(ISR, 0x60) && bit(ISR, 0x52))?;
        window();
        came("the first is still in service", &[0x52, 0x60])?;
        apic::end();
        window();
        came("after its end", &[0x52, 0x60, 0x5f])?;
        apic::end();
        window();
        came("after all", &[0x52, 0x60, 0x5f, 0x31])?;
        apic::end();
        equal("priority", apic::read(PPR), 0)?;
        // An end without an interrupt does nothing.
        apic::end();
        ensure("trigger mode of edges", !bit(TMR, 0x52))
    })();
    (0..8).for_each(|_| apic::end());
    end_by_themselves(true);
    result
}

pub fn the_task_priority_holds_back() -> Check {
    forget();
    cpu::set_cr8(6);
    equal("TPR after CR8", apic::read(TPR), 0x60)?;
    equal("PPR after CR8", apic::read(PPR), 0x60)?;
    apic::write(TPR, 0x75);
    equal("CR8 after TPR", cpu::cr8(), 7)?;
    equal("TPR", apic::read(TPR), 0x75)?;
    for vector in [0x65, 0x7f, 0x81] {
        apic::interrupt_self(vector);
    }
    window();
    came("above it", &[0x81])?;
    // Lowered by TPR: QEMU ends itself by an assertion if CR8 of a virtual machine sinks below what waits.
    apic::write(TPR, 0x60);
    window();
    came("after it sank", &[0x81, 0x7f])?;
    apic::write(TPR, 0);
    window();
    came("after it is gone", &[0x81, 0x7f, 0x65])?;
    cpu::set_cr8(15);
    apic::interrupt_self(0xf5);
    window();
    came("nothing is above the highest", &[0x81, 0x7f, 0x65])?;
    apic::write(TPR, 0);
    window();
    came("last", &[0x81, 0x7f, 0x65, 0xf5])
}

pub fn shadows_hold_back_for_one_instruction() -> Check {
    forget();
    apic::interrupt_self(0x40);
    // SAFETY: the interrupt's handler keeps all registers.
    unsafe { asm!("sti", "cli") };
    equal("between STI and CLI", count(0x40).into(), 0)?;
    // SAFETY: as above.
    unsafe { asm!("sti", "nop", "cli") };
    equal("behind one instruction", count(0x40).into(), 1)?;
    apic::interrupt_self(0x40);
    // SAFETY: as above; CPUID leaves the guest in the shadow of STI.
    unsafe {
        asm!("mov {0}, rbx", "sti", "cpuid", "cli", "mov rbx, {0}", out(reg) _, inout("eax") 0 => _, out("ecx") _, out("edx") _)
    };
    equal("behind CPUID", count(0x40).into(), 2)?;
    Ok(())
}

pub fn an_interrupt_ends_a_halt() -> Check {
    forget();
    for round in 1..=20 {
        apic::interrupt_self(0x44);
        cpu::sleep();
        equal("interrupts", count(0x44).into(), round)?;
    }
    Ok(())
}

pub fn commands_to_this_cpu() -> Check {
    forget();
    let id = apic::read(ID) as u32;
    apic::command(icr_fixed(0x71), id);
    apic::command(icr_fixed(0x72) | ICR_SELF, 99);
    apic::command(DELIVERY_LOWEST | ICR_ASSERT | 0x73, id);
    // Logical: cluster and bit of this CPU.
    apic::command(icr_fixed(0x74) | 1 << 11, apic::read(LDR) as u32);
    window();
    came("commands", &[0x74, 0x73, 0x72, 0x71])?;
    apic::command(icr_fixed(0x75), 200);
    window();
    equal("to nobody", count(0x75).into(), 0)?;
    apic::write(ESR, 0);
    apic::command(icr_fixed(5) | ICR_SELF, 0);
    apic::write(ESR, 0);
    ensure("error of a vector below 16", apic::read(ESR) & 1 << 5 != 0)?;
    apic::write(ESR, 0);
    apic::interrupt_self(5);
    apic::write(ESR, 0);
    ensure("error of one to this CPU by SELF_IPI", apic::read(ESR) & 1 << 5 != 0)?;
    apic::write(ESR, 0);
    equal("errors after that", apic::read(ESR), 0)
}

pub fn registers_refuse_what_they_do_not_have() -> Check {
    let read = |register| move || cpu::read_msr(register);
    faults("read of EOI", 13, 0, read(x2apic_msr(EOI)))?;
    faults("read of SELF_IPI", 13, 0, read(x2apic_msr(SELF_IPI)))?;
    faults("read of DFR", 13, 0, read(0x80e))?;
    faults("read of the upper ICR", 13, 0, read(0x831))?;
    faults("read of no register", 13, 0, read(0x8ff))?;
    faults("write of ID", 13, 0, || apic::write(ID, 0))?;
    faults("write of VERSION", 13, 0, || apic::write(VERSION, 0))?;
    faults("write of PPR", 13, 0, || apic::write(PPR, 0))?;
    faults("write of ISR", 13, 0, || apic::write(ISR, 0))?;
    faults("EOI of 1", 13, 0, || apic::write(EOI, 1))?;
    faults("TPR of 256", 13, 0, || apic::write(TPR, 256))?;
    faults("SELF_IPI of 256", 13, 0, || apic::write(SELF_IPI, 256))?;
    faults("SVR with a reserved bit", 13, 0, || apic::write(SVR, 1 << 31))?;
    faults("ESR of 1", 13, 0, || apic::write(ESR, 1))?;
    faults("APIC base back to xAPIC mode", 13, 0, || cpu::write_msr(0x1b, cpu::read_msr(0x1b) & !(1 << 10)))?;
    equal("version", apic::read(VERSION) & 0xf0, 0x10)
}

static DEPTH: AtomicU32 = AtomicU32::new(0);
static DEEPEST: AtomicU32 = AtomicU32::new(0);
static SENT: AtomicU32 = AtomicU32::new(0);
static SEEN: AtomicU32 = AtomicU32::new(0);

/// Counts NMIs, and sends two more at the first, of which one can wait.
fn nested(frame: &mut Frame) -> bool {
    if frame.vector != u64::from(NMI) {
        return false;
    }
    SEEN.fetch_add(1, Relaxed);
    let depth = DEPTH.fetch_add(1, Relaxed) + 1;
    DEEPEST.fetch_max(depth, Relaxed);
    if SENT.fetch_add(1, Relaxed) == 0 {
        let id = apic::read(ID) as u32;
        apic::command(ICR_NMI, id);
        apic::command(ICR_NMI, id);
        // Time for them to come, and exits.
        for _ in 0..4 {
            cpu::cpuid(0, 0);
        }
    }
    DEPTH.fetch_sub(1, Relaxed);
    true
}

pub fn an_nmi_is_blocked_until_iret() -> Check {
    [&DEPTH, &DEEPEST, &SENT, &SEEN].iter().for_each(|number| number.store(0, Relaxed));
    set_hook(Some(nested));
    apic::command(ICR_NMI, apic::read(ID) as u32);
    let seen = time::wait_until(100, || SEEN.load(Relaxed) >= 2);
    time::wait_until(2, || false);
    set_hook(None);
    ensure("the NMI that waited", seen)?;
    equal("NMIs", SEEN.load(Relaxed).into(), 2)?;
    equal("at once", DEEPEST.load(Relaxed).into(), 1)?;
    forget();
    // Interrupts are forbidden, which means nothing to an NMI.
    apic::command(ICR_NMI, apic::read(ID) as u32);
    ensure("an NMI while interrupts are forbidden", time::wait_until(100, || count(NMI) == 1))
}
