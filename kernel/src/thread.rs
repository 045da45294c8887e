//! Threads: registers, scheduling context, IPC state, all on one CPU at a time.
//!
//! A thread's place is always known: it is current on its CPU, in one of that CPU's scheduler queues (or on another
//! thread's scheduling context), on its way to the CPU in that one's inbox, or blocked. Who wants to continue a blocked
//! thread must *claim* it; one claim succeeds. The claimer owns the thread until it makes it ready.

use core::sync::atomic::Ordering;

use dragonfly_abi::MessageTag;
use dragonfly_memory::{Charge, Link, Linked};

use crate::arch::Arch;
use crate::budget::Budget;
use crate::capability::Derivation;
use crate::domain::Domain;
use crate::gate::Gate;
use crate::message_page::MessagePage;
use crate::notification::{Notification, Signal};
use crate::protocol::{Errands, Wait};
use crate::sync::{AtomicU8, AtomicU64, AtomicUsize};
use crate::vcpu::Vcpu;
use crate::{Lock, Queue, Ref};

pub use crate::protocol::WaitToken;

/// Links of a thread, by what they are for.
pub mod link {
    /// Ready or waiting for budget, in its CPU's scheduler.
    pub struct Run;
    /// Waiting at a gate or a notification.
    pub struct Wait;
    /// Waiting with a time-out.
    pub struct Timeout;
    /// Its timer is armed.
    pub struct Alarm;
    /// On its way to its CPU.
    pub struct Inbox;
    /// Among the threads of its domain.
    pub struct Member;
}

/// A thread.
pub struct Thread<A: Arch> {
    /// Registers.
    pub context: A::Context,
    /// The domain whose address space and handles it uses.
    pub domain: Ref<Domain<A>, A>,
    /// The page it shares with the kernel.
    pub buffer: MessagePage<A>,
    /// IPC and what it waits for.
    pub ipc: Lock<Ipc<A>, A>,
    /// Its scheduling context.
    pub schedule: Lock<Schedule<A>, A>,
    /// Deadline of its wait, in ticks.
    pub timeout: AtomicU64,
    /// Deadline of its timer, in ticks.
    pub alarm: AtomicU64,
    /// What the timer signals.
    pub alarm_target: Lock<Option<Signal<A>>, A>,
    /// The virtual CPU that it runs, or ran last.
    pub vcpu: Lock<Option<Ref<Vcpu<A>, A>>, A>,
    /// The tree of its capabilities, until it ends.
    pub derivation: Lock<Option<Ref<Derivation<A>, A>>, A>,
    /// The CPU it runs on.
    cpu: AtomicUsize,
    priority: AtomicU8,
    /// Whether it is blocked.
    wait: Wait,
    /// Why it is in its CPU's inbox.
    errands: Errands,
    phase: AtomicU8,
    is_doomed: AtomicU8,
    links: [Link; 6],
    _charge: Charge<A::Heap>,
}

/// Where a thread is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Made, not started.
    Stopped = 0,
    /// Started.
    Alive = 1,
    /// Ended; only handles are left.
    Ended = 2,
}

/// What a thread's CPU is to do with it.
pub mod errand {
    /// Make it ready: it was claimed from a wait.
    pub const WAKE: u32 = 1;
    /// End it.
    pub const END: u32 = 2;
    /// Let it run for the first time.
    pub const START: u32 = 4;
    /// Let it go on, which came from another CPU.
    pub const ARRIVE: u32 = 8;
    /// Those after which it is ready.
    pub const READY: u32 = WAKE | START | ARRIVE;
}

/// The caller that a thread has received from and not answered.
pub struct Caller<A: Arch> {
    /// Who waits for the reply.
    pub thread: Ref<Thread<A>, A>,
    /// In which wait.
    pub token: WaitToken,
    /// Whether the receiver runs on the caller's scheduling context.
    pub is_donor: bool,
    /// Whether it is a fault and not a call.
    pub is_fault: bool,
}

