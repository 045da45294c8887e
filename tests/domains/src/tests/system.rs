//! The machine's figures, the clock, the log, and the audit of page tables.

use alloc::string::String;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, PAGE_SIZE, Rights, StartHandles, Status, SystemItem, USER_END};
use dragonfly_rt::sys::{Commit, Domain, Memory, System, clock_now_ns, exit_thread};
use dragonfly_rt::{Mapping, cpus, message, start_info};

use super::Context;
use crate::check::{Outcome, equal, refused, that};
use crate::light::{Child, PLAYGROUND, Words, shared};
use crate::machine::tsc;
use crate::probe::expect_value;
use crate::raw;

super::tests! {
    "the figures are plausible and agree with the start page" => figures,
    "free pages go down and up with memory" => free_pages_count,
    "ranges of PCI buses are whole, and end" => pci_segments,
    "an unknown figure is refused" => unknown_items,
    "figures need READ, the log needs LOG" => system_rights,
    "the kernel's command line can be read piece by piece" => command_line,
    "the clock runs forward on every CPU and agrees between them" => clocks_agree,
    "the clock and the time-stamp counter run at the rate that is told" => clock_rate,
    "a log text of up to 256 bytes is written, a longer one refused" => log_lengths,
    "the log takes any bytes" => log_bytes,
    "no page of this domain is writable and executable, or the kernel's and open" => audit_of_this_domain,
    "nor in a domain that maps all it can" => audit_of_a_child,
    "the audit sees what is mapped" => audit_counts,
}

const SYSTEM: u64 = StartHandles::SYSTEM.0 as u64;

fn figures(_: &Context) -> Outcome {
    let (free, total) = System::OWN.free_pages()?;
    that(free > 0 && free < total && total < 1 << 36, format_args!("{free} of {total} pages free"))?;
    let info = start_info();
    let [found, ..] = System::OWN.info(SystemItem::Cpus, 0)?;
    equal("CPUs", found, cpus().into())?;
    let [frequency, ..] = System::OWN.info(SystemItem::TscFrequency, 0)?;
    equal("frequency of the time-stamp counter", Some(frequency), info.map(|info| info.tsc_hz))?;
    that((10_000_000..20_000_000_000).contains(&frequency), format_args!("the counter's frequency is {frequency}"))?;
    let [rsdp, ..] = System::OWN.info(SystemItem::AcpiRsdp, 0)?;
    that(rsdp != 0 && rsdp < 1 << 52, format_args!("the RSDP is at {rsdp:#x}"))?;
    let [size, ..] = System::OWN.info(SystemItem::BundleSize, 0)?;
    that(size > 10_000, format_args!("the bundle has {size} bytes"))
}

fn free_pages_count(_: &Context) -> Outcome {
    let (before, total) = System::OWN.free_pages()?;
    let memory = Memory::create(100 * PAGE_SIZE, Commit::Explicit)?;
    memory.commit(0, 100 * PAGE_SIZE)?;
    let (during, _) = System::OWN.free_pages()?;
    let taken = before - during;
    that((100..110).contains(&taken), format_args!("100 pages took {taken}"))?;
    memory.close()?;
    equal("free and total pages", System::OWN.free_pages()?, (before, total))
}

fn pci_segments(_: &Context) -> Outcome {
    let mut index = 0;
    while let Some(segment) = System::OWN.pci_segment(index)? {
        that(segment.first_bus <= segment.last_bus, format_args!("{segment:x?}"))?;
        that(segment.address.is_multiple_of(1 << 20) && segment.address < 1 << 52, format_args!("{segment:x?}"))?;
        index += 1;
    }
    for index in [index + 1, 1 << 32, u64::MAX] {
        equal(format_args!("segment {index}"), System::OWN.pci_segment(index)?, None)?;
    }
    Ok(())
}

fn unknown_items(_: &Context) -> Outcome {
    for item in [9, 10, 100, 1 << 32, 1 << 63, u64::MAX] {
        refused(format_args!("item {item:#x}"), raw::call(Call::SystemInfo, &[SYSTEM, item, 0]), Status::BadArgument)?;
    }
    Ok(())
}

