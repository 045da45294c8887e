//! Domains: their accounts, and that nothing of a destroyed one is left.

use alloc::vec::Vec;
use core::sync::atomic::Ordering;

use dragonfly_abi::{Call, PAGE_SIZE, Rights, Status};
use dragonfly_rt::cpus;
use dragonfly_rt::sys::{
    self, Commit, Domain, DomainSettings, Gate, Memory, Message, Notification, Object, Owned, System, exit_thread,
    yield_thread,
};

use super::Context;
use crate::check::{Outcome, equal, refused, that};
use crate::light::{Builder, Child, PLAYGROUND, Words, handle, shared, usual_settings};
use crate::probe::{expect_bits, expect_that, expect_value, pause};
use crate::raw;

super::tests! {
    "a new domain is empty and has its quota" => a_new_domain,
    "a quota is taken from the parent and comes back exactly" => quota_comes_back,
    "a quota that the parent does not have is refused" => too_much_quota,
    "domains nest only so deep" => nesting,
    "a domain pays for what it makes and for nothing else" => who_pays,
    "a priority above the parent's is refused" => bad_priorities,
    "CPUs that the parent may not use are refused" => bad_cpus,
    "a domain cannot be destroyed from inside" => no_suicide,
    "a destroyed domain leaves nothing behind, whatever runs in it" within 120 => destruction,
    "child domains go with their parent, at any depth" => families,
    "two CPUs can destroy one domain at once" on 2 => destroyed_by_two,
    "the objects of a destroyed domain are gone for all who held them" => objects_go,
    "the handles of a destroyed domain no longer hold what others made" => handles_go,
    "a handle to a destroyed domain is stale everywhere" => stale_domains,
    "a domain under destruction takes nothing new" on 2 => no_entry,
    "a death through a badged handle signals its badge" => badged_death,
    "thousands of domains made and destroyed leave the machine's free pages as they were" within 120 => thousands,
    "thousands of domains with threads on all CPUs leave nothing behind" within 120 => thousands_with_threads,
}

fn free_pages() -> Outcome<u64> {
    Ok(System::OWN.free_pages()?.0)
}

/// What must come back: memory in this domain's account, and the machine's free pages.
fn figures() -> Outcome<(u64, u64, u64)> {
    let own = Domain::OWN.info()?;
    Ok((own.used, own.handles, free_pages()?))
}

fn a_new_domain(_: &Context) -> Outcome {
    let domain = Domain::create(Domain::OWN, &DomainSettings { quota: 1_234_567, ..usual_settings() })?;
    let info = domain.info()?;
    equal("quota, threads, handles", (info.quota, info.threads, info.handles), (1_234_567, 0, 0))?;
    that(info.used > 0 && info.used <= 4 * PAGE_SIZE, format_args!("{} bytes used by an empty domain", info.used))?;
    Ok(domain.destroy()?)
}

fn quota_comes_back(_: &Context) -> Outcome {
    let before = figures()?;
    for quota in [64 * 1024, 1_234_567, 16 << 20] {
        let domain = Domain::create(Domain::OWN, &DomainSettings { quota, ..usual_settings() })?;
        let used = Domain::OWN.info()?.used - before.0;
        that(used >= quota && used < quota + 16 * PAGE_SIZE, format_args!("a quota of {quota} costs {used}"))?;
        domain.destroy()?;
        drop(domain);
        equal("used memory, handles, free pages", figures()?, before)?;
    }
    Ok(())
}

fn too_much_quota(_: &Context) -> Outcome {
    let own = Domain::OWN.info()?;
    let left = own.quota - own.used;
    for quota in [left + 1, left * 2, u64::MAX / 2, u64::MAX] {
        let made = Domain::create(Domain::OWN, &DomainSettings { quota, ..usual_settings() });
        refused(format_args!("a quota of {quota} of {left}"), made, Status::QuotaExceeded)?;
    }
    for quota in [0, 1, 100] {
        let made = Domain::create(Domain::OWN, &DomainSettings { quota, ..usual_settings() });
        refused(format_args!("a quota of {quota}"), made, Status::QuotaExceeded)?;
    }
    equal("memory used after all that", Domain::OWN.info()?.used, own.used)
}

