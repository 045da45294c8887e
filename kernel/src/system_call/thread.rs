//! Calls about threads.

use core::sync::atomic::Ordering;

use dragonfly_abi::{FOREVER, MAX_PERIOD_NS, MIN_BUDGET_NS, PRIORITIES, Rights, Status, USER_END, USER_START};
use dragonfly_memory::UserVirt;

use super::{DONE, Flow, Outcome};
use crate::arch::{Arch, Context};
use crate::budget::Budget;
use crate::capability::Object;
use crate::cpu::Cpu;
use crate::domain::{Domain, publish};
use crate::memory_object::Memory;
use crate::message_page::MessagePage;
use crate::thread::{Phase, Thread, errand};
use crate::{Kernel, Ref};

/// Budget and period of a thread that was not configured: a round-robin slice.
const DEFAULT_SLICE_NS: u64 = 10_000_000;

/// What a thread is made with.
pub struct ThreadPlan {
    /// The CPU it runs on.
    pub cpu: usize,
    /// Its priority.
    pub priority: u8,
    /// Where it begins.
    pub entry: u64,
    /// Its stack pointer.
    pub stack: u64,
    /// Where its message buffer goes.
    pub buffer: UserVirt,
    /// What it finds in its first argument register.
    pub argument: u64,
}

impl<A: Arch> Kernel<A> {
    /// The number of a CPU that there is and that a domain may use.
    fn cpu_for(&self, domain: &Domain<A>, word: u64) -> Result<usize, Status> {
        let number = usize::try_from(word).map_err(|_| Status::BadCpu)?;
        if number >= self.cpus() || domain.cpu_mask >> number & 1 == 0 {
            return Err(Status::BadCpu);
        }
        Ok(number)
    }

    pub(super) fn thread_create(&'static self, cpu: &Cpu<A>, words: [u64; 6]) -> Outcome {
        let [domain, place, entry, stack, buffer, argument] = words;
        let capability = cpu.capability(domain)?;
        let domain = capability.domain(Rights::MANAGE)?;
        let number = self.cpu_for(domain, place & 0xffff_ffff)?;
        let priority = match u8::try_from(place >> 32) {
            Ok(priority) if priority < PRIORITIES && priority <= domain.max_priority => priority,
            _ => return Err(Status::BadArgument),
        };
        // Checked here, since some CPUs fault in the kernel on a return to an address that is not canonical.
        if !(USER_START..USER_END).contains(&entry) || stack > USER_END {
            return Err(Status::BadArgument);
        }
        let plan = ThreadPlan { cpu: number, priority, entry, stack, buffer: UserVirt::new(buffer), argument };
        let thread = self.new_thread(domain, &plan)?;
        let holder = cpu.running()?;
        let handle = publish(self.arch, domain, &holder.domain, Object::Thread(thread.clone()), Rights::all());
        if handle.is_err() {
            thread.advance(Phase::Stopped, Phase::Ended);
            let removed = {
                let mut threads = domain.threads.lock();
                let removed = threads.members.remove(&thread);
                threads.count -= u64::from(removed.is_some());
                removed
            };
            drop(removed);
            domain.space.unmap_buffer(self, thread.buffer.memory());
        }
        Ok(Flow::Value(u64::from(handle?.0)))
    }

    /// Makes a stopped thread in a domain. Its objects are charged to that domain.
    pub fn new_thread(
        &'static self,
        domain: &Ref<Domain<A>, A>,
        plan: &ThreadPlan,
    ) -> Result<Ref<Thread<A>, A>, Status> {
        let charge = domain.charge_object::<Thread<A>>()?;
        let memory = Memory::pinned_page(self, domain)?;
        let page = MessagePage::new(self.arch, memory.clone()).ok_or(Status::OutOfMemory)?;
        let slice = self.arch.ticks_from_ns(DEFAULT_SLICE_NS);
        let context = A::Context::new(plan.entry, plan.stack, plan.argument);
        let budget = Budget::new(slice, slice, self.arch.now());
        let thread = Thread::new(context, domain.clone(), plan.cpu, plan.priority, budget, page, charge);
        let thread = Ref::<_, A>::try_new(self.arch.heap(), thread).map_err(|_| Status::OutOfMemory)?;
        domain.space.map_buffer(domain, &memory, plan.buffer)?;
        let added = {
            let mut threads = domain.threads.lock();
            let is_added = !threads.is_closed && threads.members.push_back(thread.clone()).is_ok();
            threads.count += u64::from(is_added);
            is_added
        };
        if !added {
            domain.space.unmap_buffer(self, &memory);
            return Err(Status::BadHandle);
        }
        Ok(thread)
    }

