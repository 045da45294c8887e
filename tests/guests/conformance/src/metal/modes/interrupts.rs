//! Software and hardware interrupts, NMIs and halts.

use dragonfly_guest_kit::time::ticks_per_ms;
use dragonfly_guest_kit::{Check, apic, cpu, ensure, equal};
use dragonfly_hw::x86::apic::{
    ICR_LOW, ICR_NMI, ID, LVT_TIMER, Lvt, SELF_IPI, TIMER_DIVIDE, TIMER_DIVIDE_1, TIMER_INITIAL_COUNT, x2apic_msr,
};

use super::code::code;
use super::layout::COUNT;
use super::mode::Mode;
use super::switch::Registers;

/// A vector whose handler counts, and one whose handler ends the code.
const COUNTED: u8 = 0x21;
const ENDING: u8 = 0x55;
const INTERRUPT_FLAG: u64 = 1 << 9;
/// What the timer counts until it ends a halt: longer than the way there takes.
const HALT_COUNTS: u64 = 2_000_000;

pub fn check(mode: &Mode) -> Check {
    let none = Registers::default();
    let code = code!("int 0x20", "int 0x20", "mov eax, 5");
    let after = mode.finish("INT and IRET", &code, none)?;
    equal("interrupts by INT", after.count, 2)?;
    equal("what comes behind INT", after.rax, 5)?;
    let after = mode.fault("INT to another handler", 0x30, 0, &code!("nop", "int 0x30"), none)?;
    equal("behind INT", after.at, 3)?;

    apic::interrupt_self(COUNTED);
    let code = code!("mov eax, 5", "sti", "nop", "nop", "cli");
    let after = mode.finish("an interrupt", &code, none)?;
    equal("interrupts that came", after.count, 1)?;
    equal("what an interrupt leaves alone", after.rax, 5)?;
    apic::interrupt_self(COUNTED);
    let after = mode.finish("the shadow of STI", &code!("sti", "cli"), none)?;
    equal("interrupts in the shadow of STI", after.count, 0)?;
    let after = mode.finish("behind the shadow", &code!("sti", "nop", "cli"), none)?;
    equal("interrupts behind the shadow", after.count, 1)?;
    apic::interrupt_self(ENDING);
    let after = mode.fault("an interrupt that ends the code", ENDING.into(), 0, &code!("sti", "nop", "nop"), none)?;
    equal("where it came", after.at, 2)?;
    equal("the interrupt flag", after.flags & INTERRUPT_FLAG, INTERRUPT_FLAG)?;
    // In a loop that nothing else ends.
    arm();
    let code = code!("sti", "4: cmp dword ptr [ebx], 0", "je 4b", "cli");
    let after = mode.finish("a loop until an interrupt", &code, Registers { ebx: mode.at(COUNT), ..none })?;
    equal("interrupts in a loop", after.count, 1)?;

    if mode.is_privileged() { privileged(mode) } else { Ok(()) }
}

/// Lets the timer interrupt once.
fn arm() {
    apic::write(TIMER_DIVIDE, TIMER_DIVIDE_1.into());
    apic::write(LVT_TIMER, COUNTED.into());
    apic::write(TIMER_INITIAL_COUNT, HALT_COUNTS);
}

fn privileged(mode: &Mode) -> Check {
    let none = Registers::default();
    let start = Registers { ecx: x2apic_msr(SELF_IPI), eax: COUNTED.into(), ..none };
    let after = mode.finish("a message to itself", &code!("wrmsr", "sti", "nop", "nop", "cli"), start)?;
    equal("messages that came", after.count, 1)?;
    let start = Registers { eax: COUNTED.into(), ..start };
    let after = mode.finish("a halt that is over at once", &code!("wrmsr", "sti", "hlt", "cli"), start)?;
    equal("interrupts that end a halt at once", after.count, 1)?;

    let start = cpu::tsc();
    arm();
    let after = mode.finish("a halt", &code!("sti", "hlt", "cli"), none)?;
    let ticks = cpu::tsc() - start;
    apic::write(LVT_TIMER, u64::from(Lvt::MASKED.bits()));
    equal("interrupts that end a halt", after.count, 1)?;
    // The timer counts at 1 GHz; a hundredth for the measure of the time-stamp counter.
    ensure("a halt that lasts", ticks >= HALT_COUNTS * ticks_per_ms() / 1_010_000)?;

    let start = Registers { ecx: x2apic_msr(ICR_LOW), eax: ICR_NMI, edx: apic::read(ID) as u32, ..none };
    for _ in 0..2 {
        mode.fault("an NMI", 2, 0, &code!("wrmsr", "nop", "nop", "nop", "nop"), start)?;
    }
    Ok(())
}