fn nesting(_: &Context) -> Outcome {
    let mut family = Vec::new();
    let mut parent = Domain::OWN;
    let refusal = loop {
        let quota = (8_u64 << 20) - family.len() as u64 * (128 << 10);
        match Domain::create(parent, &DomainSettings { quota, ..usual_settings() }) {
            Ok(child) => {
                parent = *child;
                family.push(child);
            }
            Err(status) => break status,
        }
    };
    equal("status", refusal, Status::QuotaExceeded)?;
    that((20..32).contains(&family.len()), format_args!("domains nest {} deep below this one", family.len()))?;
    // Destroying the first takes all of them.
    match family.first() {
        Some(first) => first.destroy()?,
        None => return Err(crate::check::Failure::new("no domain could be made")),
    }
    for member in &family {
        refused("a member of the family", member.info(), Status::BadHandle)?;
    }
    Ok(())
}

fn who_pays(_: &Context) -> Outcome {
    let child = Child::new()?;
    let used = child.domain().info()?.used;
    // Made here, mapped there: the frames are this domain's, the page tables the child's.
    let memory = Memory::create(64 * PAGE_SIZE, Commit::Explicit)?;
    let own = Domain::OWN.info()?.used;
    memory.commit(0, 64 * PAGE_SIZE)?;
    let grown = Domain::OWN.info()?.used - own;
    that((64 * PAGE_SIZE..68 * PAGE_SIZE).contains(&grown), format_args!("64 pages cost {grown} bytes"))?;
    equal("what the child uses", child.domain().info()?.used, used)?;
    memory.map(child.domain(), PLAYGROUND, 0, 64 * PAGE_SIZE, Rights::READ)?;
    let tables = child.domain().info()?.used - used;
    that((PAGE_SIZE..8 * PAGE_SIZE).contains(&tables), format_args!("a mapping cost the child {tables} bytes"))?;
    raw::call_until_done(Call::MemoryUnmap, &[child.domain().handle().0.into(), PLAYGROUND])?;
    let left = child.domain().info()?.used - used;
    that(left <= 4 * PAGE_SIZE, format_args!("{left} bytes stay with the child after it is unmapped"))
}

fn bad_priorities(_: &Context) -> Outcome {
    let parent = Domain::create(Domain::OWN, &DomainSettings { max_priority: 20, ..usual_settings() })?;
    for priority in [21, 63, 64, 255] {
        let settings = DomainSettings { max_priority: priority, quota: 64 * 1024, ..usual_settings() };
        refused(format_args!("{priority}"), Domain::create(*parent, &settings), Status::BadArgument)?;
    }
    for priority in [1 << 32, 1 << 8, u64::MAX] {
        let words = [parent.handle().0.into(), 64 * 1024, priority, 1];
        refused(format_args!("{priority:#x}"), raw::call(Call::DomainCreate, &words), Status::BadArgument)?;
    }
    let same = DomainSettings { max_priority: 20, quota: 64 * 1024, ..usual_settings() };
    Domain::create(*parent, &same)?.destroy()?;
    Ok(parent.destroy()?)
}

fn bad_cpus(_: &Context) -> Outcome {
    let all = (1_u64 << cpus()) - 1;
    for mask in [0, all + 1, all << 1 | 1, 1 << 63, u64::MAX] {
        let made = Domain::create(Domain::OWN, &DomainSettings { cpus: mask, ..usual_settings() });
        refused(format_args!("CPUs {mask:#b}"), made, Status::BadCpu)?;
    }
    let first = Domain::create(Domain::OWN, &DomainSettings { cpus: 1, ..usual_settings() })?;
    let settings = DomainSettings { cpus: 0b11, quota: 64 * 1024, ..usual_settings() };
    refused("two CPUs below one", Domain::create(*first, &settings), Status::BadCpu)?;
    Ok(first.destroy()?)
}