    pub(super) fn thread_configure(&'static self, cpu: &Cpu<A>, words: [u64; 6]) -> Outcome {
        let [thread, budget_ns, period_ns, gate, badge, flags] = words;
        let capability = cpu.capability(thread)?;
        let thread = capability.thread(Rights::MANAGE)?;
        if budget_ns < MIN_BUDGET_NS || period_ns < budget_ns || period_ns > MAX_PERIOD_NS || flags > 1 {
            return Err(Status::BadArgument);
        }
        let fault_gate = match gate {
            0 => None,
            handle => {
                let capability = cpu.capability(handle)?;
                // As with a signal: who made the handle decides what its messages say of the sender.
                let badge = if capability.badge == 0 { badge } else { capability.badge };
                Some((capability.gate(Rights::SEND)?.clone(), badge))
            }
        };
        if thread.phase() != Phase::Stopped {
            return Err(Status::BadState);
        }
        let (budget, period) = (self.arch.ticks_from_ns(budget_ns), self.arch.ticks_from_ns(period_ns));
        thread.schedule.lock().budget = Budget::new(budget, period, self.arch.now());
        let mut ipc = thread.ipc.lock();
        ipc.fault_gate = fault_gate;
        ipc.wants_budget_faults = flags & 1 != 0;
        DONE
    }

    pub(super) fn thread_start(&'static self, cpu: &mut Cpu<A>, thread: u64) -> Outcome {
        let capability = cpu.capability(thread)?;
        let thread = capability.thread(Rights::MANAGE)?;
        self.start(cpu, thread)?;
        DONE
    }

    /// Lets a stopped thread run.
    pub fn start(&'static self, cpu: &mut Cpu<A>, thread: &Ref<Thread<A>, A>) -> Result<(), Status> {
        if !thread.advance(Phase::Stopped, Phase::Alive) {
            return Err(Status::BadState);
        }
        if thread.cpu() == cpu.id {
            cpu.make_ready(self.arch, thread.clone());
        } else {
            self.post(thread.clone(), errand::START);
        }
        Ok(())
    }

    pub(super) fn thread_destroy(&'static self, cpu: &mut Cpu<A>, thread: u64) -> Outcome {
        let capability = cpu.capability(thread)?;
        let thread = capability.thread(Rights::DESTROY)?;
        if thread.phase() == Phase::Ended {
            return DONE;
        }
        thread.doom();
        if thread.cpu() != cpu.id {
            self.post(thread.clone(), errand::END);
            return Err(Status::Again);
        }
        if cpu.current.as_ref().is_some_and(|current| Ref::<_, A>::ptr_eq(current, thread)) {
            cpu.needs_reschedule = true;
            return DONE;
        }
        self.end(cpu, thread);
        // Claimed by another CPU a moment ago, it comes back here to end.
        if thread.phase() == Phase::Ended { DONE } else { Err(Status::Again) }
    }

    pub(super) fn thread_exit(cpu: &mut Cpu<A>) -> Outcome {
        cpu.running()?.doom();
        cpu.needs_reschedule = true;
        DONE
    }

    pub(super) fn thread_yield(&'static self, cpu: &mut Cpu<A>) -> Outcome {
        let current = cpu.running()?;
        current.context.set_results(Status::Ok, [0; 6]);
        cpu.rotate(self.arch);
        Ok(Flow::Resume)
    }

    pub(super) fn thread_move(&'static self, cpu: &mut Cpu<A>, number: u64) -> Outcome {
        let current = cpu.running()?;
        let number = self.cpu_for(&current.domain, number)?;
        // Its caller, which may be of this CPU, waits for it, and it may run on the caller's scheduling context.
        if current.ipc.lock().caller.is_some() {
            return Err(Status::BadState);
        }
        if number == cpu.id {
            return DONE;
        }
        current.context.set_results(Status::Ok, [0; 6]);
        cpu.leave(self.arch);
        cpu.current = None;
        cpu.end_alarm(&current);
        current.set_cpu(number);
        self.post(current, errand::ARRIVE);
        Ok(Flow::Resume)
    }

    pub(super) fn thread_info(&'static self, cpu: &Cpu<A>, thread: u64) -> Outcome {
        let capability = cpu.capability(thread)?;
        let thread = capability.thread(Rights::READ)?;
        let consumed = self.arch.ns_from_ticks(thread.schedule.lock().budget.consumed());
        let state = thread.phase() as u64;
        Ok(Flow::Values([state, consumed, thread.cpu() as u64, u64::from(thread.priority()), 0, 0]))
    }

    pub(super) fn timer_arm(
        &'static self,
        cpu: &mut Cpu<A>,
        notification: u64,
        deadline_ns: u64,
        bits: u64,
    ) -> Outcome {
        let current = cpu.running()?;
        let capability = cpu.capability(notification)?;
        let notification = capability.notification(Rights::SEND)?;
        let bits = capability.bits_to_signal(bits);
        *current.alarm_target.lock() = (deadline_ns != FOREVER).then(|| (notification.clone(), bits));
        let deadline = match deadline_ns {
            FOREVER => FOREVER,
            ns => self.ticks_of_clock(ns),
        };
        current.alarm.store(deadline, Ordering::Relaxed);
        cpu.set_alarm(&current, deadline);
        DONE
    }
}
