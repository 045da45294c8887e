//! What a few of the kernel's functions do, step by step.

use dragonfly_memory::host::HostHeap;
use dragonfly_memory::{Inbox, Link, Linked, Lock, Queue, Ref, Relax};
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;

use crate::protocol::{Bits, Errands, Wait, WaitToken};

/// An errand: the thread goes on.
pub const WAKE: u32 = 1;
/// An errand: the thread ends.
pub const END: u32 = 2;

/// What a call gave that timed out.
pub const TIMED_OUT: u64 = u64::MAX;

/// Waiting for a lock lets another thread of the model go on.
pub struct Yield;

impl Relax for Yield {
    fn relax() {
        thread::yield_now();
    }
}

pub type Heap = &'static HostHeap;
pub type ThreadRef = Ref<Thread, Heap>;

/// Links of a queue of waiting threads.
pub struct WaitTag;
/// Links of an inbox.
pub struct InboxTag;

/// A thread of the kernel.
pub struct Thread {
    pub wait: Wait,
    pub errands: Errands,
    registers: UnsafeCell<u64>,
    /// Whom it has to answer.
    pub caller: Lock<Option<(ThreadRef, WaitToken)>, Yield>,
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
    pub fn make() -> ThreadRef {
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

    pub fn set_results(&self, value: u64) {
        // SAFETY: Only who has claimed the thread, or runs it, comes here: what loom checks.
        self.registers.with_mut(|registers| unsafe { *registers = value });
    }

    pub fn results(&self) -> u64 {
        // SAFETY: As in `set_results`.
        self.registers.with(|registers| unsafe { *registers })
    }
}

/// A CPU, as others see it.
pub struct Cpu {
    pub inbox: Inbox<Thread, Heap, InboxTag>,
    is_kicked: AtomicBool,
}

impl Cpu {
    pub fn new() -> Self {
        Self { inbox: Inbox::new(), is_kicked: AtomicBool::new(false) }
    }

    /// `Kernel::post`.
    pub fn post(&self, thread: ThreadRef, errand: u32) {
        thread.errands.add(errand);
        if self.inbox.push(thread).is_ok_and(|pushed| pushed.was_empty) {
            // An exchange: loom may lose a plain store that races with the one below, which no processor does.
            self.is_kicked.swap(true, Ordering::Release);
        }
    }

    /// `Kernel::kicked`, if the CPU was: the errands that it finds, with what each thread goes on with.
    pub fn empty_inbox(&self) -> Vec<(u32, u64)> {
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
pub struct Notification {
    pub bits: Bits,
    waiters: Lock<Waiters, Yield>,
}

struct Waiters {
    queue: Queue<Thread, Heap, WaitTag>,
    gate: Option<Arc<Gate>>,
}

pub struct Gate {
    queues: Lock<Queues, Yield>,
}

struct Queues {
    receivers: Queue<Thread, Heap, WaitTag>,
    notification: Option<Arc<Notification>>,
}

impl Notification {
    pub fn new() -> Arc<Self> {
        let waiters = Lock::new(Waiters { queue: Queue::new(), gate: None });
        Arc::new(Self { bits: Bits::new(), waiters })
    }

    /// `Kernel::signal`, with all threads on `cpu`.
    pub fn signal(&self, cpu: &Cpu, bits: u64) {
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
    pub fn wait(&self, current: &ThreadRef) -> Option<u64> {
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
    pub fn time_out(&self, thread: &ThreadRef) -> bool {
        if !thread.wait.claim_any() {
            return false;
        }
        drop(self.waiters.lock().queue.remove(thread));
        thread.set_results(TIMED_OUT);
        true
    }

    /// Lets go of the gate, which has a reference back.
    pub fn unbind(&self) {
        self.waiters.lock().gate = None;
    }
}

impl Gate {
    pub fn new() -> Arc<Self> {
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
    pub fn receive(&self, current: &ThreadRef) -> Option<u64> {
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
    pub fn send(&self, current: &ThreadRef, receivers_cpu: &Cpu, word: u64) {
        let receiver = self.queues.lock().receivers.pop_front().filter(|receiver| receiver.wait.claim_any());
        let receiver = receiver.expect("a receiver");
        receiver.set_results(word);
        let token = current.wait.block();
        *receiver.caller.lock() = Some((current.clone(), token));
        receivers_cpu.post(receiver, WAKE);
    }
}

/// `notification_bind`.
pub fn bind(notification: &Arc<Notification>, cpu: &Cpu, gate: &Arc<Gate>) {
    let mut waiters = notification.waiters.lock();
    let mut queues = gate.queues.lock();
    waiters.gate = Some(gate.clone());
    queues.notification = Some(notification.clone());
    drop(queues);
    gate.offer_bits(cpu);
}

/// `Kernel::reply`: whether it claimed the caller.
pub fn reply(server: &Thread, callers_cpu: &Cpu, word: u64) -> bool {
    let Some((caller, token)) = server.caller.lock().take() else { return false };
    if !caller.wait.claim(token) {
        return false;
    }
    caller.set_results(word);
    callers_cpu.post(caller, WAKE);
    true
}
