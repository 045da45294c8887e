//! Virtual CPUs: who runs one, how it is interrupted, and what becomes of its exits.
//!
//! A thread runs a virtual CPU by a call that comes back when the guest needs its VMM. Meanwhile the thread is scheduled
//! like any other; where it would go on in its domain it goes on in the guest instead.

use core::sync::atomic::Ordering;

use dragonfly_abi::guest::{DoorbellKind, ExitReason, MemoryAccess, RunFlags};
use dragonfly_abi::{Rights, Status};
use dragonfly_memory::{Charge, GuestPhys};

use crate::arch::{Arch, Context, ExitFate, Guest, GuestExit, NEVER};
use crate::cpu::Cpu;
use crate::domain::Domain;
use crate::shared_page::SharedPage;
use crate::stolen::StolenTime;
use crate::sync::{AtomicBool, AtomicU32, AtomicUsize};
use crate::teardown::Progress;
use crate::thread::{Thread, Waiting};
use crate::vm::{DoorbellPlace, Vm};
use crate::{Kernel, Lock, Ref};

/// What a virtual CPU is asked to do before it runs on.
mod request {
    /// Come back to the VMM.
    pub const KICK: u32 = 1;
    /// Never run again.
    pub const CLOSE: u32 = 2;
}

/// Value of `on_cpu` while it is on none.
const NOWHERE: usize = usize::MAX;

/// A virtual CPU.
pub struct Vcpu<A: Arch> {
    /// Its machine.
    pub vm: Ref<Vm<A>, A>,
    /// Its number there.
    pub number: u32,
    /// The page that it shares with the VMM.
    pub page: SharedPage<A>,
    /// Its registers. Who runs it holds the lock; nobody else wants it meanwhile.
    guest: Lock<A::Guest, A>,
    /// Its interrupt controller.
    pub interrupts: <A::Guest as Guest<A>>::Interrupts,
    /// The time in which it was to run and did not.
    pub stolen: StolenTime<A>,
    /// The domain in which the page is mapped.
    domain: Ref<Domain<A>, A>,
    /// Whether somebody runs it, or works on its registers.
    is_running: AtomicBool,
    runner: Lock<Runner<A>, A>,
    /// The CPU on which the guest runs, or [`NOWHERE`].
    on_cpu: AtomicUsize,
    requests: AtomicU32,
    _charge: Charge<A::Heap>,
}

/// Who runs a virtual CPU.
struct Runner<A: Arch> {
    /// The thread that runs it, or ran it last.
    thread: Option<Ref<Thread<A>, A>>,
    /// Whether the thread is blocked until an interrupt comes.
    is_halted: bool,
}

/// How a CPU goes on after a guest was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AfterGuest {
    /// Something has come for the host: the architecture deals with it first.
    Interrupted,
    /// Whoever is to run is chosen.
    Choose,
}

impl<A: Arch> Vcpu<A> {
    /// A virtual CPU that nobody runs.
    pub fn new(
        vm: Ref<Vm<A>, A>,
        number: u32,
        page: SharedPage<A>,
        (guest, interrupts): (A::Guest, <A::Guest as Guest<A>>::Interrupts),
        domain: Ref<Domain<A>, A>,
        charge: Charge<A::Heap>,
    ) -> Self {
        Self {
            vm,
            number,
            page,
            guest: Lock::<_, A>::new(guest),
            interrupts,
            stolen: StolenTime::default(),
            domain,
            is_running: AtomicBool::new(false),
            runner: Lock::<_, A>::new(Runner { thread: None, is_halted: false }),
            on_cpu: AtomicUsize::new(NOWHERE),
            requests: AtomicU32::new(0),
            _charge: charge,
        }
    }

    /// Nobody runs it any more, and no thread refers to it. For a thread that ends, and for the end of the vCPU.
    pub fn unbind(&self) {
        let thread = {
            let mut runner = self.runner.lock();
            self.is_running.store(false, Ordering::Release);
            runner.is_halted = false;
            runner.thread.take()
        };
        if let Some(thread) = thread {
            let own = thread.vcpu.lock().take_if(|vcpu| core::ptr::eq::<Self>(&**vcpu, self));
            drop(own);
        }
    }

