//! The kernel's protocols between CPUs, in every interleaving of a few steps under loom's memory model: the kernel's own
//! atomics (`kernel/src/protocol.rs`) with this crate's locks and lists.
//!
//! The functions below do, step by step, what the kernel's functions of the same names do. Loom's cells stand for what
//! the kernel hands from CPU to CPU without a lock, registers above all: loom reports each access that is not ordered.
#![cfg(loom)]
#![expect(unsafe_code, reason = "loom's cells are read and written by pointer")]

use dragonfly_memory::host::HostHeap;
use dragonfly_memory::{Inbox, Link, Linked, Lock, Queue, Ref, Relax};
use loom::cell::UnsafeCell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, AtomicU64, Ordering, fence};
use loom::thread;
use protocol::{Bits, Errands, Shootdowns, Wait, WaitToken};

#[path = "../../src/protocol.rs"]
mod protocol;

/// What `protocol.rs` finds as the kernel's atomics.
mod sync {
    pub use loom::sync::atomic::{AtomicU32, AtomicU64};
}

const WAKE: u32 = 1;
const END: u32 = 2;

/// What a call gave that timed out.
const TIMED_OUT: u64 = u64::MAX;

struct Yield;

impl Relax for Yield {
    fn relax() {
        thread::yield_now();
    }
}

type Heap = &'static HostHeap;
type ThreadRef = Ref<Thread, Heap>;

struct WaitTag;
struct InboxTag;

/// A thread of the kernel.
struct Thread {
    wait: Wait,
    errands: Errands,
    registers: UnsafeCell<u64>,
    /// Whom it has to answer.
    caller: Lock<Option<(ThreadRef, WaitToken)>, Yield>,
    links: [Link; 2],
}

impl Linked<WaitTag> for Thread {
    fn link(&self) -> &Link {
        &self.links[0]
    }
}

impl Linked<InboxTag> for Thread {
    fn link(&self) -> &Link {
        &self.links[1]
    }
}

impl Thread {
    fn make() -> ThreadRef {
        static HEAP: std::sync::OnceLock<Heap> = std::sync::OnceLock::new();
        let thread = Self {
            wait: Wait::new(),
            errands: Errands::new(),
            registers: UnsafeCell::new(0),
            caller: Lock::new(None),
            links: [Link::new(), Link::new()],
        };
        Ref::try_new(*HEAP.get_or_init(HostHeap::leak), thread).ok().unwrap()
    }

    fn set_results(&self, value: u64) {
        // SAFETY: Only who has claimed the thread, or runs it, comes here: what loom checks.
        self.registers.with_mut(|registers| unsafe { *registers = value });
    }

    fn results(&self) -> u64 {
        // SAFETY: As in `set_results`.
        self.registers.with(|registers| unsafe { *registers })
    }
}

/// A CPU, as others see it.
struct Cpu {
    inbox: Inbox<Thread, Heap, InboxTag>,
    is_kicked: AtomicBool,
}

impl Cpu {
    fn new() -> Self {
        Self { inbox: Inbox::new(), is_kicked: AtomicBool::new(false) }
    }

    /// `Kernel::post`.
    fn post(&self, thread: ThreadRef, errand: u32) {
        thread.errands.add(errand);
        if self.inbox.push(thread).is_ok_and(|pushed| pushed.was_empty) {
            // An exchange: loom may lose a plain store that races with the one below, which no processor does.
            self.is_kicked.swap(true, Ordering::Release);
        }
    }

    /// `Kernel::kicked`, if the CPU was: the errands that it finds, with what each thread goes on with.
    fn empty_inbox(&self) -> Vec<(u32, u64)> {
        if !self.is_kicked.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        let taken = self.inbox.take_all();
        taken
            .map(|thread| (thread.errands.take(), thread))
            .map(|(errands, thread)| (errands, thread.results()))
            .collect()
    }
}

/// A notification, and the gate it may be bound to.
struct Notification {
    bits: Bits,
    waiters: Lock<Waiters, Yield>,
}