fn system_rights(_: &Context) -> Outcome {
    let copy = |rights| dragonfly_rt::sys::Object::copy(System::OWN, rights, 0);
    let (blind, mute) = (copy(Rights::LOG | Rights::DEVICES)?, copy(Rights::READ | Rights::DEVICES)?);
    refused("figures without READ", blind.info(SystemItem::Cpus, 0), Status::Denied)?;
    refused("the log without LOG", mute.log_write(1), Status::Denied)?;
    let weak = copy(Rights::READ | Rights::LOG)?;
    refused("ports without DEVICES", weak.ports(0x80, 1), Status::Denied)?;
    refused("device memory without DEVICES", weak.device_memory(0xb_8000, PAGE_SIZE), Status::Denied)?;
    let interrupt = weak.interrupt(3, dragonfly_rt::sys::Trigger::Edge, dragonfly_rt::sys::Polarity::ActiveHigh);
    refused("an interrupt without DEVICES", interrupt, Status::Denied)
}

fn command_line(_: &Context) -> Outcome {
    let mut text = String::new();
    for offset in (0..1024).step_by(8) {
        let [word, ..] = System::OWN.info(SystemItem::CommandLine, offset)?;
        text.extend(word.to_le_bytes().into_iter().filter(|byte| *byte != 0).map(char::from));
    }
    // The words for the tests came from it.
    for word in dragonfly_rt::arguments().split_ascii_whitespace().filter(|word| word.starts_with("test.")) {
        that(text.split_ascii_whitespace().any(|other| other == word), format_args!("{word} is not in {text:?}"))?;
    }
    for offset in [1 << 20, u64::MAX - 7, u64::MAX] {
        let [word, ..] = System::OWN.info(SystemItem::CommandLine, offset)?;
        equal(format_args!("the word at {offset:#x}"), word, 0)?;
    }
    // Any offset will do.
    let [even, ..] = System::OWN.info(SystemItem::CommandLine, 0)?;
    let [odd, ..] = System::OWN.info(SystemItem::CommandLine, 1)?;
    equal("seven bytes from 0 and from 1", odd & 0xff_ffff_ffff_ffff, even >> 8)
}

/// Takes turns with the thread of the number words[0] in going on with the clock. Word 0: turn, word 1: the last time,
/// word 2: times that were before the last, word 3: done.
extern "C" fn clock_reader(words: &Words) -> ! {
    let [number, count, rounds, ..] = *words;
    for _ in 0..rounds {
        while shared(0).load(Ordering::Acquire) % count != number {
            dragonfly_rt::sys::yield_thread();
        }
        let now = clock_now_ns();
        if now < shared(1).swap(now, Ordering::Relaxed) {
            shared(2).fetch_add(1, Ordering::Relaxed);
        }
        shared(0).fetch_add(1, Ordering::Release);
    }
    shared(3).fetch_add(1, Ordering::Release);
    exit_thread()
}

fn clocks_agree(context: &Context) -> Outcome {
    let child = Child::new()?;
    let mut lights = alloc::vec::Vec::new();
    let count = u64::from(cpus()).max(2);
    for number in 0..count {
        let words = [number, count, context.repeat(100, 500, 50_000)];
        lights.push(child.spawn(number as u32 % cpus(), clock_reader, &words)?);
    }
    expect_value(child.word(3)?, count, "all turns")?;
    equal("times before an earlier one", child.word(2)?.load(Ordering::Relaxed), 0)
}

fn clock_rate(_: &Context) -> Outcome {
    let [frequency, ..] = System::OWN.info(SystemItem::TscFrequency, 0)?;
    let (clock, ticks) = (clock_now_ns(), tsc());
    while clock_now_ns() < clock + 20_000_000 {}
    let (ns, ticks) = (u128::from(clock_now_ns() - clock), u128::from(tsc() - ticks));
    let expected = ns * u128::from(frequency) / 1_000_000_000;
    that(ticks.abs_diff(expected) * 100 < expected, format_args!("{ticks} ticks in {ns} ns, {expected} are expected"))
}

fn log_lengths(_: &Context) -> Outcome {
    message::buffer().write(&[b'.'; 300])?;
    for length in [1, 8, 255, 256] {
        System::OWN.log_write(length)?;
    }
    System::OWN.log_write(0)?;
    for length in [257, 3840, 3841, usize::MAX] {
        refused(format_args!("{length} bytes"), System::OWN.log_write(length), Status::BadArgument)?;
    }
    Ok(())
}

fn log_bytes(_: &Context) -> Outcome {
    let bytes: alloc::vec::Vec<u8> = (0..=255).collect();
    message::buffer().write(&bytes)?;
    System::OWN.log_write(256)?;
    message::buffer().write(b"(one line)\n(no other)\n\r    \x1b[31m\0\0")?;
    System::OWN.log_write(32).map_err(Into::into)
}

