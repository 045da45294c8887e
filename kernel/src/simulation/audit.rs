//! What must hold between any two steps of a simulated machine, whatever its domains do.

use std::collections::{HashMap, HashSet};

use dragonfly_abi::{PAGE_SIZE, Rights};
use dragonfly_memory::{FrameUse, PageSize, UserVirt};

use super::world::{DomainRef, ThreadRef, World};
use super::{Queue, Ref};
use crate::arch::NEVER;
use crate::arch::fake::Fake;
use crate::capability::{Capability, Derivation, Object, Place};
use crate::cpu::{Cpu, context_of};
use crate::domain::Domain;
use crate::gate::Gate;
use crate::notification::Notification;
use crate::thread::{Phase, Thread, Waiting, errand};

/// References to the objects in a queue.
pub fn all<T, L>(queue: &Queue<T, L>) -> Vec<Ref<T>> {
    queue.iter().map(|object| queue.find(|other| std::ptr::eq(other, object)).expect("it is in the queue")).collect()
}

/// What a domain made and pays for.
pub fn owned(domain: &Domain<Fake>) -> Vec<Ref<Derivation<Fake>>> {
    all(&domain.owned.lock())
}

/// The domains directly below a domain.
pub fn children(domain: &Domain<Fake>) -> Vec<DomainRef> {
    let child = |derivation: &Ref<Derivation<Fake>>| match &derivation.state.lock().object {
        Object::Domain(child) if !std::ptr::eq(&raw const **child, domain) => Some(child.clone()),
        _ => None,
    };
    owned(domain).iter().filter_map(child).collect()
}

/// A domain and all below it.
pub fn family(domain: &DomainRef) -> Vec<DomainRef> {
    let mut family = vec![domain.clone()];
    let mut next = 0;
    while next < family.len() {
        family.extend(children(&family[next]));
        next += 1;
    }
    family
}

/// The threads of a domain that have not ended.
pub fn threads(domain: &Domain<Fake>) -> Vec<ThreadRef> {
    all(&domain.threads.lock().members)
}

/// Looks at the whole kernel. Panics with what is wrong.
pub fn audit(world: &World) {
    let domains = family(world.first());
    let threads: Vec<_> = domains.iter().flat_map(|domain| threads(domain)).collect();
    let mut places = HashMap::new();
    for cpu in &world.cpus {
        audit_cpu(world, cpu, &mut places);
    }
    for thread in &threads {
        audit_thread(world.fake, thread, places.remove(&Ref::as_ptr(thread)));
    }
    assert!(places.is_empty(), "a CPU knows a thread that no domain has");
    let mut held = HashSet::new();
    for domain in &domains {
        audit_domain(domain, &mut held);
        audit_space(world.fake, domain, &mut held);
    }
    for derivation in domains.iter().flat_map(|domain| owned(domain)) {
        audit_derivation(&derivation, &mut held);
    }
    assert!(held.is_empty(), "a capability is not in the tree of an object that somebody owns");
}