struct Waiters {
    queue: Queue<Thread, Heap, WaitTag>,
    gate: Option<Arc<Gate>>,
}

struct Gate {
    queues: Lock<Queues, Yield>,
}

struct Queues {
    receivers: Queue<Thread, Heap, WaitTag>,
    notification: Option<Arc<Notification>>,
}

impl Notification {
    fn new() -> Arc<Self> {
        let waiters = Lock::new(Waiters { queue: Queue::new(), gate: None });
        Arc::new(Self { bits: Bits::new(), waiters })
    }

    /// `Kernel::signal`, with all threads on `cpu`.
    fn signal(&self, cpu: &Cpu, bits: u64) {
        self.bits.set(bits);
        let mut waiters = self.waiters.lock();
        let bits = self.bits.take();
        if bits == 0 {
            return;
        }
        while let Some(thread) = waiters.queue.pop_front() {
            if thread.wait.claim_any() {
                drop(waiters);
                thread.set_results(bits);
                cpu.post(thread, WAKE);
                return;
            }
        }
        self.bits.set(bits);
        let Some(gate) = waiters.gate.clone() else { return };
        gate.offer_bits(cpu);
    }

    /// `notification_wait`: the bits, or the thread waits.
    fn wait(&self, current: &ThreadRef) -> Option<u64> {
        let mut waiters = self.waiters.lock();
        let bits = self.bits.take();
        if bits != 0 {
            return Some(bits);
        }
        current.wait.block();
        assert!(waiters.queue.push_back(current.clone()).is_ok());
        None
    }

    /// `Kernel::time_out` of a thread that waits here: whether it claimed the thread.
    fn time_out(&self, thread: &ThreadRef) -> bool {
        if !thread.wait.claim_any() {
            return false;
        }
        drop(self.waiters.lock().queue.remove(thread));
        thread.set_results(TIMED_OUT);
        true
    }

    /// Lets go of the gate, which has a reference back.
    fn unbind(&self) {
        self.waiters.lock().gate = None;
    }
}

impl Gate {
    fn new() -> Arc<Self> {
        Arc::new(Self { queues: Lock::new(Queues { receivers: Queue::new(), notification: None }) })
    }

    /// `Kernel::offer_bits`, under the notification's waiters.
    fn offer_bits(&self, cpu: &Cpu) {
        let mut queues = self.queues.lock();
        if queues.receivers.is_empty() {
            return;
        }
        let Some(notification) = queues.notification.clone() else { return };
        let bits = notification.bits.take();
        if bits == 0 {
            return;
        }
        while let Some(receiver) = queues.receivers.pop_front() {
            if receiver.wait.claim_any() {
                drop(queues);
                receiver.set_results(bits);
                cpu.post(receiver, WAKE);
                return;
            }
        }
        notification.bits.set(bits);
    }

    /// `Kernel::receive`: bits, or the thread waits.
    fn receive(&self, current: &ThreadRef) -> Option<u64> {
        let mut queues = self.queues.lock();
        let bits = queues.notification.as_ref().map_or(0, |notification| notification.bits.take());
        if bits != 0 {
            return Some(bits);
        }
        current.wait.block();
        assert!(queues.receivers.push_back(current.clone()).is_ok());
        None
    }

    /// `Kernel::send` to a receiver on another CPU; the caller then waits for its answer.
    fn send(&self, current: &ThreadRef, receivers_cpu: &Cpu, word: u64) {
        let receiver = self.queues.lock().receivers.pop_front().filter(|receiver| receiver.wait.claim_any());
        let receiver = receiver.expect("a receiver");
        receiver.set_results(word);
        let token = current.wait.block();
        *receiver.caller.lock() = Some((current.clone(), token));
        receivers_cpu.post(receiver, WAKE);
    }
}