/// Destroys domain 0 and puts the status into word 1.
extern "C" fn destroyer(words: &Words) -> ! {
    let (status, _) = raw::number(Call::DomainDestroy as u64, [words[0], 0, 0, 0, 0, 0]);
    shared(1).store(status, Ordering::Relaxed);
    shared(0).fetch_add(1, Ordering::Release);
    exit_thread()
}

fn no_suicide(_: &Context) -> Outcome {
    let child = Child::new()?;
    let own = child.give(child.domain(), Rights::DESTROY)?;
    for cpu in 0..cpus() {
        let _light = child.spawn(cpu, destroyer, &[own])?;
        expect_value(child.word(0)?, u64::from(cpu) + 1, "the call")?;
        equal("destroying oneself", child.word(1)?.load(Ordering::Relaxed), Status::Busy as u64)?;
    }
    // Nor the domain around.
    let inner_settings = DomainSettings { quota: 256 * 1024, ..usual_settings() };
    let inner = Domain::create(child.domain(), &inner_settings)?;
    crate::light::map_program(*inner)?;
    let page = Memory::create(PAGE_SIZE, Commit::Explicit)?;
    page.commit(0, PAGE_SIZE)?;
    page.map(*inner, crate::light::SHARED, 0, PAGE_SIZE, Rights::READ | Rights::WRITE)?;
    let view = dragonfly_rt::Mapping::new(*page, 0, PAGE_SIZE, Rights::READ)?;
    let outer = inner.grant(child.domain(), Rights::DESTROY, 0)?;
    let _light = Builder::new(0).spawn(*inner, destroyer, &[outer.0.into()])?;
    expect_value(view.word(0)?, 1, "the call")?;
    equal("destroying the domain around", view.word(8)?.load(Ordering::Relaxed), Status::Busy as u64)
}

extern "C" fn in_a_loop(_: &Words) -> ! {
    shared(0).fetch_add(1, Ordering::Relaxed);
    loop {
        core::hint::spin_loop();
    }
}

extern "C" fn in_calls(words: &Words) -> ! {
    shared(0).fetch_add(1, Ordering::Relaxed);
    loop {
        // What makes and takes away objects.
        let made = raw::call(Call::NotificationCreate, &[]).map_or(0, |results| results[0]);
        let copy = raw::call(Call::HandleCopy, &[made, words[0], Rights::all().bits().into()]);
        let memory = raw::call(Call::MemoryCreate, &[8 * PAGE_SIZE, 1]).map_or(0, |results| results[0]);
        let _ = raw::call(Call::MemoryCommit, &[memory, 0, 4 * PAGE_SIZE]);
        let address = PLAYGROUND + words[1] * (1 << 21);
        let _ = raw::call(Call::MemoryMap, &[memory, words[0], address, 0, 8 * PAGE_SIZE, 6]);
        let child = raw::call(Call::DomainCreate, &[words[0], 32 * 1024, 10, 1]).map_or(0, |results| results[0]);
        let _ = copy.map(|results| raw::call(Call::HandleRevoke, &[made, results[0]]));
        let _ = raw::call_until_done(Call::HandleClose, &[memory]);
        let _ = raw::call_until_done(Call::MemoryUnmap, &[words[0], address]);
        let _ = raw::call_until_done(Call::HandleClose, &[made]);
        let _ = raw::call_until_done(Call::DomainDestroy, &[child]);
    }
}

extern "C" fn echo(words: &Words) -> ! {
    shared(0).fetch_add(1, Ordering::Relaxed);
    let gate: Gate = handle(words[2]);
    let mut received = gate.receive();
    while received.is_ok() {
        received = gate.reply_receive(Message::default());
    }
    exit_thread()
}

