//! A CPU's scheduler: fixed priorities, preemptive, each scheduling context with a budget.
//!
//! What is scheduled are scheduling contexts. A context's runner is its own thread or, while that waits for the reply
//! of a receiver on the same CPU, the receiver: budget and priority travel with the call. Only the CPU itself touches
//! its scheduler; others send threads to its inbox.

use core::sync::atomic::Ordering::Relaxed;

use dragonfly_abi::PRIORITIES;

use crate::arch::{Arch, Context, NEVER, Ticks};
use crate::budget::Left;
use crate::domain::Domain;
use crate::thread::{Thread, link};
use crate::{Queue, Ref};

/// The scheduler's state of one CPU.
pub struct Cpu<A: Arch> {
    /// Its number.
    pub id: usize,
    /// The thread that runs, or ran when the kernel was entered.
    pub current: Option<Ref<Thread<A>, A>>,
    /// The thread whose scheduling context is charged for it.
    pub charged: Option<Ref<Thread<A>, A>>,
    /// Whether somebody else may have to run.
    pub needs_reschedule: bool,
    /// Whether the earliest deadline may have changed.
    pub needs_timer: bool,
    /// The domain whose address space is active.
    pub active: Option<Ref<Domain<A>, A>>,
    /// Threads that wait with a time-out, earliest first.
    pub timeouts: Queue<Thread<A>, A, link::Timeout>,
    /// Threads with an armed timer, earliest first.
    pub alarms: Queue<Thread<A>, A, link::Alarm>,
    ready: [Queue<Thread<A>, A, link::Run>; PRIORITIES as usize],
    /// Bit `n`: somebody of priority `n` is ready.
    ready_mask: u64,
    /// Contexts without budget, by when they get some.
    depleted: Queue<Thread<A>, A, link::Run>,
    /// When the timer of the guest that runs comes.
    pub guest_deadline: Ticks,
    /// What the architecture needs to run guests.
    pub local: A::Local,
    /// When the charged context began to be charged.
    charged_since: Ticks,
}

impl<A: Arch> Cpu<A> {
    /// A CPU with nothing to do.
    pub const fn new(id: usize) -> Self {
        Self {
            id,
            current: None,
            charged: None,
            needs_reschedule: true,
            needs_timer: true,
            active: None,
            timeouts: Queue::<_, A, _>::new(),
            alarms: Queue::<_, A, _>::new(),
            ready: [const { Queue::<_, A, _>::new() }; PRIORITIES as usize],
            ready_mask: 0,
            depleted: Queue::<_, A, _>::new(),
            guest_deadline: NEVER,
            local: A::LOCAL,
            charged_since: 0,
        }
    }

    /// Makes a thread ready that has been claimed or newly started. It runs on its own scheduling context, or, if it
    /// has a caller that donated one, on that.
    pub fn make_ready(&mut self, arch: A, thread: Ref<Thread<A>, A>) {
        let context = context_of(&thread);
        let now = arch.now();
        if thread.context.is_in_guest()
            && let Some(vcpu) = &*thread.vcpu.lock()
        {
            vcpu.stolen.want_cpu(now);
        }
        {
            let mut schedule = context.schedule.lock();
            schedule.budget.wake(now);
            schedule.runner = if Ref::<_, A>::ptr_eq(&context, &thread) { None } else { Some(thread) };
        }
        self.enqueue(context, now, false);
    }

    /// Puts a context among the ready ones, or among those that wait for budget.
    fn enqueue(&mut self, context: Ref<Thread<A>, A>, now: Ticks, at_front: bool) {
        let priority = context.priority();
        if context.schedule.lock().budget.available(now) == 0 {
            let queued = self.depleted.push_sorted(context, |thread| thread.schedule.lock().budget.next_time());
            debug_assert!(queued.is_ok());
            self.needs_timer = true;
            return;
        }
        if self.charged.as_ref().is_none_or(|charged| charged.priority() < priority) {
            self.needs_reschedule = true;
        }
        // A round-robin slice that was alone ran without a timer.
        self.needs_timer |= self.ready_mask == 0;
        let queue = &mut self.ready[usize::from(priority) % self.ready.len()];
        let queued = if at_front { queue.push_front(context) } else { queue.push_back(context) };
        debug_assert!(queued.is_ok());
        self.ready_mask |= 1 << priority;
    }