/// `notification_bind`.
fn bind(notification: &Arc<Notification>, cpu: &Cpu, gate: &Arc<Gate>) {
    let mut waiters = notification.waiters.lock();
    let mut queues = gate.queues.lock();
    waiters.gate = Some(gate.clone());
    queues.notification = Some(notification.clone());
    drop(queues);
    gate.offer_bits(cpu);
}

/// `Kernel::reply`: whether it claimed the caller.
fn reply(server: &Thread, callers_cpu: &Cpu, word: u64) -> bool {
    let Some((caller, token)) = server.caller.lock().take() else { return false };
    if !caller.wait.claim(token) {
        return false;
    }
    caller.set_results(word);
    callers_cpu.post(caller, WAKE);
    true
}

/// Every interleaving with at most so many places where a CPU is stopped though it could go on.
fn model(preemptions: usize, scene: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.check(scene);
}

#[test]
fn a_signal_reaches_a_waiter_that_comes_at_the_same_time() {
    loom::model(|| {
        let (cpu, notification, waiter) = (Arc::new(Cpu::new()), Notification::new(), Thread::make());
        let (other_cpu, other) = (cpu.clone(), notification.clone());
        let signaller = thread::spawn(move || other.signal(&other_cpu, 4));
        let found = notification.wait(&waiter);
        signaller.join().unwrap();
        match found {
            Some(bits) => assert_eq!(bits, 4),
            None => assert_eq!(cpu.empty_inbox(), [(WAKE, 4)]),
        }
        assert!(!waiter.wait.is_blocked() && notification.bits.get() == 0);
    });
}

#[test]
fn bits_of_two_signallers_are_all_given_or_still_set() {
    loom::model(|| {
        let (cpu, notification, waiter) = (Arc::new(Cpu::new()), Notification::new(), Thread::make());
        assert_eq!(notification.wait(&waiter), None);
        let (other_cpu, other) = (cpu.clone(), notification.clone());
        let signaller = thread::spawn(move || other.signal(&other_cpu, 1));
        notification.signal(&cpu, 2);
        signaller.join().unwrap();
        let given: Vec<_> = cpu.empty_inbox();
        assert!(matches!(given[..], [(WAKE, bits)] if bits != 0 && bits + notification.bits.get() == 3), "{given:?}");
    });
}

#[test]
fn a_wait_ends_by_a_signal_or_by_its_time_and_never_both() {
    loom::model(|| {
        let (cpu, notification, waiter) = (Arc::new(Cpu::new()), Notification::new(), Thread::make());
        assert_eq!(notification.wait(&waiter), None);
        let (other_cpu, other) = (cpu.clone(), notification.clone());
        let signaller = thread::spawn(move || other.signal(&other_cpu, 4));
        let has_timed_out = notification.time_out(&waiter);
        signaller.join().unwrap();
        if has_timed_out {
            assert_eq!((waiter.results(), notification.bits.get()), (TIMED_OUT, 4));
            assert!(cpu.empty_inbox().is_empty());
        } else {
            assert_eq!((cpu.empty_inbox(), notification.bits.get()), (vec![(WAKE, 4)], 0));
        }
    });
}

#[test]
fn bits_for_a_bound_gate_reach_a_receiver_that_comes_at_the_same_time() {
    loom::model(|| {
        let (cpu, notification, gate, server) =
            (Arc::new(Cpu::new()), Notification::new(), Gate::new(), Thread::make());
        bind(&notification, &cpu, &gate);
        let (other_cpu, other) = (cpu.clone(), notification.clone());
        let signaller = thread::spawn(move || other.signal(&other_cpu, 4));
        let found = gate.receive(&server);
        signaller.join().unwrap();
        match found {
            Some(bits) => assert_eq!(bits, 4),
            None => assert_eq!(cpu.empty_inbox(), [(WAKE, 4)]),
        }
        assert!(!server.wait.is_blocked() && notification.bits.get() == 0);
        notification.unbind();
    });
}

