//! What interrupts guests.

use dragonfly_abi::Status;
use dragonfly_abi::arch::guest::{ExitCounter, General};
use dragonfly_abi::guest::{ExitReason, RunFlags, Virtualisation};
use dragonfly_rt::sys::{Notification, System, Vcpu, Vm};

use super::{CODE, Guest, MEMORY, MESSAGE, VECTOR, code, expect, expect_output, meanwhile};
use crate::check::{Outcome, equal, refused, that};
use crate::tests::Context;

pub fn injection(_: &Context) -> Outcome {
    let guest = Guest::new(code::interrupts())?;
    guest.serve(&[(6, 512)])?;
    guest.change(|state| state.inject = 0x8000_0306);
    expect_output(guest.start()?, 0x82)?;
    equal("where it was", guest.registers()?.inject, 0)
}

pub fn interrupts(_: &Context) -> Outcome {
    let guest = Guest::new(code::interrupts())?;
    guest.serve(&[(VECTOR, 256)])?;
    guest.start_apic()?;
    guest.vm.interrupt(MESSAGE, VECTOR.into())?;
    equal("the handler", expect_output(guest.go_on()?, 0x80)?, 0x55)?;
    expect_output(guest.go_on()?, 0x81)?;
    for _ in 0..10 {
        guest.vm.interrupt(MESSAGE, VECTOR.into())?;
        expect_output(guest.go_on()?, 0x80)?;
        expect_output(guest.go_on()?, 0x81)?;
    }
    // By the kernel, or all by the processor.
    let injected = guest.vcpu.state().read().exits[ExitCounter::Injected as usize];
    that(matches!(injected, 11 | 0), format_args!("{injected} of 11 interrupts"))
}

pub fn interrupt_ends_halt(context: &Context) -> Outcome {
    let guest = Guest::new(code::interrupts())?;
    guest.serve(&[(VECTOR, 256)])?;
    let vm: Vm = *guest.vm;
    guest.start_apic()?;
    for _ in 0..context.repeat(3, 10, 1000) {
        let other = meanwhile(move || vm.interrupt(MESSAGE, VECTOR.into()))?;
        expect_output(guest.go_on()?, 0x80)?;
        expect_output(guest.go_on()?, 0x81)?;
        other.join()??;
    }
    Ok(())
}

pub fn interrupt_window(_: &Context) -> Outcome {
    let mut bytes = code::window().to_vec();
    bytes.resize(256, 0x90);
    bytes.extend_from_slice(&code::interrupts()[256..]);
    let guest = Guest::new(&bytes)?;
    guest.serve(&[(VECTOR, 256)])?;
    guest.start_apic()?;
    guest.vm.interrupt(MESSAGE, VECTOR.into())?;
    expect_output(guest.go_on()?, 0x90)?;
    expect_output(guest.go_on()?, 0x80)?;
    // The instruction behind STI was done first (SDM 2B, "STI").
    let stack = guest.general(General::Rsp) & 0xffff;
    let mut pushed = [0; 2];
    guest.memory.read(stack + 12, &mut pushed)?;
    equal("where it was interrupted", u64::from(u16::from_le_bytes(pushed)), CODE + 28)?;
    expect_output(guest.go_on()?, 0x81)?;
    expect_output(guest.go_on()?, 0x91)?;
    Ok(())
}

pub fn task_priority(_: &Context) -> Outcome {
    // QEMU 10's TCG ends itself when a guest on SVM lowers CR8 while an interrupt waits (docs/CAVEATS.md).
    let ways: &[u64] = if System::OWN.virtualisation()? == Virtualisation::Svm { &[1] } else { &[0, 1] };
    for way in ways {
        let guest = Guest::new_64_bit(code::task_priority(), &[(VECTOR, 256)])?;
        guest.set_general(General::Rbx, *way);
        guest.start_apic()?;
        expect_output(guest.go_on()?, 0x90)?;
        equal("CR8", guest.registers()?.cr8, 5)?;
        guest.vm.interrupt(MESSAGE, VECTOR.into())?;
        expect_output(guest.go_on()?, 0x91)?;
        expect_output(guest.go_on()?, 0x80)?;
        expect_output(guest.go_on()?, 0x92)?;
        equal("CR8", guest.registers()?.cr8, 0)?;
    }
    Ok(())
}

