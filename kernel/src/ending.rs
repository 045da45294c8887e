//! How threads stop waiting before their time, and how they end. All on the thread's own CPU.

use dragonfly_abi::Status;

use crate::arch::{Arch, Context, NEVER};
use crate::cpu::{Cpu, context_of};
use crate::teardown::SLICE;
use crate::thread::{Phase, Thread, Waiting, errand};
use crate::{Kernel, Ref};

/// When to look again at a time-out that came while another CPU was handing the thread a message, in nanoseconds.
const RETRY_NS: u64 = 20_000;

impl<A: Arch> Kernel<A> {
    /// Sends a thread to its CPU.
    pub fn post(&self, thread: Ref<Thread<A>, A>, errand: u32) {
        thread.add_errand(errand);
        self.send_on(thread);
    }

    /// Sends a thread with its errands to the CPU that it is on now.
    fn send_on(&self, thread: Ref<Thread<A>, A>) {
        let cpu = thread.cpu();
        // A thread that is in an inbox already brings the new errand with it.
        if self.remote(cpu).inbox.push(thread).is_ok_and(|pushed| pushed.was_empty) {
            self.arch.kick(cpu);
        }
    }

    /// Does the errands of the threads that other CPUs have sent.
    pub fn empty_inbox(&'static self, cpu: &mut Cpu<A>) {
        if self.remote(cpu.id).inbox.is_empty() {
            return;
        }
        for thread in self.remote(cpu.id).inbox.take_all() {
            if thread.cpu() != cpu.id {
                // It moved when this had been sent.
                self.send_on(thread);
                continue;
            }
            let errands = thread.take_errands();
            if errands & errand::READY == 0 {
                // Without any if it was sent on and another sender's errand brought it here before.
                if errands & errand::END != 0 {
                    self.end(cpu, &thread);
                }
            } else if thread.is_doomed() {
                self.finish(cpu, &thread);
            } else {
                if errands & errand::ARRIVE != 0 {
                    cpu.resume_alarm(&thread);
                }
                cpu.end_timeout(&thread);
                cpu.make_ready(self.arch, thread);
            }
        }
    }

    /// Lets a claimed thread go on with `Aborted`: what it waited for is gone. A faulted thread ends.
    pub fn abort(&self, cpu: &mut Cpu<A>, thread: Ref<Thread<A>, A>) {
        let is_fault = {
            let mut ipc = thread.ipc.lock();
            let waited = core::mem::replace(&mut ipc.waiting, Waiting::Nothing);
            matches!(waited, Waiting::Send(_)) && ipc.message.tag.kind() == dragonfly_abi::MessageKind::Fault
        };
        if is_fault {
            thread.doom();
        } else {
            thread.context.set_results(Status::Aborted, [0; 6]);
        }
        self.wake(cpu, thread);
    }

    /// The timer has come: ends waits whose time is up, signals timers, replenishes budgets.
    pub fn timer(&'static self, cpu: &mut Cpu<A>) {
        let now = self.arch.now();
        for _ in 0..SLICE {
            match cpu.pop_timeout(now) {
                Some(thread) => self.time_out(cpu, thread),
                None => break,
            }
        }
        for _ in 0..SLICE {
            let Some(thread) = cpu.pop_alarm(now) else { break };
            let target = thread.alarm_target.lock().take();
            if let Some((notification, bits)) = target {
                self.signal(cpu, &notification, bits);
            }
        }
        cpu.replenish(self.arch);
        // Whoever runs a guest looks at the guest's timer, and sets this again.
        cpu.guest_deadline = NEVER;
        cpu.needs_reschedule = true;
        cpu.needs_timer = true;
        if cpu.current.as_ref().is_some_and(|current| current.ipc.lock().wants_budget_faults)
            && cpu.runs_on_own_context()
            && cpu.is_depleted(self.arch)
        {
            self.fault(cpu, crate::fault::Fault::BudgetExhausted);
        }
    }

    fn time_out(&'static self, cpu: &mut Cpu<A>, thread: Ref<Thread<A>, A>) {
        if !thread.claim_any() {
            let again = self.arch.now().saturating_add(self.arch.ticks_from_ns(RETRY_NS));
            cpu.begin_timeout(&thread, again);
            return;
        }
        self.withdraw(cpu, &thread);
        // A guest that was halted looks at its timer when it runs again.
        if !thread.context.is_in_guest() {
            thread.context.set_results(Status::TimedOut, [0; 6]);
        }
        cpu.make_ready(self.arch, thread);
    }

    /// Takes a claimed thread away from what it waited for.
    fn withdraw(&self, cpu: &mut Cpu<A>, thread: &Ref<Thread<A>, A>) {
        let waiting = core::mem::replace(&mut thread.ipc.lock().waiting, Waiting::Nothing);
        // Every queue owns a reference, which goes when the thread leaves it.
        let removed = match waiting {
            Waiting::Nothing => None,
            Waiting::Receive(gate) => gate.queues.lock().receivers.remove(thread),
            Waiting::Send(gate) => gate.queues.lock().callers.remove(thread),
            Waiting::Notification(notification) => notification.waiters.lock().queue.remove(thread),
            Waiting::Guest => {
                let vcpu = thread.vcpu.lock().clone();
                if let Some(vcpu) = vcpu {
                    vcpu.end_halt();
                }
                None
            }
            Waiting::Reply(server) => {
                self.leave_server(cpu, thread, &server);
                None
            }
        };
        drop(removed);
    }