extern "C" fn caller(words: &Words) -> ! {
    shared(0).fetch_add(1, Ordering::Relaxed);
    let gate: Gate = handle(words[2]);
    while gate.call(Message::default()).is_ok() {}
    exit_thread()
}

extern "C" fn napper(words: &Words) -> ! {
    shared(0).fetch_add(1, Ordering::Relaxed);
    let notification: Notification = handle(words[3]);
    loop {
        let _ = notification.wait_timed(30_000);
        yield_thread();
    }
}

fn destruction(context: &Context) -> Outcome {
    // A first round makes tables and slots of this domain that stay.
    destroy_a_busy_domain(3)?;
    let before = figures()?;
    for round in 0..context.repeat(15, 60, 2000) {
        destroy_a_busy_domain(round)?;
        equal(format_args!("used memory, handles, free pages after round {round}"), figures()?, before)?;
    }
    Ok(())
}

fn destroy_a_busy_domain(round: u64) -> Outcome {
    let child = Child::with(&DomainSettings { quota: 4 << 20, ..usual_settings() })?;
    let (gate, notification) = (Gate::create()?, Notification::create()?);
    let given = [
        child.give(child.domain(), Rights::all())?,
        child.give(*gate, Rights::all())?,
        child.give(*notification, Rights::all())?,
    ];
    let mut lights = Vec::new();
    for cpu in 0..cpus() {
        for entry in [in_a_loop as crate::light::Entry, in_calls, echo, caller, napper] {
            let words = [given[0], cpu.into(), given[1], given[2]];
            lights.push(Builder::new(cpu).budget(100_000, 100_000).spawn(child.domain(), entry, &words)?);
        }
    }
    expect_value(child.word(0)?, lights.len() as u64, "all threads")?;
    for _ in 0..round % 7 {
        pause();
    }
    child.domain().destroy()?;
    refused("a look at it", child.domain().info(), Status::BadHandle)?;
    for light in &lights {
        refused("a look at its threads", light.thread().info(), Status::BadHandle)?;
    }
    Ok(())
}

fn families(context: &Context) -> Outcome {
    let mut before = None;
    for _ in 0..context.repeat(5, 20, 500) {
        {
            let settings = |quota| DomainSettings { quota, ..usual_settings() };
            let top = Domain::create(Domain::OWN, &settings(8 << 20))?;
            let mut parent = *top;
            let mut family: Vec<Owned<Domain>> = Vec::new();
            for depth in 0..6_u64 {
                let next = Domain::create(parent, &settings((7 - depth) << 20))?;
                // Siblings, with a thread on some CPU.
                let sibling = Domain::create(parent, &settings(256 * 1024))?;
                crate::light::map_program(*sibling)?;
                core::mem::forget(Builder::new(depth as u32 % cpus()).prepare(*sibling, in_a_loop, &[])?);
                parent = *next;
                family.push(next);
                family.push(sibling);
            }
            top.destroy()?;
            for member in &family {
                refused("a member of the family", member.info(), Status::BadHandle)?;
            }
        }
        // The forgotten stacks stay with this domain: only the first round's figures are the start.
        let now = (free_pages()?, 0);
        if let Some((pages, _)) = before.replace(now) {
            // Nine pages of stack for each of six threads, and the tables of their objects.
            let lost: u64 = pages - now.0;
            that(lost <= 6 * 12, format_args!("{lost} pages are not back"))?;
        }
    }
    Ok(())
}