fn audit_cpu(world: &World, cpu: &Cpu<Fake>, places: &mut HashMap<*const Thread<Fake>, &'static str>) {
    let id = cpu.id;
    assert!(!cpu.needs_reschedule, "CPU {id} runs a domain though it has to choose again");
    let mut place = |thread: &ThreadRef, place| {
        assert_eq!(thread.cpu(), id, "a thread is on another CPU");
        let before = places.insert(Ref::as_ptr(thread), place);
        assert_eq!(before, None, "a thread is in a second place on CPU {id}: {place}");
    };
    match (&cpu.current, &cpu.charged) {
        (None, None) => assert_eq!(cpu.ready_mask(), 0, "CPU {id} idles though a thread is ready"),
        (Some(current), Some(charged)) => {
            assert!(Ref::ptr_eq(&context_of(current), charged), "CPU {id} charges a context outside of the chain");
            let best = 63_u32.saturating_sub(cpu.ready_mask().leading_zeros());
            assert!(
                cpu.ready_mask() == 0 || best <= u32::from(charged.priority()),
                "CPU {id} runs priority {} though {best} is ready",
                charged.priority()
            );
            place(current, "current");
        }
        _ => panic!("CPU {id} has a current thread without a charged context, or the reverse"),
    }
    for (priority, queue) in cpu.ready().iter().enumerate() {
        assert_eq!(!queue.is_empty(), cpu.ready_mask() >> priority & 1 != 0, "ready mask of priority {priority}");
        for context in all(queue) {
            assert_eq!(usize::from(context.priority()), priority);
            place(&runner_of(&context), "ready");
        }
    }
    let mut earliest = 0;
    for context in all(cpu.depleted()) {
        let next = context.schedule.lock().budget.next_time();
        assert!(next >= earliest, "depleted contexts are sorted");
        earliest = next;
        place(&runner_of(&context), "depleted");
    }
    for (queue_name, deadlines) in [
        ("time-outs", deadlines(&cpu.timeouts, |thread| &thread.timeout)),
        ("alarms", deadlines(&cpu.alarms, |thread| &thread.alarm)),
    ] {
        assert!(deadlines.is_sorted_by_key(|(deadline, _)| *deadline), "{queue_name} of CPU {id} are sorted");
        for (deadline, thread) in deadlines {
            assert_eq!(thread.cpu(), id);
            assert_eq!(thread.phase(), Phase::Alive, "a thread among the {queue_name}");
            assert_ne!(deadline, NEVER);
        }
    }
    for thread in all(&cpu.timeouts) {
        assert!(thread.is_blocked() || thread.inbox_link().is_queued(), "a thread that does not wait has a time-out");
    }
    assert!(world.fake.timer(id) <= cpu.next_deadline(), "the timer of CPU {id} comes too late");
    let is_told = world.kernel().remote(id).inbox.is_empty() || world.fake.is_kicked(id);
    assert!(is_told, "CPU {id} does not know of its inbox");
    let active = cpu.active.as_ref().map(Ref::as_ptr);
    assert_eq!(active, cpu.current.as_ref().map(|current| Ref::as_ptr(&current.domain)), "the active address space");
    assert_eq!(world.fake.active_root(id), cpu.active.as_ref().map(|domain| domain.space.root()));
    assert_eq!(world.fake.stale_translation(id), None, "CPU {id} was not told of a change to the page tables");
}

fn deadlines<L>(
    queue: &Queue<Thread<Fake>, L>,
    deadline: impl Fn(&Thread<Fake>) -> &crate::sync::AtomicU64,
) -> Vec<(u64, ThreadRef)> {
    let threads = all(queue).into_iter();
    threads.map(|thread| (deadline(&thread).load(std::sync::atomic::Ordering::Relaxed), thread)).collect()
}

/// The thread that runs on a queued context.
fn runner_of(context: &ThreadRef) -> ThreadRef {
    let runner = context.schedule.lock().runner.clone().unwrap_or_else(|| context.clone());
    assert!(Ref::ptr_eq(&context_of(&runner), context), "a thread is queued on a context that it does not run on");
    runner
}

fn audit_thread(fake: Fake, thread: &ThreadRef, place: Option<&str>) {
    let is_travelling = thread.inbox_link().is_queued();
    assert!(is_travelling || thread.errands() == 0, "errands of a thread that is in no inbox");
    let caller = {
        let ipc = thread.ipc.lock();
        ipc.caller.as_ref().map(|caller| (caller.thread.clone(), caller.token, caller.is_donor, caller.is_fault))
    };
    if let Some((caller, token, is_donor, is_fault)) = caller {
        assert!(caller.waits_by(token), "a server remembers a caller that does not wait for it");
        let is_local = caller.cpu() == thread.cpu();
        assert!(if is_donor { is_local } else { !is_local || is_fault }, "donation is for calls on one CPU");
        let waits_for = match &caller.ipc.lock().waiting {
            Waiting::Reply(server) => Ref::ptr_eq(server, thread),
            _ => false,
        };
        assert!(waits_for, "a server remembers a caller that waits for something else");
    }
    match thread.phase() {
        Phase::Stopped => {
            assert_eq!(place, None, "a thread that was not started");
            assert!(!thread.is_blocked());
        }
        Phase::Alive if thread.is_blocked() => {
            assert_eq!(place, None, "a blocked thread");
            audit_wait(thread);
        }
        Phase::Alive if place.is_none() => {
            let is_coming = is_travelling && thread.errands() & (errand::READY | errand::END) != 0;
            assert!(is_coming, "a thread is nowhere: not running, ready, blocked or on its way");
        }
        Phase::Alive => {}
        Phase::Ended => panic!("a thread that has ended is still one of its domain's"),
    }
    if thread.is_doomed() {
        let is_coming = thread.errands() & errand::END != 0 || place.is_some() || thread.errands() != 0;
        assert!(is_coming, "a doomed thread that its CPU does not know of");
    }
    let page = thread.buffer.memory().pinned_frame();
    assert!(page.is_some_and(|page| fake.is_ram(page)), "a message buffer without a frame");
}