#[test]
fn bits_that_are_set_while_their_notification_is_bound_reach_the_gates_receiver() {
    loom::model(|| {
        let (cpu, notification, gate, server) =
            (Arc::new(Cpu::new()), Notification::new(), Gate::new(), Thread::make());
        assert_eq!(gate.receive(&server), None);
        let (other_cpu, other) = (cpu.clone(), notification.clone());
        let signaller = thread::spawn(move || other.signal(&other_cpu, 4));
        bind(&notification, &cpu, &gate);
        signaller.join().unwrap();
        assert_eq!((cpu.empty_inbox(), notification.bits.get()), (vec![(WAKE, 4)], 0));
        notification.unbind();
    });
}

#[test]
fn a_call_and_its_answer_carry_registers_to_another_cpu_and_back() {
    model(3, || {
        let (here, there) = (Arc::new(Cpu::new()), Arc::new(Cpu::new()));
        let (gate, caller, server) = (Gate::new(), Thread::make(), Thread::make());
        let (servers_gate, servers_here, servers_there) = (gate.clone(), here.clone(), there.clone());
        assert_eq!(gate.receive(&server), None);
        let other = thread::spawn(move || {
            loop {
                if let [(errands, word)] = servers_there.empty_inbox()[..] {
                    assert_eq!((errands, word), (WAKE, 7));
                    assert!(reply(&server, &servers_here, word + 1));
                    drop(servers_gate);
                    return;
                }
                thread::yield_now();
            }
        });
        gate.send(&caller, &there, 7);
        other.join().unwrap();
        assert_eq!(here.empty_inbox(), [(WAKE, 8)]);
    });
}

#[test]
fn a_call_ends_by_its_answer_or_by_its_time_and_never_both() {
    loom::model(|| {
        let here = Arc::new(Cpu::new());
        let (caller, server) = (Thread::make(), Thread::make());
        let token = caller.wait.block();
        *server.caller.lock() = Some((caller.clone(), token));
        let callers_cpu = here.clone();
        let other = thread::spawn(move || reply(&server, &callers_cpu, 8));
        let has_timed_out = caller.wait.claim_any();
        if has_timed_out {
            caller.set_results(TIMED_OUT);
        }
        assert_ne!(other.join().unwrap(), has_timed_out);
        let woken = here.empty_inbox();
        assert_eq!(woken, if has_timed_out { vec![] } else { vec![(WAKE, 8)] });
    });
}

#[test]
fn a_token_of_an_earlier_wait_claims_nothing() {
    loom::model(|| {
        let waiter = Thread::make();
        let old = waiter.wait.block();
        let late = waiter.clone();
        let other = thread::spawn(move || late.wait.claim(old));
        let is_mine = waiter.wait.claim_any();
        if is_mine {
            let next = waiter.wait.block();
            assert!(!other.join().unwrap());
            assert!(waiter.wait.is_in(next));
        } else {
            assert!(other.join().unwrap());
        }
    });
}

#[test]
fn an_errand_is_done_whoever_brought_the_thread_to_its_cpu() {
    model(3, || {
        let (cpu, victim) = (Arc::new(Cpu::new()), Thread::make());
        let others = [WAKE, END].map(|errand| {
            let (cpu, victim) = (cpu.clone(), victim.clone());
            thread::spawn(move || cpu.post(victim, errand))
        });
        let mut done = cpu.empty_inbox();
        others.into_iter().for_each(|other| other.join().unwrap());
        // Whoever came after that has kicked the CPU again.
        done.extend(cpu.empty_inbox());
        assert_eq!(done.iter().fold(0, |all, (errands, _)| all | errands), WAKE | END);
        assert!(cpu.inbox.is_empty() && victim.errands.noted() == 0);
    });
}

/// A page, its entry in a page table, and the CPUs on which that table is active.
struct Space {
    entry: AtomicU64,
    page: UnsafeCell<u64>,
    active: AtomicU64,
}

/// The entry of a page that is mapped.
const MAPPED: u64 = 1;

