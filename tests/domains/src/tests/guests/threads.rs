//! Threads that run guests, and others that stop them.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, Ordering};

use dragonfly_abi::Status;
use dragonfly_abi::arch::guest::General;
use dragonfly_abi::guest::{ExitReason, MsrPolicy, RunFlags};
use dragonfly_rt::sys::{Commit, CpuidEntry, Memory, Notification, Object, Vcpu, clock_now_ns, move_thread};
use dragonfly_rt::{cpus, thread};

use super::{CODE, Guest, MEMORY, PRIORITY, code, expect, expect_output, meanwhile};
use crate::check::{Outcome, equal, refused, that};
use crate::probe::expect_bits;
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

pub fn reached_at_any_moment(context: &Context) -> Outcome {
    let rounds = context.repeat(10, 20, 100_000);
    let cpu = cpus() - 1;
    let guest = Guest::new(code::asks())?;
    guest.vcpu.set_cpuid(&CpuidEntry::default())?;
    let vcpu: Vcpu = *guest.vcpu;
    // Nothing else interrupts it there.
    let host = thread::Builder::new(cpu, PRIORITY - 1).spawn(move || guest.start().map(|exit| (exit, guest)))?;
    let (there, back) = (Notification::create()?, Notification::create()?);
    let (woken, waker) = (*there, *back);
    let other = thread::Builder::new(cpu, PRIORITY).spawn(move || -> Outcome {
        for _ in 0..rounds {
            woken.wait()?;
            waker.signal(1)?;
        }
        Ok(())
    })?;
    let answered = (0..rounds).try_for_each(|_| -> Outcome {
        there.signal(1)?;
        expect_bits(*back, "the thread beside the guest")?;
        Ok(())
    });
    // Reaches that CPU, whatever has become of the signal.
    vcpu.kick()?;
    let (exit, _guest) = host.join()??;
    expect(exit, ExitReason::Kicked)?;
    answered?;
    other.join()?
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

pub fn moving_with_its_thread(context: &Context) -> Outcome {
    let rounds = context.repeat(10, 100, 10_000);
    let mover = thread::Builder::new(0, PRIORITY).spawn(move || -> Outcome {
        let guest = Guest::new_64_bit(code::vector(), &[])?;
        guest.set_general(General::Rbx, 100);
        expect_output(guest.start()?, 0x80)?;
        for round in 1..=rounds {
            move_thread((round % u64::from(cpus())) as u32)?;
            guest.go_on()?;
            equal("the count", guest.general(General::Rax), 100 + round)?;
        }
        Ok(())
    })?;
    mover.join()?
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

/// The record's form is that of KVM: nanoseconds, a version, and at 16 a byte that says whether the CPU is away.
pub fn stolen_time(_: &Context) -> Outcome {
    const RECORD: u64 = 0x7f00;
    const STOLEN_NS: u64 = 1_000_000;
    const AWAY: u8 = 1;
    const FLUSH_WANTED: u8 = 2;
    let guest = Arc::new(Guest::new(code::forever())?);
    let read = |guest: &Guest, offset, into: &mut [u8]| guest.memory.read(RECORD + offset, into);
    guest.vcpu.set_record(Some((*guest.object, RECORD)))?;
    let beside = guest.clone();
    // On the test's own CPU, which goes round.
    let other = thread::Builder::new(0, PRIORITY).spawn(move || {
        let until = clock_now_ns() + STOLEN_NS;
        while clock_now_ns() < until {}
        let mut state = [0];
        read(&beside, 16, &mut state)?;
        beside.memory.write(RECORD + 16, &[state[0] | FLUSH_WANTED])?;
        beside.vcpu.kick().map(|()| state[0])
    })?;
    expect(guest.start()?, ExitReason::Kicked)?;
    equal("the state meanwhile", other.join()??, AWAY)?;
    let (mut stolen, mut version, mut state) = ([0; 8], [0; 4], [0]);
    read(&guest, 0, &mut stolen)?;
    read(&guest, 8, &mut version)?;
    read(&guest, 16, &mut state)?;
    that(u64::from_le_bytes(stolen) >= STOLEN_NS, "less was told than was stolen")?;
    that(version[0] != 0 && version[0].is_multiple_of(2), "the record is not complete")?;
    equal("the state afterwards", state[0], 0)?;

    let untouched = Memory::create(0x1000, Commit::OnDemand)?;
    let refusal = |place| guest.vcpu.set_record(place);
    refused("an offset within a record", refusal(Some((*guest.object, 8))), Status::BadArgument)?;
    refused("a place without a frame", refusal(Some((*untouched, 0))), Status::NotMapped)?;
    refused("a place outside", refusal(Some((*guest.object, MEMORY))), Status::NotMapped)?;
    Ok(refusal(None)?)
}
