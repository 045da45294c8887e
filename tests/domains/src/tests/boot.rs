//! What a boot must come to.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::SystemItem;
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{System, exit_thread};

use super::Context;
use crate::check::{Outcome, equal, that};
use crate::light::{Child, Light, Words, shared};
use crate::probe::expect_value;

super::tests! {
    "the boot brings up every CPU and each runs threads" => every_cpu_runs,
    "the boot leaves most of the memory free" => memory_is_free,
}

/// Counts in word words[0] and waits until word 63 is set, so that all are there at once.
extern "C" fn present(words: &Words) -> ! {
    shared(words[0] as usize).store(1, Ordering::Release);
    shared(62).fetch_add(1, Ordering::Release);
    while shared(63).load(Ordering::Acquire) == 0 {
        core::hint::spin_loop();
    }
    exit_thread()
}

fn every_cpu_runs(_: &Context) -> Outcome {
    let [found, ..] = System::OWN.info(SystemItem::Cpus, 0)?;
    equal("CPUs", u64::from(cpus()), found)?;
    let child = Child::new()?;
    let _threads: Vec<Light> =
        (0..cpus()).map(|cpu| child.spawn(cpu, present, &[cpu.into()])).collect::<Outcome<_>>()?;
    expect_value(child.word(62)?, cpus().into(), "the threads of all CPUs")?;
    for cpu in 0..cpus() {
        equal(alloc::format!("threads on CPU {cpu}"), child.word(cpu.into())?.load(Ordering::Relaxed), 1)?;
    }
    child.word(63)?.store(1, Ordering::Release);
    Ok(())
}

fn memory_is_free(context: &Context) -> Outcome {
    let (free, total) = System::OWN.free_pages()?;
    context.note(format_args!("{free} of {total} pages are free"));
    that(free > total * 3 / 4, format_args!("only {free} of {total} pages are free"))
}