    /// Does something with its registers or tables while nobody runs it, nor can begin to.
    pub fn while_idle<R>(&self, work: impl FnOnce(&mut A::Guest) -> R) -> Result<R, Status> {
        if self.is_running.swap(true, Ordering::Acquire) {
            return Err(Status::Busy);
        }
        let result = work(&mut self.guest.lock());
        self.is_running.store(false, Ordering::Release);
        Ok(result)
    }

    /// A thread that ran it runs another.
    fn forget(&self, thread: &Ref<Thread<A>, A>) {
        let removed = self.runner.lock().thread.take_if(|known| Ref::<_, A>::ptr_eq(known, thread));
        drop(removed);
    }

    /// Its thread is not blocked any more. For whoever has claimed it.
    pub fn end_halt(&self) {
        self.runner.lock().is_halted = false;
    }

    /// Whether it or its machine is being taken away.
    fn is_closed(&self) -> bool {
        self.vm.is_closed() || self.requests.load(Ordering::Acquire) & request::CLOSE != 0
    }

    /// Whether the guest has to be left: asked after `on_cpu` was set.
    #[inline]
    fn has_request(&self) -> bool {
        self.requests.load(Ordering::Relaxed) != 0
    }

    /// Something waits for it: lets it look. What it is was made visible by the caller.
    pub fn notify(&self, kernel: &'static Kernel<A>, cpu: &mut Cpu<A>) {
        self.notify_by(kernel, cpu, |on_cpu| kernel.arch.kick(on_cpu));
    }

    /// As [`notify`](Self::notify), where another CPU that runs it is told in another way.
    pub fn notify_by(&self, kernel: &'static Kernel<A>, cpu: &mut Cpu<A>, tell: impl FnOnce(usize)) {
        // SeqCst: after what it is to see was stored; the other side stores where it runs, then looks.
        let on_cpu = self.on_cpu.load(Ordering::SeqCst);
        if on_cpu == cpu.id {
            return;
        }
        if on_cpu != NOWHERE {
            tell(on_cpu);
            return;
        }
        let halted = {
            let mut runner = self.runner.lock();
            match &runner.thread {
                Some(thread) if runner.is_halted && thread.claim_any() => {
                    let thread = thread.clone();
                    runner.is_halted = false;
                    Some(thread)
                }
                _ => None,
            }
        };
        if let Some(thread) = halted {
            thread.ipc.lock().end_wait();
            kernel.wake(cpu, thread);
        }
    }
}

impl<A: Arch> Kernel<A> {
    /// Lets the current thread run a virtual CPU: from now on it goes on in the guest.
    #[inline]
    pub fn begin_guest(
        &'static self,
        cpu: &mut Cpu<A>,
        vcpu: &Ref<Vcpu<A>, A>,
        flags: RunFlags,
    ) -> Result<AfterGuest, Status> {
        let Some(current) = &cpu.current else { return Err(Status::BadState) };
        if vcpu.is_closed() {
            return Err(Status::Aborted);
        }
        if vcpu.is_running.swap(true, Ordering::Acquire) {
            return Err(Status::Busy);
        }
        if !current.vcpu.lock().as_ref().is_some_and(|known| Ref::<_, A>::ptr_eq(known, vcpu)) {
            Self::bind(vcpu, current);
        }
        current.context.enter_guest();
        let mut guest = vcpu.guest.lock();
        guest.take(vcpu, flags);
        if cpu.needs_reschedule { Ok(AfterGuest::Choose) } else { Ok(self.run_with(cpu, vcpu, &mut guest)) }
    }

    /// Lets a virtual CPU that is marked as running and a thread know each other, and forget whom they knew before.
    #[cold]
    fn bind(vcpu: &Ref<Vcpu<A>, A>, thread: &Ref<Thread<A>, A>) {
        let known = thread.vcpu.lock().take();
        if let Some(known) = known {
            known.forget(thread);
        }
        let before = vcpu.runner.lock().thread.replace(thread.clone());
        if let Some(before) = before {
            let own = before.vcpu.lock().take_if(|known| Ref::<_, A>::ptr_eq(known, vcpu));
            drop(own);
        }
        *thread.vcpu.lock() = Some(vcpu.clone());
    }