pub fn routes(_: &Context) -> Outcome {
    let guest = Guest::new(code::interrupts())?;
    guest.serve(&[(VECTOR, 256)])?;
    let notification = Notification::create()?;
    notification.route(*guest.vm, MESSAGE, VECTOR.into())?;
    guest.start_apic()?;
    notification.signal(1)?;
    expect_output(guest.go_on()?, 0x80)?;
    let vcpu: Vcpu = *guest.vcpu;
    expect_output(guest.go_on()?, 0x81)?;
    notification.end_route()?;
    notification.signal(2)?;
    let other = meanwhile(move || vcpu.kick())?;
    expect(guest.go_on()?, ExitReason::Kicked)?;
    other.join()??;
    equal("bits", notification.wait_timed(0)?, 2)
}

pub fn level_eoi(_: &Context) -> Outcome {
    let guest = Guest::new(code::interrupts())?;
    guest.serve(&[(VECTOR, 256)])?;
    guest.start_apic()?;
    guest.vm.interrupt(MESSAGE, 0xc000 | u32::from(VECTOR))?;
    expect_output(guest.go_on()?, 0x80)?;
    equal("the vector", expect(guest.go_on()?, ExitReason::ApicEoi)?.details[0], VECTOR.into())?;
    expect_output(guest.vcpu.run(RunFlags::empty())?, 0x81)?;
    Ok(())
}

/// The word is KVM's of `MSR_KVM_PV_EOI_EN`. It is not the first of the eight bytes around it.
pub fn ends_in_memory(_: &Context) -> Outcome {
    const WORD: u64 = 0x7f04;
    const AROUND: [u8; 12] = [0xff, 0xff, 0xff, 0xff, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
    let guest = Guest::new(&[&code::interrupts()[..256], code::ends()].concat())?;
    guest.serve(&[(VECTOR, 256), (VECTOR - 16, 256)])?;
    guest.memory.write(WORD - 4, &AROUND)?;
    guest.vcpu.set_end_record(Some((*guest.object, WORD)))?;
    guest.start_apic()?;
    let by_exit = || guest.vcpu.state().read().exits[ExitCounter::MsrWrite as usize];
    let send = |data: u32| guest.vm.interrupt(MESSAGE, data);
    let before = by_exit();
    for _ in 0..10 {
        send(VECTOR.into())?;
        expect_output(guest.go_on()?, 0x80)?;
        expect_output(guest.go_on()?, 0x81)?;
    }
    equal("ends by exits", by_exit() - before, 0)?;
    let mut around = [0; AROUND.len()];
    guest.memory.read(WORD - 4, &mut around)?;
    equal("the word and what is around it", around, AROUND)?;

    // Another one waits for the end, unless the processor sees to that.
    let is_by_kernel = guest.vcpu.state().read().exits[ExitCounter::Injected as usize] != 0;
    send(VECTOR.into())?;
    expect_output(guest.go_on()?, 0x80)?;
    send(u32::from(VECTOR) - 16)?;
    for port in [0x81, 0x80, 0x81] {
        expect_output(guest.go_on()?, port)?;
    }
    equal("ends by exits", by_exit() - before, u64::from(is_by_kernel))?;
    // The VMM waits for the end.
    send(0xc000 | u32::from(VECTOR))?;
    expect_output(guest.go_on()?, 0x80)?;
    expect(guest.go_on()?, ExitReason::ApicEoi)?;
    expect_output(guest.vcpu.run(RunFlags::empty())?, 0x81)?;

    guest.vcpu.set_end_record(None)?;
    send(VECTOR.into())?;
    expect_output(guest.go_on()?, 0x80)?;
    guest.memory.read(WORD - 4, &mut around)?;
    equal("the word that is no more", around, AROUND)?;
    expect_output(guest.go_on()?, 0x81)?;
    let refusal = |place| guest.vcpu.set_end_record(place);
    refused("an offset within a word", refusal(Some((*guest.object, WORD + 2))), Status::BadArgument)?;
    refused("a place outside", refusal(Some((*guest.object, MEMORY))), Status::NotMapped)
}

pub fn nmi(_: &Context) -> Outcome {
    let guest = Guest::new(code::interrupts())?;
    guest.serve(&[(VECTOR, 256), (2, 512)])?;
    guest.start_apic()?;
    guest.vm.interrupt(MESSAGE, 0x400)?;
    expect_output(guest.go_on()?, 0x82)?;
    that(guest.registers()?.interruptibility & 8 != 0, "NMIs are not blocked in an NMI's handler")?;
    // The second one waits for the first one's IRET.
    guest.vm.interrupt(MESSAGE, 0x400)?;
    expect_output(guest.go_on()?, 0x82)?;
    guest.vm.interrupt(MESSAGE, VECTOR.into())?;
    expect_output(guest.go_on()?, 0x80)?;
    Ok(())
}