    /// Takes a context out of the scheduler's queues; false if it is in none.
    pub fn dequeue(&mut self, context: &Thread<A>) -> bool {
        let priority = usize::from(context.priority()) % self.ready.len();
        let removed = self.ready[priority].remove(context).or_else(|| self.depleted.remove(context));
        if self.ready[priority].is_empty() {
            self.ready_mask &= !(1 << priority);
        }
        context.schedule.lock().runner = None;
        removed.is_some()
    }

    /// Charges the charged context for the time since it was charged last.
    fn charge(&mut self, now: Ticks) -> Left {
        let used = now.saturating_sub(self.charged_since);
        self.charged_since = now;
        match &self.charged {
            Some(context) => context.schedule.lock().budget.charge(used, now),
            None => Left::Some,
        }
    }

    /// The current thread does not go on: it has blocked without a donation, or ended. Its context stops being
    /// charged.
    pub fn leave(&mut self, arch: A) {
        self.charge(arch.now());
        self.charged = None;
        self.needs_reschedule = true;
    }

    /// The current thread goes on, but on the context of its own or of its new caller.
    pub fn change_context(&mut self, arch: A) {
        self.leave(arch);
        // It stays current, so that what its call gives finds it; the choice that follows may be for another.
        if let Some(current) = &self.current {
            let context = context_of(current);
            context.schedule.lock().budget.wake(arch.now());
            self.charged = Some(context);
        }
    }

    /// The current thread lets others of its priority go first.
    pub fn rotate(&mut self, arch: A) {
        let now = arch.now();
        self.charge(now);
        if let Some(context) = self.charged.take() {
            self.put_back(arch, context, now, false);
        }
        self.needs_reschedule = true;
    }

    /// Puts the context that was charged back with the thread that ran on it.
    fn put_back(&mut self, arch: A, context: Ref<Thread<A>, A>, now: Ticks, at_front: bool) {
        if let Some(current) = self.current.take() {
            if current.context.is_in_guest() {
                let vcpu = current.vcpu.lock().clone();
                vcpu.inspect(|vcpu| vcpu.stolen.lose_cpu(arch, now));
            }
            context.schedule.lock().runner = if Ref::<_, A>::ptr_eq(&context, &current) { None } else { Some(current) };
        }
        self.enqueue(context, now, at_front);
    }

    /// Chooses what runs: on return `current` is the thread of the highest ready priority, or nothing.
    pub fn reschedule(&mut self, arch: A) {
        self.needs_reschedule = false;
        let now = arch.now();
        let left = self.charge(now);
        let best = 63 - self.ready_mask.leading_zeros().min(63);
        let has_ready = self.ready_mask != 0;
        if let Some(context) = self.charged.take() {
            let priority = u32::from(context.priority());
            let stays = match left {
                Left::Some => !has_ready || best <= priority,
                Left::NextSlice => !has_ready || best < priority,
                Left::Nothing => false,
            };
            if stays && self.current.is_some() {
                self.charged = Some(context);
                self.needs_timer = true;
                return;
            }
            self.put_back(arch, context, now, left == Left::Some);
        }
        self.needs_reschedule = false;
        self.pick(now);
    }

    fn pick(&mut self, now: Ticks) {
        self.needs_timer = true;
        self.guest_deadline = NEVER;
        self.charged_since = now;
        if self.ready_mask == 0 {
            self.current = None;
            return;
        }
        let best = 63 - self.ready_mask.leading_zeros();
        let queue = &mut self.ready[best as usize % PRIORITIES as usize];
        let context = queue.pop_front();
        if queue.is_empty() {
            self.ready_mask &= !(1 << best);
        }
        if let Some(context) = context {
            let runner = context.schedule.lock().runner.take();
            self.current = Some(runner.unwrap_or_else(|| context.clone()));
            self.charged = Some(context);
        }
    }

    /// Bounds the wait of a thread of this CPU.
    pub fn begin_timeout(&mut self, thread: &Ref<Thread<A>, A>, deadline: Ticks) {
        thread.timeout.store(deadline, Relaxed);
        let queued = self.timeouts.push_sorted(thread.clone(), |thread| thread.timeout.load(Relaxed));
        debug_assert!(queued.is_ok());
        self.needs_timer = true;
    }

    /// Ends the bound of a thread's wait, if there is one.
    pub fn end_timeout(&mut self, thread: &Thread<A>) {
        self.timeouts.remove(thread);
    }