/// What a blocked thread waits for.
pub enum Waiting<A: Arch> {
    /// It does not.
    Nothing,
    /// A message at a gate.
    Receive(Ref<Gate<A>, A>),
    /// A receiver at a gate.
    Send(Ref<Gate<A>, A>),
    /// The answer of a thread.
    Reply(Ref<Thread<A>, A>),
    /// Bits.
    Notification(Ref<Notification<A>, A>),
    /// An interrupt for the guest that it runs.
    Guest,
}

/// A message under way.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// Badge of the handle that was called.
    pub badge: u64,
    /// Tag, kind included.
    pub tag: MessageTag,
    /// The words that travel in registers.
    pub words: [u64; 4],
}

/// IPC state.
pub struct Ipc<A: Arch> {
    /// Whom it has to answer.
    pub caller: Option<Caller<A>>,
    /// What it waits for.
    pub waiting: Waiting<A>,
    /// The message of a thread that waits for a receiver.
    pub message: Message,
    /// Where its faults go, and the badge they carry.
    pub fault_gate: Option<(Ref<Gate<A>, A>, u64)>,
    /// Whether it also wants to be told when its budget is used up.
    pub wants_budget_faults: bool,
}

impl<A: Arch> Ipc<A> {
    /// Notes what the thread, which has waited for nothing, waits for now.
    #[inline(always)]
    pub fn begin_wait(&mut self, waiting: Waiting<A>) {
        let before = core::mem::replace(&mut self.waiting, waiting);
        if matches!(before, Waiting::Nothing) {
            // There is nothing in it to drop, which the compiler would not see.
            core::mem::forget(before);
        } else {
            forget_wait(before);
        }
    }

    /// Notes that the thread waits no more. The two waits of a call and its answer end without a detour.
    #[inline(always)]
    pub fn end_wait(&mut self) {
        match core::mem::replace(&mut self.waiting, Waiting::Nothing) {
            Waiting::Receive(gate) => drop(gate),
            Waiting::Reply(thread) => drop(thread),
            other => forget_wait(other),
        }
    }
}

/// Gives up what a wait refers to, where that is rare.
#[cold]
#[inline(never)]
fn forget_wait<A: Arch>(waiting: Waiting<A>) {
    drop(waiting);
}

/// Scheduling context.
pub struct Schedule<A: Arch> {
    /// Budget, period and what is left.
    pub budget: Budget,
    /// Who runs on it, if that is not the thread itself: the receiver of its call.
    pub runner: Option<Ref<Thread<A>, A>>,
}

impl<A: Arch> Thread<A> {
    /// A stopped thread.
    pub fn new(
        context: A::Context,
        domain: Ref<Domain<A>, A>,
        cpu: usize,
        priority: u8,
        budget: Budget,
        buffer: MessagePage<A>,
        charge: Charge<A::Heap>,
    ) -> Self {
        Self {
            context,
            domain,
            buffer,
            ipc: Lock::<_, A>::new(Ipc {
                caller: None,
                waiting: Waiting::Nothing,
                message: Message { badge: 0, tag: MessageTag(0), words: [0; 4] },
                fault_gate: None,
                wants_budget_faults: false,
            }),
            schedule: Lock::<_, A>::new(Schedule { budget, runner: None }),
            timeout: AtomicU64::new(0),
            alarm: AtomicU64::new(0),
            alarm_target: Lock::<_, A>::new(None),
            vcpu: Lock::<_, A>::new(None),
            derivation: Lock::<_, A>::new(None),
            cpu: AtomicUsize::new(cpu),
            priority: AtomicU8::new(priority),
            wait: Wait::new(),
            errands: Errands::new(),
            phase: AtomicU8::new(Phase::Stopped as u8),
            is_doomed: AtomicU8::new(0),
            links: [const { Link::new() }; 6],
            _charge: charge,
        }
    }