    /// Runs the current thread's guest.
    pub fn run_guest(&'static self, cpu: &mut Cpu<A>) -> AfterGuest {
        match cpu.current.as_ref().and_then(|current| current.vcpu.lock().clone()) {
            Some(vcpu) => {
                let mut guest = vcpu.guest.lock();
                if vcpu.stolen.regain_cpu(self.arch) {
                    guest.flush();
                }
                self.run_with(cpu, &vcpu, &mut guest)
            }
            None => AfterGuest::Choose,
        }
    }

    #[inline]
    fn run_with(&'static self, cpu: &mut Cpu<A>, vcpu: &Ref<Vcpu<A>, A>, guest: &mut A::Guest) -> AfterGuest {
        loop {
            let deadline = A::Guest::deadline(&vcpu.interrupts);
            if deadline != cpu.guest_deadline {
                cpu.guest_deadline = deadline;
                self.arch.set_timer(cpu.next_deadline());
            }
            // SeqCst: before the look at what waits; see `notify` and `Space::generation`.
            vcpu.on_cpu.store(cpu.id, Ordering::SeqCst);
            if vcpu.has_request() || vcpu.vm.is_closed() {
                vcpu.on_cpu.store(NOWHERE, Ordering::Release);
                return self.end_early(cpu, vcpu);
            }
            vcpu.vm.space.enter(cpu.id);
            let exit = guest.run(cpu, vcpu);
            vcpu.vm.space.leave(cpu.id);
            vcpu.on_cpu.store(NOWHERE, Ordering::Release);
            match exit {
                GuestExit::Interrupted => return AfterGuest::Interrupted,
                GuestExit::Halted => {
                    if self.halt(cpu, vcpu, guest) {
                        return AfterGuest::Choose;
                    }
                }
                GuestExit::Paused => cpu.rotate(self.arch),
                GuestExit::Again => {}
                GuestExit::Memory { address, access, linear, is_final } => {
                    if self.memory_exit(cpu, vcpu, guest, address, access) {
                        continue;
                    }
                    let (privilege, is_64_bit) = guest.show_mode(&vcpu.page);
                    let access = MemoryAccess::new(access, privilege, is_64_bit, is_final);
                    let words = [address.as_u64(), access.0, linear];
                    return self.end_guest(cpu, vcpu, ExitReason::Memory, 0, words);
                }
                GuestExit::Port { access, value, length } => {
                    let place = DoorbellPlace { kind: DoorbellKind::Port, address: u64::from(access.port()) };
                    if !access.is_in()
                        && !access.is_string()
                        && let Some((notification, bits)) = vcpu.vm.doorbell(place)
                    {
                        guest.take(vcpu, RunFlags::SKIP);
                        A::Guest::count(&vcpu.page, ExitFate::Doorbell);
                        self.signal(cpu, &notification, bits);
                        continue;
                    }
                    if access.is_string() {
                        guest.sync(&vcpu.interrupts, &vcpu.page, RunFlags::CONTROL | RunFlags::SEGMENTS);
                    }
                    return self.end_guest(cpu, vcpu, ExitReason::Port, length, [access.0, u64::from(value), 0]);
                }
                GuestExit::Vmm { reason, length, words } => {
                    return self.end_guest(cpu, vcpu, reason, length, words);
                }
            }
            if cpu.needs_reschedule || cpu.needs_timer {
                return AfterGuest::Choose;
            }
        }
    }

    /// Gives the guest the page that it touched. False if that is for the VMM.
    fn memory_exit(
        &'static self,
        cpu: &mut Cpu<A>,
        vcpu: &Vcpu<A>,
        guest: &mut A::Guest,
        address: GuestPhys,
        access: Rights,
    ) -> bool {
        if vcpu.vm.space.resolve(self, address.into(), access) {
            A::Guest::count(&vcpu.page, ExitFate::Page);
            return true;
        }
        A::Guest::count(&vcpu.page, ExitFate::Mmio);
        let place = DoorbellPlace { kind: DoorbellKind::Memory, address: address.as_u64() };
        if access == Rights::WRITE
            && let Some((notification, bits)) = vcpu.vm.doorbell(place)
            && guest.skip_write()
        {
            A::Guest::count(&vcpu.page, ExitFate::Doorbell);
            self.signal(cpu, &notification, bits);
            return true;
        }
        false
    }