    /// Takes the first thread whose wait is to end by now.
    pub fn pop_timeout(&mut self, now: Ticks) -> Option<Ref<Thread<A>, A>> {
        if self.timeouts.front()?.timeout.load(Relaxed) <= now { self.timeouts.pop_front() } else { None }
    }

    /// Arms a thread's timer, or disarms it for [`NEVER`].
    pub fn set_alarm(&mut self, thread: &Ref<Thread<A>, A>, deadline: Ticks) {
        self.end_alarm(thread);
        if deadline != NEVER {
            thread.alarm.store(deadline, Relaxed);
            let queued = self.alarms.push_sorted(thread.clone(), |thread| thread.alarm.load(Relaxed));
            debug_assert!(queued.is_ok());
        }
        self.needs_timer = true;
    }

    /// Arms the timer of a thread that has come from another CPU, if it was armed there.
    pub fn resume_alarm(&mut self, thread: &Ref<Thread<A>, A>) {
        if thread.alarm_target.lock().is_some() {
            self.set_alarm(thread, thread.alarm.load(Relaxed));
        }
    }

    /// Disarms a thread's timer.
    pub fn end_alarm(&mut self, thread: &Thread<A>) {
        self.alarms.remove(thread);
    }

    /// Takes the first thread whose timer is due by now.
    pub fn pop_alarm(&mut self, now: Ticks) -> Option<Ref<Thread<A>, A>> {
        if self.alarms.front()?.alarm.load(Relaxed) <= now { self.alarms.pop_front() } else { None }
    }

    /// Whether the current thread runs on a context of its own.
    pub fn runs_on_own_context(&self) -> bool {
        matches!((&self.current, &self.charged), (Some(current), Some(charged)) if Ref::<_, A>::ptr_eq(current, charged))
    }

    /// Lets contexts run again whose budget has come back.
    pub fn replenish(&mut self, arch: A) {
        let now = arch.now();
        while self.depleted.front().is_some_and(|context| context.schedule.lock().budget.next_time() <= now) {
            if let Some(context) = self.depleted.pop_front() {
                self.enqueue(context, now, false);
            }
        }
    }

    /// Whether the charged context has nothing left for now.
    pub fn is_depleted(&mut self, arch: A) -> bool {
        let now = arch.now();
        self.charge(now) == Left::Nothing
    }

    /// The next time at which the timer has to come.
    pub fn next_deadline(&self) -> Ticks {
        let mut deadline = self.guest_deadline;
        if let Some(context) = &self.charged {
            let schedule = context.schedule.lock();
            // Alone at its priority, a round-robin slice need not be cut.
            let is_alone = schedule.budget.is_slice() && self.ready_mask == 0;
            if !is_alone {
                let since = self.charged_since;
                deadline = since.saturating_add(schedule.budget.available(since));
            }
        }
        if let Some(thread) = self.timeouts.front() {
            deadline = deadline.min(thread.timeout.load(Relaxed));
        }
        if let Some(thread) = self.alarms.front() {
            deadline = deadline.min(thread.alarm.load(Relaxed));
        }
        if let Some(context) = self.depleted.front() {
            deadline = deadline.min(context.schedule.lock().budget.next_time());
        }
        deadline
    }
}

/// The thread whose scheduling context a thread runs on: that of the first caller in its chain that did not get one
/// donated itself.
pub fn context_of<A: Arch>(thread: &Ref<Thread<A>, A>) -> Ref<Thread<A>, A> {
    let mut context = thread.clone();
    loop {
        let donor = match &context.ipc.lock().caller {
            Some(caller) if caller.is_donor => caller.thread.clone(),
            _ => break,
        };
        context = donor;
    }
    context
}

#[cfg(test)]
mod inspection {
    use super::{Arch, Cpu, Queue, Thread, link};

    impl<A: Arch> Cpu<A> {
        /// The contexts that are ready, by priority.
        pub fn ready(&self) -> &[Queue<Thread<A>, A, link::Run>] {
            &self.ready
        }

        /// The contexts without budget.
        pub fn depleted(&self) -> &Queue<Thread<A>, A, link::Run> {
            &self.depleted
        }

        /// Which priorities are said to be ready.
        pub fn ready_mask(&self) -> u64 {
            self.ready_mask
        }
    }
}