    /// The CPU it runs on. Only while the thread is current there does this change. So it stays as it is for that CPU while
    /// another thread is current, for whoever has claimed the thread, and for holders of the lock of a queue in which it
    /// waits; for others it may be over, and what they send to that CPU is sent on.
    #[inline]
    pub fn cpu(&self) -> usize {
        // Acquire: who finds it on a CPU finds it as it left the one before.
        self.cpu.load(Ordering::Acquire)
    }

    /// It leaves its CPU, where nothing of it is left, for another.
    pub fn set_cpu(&self, cpu: usize) {
        // Release pairs with the Acquire in `cpu`.
        self.cpu.store(cpu, Ordering::Release);
    }

    /// Its priority.
    #[inline]
    pub fn priority(&self) -> u8 {
        self.priority.load(Ordering::Relaxed)
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Stopped,
            1 => Phase::Alive,
            _ => Phase::Ended,
        }
    }

    /// Goes from one phase to the next; false if it is not in the first.
    pub fn advance(&self, from: Phase, to: Phase) -> bool {
        // AcqRel: what was done before a phase is visible to whoever sees the phase.
        self.phase.compare_exchange(from as u8, to as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// It has ended. For its own CPU.
    pub fn set_ended(&self) {
        self.phase.store(Phase::Ended as u8, Ordering::Release);
    }

    /// Whether it is to end. Its CPU ends it at the next chance.
    pub fn is_doomed(&self) -> bool {
        self.is_doomed.load(Ordering::Acquire) != 0
    }

    /// Decides that it is to end.
    pub fn doom(&self) {
        self.is_doomed.store(1, Ordering::Release);
    }

    /// Begins a wait. Only for the CPU on which the thread is current, or whoever has claimed it.
    #[inline]
    pub fn block(&self) -> WaitToken {
        self.wait.block()
    }

    /// Claims the thread from one certain wait.
    #[inline]
    pub fn claim(&self, token: WaitToken) -> bool {
        self.wait.claim(token)
    }

    /// Claims the thread from whatever it waits for. For its own CPU, and for holders of the lock of the queue in
    /// which the thread waits.
    #[inline]
    pub fn claim_any(&self) -> bool {
        self.wait.claim_any()
    }

    /// Whether it is blocked at this moment.
    pub fn is_blocked(&self) -> bool {
        self.wait.is_blocked()
    }

    /// Its place among the waits that end.
    #[inline]
    pub fn timeout_link(&self) -> &Link {
        <Self as Linked<link::Timeout>>::link(self)
    }

    /// Notes an errand for the thread's CPU.
    pub fn add_errand(&self, errand: u32) {
        self.errands.add(errand);
    }

    /// Takes the errands.
    pub fn take_errands(&self) -> u32 {
        self.errands.take()
    }
}

macro_rules! linked {
    ($($index:literal $tag:ident)*) => { $(
        impl<A: Arch> Linked<link::$tag> for Thread<A> {
            fn link(&self) -> &Link {
                &self.links[$index]
            }
        }
    )* };
}

linked! { 0 Run 1 Wait 2 Timeout 3 Alarm 4 Inbox 5 Member }

/// Threads that wait at a gate or a notification.
pub type WaitQueue<A> = Queue<Thread<A>, A, link::Wait>;

#[cfg(test)]
mod inspection {
    use super::{Arch, Link, Linked, Thread, WaitToken, link};

    impl<A: Arch> Thread<A> {
        /// What its CPU is to do with it.
        pub fn errands(&self) -> u32 {
            self.errands.noted()
        }

        /// Whether a claim with this token would succeed.
        pub fn waits_by(&self, token: WaitToken) -> bool {
            self.wait.is_in(token)
        }

        /// Its place in an inbox.
        pub fn inbox_link(&self) -> &Link {
            Linked::<link::Inbox>::link(self)
        }
    }
}
