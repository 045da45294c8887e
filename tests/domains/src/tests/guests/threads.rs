//! Threads that run guests, and others that stop them.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use dragonfly_abi::Status;
use dragonfly_abi::arch::guest::General;
use dragonfly_abi::guest::{ExitReason, MsrPolicy, RunFlags};
use dragonfly_rt::sys::{Object, Vcpu};
use dragonfly_rt::{cpus, thread};

use super::{CODE, Guest, PRIORITY, code, expect, expect_output, meanwhile};
use crate::check::{Outcome, equal, refused, that};
use crate::tests::Context;

pub fn kick_running(_: &Context) -> Outcome {
    let guest = Guest::new(code::forever())?;
    // With the guest's interrupts off and on.
    for flags in [2, 0x202] {
        guest.change(|state| state.rflags = flags);
        let vcpu: Vcpu = *guest.vcpu;
        let other = meanwhile(move || vcpu.kick())?;
        expect(guest.start()?, ExitReason::Kicked)?;
        other.join()??;
    }
    guest.memory.write(CODE, &[0xe6, 0x80])?;
    expect_output(guest.vcpu.run(RunFlags::empty())?, 0x80)?;
    Ok(())
}

pub fn kick_halted(_: &Context) -> Outcome {
    let guest = Guest::new(code::halts())?;
    for flags in [2, 0x202] {
        guest.change(|state| state.rflags = flags);
        let vcpu: Vcpu = *guest.vcpu;
        let other = meanwhile(move || vcpu.kick())?;
        expect(guest.start()?, ExitReason::Kicked)?;
        other.join()??;
    }
    Ok(())
}

pub fn kick_early(_: &Context) -> Outcome {
    let guest = Guest::new(code::forever())?;
    guest.vcpu.kick()?;
    expect(guest.start()?, ExitReason::Kicked)?;
    equal("the instruction pointer", guest.vcpu.state().rip(), CODE)
}

pub fn moving(context: &Context) -> Outcome {
    let guest = Arc::new(Guest::new_64_bit(code::vector(), &[])?);
    guest.set_general(General::Rbx, 100);
    expect_output(guest.start()?, 0x80)?;
    let mut wanted = 100;
    for round in 0..context.repeat(10, 100, 10_000) {
        let (guest, cpu) = (guest.clone(), (round % u64::from(cpus())) as u32);
        let other =
            thread::Builder::new(cpu, PRIORITY).spawn(move || guest.go_on().map(|_| guest.general(General::Rax)))?;
        wanted += 1;
        equal("the count", other.join()??, wanted)?;
    }
    Ok(())
}

pub fn busy(_: &Context) -> Outcome {
    let guest = Guest::new(code::forever())?;
    let vcpu: Vcpu = *guest.vcpu;
    let was_busy = Arc::new(AtomicBool::new(false));
    let seen = was_busy.clone();
    let other = meanwhile(move || {
        let refusals = [
            vcpu.run(RunFlags::empty()).map(drop),
            vcpu.sync(RunFlags::POINTER),
            vcpu.set_msr(1, 0, MsrPolicy::READ),
            vcpu.read_apic(0x20).map(drop),
        ];
        seen.store(refusals.iter().all(|result| *result == Err(Status::Busy)), Ordering::Relaxed);
        vcpu.kick()
    })?;
    expect(guest.start()?, ExitReason::Kicked)?;
    other.join()??;
    that(was_busy.load(Ordering::Relaxed), "a call of another thread was not refused")?;
    refused("unknown flags", guest.vcpu.run(RunFlags::from_bits_retain(1 << 40)), Status::BadArgument)?;
    refused("groups that are none", guest.vcpu.sync(RunFlags::SKIP), Status::BadArgument)
}

pub fn closing(_: &Context) -> Outcome {
    let guest = Guest::new(code::forever())?;
    let vcpu: Vcpu = *guest.vcpu;
    let other = meanwhile(move || vcpu.close())?;
    let ended = guest.vcpu.run(RunFlags::GROUPS);
    other.join()??;
    refused("a run of a guest that goes", ended, Status::Aborted)
}
