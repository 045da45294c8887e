//! The log of pages to which a guest has written.

use alloc::collections::BTreeSet;
use alloc::vec::Vec;
use alloc::{format, vec};

use dragonfly_abi::arch::guest::{ExitCounter, General};
use dragonfly_abi::guest::{ExitReason, GUEST_END, RunFlags};
use dragonfly_abi::{PAGE_SIZE, Rights, Status};
use dragonfly_rt::guest::VirtualCpu;
use dragonfly_rt::sys::{Commit, Memory, Owned, Vcpu, Vm};
use dragonfly_rt::{Mapping, cpus, thread};

use super::{CODE, Guest, PRIORITY, code, expect, expect_output};
use crate::check::{Outcome, equal, refused, that};
use crate::tests::Context;

/// Bytes of the guest's memory beside the small one with its code, at the same address in the guest.
const FIRST: u64 = 2 << 20;
const END: u64 = 18 << 20;
/// Pages of 2 MiB that it is.
const LARGE: u64 = (END - FIRST) >> 21;

/// What a vCPU writes.
#[derive(Clone, Copy, Debug)]
struct Pattern {
    first: u64,
    count: u64,
    stride: u64,
}

impl Pattern {
    fn pages(self) -> impl Iterator<Item = u64> {
        (0..self.count).map(move |index| (self.first + index * self.stride) & !(PAGE_SIZE - 1))
    }
}

/// A guest with 16 MiB more of memory.
struct Writer {
    guest: Guest,
    memory: Mapping,
    _object: Owned<Memory>,
}

impl Writer {
    fn new() -> Outcome<Self> {
        let guest = Guest::new_64_bit(code::writes(), &[])?;
        let object = Memory::create(END - FIRST, Commit::Explicit)?;
        object.commit(0, END - FIRST)?;
        let memory = Mapping::new(*object, 0, END - FIRST, Rights::READ | Rights::WRITE)?;
        guest.vm.map(*object, FIRST, 0, END - FIRST, Rights::READ | Rights::WRITE)?;
        for page in 1..=LARGE {
            guest.memory.write(0x2000 + page * 8, &(page << 21 | 0x83).to_le_bytes())?;
        }
        Ok(Self { guest, memory, _object: object })
    }

    fn write(&self, pattern: Pattern) -> Outcome {
        set_pattern(&self.guest.vcpu, pattern, 1);
        expect_output(self.guest.vcpu.run(RunFlags::SKIP)?, 0x80)?;
        Ok(())
    }

    /// What the log says of the memory beside the small one, where page tables of the guest are.
    fn take(&self) -> Outcome<Vec<u64>> {
        take(*self.guest.vm)
    }

    /// Exits in which the guest got a page.
    fn pages_given(&self) -> u64 {
        self.guest.vcpu.state().read().exits[ExitCounter::PageFault as usize]
    }
}

fn set_pattern(vcpu: &VirtualCpu, pattern: Pattern, rounds: u64) {
    let Pattern { first, count, stride } = pattern;
    for (register, value) in
        [(General::R8, first), (General::R9, count), (General::R10, stride), (General::R11, rounds)]
    {
        vcpu.state().set_general(register, value);
    }
}

fn take(vm: Vm) -> Outcome<Vec<u64>> {
    let (mut pages, mut at) = (Vec::new(), FIRST);
    while at < GUEST_END {
        let next = vm.take_dirty(at, GUEST_END, |page| pages.push(page))?;
        that(next > at, format_args!("no progress at {at:#x}"))?;
        at = next;
    }
    that(pages.is_sorted(), "pages in disorder")?;
    Ok(pages)
}

#[track_caller]
fn same(what: &str, found: Vec<u64>, wanted: impl Iterator<Item = u64>) -> Outcome {
    let (found, wanted): (BTreeSet<_>, BTreeSet<_>) = (found.into_iter().collect(), wanted.collect());
    let missing = wanted.difference(&found).next();
    let others = found.difference(&wanted).next();
    that(
        missing.is_none() && others.is_none(),
        format_args!(
            "{what}: {} pages of {}; missing {missing:x?}, not written {others:x?}",
            found.len(),
            wanted.len()
        ),
    )
}

/// Starts the guest, so that it is about to write.
fn first_run(writer: &Writer) -> Outcome {
    set_pattern(&writer.guest.vcpu, Pattern { first: FIRST, count: 1, stride: PAGE_SIZE }, 1);
    expect_output(writer.guest.start()?, 0x80)?;
    Ok(())
}