fn destroyed_by_two(context: &Context) -> Outcome {
    for round in 0..context.repeat(20, 100, 2000) {
        let (helper, victim) = (Child::new()?, Child::new()?);
        let given = helper.give(victim.domain(), Rights::DESTROY)?;
        for cpu in 0..cpus() {
            core::mem::forget(victim.spawn(cpu, in_a_loop, &[])?);
        }
        expect_value(victim.word(0)?, cpus().into(), "the threads")?;
        let _other = helper.spawn(context.other_cpu(), persistent_destroyer, &[given])?;
        for _ in 0..round % 5 {
            core::hint::spin_loop();
        }
        let mine = victim.domain().destroy();
        that(matches!(mine, Ok(()) | Err(Status::BadHandle)), format_args!("{mine:?}"))?;
        expect_value(helper.word(0)?, 1, "the other's call")?;
        let other = helper.word(1)?.load(Ordering::Relaxed);
        that([0, Status::BadHandle as u64].contains(&other), format_args!("the other got status {other}"))?;
        refused("a look at it", victim.domain().info(), Status::BadHandle)?;
    }
    Ok(())
}

extern "C" fn persistent_destroyer(words: &Words) -> ! {
    let status = raw::call_until_done(Call::DomainDestroy, &[words[0]]);
    shared(1).store(status.map_or_else(|status| status as u64, |_| 0), Ordering::Relaxed);
    shared(0).store(1, Ordering::Release);
    exit_thread()
}

/// Makes an object of each kind and gives each to domain 0 (words 2 to 5: the handles there).
extern "C" fn maker(words: &Words) -> ! {
    let made = [
        raw::call(Call::GateCreate, &[]),
        raw::call(Call::NotificationCreate, &[]),
        raw::call(Call::MemoryCreate, &[PAGE_SIZE, 1]),
        raw::call(Call::DomainCreate, &[words[1], 64 * 1024, 5, 1]),
    ];
    for (index, made) in made.into_iter().enumerate() {
        let handle = made.map_or(0, |results| results[0]);
        let given = raw::call(Call::HandleCopy, &[handle, words[0], Rights::all().bits().into()]);
        shared(2 + index).store(given.map_or(0, |results| results[0]), Ordering::Relaxed);
    }
    shared(0).store(1, Ordering::Release);
    loop {
        yield_thread();
    }
}

fn objects_go(_: &Context) -> Outcome {
    for cpu in 0..cpus() {
        let owner = Child::new()?;
        let given = [owner.give(Domain::OWN, Rights::GRANT)?, owner.give(owner.domain(), Rights::all())?];
        let light = owner.spawn(cpu, maker, &given)?;
        expect_value(owner.word(0)?, 1, "the objects")?;
        let mut handles = Vec::new();
        for index in 2..6 {
            handles.push(owner.word(index)?.load(Ordering::Relaxed));
        }
        for handle in &handles {
            raw::call(Call::HandleInfo, &[*handle])?;
        }
        // Copies of copies go as well.
        let further = handle::<Notification>(handles[1]).copy(Rights::all(), 0)?.keep();
        let thread = light.thread();
        owner.destroy()?;
        for handle in handles {
            refused("an object of the domain", raw::call(Call::HandleInfo, &[handle]), Status::BadHandle)?;
        }
        refused("a copy of one", further.signal(1), Status::BadHandle)?;
        refused("its thread", thread.info(), Status::BadHandle)?;
    }
    Ok(())
}

fn handles_go(_: &Context) -> Outcome {
    let used = Domain::OWN.info()?.used;
    let memory = Memory::create(64 * PAGE_SIZE, Commit::Explicit)?;
    memory.commit(0, 64 * PAGE_SIZE)?;
    let child = Child::new()?;
    child.give(*memory, Rights::all())?;
    memory.close()?;
    // The child's handle is the last one; it goes with the child.
    child.destroy()?;
    equal("memory used", Domain::OWN.info()?.used, used)
}

fn stale_domains(_: &Context) -> Outcome {
    let (holder, victim) = (Child::new()?, Child::new()?);
    let given = holder.give(victim.domain(), Rights::all())?;
    let copy = victim.domain().copy(Rights::all(), 0)?.keep();
    victim.destroy()?;
    refused("a copy of the handle", copy.info(), Status::BadHandle)?;
    let _light = holder.spawn(0, destroyer, &[given])?;
    expect_value(holder.word(0)?, 1, "the call")?;
    equal("a handle in another domain", holder.word(1)?.load(Ordering::Relaxed), Status::BadHandle as u64)
}