/// A blocked thread is where it says.
fn audit_wait(thread: &ThreadRef) {
    enum At {
        Receivers(Ref<Gate<Fake>>),
        Callers(Ref<Gate<Fake>>),
        Server(ThreadRef),
        Waiters(Ref<Notification<Fake>>),
    }
    let at = match &thread.ipc.lock().waiting {
        Waiting::Nothing => panic!("a blocked thread waits for nothing"),
        Waiting::Receive(gate) => At::Receivers(gate.clone()),
        Waiting::Send(gate) => At::Callers(gate.clone()),
        Waiting::Reply(server) => At::Server(server.clone()),
        Waiting::Notification(notification) => At::Waiters(notification.clone()),
        Waiting::Guest => panic!("the simulated machine runs no guests"),
    };
    match at {
        At::Receivers(gate) => {
            let queues = gate.queues.lock();
            assert!(queues.receivers.contains(thread) && !queues.is_closed, "a receiver that no caller finds");
        }
        At::Callers(gate) => {
            let queues = gate.queues.lock();
            assert!(queues.callers.contains(thread) && !queues.is_closed, "a caller that no receiver finds");
        }
        At::Waiters(notification) => {
            let waiters = notification.waiters.lock();
            assert!(waiters.queue.contains(thread) && !waiters.is_closed, "a waiter that no signal finds");
        }
        At::Server(server) => {
            assert_eq!(server.phase(), Phase::Alive, "a caller waits for a server that has ended");
            let ipc = server.ipc.lock();
            let caller = ipc.caller.as_ref().expect("a caller waits for a server that does not know of it");
            assert!(
                Ref::ptr_eq(&caller.thread, thread) && thread.waits_by(caller.token),
                "the server has another caller"
            );
        }
    }
}

/// Capabilities that have been found at a place.
type Held = HashSet<*const Capability<Fake>>;

fn audit_domain(domain: &DomainRef, held: &mut Held) {
    assert!(domain.account.used() <= domain.account.limit());
    let below: u64 = children(domain).iter().map(|child| child.account.limit()).sum();
    assert!(below <= domain.account.used(), "the limits of child domains are not all taken from their parent");
    {
        let threads = domain.threads.lock();
        assert_eq!(threads.members.iter().count() as u64, threads.count, "threads and their count");
        assert!(threads.members.iter().all(|thread| std::ptr::eq(&raw const *thread.domain, Ref::as_ptr(domain))));
    }
    let handles = domain.table.lock().handles();
    assert_eq!(domain.table.lock().count(), handles.len() as u64, "handles and their count");
    for (handle, capability) in handles {
        let is_there = match &capability.node.lock().place {
            Place::Slot(holder, slot) => Ref::ptr_eq(holder, domain) && *slot == handle.slot(),
            _ => false,
        };
        assert!(is_there, "a handle names a capability that is somewhere else");
        held.insert(Ref::as_ptr(&capability));
    }
    for derivation in owned(domain) {
        let owner = derivation.state.lock().owner.clone();
        assert!(owner.is_some_and(|owner| Ref::ptr_eq(&owner, domain)), "the owner of an owned object");
    }
}

fn audit_derivation(derivation: &Ref<Derivation<Fake>>, held: &mut Held) {
    let state = derivation.state.lock();
    let count = audit_tree(derivation, None, &state.roots, held);
    assert_eq!(state.count, count, "capabilities and their count");
    let lives_alone = state.object.outlives_handles() || state.is_closing;
    let owner = state.owner.as_ref().expect("it is owned");
    assert!(count > 0 || lives_alone || owner.is_dying(), "{:?} that nobody can reach", state.object.object_type());
    match &state.object {
        Object::Gate(gate) => audit_gate(gate),
        Object::Notification(notification) => audit_notification(notification),
        Object::Memory(memory) => {
            assert!(memory.committed() <= memory.size());
            assert!(memory.mappings() <= count, "mappings of a memory object");
        }
        _ => {}
    }
}