pub fn patterns(_: &Context) -> Outcome {
    let writer = Writer::new()?;
    first_run(&writer)?;
    let everything = Pattern { first: FIRST, count: (END - FIRST) / PAGE_SIZE, stride: PAGE_SIZE };
    writer.write(everything)?;
    let given = writer.pages_given();
    writer.guest.vm.start_dirty_log()?;
    same("before the first write", writer.take()?, [].into_iter())?;
    let one = Pattern { first: FIRST + 0x3008, count: 1, stride: PAGE_SIZE };
    let third = Pattern { first: FIRST, count: (END - FIRST) / PAGE_SIZE / 3, stride: 3 * PAGE_SIZE };
    let ends = Pattern { first: FIRST + 0x1f_fff8, count: LARGE, stride: 2 << 20 };
    for pattern in [one, one, third, ends, everything, third] {
        writer.write(pattern)?;
        // Only what the guest does is told.
        writer.memory.write(PAGE_SIZE * 5, &[1])?;
        same(&format!("{pattern:x?}"), writer.take()?, pattern.pages())?;
        same("nothing was written since", writer.take()?, [].into_iter())?;
    }
    // In parts of the range.
    writer.write(third)?;
    let mut part = Vec::new();
    let until = FIRST + 64 * PAGE_SIZE;
    let mut at = FIRST;
    while at < until {
        at = writer.guest.vm.take_dirty(at, until, |page| part.push(page))?;
    }
    same("a part", part, third.pages().filter(|page| *page < until))?;
    same("the rest", writer.take()?, third.pages().filter(|page| *page >= until))?;

    writer.guest.vm.stop_dirty_log()?;
    let before = writer.pages_given();
    writer.write(everything)?;
    // Populated entries were no exits.
    that(writer.pages_given() - before <= given + 64, "large pages have not come back")?;
    writer.guest.vm.start_dirty_log()?;
    same("a second log", writer.take()?, [].into_iter())?;
    writer.write(one)?;
    same("a page of the second log", writer.take()?, one.pages())
}

/// As a migration does: a copy of each page that was taken is made while all write on. In the end both are alike.
pub fn several(context: &Context) -> Outcome {
    let writer = Writer::new()?;
    let vm: Vm = *writer.guest.vm;
    let others = (1..cpus().min(4)).map(|number| VirtualCpu::create(vm, number)).collect::<Result<Vec<_>, _>>()?;
    first_run(&writer)?;
    let start = writer.guest.registers()?;
    let patterns = [
        Pattern { first: FIRST, count: 300, stride: PAGE_SIZE },
        Pattern { first: FIRST + 0x10_0008, count: 500, stride: 3 * PAGE_SIZE },
        Pattern { first: FIRST + 0x10, count: LARGE * 2, stride: 1 << 20 },
        Pattern { first: FIRST + 0x18, count: 200, stride: 5 * PAGE_SIZE },
    ];
    vm.start_dirty_log()?;
    let (mut threads, mut handles) = (Vec::new(), Vec::<Vcpu>::new());
    for (number, vcpu) in (1..).zip(others) {
        let mut state = start;
        state.rip = CODE;
        vcpu.state().write(&state);
        set_pattern(&vcpu, patterns[number as usize], u64::MAX);
        handles.push(*vcpu);
        threads.push(
            thread::Builder::new(number % cpus(), PRIORITY).spawn(move || vcpu.run(RunFlags::GROUPS).map(|_| vcpu))?,
        );
    }
    let mut copy = vec![[0; 32]; ((END - FIRST) / PAGE_SIZE) as usize];
    let mut told = BTreeSet::new();
    let mut follow = |told: &mut BTreeSet<u64>, taken: Vec<u64>| -> Outcome {
        for page in taken {
            told.insert(page);
            writer.memory.read(page - FIRST, &mut copy[((page - FIRST) / PAGE_SIZE) as usize])?;
        }
        Ok(())
    };
    let wanted: BTreeSet<_> =
        patterns[..=handles.len()].iter().flat_map(|pattern| pattern.pages()).chain([FIRST]).collect();
    let mut rounds = 0..context.repeat(20, 50, 1000);
    // Until each vCPU has come round, too.
    while rounds.next().is_some() || !wanted.is_subset(&told) {
        writer.write(patterns[0])?;
        follow(&mut told, take(vm)?)?;
    }
    for (vcpu, thread) in handles.into_iter().zip(threads) {
        vcpu.kick()?;
        thread.join()??;
    }
    follow(&mut told, take(vm)?)?;
    for (page, copied) in copy.iter().enumerate() {
        let mut bytes = [0; 32];
        writer.memory.read(page as u64 * PAGE_SIZE, &mut bytes)?;
        equal(format_args!("page {page} of the copy"), *copied, bytes)?;
    }
    same("all that were told", told.into_iter().collect(), wanted.into_iter())
}

pub fn refusals(_: &Context) -> Outcome {
    let guest = Guest::new(code::forever())?;
    let vm: Vm = *guest.vm;
    refused("pages without a log", vm.take_dirty(0, PAGE_SIZE, |_| ()), Status::BadState)?;
    refused("the end of no log", vm.stop_dirty_log(), Status::BadState)?;
    vm.start_dirty_log()?;
    refused("a second start", vm.start_dirty_log(), Status::BadState)?;
    for (start, end) in [(0, 0), (PAGE_SIZE, 0), (1, PAGE_SIZE), (0, 1), (0, GUEST_END + PAGE_SIZE)] {
        refused(format_args!("{start:#x} to {end:#x}"), vm.take_dirty(start, end, |_| ()), Status::BadArgument)?;
    }
    equal("an empty range's end", vm.take_dirty(1 << 30, GUEST_END, |_| ())?, GUEST_END)?;
    vm.stop_dirty_log()?;
    let vcpu: Vcpu = *guest.vcpu;
    vcpu.kick()?;
    expect(guest.start()?, ExitReason::Kicked)?;
    Ok(())
}