impl Space {
    fn new(active: u64) -> Arc<Self> {
        Arc::new(Self { entry: AtomicU64::new(MAPPED), page: UnsafeCell::new(0), active: AtomicU64::new(active) })
    }

    /// An access by a CPU, which keeps what it once found in the table.
    fn touch(&self, tlb: &mut Option<u64>) {
        // Relaxed: the hardware's own walk.
        if *tlb.get_or_insert_with(|| self.entry.load(Ordering::Relaxed)) == MAPPED {
            // SAFETY: The page is not freed before this CPU has forgotten it: what loom checks.
            self.page.with(|page| assert_eq!(unsafe { *page }, 0));
        }
    }

    /// The page goes to somebody else.
    fn free(&self) {
        // SAFETY: As in `touch`.
        self.page.with_mut(|page| unsafe { *page = 1 });
    }
}

/// `Kernel::shoot_down` of one other CPU, by one that answers its own meanwhile.
fn shoot_down(target: &Shootdowns, mut meanwhile: impl FnMut()) {
    target.ask();
    let asked = target.asked();
    while !target.are_answered(asked) {
        meanwhile();
        thread::yield_now();
    }
}

fn shootdowns() -> Shootdowns {
    Shootdowns { asked: AtomicU64::new(0), answered: AtomicU64::new(0) }
}

#[test]
fn no_cpu_uses_a_page_after_a_shoot_down() {
    model(3, || {
        let (space, target) = (Space::new(1), Arc::new(shootdowns()));
        let is_over = Arc::new(AtomicBool::new(false));
        let (other_space, other_target, over) = (space.clone(), target.clone(), is_over.clone());
        let user = thread::spawn(move || {
            let mut tlb = None;
            other_space.touch(&mut tlb);
            while !over.load(Ordering::Relaxed) {
                other_target.answer(|| tlb = None);
                other_space.touch(&mut tlb);
                thread::yield_now();
            }
        });
        space.entry.store(0, Ordering::Release);
        shoot_down(&target, || ());
        space.free();
        is_over.store(true, Ordering::Relaxed);
        user.join().unwrap();
    });
}

#[test]
fn two_cpus_that_shoot_each_other_down_both_get_their_answer() {
    model(3, || {
        let spaces = [Space::new(3), Space::new(3)];
        let targets = Arc::new([shootdowns(), shootdowns()]);
        let is_done = Arc::new([AtomicBool::new(false), AtomicBool::new(false)]);
        let act = move |this: usize| {
            let other = 1 - this;
            let mut tlb = None;
            spaces[other].touch(&mut tlb);
            spaces[this].entry.store(0, Ordering::Release);
            shoot_down(&targets[other], || targets[this].answer(|| tlb = None));
            spaces[this].free();
            is_done[this].store(true, Ordering::Relaxed);
            while !is_done[other].load(Ordering::Relaxed) {
                targets[this].answer(|| tlb = None);
                thread::yield_now();
            }
            spaces[other].touch(&mut tlb);
        };
        let others = act.clone();
        let other = thread::spawn(move || others(1));
        act(0);
        other.join().unwrap();
    });
}

/// `Space::enter` and the walks that follow, against an unmapping: each does its part and then looks for the other's.
#[test]
fn a_cpu_that_enters_an_address_space_is_shot_down_or_finds_the_change() {
    loom::model(|| {
        let space = Space::new(0);
        let others = space.clone();
        let user = thread::spawn(move || {
            others.active.fetch_or(1, Ordering::SeqCst);
            // Loading the page-table register serialises (SDM 3A 9.3).
            fence(Ordering::SeqCst);
            others.entry.load(Ordering::Relaxed)
        });
        space.entry.store(0, Ordering::Release);
        fence(Ordering::SeqCst);
        let is_seen = space.active.load(Ordering::SeqCst) != 0;
        let found = user.join().unwrap();
        assert!(is_seen || found != MAPPED, "a page is freed that a CPU knows which nobody asks to forget it");
    });
}