/// Puts handles, mappings, threads and children into domain 0 until that no longer works. Word 1 counts rounds.
extern "C" fn intruder(words: &Words) -> ! {
    let notification = raw::call(Call::NotificationCreate, &[]).map_or(0, |results| results[0]);
    let memory = raw::call(Call::MemoryCreate, &[PAGE_SIZE, 1]).map_or(0, |results| results[0]);
    for round in 0.. {
        let address = PLAYGROUND + round % 64 * PAGE_SIZE;
        let results = [
            raw::call(Call::HandleCopy, &[notification, words[0], 1]),
            raw::call(Call::MemoryMap, &[memory, words[0], address, 0, PAGE_SIZE, 2]),
            raw::call(Call::ThreadCreate, &[words[0], 5 << 32, 0x20_0000, 0, address + (1 << 30), 0]),
            raw::call(Call::DomainCreate, &[words[0], 32 * 1024, 5, 1]),
        ];
        shared(1).fetch_add(1, Ordering::Relaxed);
        if results.iter().all(|result| *result == Err(Status::BadHandle)) {
            break;
        }
    }
    shared(0).store(1, Ordering::Release);
    exit_thread()
}

fn no_entry(context: &Context) -> Outcome {
    for _ in 0..context.repeat(10, 100, 2000) {
        let intruders = Child::with(&DomainSettings { quota: 8 << 20, ..usual_settings() })?;
        let victim = Child::with(&DomainSettings { quota: 2 << 20, ..usual_settings() })?;
        let given = intruders.give(victim.domain(), Rights::MANAGE | Rights::GRANT)?;
        let _light = intruders.spawn(context.other_cpu(), intruder, &[given])?;
        let rounds = intruders.word(1)?;
        expect_that(|| rounds.load(Ordering::Relaxed) > 3, "the intruder")?;
        victim.destroy()?;
        expect_value(intruders.word(0)?, 1, "the end of it")?;
        intruders.destroy()?;
    }
    Ok(())
}

fn badged_death(_: &Context) -> Outcome {
    let death = Notification::create()?;
    let badged = death.copy(Rights::SEND, 0x30)?;
    let child = Child::with(&DomainSettings { death: Some((*badged, 0xff)), ..usual_settings() })?;
    child.spawn(0, in_a_loop, &[])?.thread().destroy()?;
    equal("bits", expect_bits(*death, "the death")?, 0x30)
}

fn thousands(context: &Context) -> Outcome {
    let settings = DomainSettings { quota: 128 * 1024, ..usual_settings() };
    Domain::create(Domain::OWN, &settings)?.destroy()?;
    let before = figures()?;
    for _ in 0..context.repeat(300, 10_000, 100_000) {
        let domain = Domain::create(Domain::OWN, &settings)?;
        domain.destroy()?;
    }
    equal("used memory, handles, free pages", figures()?, before)
}

extern "C" fn one_shot(words: &Words) -> ! {
    let notification: Notification = handle(words[0]);
    let _ = notification.signal(1);
    loop {
        core::hint::spin_loop();
    }
}

fn thousands_with_threads(context: &Context) -> Outcome {
    let one_round = |round: u64| -> Outcome {
        let child = Child::new()?;
        let ready = Notification::create()?;
        let given = child.give(*ready, Rights::SEND)?;
        let _light = child.spawn(round as u32 % cpus(), one_shot, &[given])?;
        expect_bits(*ready, "the thread")?;
        child.destroy()
    };
    one_round(0)?;
    let before = figures()?;
    for round in 0..context.repeat(100, 1000, 20_000) {
        one_round(round)?;
    }
    equal("used memory, handles, free pages", figures()?, before)?;
    let _ = sys::clock_now_ns();
    Ok(())
}