/// What a whole walk found.
#[derive(Clone, Copy, Debug, Default)]
struct Audit {
    leaves: u64,
    own: u64,
    writable_executable: u64,
    kernel_accessible: u64,
}

fn audit() -> Outcome<Audit> {
    let mut audit = Audit::default();
    let mut from = 0;
    for _ in 0..1_000_000 {
        let step = System::OWN.audit_page_tables(from)?;
        audit.leaves += step.leaves;
        audit.writable_executable += step.writable_executable;
        audit.kernel_accessible += step.kernel_accessible;
        if from < USER_END {
            audit.own += step.leaves;
        }
        match step.next {
            Some(next) if next > from => from = next,
            Some(next) => return Err(crate::check::Failure::new(format_args!("{next:#x} follows {from:#x}"))),
            None => return Ok(audit),
        }
    }
    Err(crate::check::Failure::new("the walk does not end"))
}

fn audit_of_this_domain(context: &Context) -> Outcome {
    let audit = audit()?;
    context.note(format_args!("{audit:?}"));
    that(audit.leaves > 50, format_args!("only {} leaves", audit.leaves))?;
    that(audit.leaves > audit.own, "the kernel's half was not walked")?;
    equal("writable and executable leaves", audit.writable_executable, 0)?;
    equal("open leaves of the kernel", audit.kernel_accessible, 0)
}

/// Walks its own page tables: words 1 to 3 sum up, word 0: done.
extern "C" fn auditor(words: &Words) -> ! {
    let mut from = 0;
    while let Ok([leaves, writable_executable, open, next, ..]) =
        raw::call(Call::SystemInfo, &[words[0], SystemItem::AuditPageTables as u64, from])
    {
        for (index, count) in [leaves, writable_executable, open].into_iter().enumerate() {
            shared(1 + index).fetch_add(count, Ordering::Relaxed);
        }
        if next <= from {
            break;
        }
        from = next;
    }
    shared(0).store(1, Ordering::Release);
    exit_thread()
}

fn audit_of_a_child(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let child = Child::new()?;
        let memory = Memory::create(4 << 20, Commit::Explicit)?;
        memory.commit(0, 4 << 20)?;
        for (index, rights) in
            [Rights::READ, Rights::READ | Rights::WRITE, Rights::READ | Rights::EXECUTE].into_iter().enumerate()
        {
            memory.map(child.domain(), PLAYGROUND + index as u64 * (1 << 30), 0, 4 << 20, rights)?;
            memory.map(
                child.domain(),
                PLAYGROUND + (1 << 40) + index as u64 * (1 << 30),
                PAGE_SIZE,
                64 * PAGE_SIZE,
                rights,
            )?;
        }
        let system = child.give(System::OWN, Rights::READ)?;
        let _light = child.spawn(cpu, auditor, &[system])?;
        expect_value(child.word(0)?, 1, "the walk")?;
        let [leaves, writable_executable, open] =
            [1, 2, 3].map(|index| child.word(index).map_or(u64::MAX, |word| word.load(Ordering::Relaxed)));
        that(leaves > 50, format_args!("only {leaves} leaves"))?;
        equal("writable and executable leaves", writable_executable, 0)?;
        equal("open leaves of the kernel", open, 0)?;
    }
    Ok(())
}

fn audit_counts(_: &Context) -> Outcome {
    let memory = Memory::create(100 * PAGE_SIZE, Commit::Explicit)?;
    memory.commit(0, 100 * PAGE_SIZE)?;
    // Once beforehand: what the program itself touches first is in the figures then.
    drop(Mapping::new(*memory, 0, 100 * PAGE_SIZE, Rights::READ | Rights::WRITE)?);
    audit()?;
    let before = audit()?;
    let mapping = Mapping::new(*memory, 0, 100 * PAGE_SIZE, Rights::READ | Rights::WRITE)?;
    for page in 0..100 {
        mapping.word(page * PAGE_SIZE)?.store(1, Ordering::Relaxed);
    }
    equal("leaves of 100 pages", audit()?.leaves - before.leaves, 100)?;
    drop(mapping);
    equal("leaves after", audit()?.leaves, before.leaves)?;
    Domain::OWN.info().map(drop).map_err(Into::into)
}