    /// A claimed caller no longer waits for a server's reply, and takes its scheduling context back.
    fn leave_server(&self, cpu: &mut Cpu<A>, thread: &Ref<Thread<A>, A>, server: &Ref<Thread<A>, A>) {
        let context = context_of(thread);
        let caller = {
            let mut ipc = server.ipc.lock();
            match &ipc.caller {
                Some(caller) if Ref::<_, A>::ptr_eq(&caller.thread, thread) => ipc.caller.take(),
                _ => None,
            }
        };
        if !caller.is_some_and(|caller| caller.is_donor) {
            return;
        }
        let runner = end_of_chain(server);
        if cpu.current.as_ref().is_some_and(|current| Ref::<_, A>::ptr_eq(current, &runner)) {
            cpu.change_context(self.arch);
        } else if cpu.dequeue(&context) {
            cpu.make_ready(self.arch, runner);
        }
        // Otherwise it is blocked, or another CPU has claimed it and sends it here: its context is found then.
    }

    /// Ends a thread of this CPU, wherever it is.
    pub fn end(&'static self, cpu: &mut Cpu<A>, thread: &Ref<Thread<A>, A>) {
        thread.doom();
        if thread.phase() == Phase::Ended {
            return;
        }
        if cpu.current.as_ref().is_some_and(|current| Ref::<_, A>::ptr_eq(current, thread)) {
            cpu.leave(self.arch);
            cpu.current = None;
        } else if thread.is_blocked() {
            if !thread.claim_any() {
                // Another CPU has claimed it and sends it here: it ends then.
                return;
            }
            self.withdraw(cpu, thread);
        } else if thread.phase() == Phase::Alive && !cpu.dequeue(&context_of(thread)) {
            // Another CPU has started or claimed it and sends it here: it ends when it arrives. Until then that CPU may
            // give it a caller.
            return;
        }
        self.finish(cpu, thread);
    }

    /// Ends a thread that is in no queue and not blocked.
    fn finish(&'static self, cpu: &mut Cpu<A>, thread: &Ref<Thread<A>, A>) {
        if thread.phase() == Phase::Ended {
            return;
        }
        cpu.needs_reschedule = true;
        cpu.end_timeout(thread);
        cpu.end_alarm(thread);
        self.abort_caller(cpu, thread);
        {
            let mut ipc = thread.ipc.lock();
            ipc.end_wait();
            ipc.fault_gate = None;
        }
        *thread.alarm_target.lock() = None;
        let vcpu = thread.vcpu.lock().take();
        if let Some(vcpu) = vcpu {
            vcpu.unbind();
        }
        if cpu.active.as_ref().is_some_and(|active| Ref::<_, A>::ptr_eq(active, &thread.domain)) {
            self.activate(cpu, None);
        }
        self.leave_domain(cpu, thread);
    }

    /// The server of a call has ended: its caller goes on with `Aborted`; a thread whose fault it handled ends too.
    fn abort_caller(&self, cpu: &mut Cpu<A>, thread: &Thread<A>) {
        let Some(caller) = thread.ipc.lock().caller.take() else { return };
        if !caller.thread.claim(caller.token) {
            return;
        }
        caller.thread.ipc.lock().end_wait();
        if caller.is_fault {
            // Through the inbox even on this CPU, so that a long chain of handlers does not become a deep stack.
            caller.thread.doom();
            self.post(caller.thread, errand::WAKE);
        } else {
            caller.thread.context.set_results(Status::Aborted, [0; 6]);
            self.wake(cpu, caller.thread);
        }
    }

    fn leave_domain(&'static self, cpu: &mut Cpu<A>, thread: &Ref<Thread<A>, A>) {
        let domain = &thread.domain;
        domain.space.unmap_buffer(self, thread.buffer.memory());
        let was_last = {
            let mut threads = domain.threads.lock();
            let removed = threads.members.remove(thread);
            threads.count -= u64::from(removed.is_some());
            removed.is_some() && threads.count == 0
        };
        // Only now, so that whoever sees the phase finds nothing of the thread left in its domain.
        thread.set_ended();
        // If nobody can name it any more it need not wait for the domain's end.
        let derivation = thread.derivation.lock().take();
        if let Some(derivation) = derivation {
            let is_nameless = derivation.state.lock().count == 0;
            if is_nameless {
                self.disown(&derivation);
            }
        }
        if was_last && let Some((notification, bits)) = &domain.death {
            self.signal(cpu, notification, *bits);
        }
    }
}

/// The thread that a donated context has been passed on to: the last server in a chain of local calls.
fn end_of_chain<A: Arch>(server: &Ref<Thread<A>, A>) -> Ref<Thread<A>, A> {
    let mut last = server.clone();
    loop {
        let next = match &last.ipc.lock().waiting {
            Waiting::Reply(next) => next.clone(),
            _ => break,
        };
        let is_donated = next
            .ipc
            .lock()
            .caller
            .as_ref()
            .is_some_and(|caller| caller.is_donor && Ref::<_, A>::ptr_eq(&caller.thread, &last));
        if !is_donated {
            break;
        }
        last = next;
    }
    last
}