/// Looks at the capabilities below one, or at all of a tree, and counts them.
fn audit_tree(
    derivation: &Ref<Derivation<Fake>>,
    parent: Option<&Capability<Fake>>,
    children: &Queue<Capability<Fake>, crate::capability::link::Sibling>,
    held: &mut Held,
) -> u64 {
    let mut count = 0;
    for capability in children {
        assert!(Ref::ptr_eq(&capability.derivation, derivation));
        assert!(held.remove(&std::ptr::from_ref(capability)), "a capability in the tree is not at its place");
        let node = capability.node.lock();
        let above = node.parent.as_ref().map(Ref::as_ptr);
        assert_eq!(above, parent.map(std::ptr::from_ref), "a capability that names another parent");
        if let Some(parent) = parent {
            assert!(parent.rights.contains(capability.rights), "a copy with more rights than its source");
            assert!(parent.badge == 0 || capability.range.is_some() || parent.badge == capability.badge);
        }
        count += 1 + audit_tree(derivation, Some(capability), &node.children, held);
    }
    count
}

fn audit_gate(gate: &Ref<Gate<Fake>>) {
    let queues = gate.queues.lock();
    assert!(queues.receivers.is_empty() || queues.callers.is_empty(), "callers and receivers wait for each other");
    assert!(all(&queues.receivers).iter().chain(&all(&queues.callers)).all(|thread| thread.is_blocked()));
    let priorities: Vec<_> = queues.callers.iter().map(Thread::priority).collect();
    assert!(priorities.is_sorted_by(|first, next| first >= next), "callers wait by priority");
    let Some(notification) = queues.notification.clone() else { return };
    assert!(queues.receivers.is_empty() || notification.bits() == 0, "a receiver waits though there are bits");
    drop(queues);
    let is_bound = notification.waiters.lock().gate.as_ref().is_some_and(|bound| Ref::ptr_eq(bound, gate));
    assert!(is_bound, "a gate is bound to a notification that does not know of it");
}

fn audit_notification(notification: &Ref<Notification<Fake>>) {
    let waiters = notification.waiters.lock();
    assert!(waiters.queue.is_empty() || notification.bits() == 0, "a thread waits though there are bits");
    assert!(waiters.queue.iter().all(Thread::is_blocked));
    let Some(gate) = waiters.gate.clone() else { return };
    drop(waiters);
    let is_bound = gate.queues.lock().notification.as_ref().is_some_and(|bound| Ref::ptr_eq(bound, notification));
    assert!(is_bound, "a notification is bound to a gate that does not know of it");
}

fn audit_space(fake: Fake, domain: &DomainRef, held: &mut Held) {
    let mappings = domain.space.mappings();
    let ranges: Vec<_> = mappings.iter().map(|mapping| mapping.range.expect("a mapping has a range")).collect();
    assert!(ranges.windows(2).all(|pair| pair[0].end <= pair[1].start), "mappings overlap or are not sorted");
    for mapping in &mappings {
        let is_here = matches!(&mapping.node.lock().place, Place::Mapping(holder) if Ref::ptr_eq(holder, domain));
        assert!(is_here, "a mapping that is somewhere else");
        held.insert(Ref::as_ptr(mapping));
    }
    for page in domain.space.pages() {
        let address = UserVirt::new(page.base.as_u64());
        let shown = mappings.iter().find(|mapping| {
            mapping.range.is_some_and(|range| {
                range.start <= address.into() && address.as_u64() + page.size.bytes() <= range.end.as_u64()
            })
        });
        let shown = shown.expect("a page that no mapping shows");
        let (Some(range), Object::Memory(memory)) = (shown.range, &shown.object) else { panic!("a mapping of memory") };
        let offset = range.offset.as_u64() + (address.as_u64() - range.start.as_u64());
        for step in (0..page.size.bytes()).step_by(PAGE_SIZE as usize) {
            let block = memory.block_at(offset + step).expect("a page without a frame in its object");
            let frame = block.frames.wrapping_add(offset + step - block.offset);
            assert_eq!(frame, page.phys.wrapping_add(step), "a page shows another frame than its object has");
            if fake.is_ram(frame) && page.size == PageSize::Size4K {
                let frame_use = crate::arch::Arch::frames(fake).lock().frame_use(frame);
                assert_eq!(frame_use, Some(FrameUse::Object), "a domain sees a frame that is not its own");
            }
            if page.size != PageSize::Size4K && step >= 16 * PAGE_SIZE {
                break;
            }
        }
        let access = page.access;
        assert!(access.is_user && !(access.is_writable && access.is_executable));
        assert!(!access.is_writable || range.access.contains(Rights::WRITE));
        assert!(!access.is_executable || range.access.contains(Rights::EXECUTE));
    }
}
