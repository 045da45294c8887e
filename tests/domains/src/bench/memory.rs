//! Page faults and mappings.
#![expect(unsafe_code, reason = "it reads where nothing is mapped")]

use core::sync::atomic::Ordering;

use dragonfly_abi::arch::THREAD_STATE_SIZE;
use dragonfly_abi::{Call, FaultReply, MessageTag, PAGE_SIZE, Rights, StartHandles};
use dragonfly_rt::Mapping;
use dragonfly_rt::sys::{Commit, Domain, Gate, Memory, Message, exit_thread};

use super::{RUNS, WARM_UP, least};
use crate::check::Outcome;
use crate::light::{Buffer, Builder, Child, PLAYGROUND, Words, handle, shared, word_at};
use crate::machine::tsc;
use crate::probe::{self, expect_value};
use crate::raw;

/// Handles faults at gate 0 by going on behind the instruction, which is `mov rax, [rdi]`.
extern "C" fn handler(words: &Words) -> ! {
    const LENGTH: u64 = 3;
    let gate: Gate = handle(words[0]);
    let buffer = Buffer::own();
    let tag = MessageTag::new(FaultReply::ResumeWith as u32, THREAD_STATE_SIZE, 0);
    let mut received = gate.receive();
    while received.is_ok() {
        let rip = buffer.rip().load(Ordering::Relaxed);
        buffer.rip().store(rip + LENGTH, Ordering::Relaxed);
        received = gate.reply_receive(Message { tag, words: [0; 4] });
    }
    exit_thread()
}

/// Faults again and again; word 1: the least that one takes, word 0: done.
extern "C" fn faulter(words: &Words) -> ! {
    let mut best = u64::MAX;
    for round in 0..WARM_UP + RUNS {
        let start = tsc();
        // SAFETY: the handler lets the thread go on behind the access.
        unsafe { probe::read_word(words[0]) };
        let ticks = tsc().wrapping_sub(start);
        if round >= WARM_UP {
            best = best.min(ticks);
        }
    }
    shared(1).store(best, Ordering::Relaxed);
    shared(0).store(1, Ordering::Release);
    exit_thread()
}

/// A page fault, from the access until the thread goes on, with a handler in another domain that answers at once.
pub(super) fn page_fault() -> Outcome<u64> {
    let (child, handlers) = (Child::new()?, Child::new()?);
    let gate = Gate::create()?;
    let given = handlers.give(*gate, Rights::RECEIVE)?;
    let _handler = handlers.spawn(0, handler, &[given])?;
    let _faulter = Builder::new(0).fault_gate(*gate, 1).spawn(child.domain(), faulter, &[PLAYGROUND])?;
    expect_value(child.word(0)?, 1, "the faults")?;
    Ok(child.word(1)?.load(Ordering::Relaxed))
}

/// A first touch of a page that the kernel gives on demand, zeroing included.
pub(super) fn demand_page_fault() -> Outcome<u64> {
    let size = (WARM_UP + RUNS) * PAGE_SIZE;
    let memory = Memory::create(size, Commit::OnDemand)?;
    let mapping = Mapping::new(*memory, 0, size, Rights::READ | Rights::WRITE)?;
    let mut offset = 0;
    least(|| {
        mapping.word(offset)?.store(1, Ordering::Relaxed);
        offset += PAGE_SIZE;
        Ok(())
    })
}

/// Mapping committed memory into the own domain, a look at it, and unmapping it.
pub(super) fn map_and_unmap(size: u64) -> Outcome<u64> {
    let memory = Memory::create(size, Commit::Explicit)?;
    memory.commit(0, size)?;
    let own = u64::from(StartHandles::DOMAIN.0);
    least(|| {
        memory.map(Domain::OWN, PLAYGROUND, 0, size, Rights::READ)?;
        word_at(PLAYGROUND).load(Ordering::Relaxed);
        raw::call_until_done(Call::MemoryUnmap, &[own, PLAYGROUND])?;
        Ok(())
    })
}