    /// The guest waits for an interrupt: blocks its thread. False if one is there.
    fn halt(&'static self, cpu: &mut Cpu<A>, vcpu: &Ref<Vcpu<A>, A>, guest: &A::Guest) -> bool {
        let Some(current) = cpu.current.clone() else { return true };
        {
            let mut runner = vcpu.runner.lock();
            // Whoever sends something from now on finds the thread halted, or is seen here.
            if guest.has_event(&vcpu.interrupts) || vcpu.has_request() || vcpu.vm.is_closed() {
                return false;
            }
            current.ipc.lock().begin_wait(Waiting::Guest);
            current.block();
            runner.is_halted = true;
        }
        let deadline = A::Guest::deadline(&vcpu.interrupts);
        if deadline != NEVER {
            cpu.begin_timeout(&current, deadline);
        }
        vcpu.stolen.lose_cpu(self.arch, NEVER);
        cpu.current = None;
        cpu.leave(self.arch);
        true
    }

    /// The VMM wants the guest's thread back, or the virtual machine is gone.
    fn end_early(&'static self, cpu: &mut Cpu<A>, vcpu: &Ref<Vcpu<A>, A>) -> AfterGuest {
        if vcpu.is_closed() {
            return self.finish_guest(cpu, vcpu, Status::Aborted, [0; 6]);
        }
        vcpu.requests.fetch_and(!request::KICK, Ordering::AcqRel);
        // Not counted: it need not have been in the guest.
        self.finish_guest(cpu, vcpu, Status::Ok, [u64::from(ExitReason::Kicked as u32), 0, 0, 0, 0, 0])
    }

    /// Ends the current thread's call with an exit for the VMM.
    #[inline]
    fn end_guest(
        &'static self,
        cpu: &mut Cpu<A>,
        vcpu: &Ref<Vcpu<A>, A>,
        reason: ExitReason,
        length: u32,
        [a, b, c]: [u64; 3],
    ) -> AfterGuest {
        A::Guest::count(&vcpu.page, ExitFate::Vmm);
        let first = u64::from(reason as u32) | u64::from(length) << 32;
        self.finish_guest(cpu, vcpu, Status::Ok, [first, a, b, c, 0, 0])
    }

    #[inline]
    fn finish_guest(
        &'static self,
        cpu: &mut Cpu<A>,
        vcpu: &Ref<Vcpu<A>, A>,
        status: Status,
        words: [u64; 6],
    ) -> AfterGuest {
        if let Some(current) = &cpu.current {
            vcpu.is_running.store(false, Ordering::Release);
            current.context.leave_guest();
            current.context.set_results(status, words);
        }
        AfterGuest::Choose
    }

    /// Lets the one who runs a virtual CPU come back.
    pub fn kick_vcpu(&'static self, cpu: &mut Cpu<A>, vcpu: &Vcpu<A>) {
        // SeqCst: before the look at where it runs.
        vcpu.requests.fetch_or(request::KICK, Ordering::SeqCst);
        vcpu.notify(self, cpu);
    }

    /// Stops whoever runs a virtual CPU of a machine that is closed.
    pub fn stop(&'static self, cpu: &mut Cpu<A>, vcpu: &Vcpu<A>) -> Progress {
        if !vcpu.is_running.load(Ordering::Acquire) {
            return Progress::Done;
        }
        self.kick_vcpu(cpu, vcpu);
        Progress::More
    }

    /// Ends a virtual CPU that nobody can name any more.
    pub fn close_vcpu(&'static self, cpu: &mut Cpu<A>, vcpu: &Ref<Vcpu<A>, A>) -> Progress {
        vcpu.requests.fetch_or(request::CLOSE, Ordering::SeqCst);
        if self.stop(cpu, vcpu) == Progress::More {
            return Progress::More;
        }
        vcpu.unbind();
        vcpu.guest.lock().retire(vcpu);
        vcpu.vm.remove(vcpu.number);
        vcpu.domain.space.unmap_buffer(self, vcpu.page.memory());
        Progress::Done
    }
}
