//! The Dragonfly microkernel: it partitions CPUs, memory and interrupts, and nothing else.
//!
//! This library is the kernel above the architecture: objects, handles, scheduler, IPC, memory. It runs on the machine
//! and, over a simulated architecture, in host tests. Nothing blocks in here: a system call completes, or records what
//! its thread waits for and picks the next thread. There is one stack per CPU, interrupts are off, and every call's
//! work is bounded; longer work is done in slices that end with `Again`.
//!
//! Reading order: [`thread`], [`gate`], [`ipc`], [`cpu`]; then [`domain`], [`capability`], [`handle_table`],
//! [`memory_object`], [`space`]; then [`system_call`]. Lock order is written at [`Kernel`].
#![cfg_attr(not(test), no_std)]

use core::sync::atomic::Ordering;

use dragonfly_abi::MAX_CPUS;

use crate::arch::{Arch, Ticks};
use crate::cpu::Cpu;
use crate::device::LineSlot;
use crate::domain::Domain;
use crate::protocol::Shootdowns;
use crate::sync::{AtomicU64, AtomicUsize};
use crate::thread::{Thread, link};

pub mod arch;
pub mod budget;
pub mod capability;
pub mod cpu;
pub mod device;
pub mod domain;
pub mod ending;
pub mod fast_path;
pub mod fault;
pub mod frames;
pub mod gate;
pub mod handle_table;
pub mod ipc;
pub mod memory_object;
pub mod message_page;
pub mod notification;
mod protocol;
pub mod root;
pub mod shared_page;
#[cfg(test)]
mod simulation;
pub mod space;
pub mod stolen;
pub mod sync;
pub mod system_call;
pub mod teardown;
pub mod thread;
pub mod transfer;
pub mod tsc;
pub mod vcpu;
pub mod vm;

/// A counted reference to a kernel object.
pub type Ref<T, A> = dragonfly_memory::Ref<T, <A as Arch>::Heap>;
/// An intrusive queue that owns references.
pub type Queue<T, A, L> = dragonfly_memory::Queue<T, <A as Arch>::Heap, L>;
/// The kernel's lock.
pub type Lock<T, A> = dragonfly_memory::Lock<T, <A as Arch>::Relax>;

/// Interrupt lines the kernel can bind: numbers 0 up to here.
pub const LINES: u32 = 128;
/// Message-signalled interrupts there can be: the numbers that follow.
pub const MESSAGES: u32 = 64;

/// What all CPUs share. There is no lock around it; each object has its own.
///
/// Lock order, outermost first; a CPU takes a lock only while it holds none or some further up:
///
/// 1. a gate's queues, a notification's waiters (waiters before queues)
/// 2. a domain's list of owned objects
/// 3. a derivation's tree, then capabilities' nodes from the top down
/// 4. a vCPU's registers; where its stolen time is told
/// 5. a handle table; an address space, then a memory object
/// 6. a virtual machine's lists, who runs a vCPU
/// 7. a thread's IPC state, a thread's scheduling context, a domain's list of threads, an interrupt line
/// 8. the object heap, the frame allocator
pub struct Kernel<A: Arch> {
    /// The architecture it runs on.
    pub arch: A,
    remotes: [Remote<A>; MAX_CPUS],
    cpus: AtomicUsize,
    started: AtomicU64,
    interrupts: [LineSlot<A>; (LINES + MESSAGES) as usize],
}

/// What other CPUs may touch of a CPU.
pub struct Remote<A: Arch> {
    /// Threads of that CPU that others have woken, started or doomed.
    pub inbox: dragonfly_memory::Inbox<Thread<A>, A::Heap, link::Inbox>,
    shootdowns: Shootdowns,
}

impl<A: Arch> Kernel<A> {
    /// A kernel without CPUs, domains or memory.
    pub const fn new(arch: A) -> Self {
        Self {
            arch,
            remotes: [const {
                Remote {
                    inbox: dragonfly_memory::Inbox::new(),
                    shootdowns: Shootdowns { asked: AtomicU64::new(0), answered: AtomicU64::new(0) },
                }
            }; MAX_CPUS],
            cpus: AtomicUsize::new(1),
            started: AtomicU64::new(0),
            interrupts: [const { Lock::<_, A>::new(None) }; (LINES + MESSAGES) as usize],
        }
    }

    /// Says how many CPUs there are and when the clock started. Before the first domain runs.
    pub fn set_up(&self, cpus: usize, started: Ticks) {
        self.cpus.store(cpus.min(MAX_CPUS), Ordering::Release);
        self.started.store(started, Ordering::Release);
    }

    /// How many CPUs there are.
    pub fn cpus(&self) -> usize {
        self.cpus.load(Ordering::Relaxed)
    }

    /// When the clock that domains see started.
    pub fn started(&self) -> Ticks {
        self.started.load(Ordering::Relaxed)
    }

    /// What others may touch of a CPU.
    pub fn remote(&self, cpu: usize) -> &Remote<A> {
        &self.remotes[cpu % MAX_CPUS]
    }

    /// Where the interrupt with a number is bound.
    fn slot(&self, number: u32) -> Option<&LineSlot<A>> {
        self.interrupts.get(number as usize)
    }

    /// Another CPU has kicked this one.
    pub fn kicked(&'static self, cpu: &mut Cpu<A>) {
        self.answer_shootdown(cpu.id);
        cpu.needs_reschedule = true;
    }

    /// Decides what this CPU does next. Called before each return to a domain that is not a direct one. True: the
    /// current thread's address space is active and the timer is set for it. False: there is nothing to run.
    #[inline]
    pub fn select(&'static self, cpu: &mut Cpu<A>) -> bool {
        loop {
            if cpu.needs_reschedule {
                self.reschedule(cpu);
            }
            let Some(current) = &cpu.current else {
                self.activate(cpu, None);
                self.update_timer(cpu);
                // What the timer was set for may have passed already.
                return cpu.needs_reschedule;
            };
            if current.is_doomed() {
                let current = current.clone();
                self.end(cpu, &current);
                continue;
            }
            self.enter_current(cpu);
            if cpu.needs_timer {
                self.update_timer(cpu);
            }
            return true;
        }
    }

    #[inline(never)]
    fn reschedule(&'static self, cpu: &mut Cpu<A>) {
        self.empty_inbox(cpu);
        // A doomed thread is not put back among the ready ones.
        if let Some(current) = cpu.current.as_ref().filter(|current| current.is_doomed()).cloned() {
            self.end(cpu, &current);
        }
        cpu.reschedule(self.arch);
    }

    fn update_timer(&self, cpu: &mut Cpu<A>) {
        cpu.needs_timer = false;
        self.arch.set_timer(cpu.next_deadline());
    }

    /// Makes a domain's address space active on this CPU, or the kernel's own.
    pub fn activate(&self, cpu: &mut Cpu<A>, domain: Option<Ref<Domain<A>, A>>) {
        if let Some(domain) = &domain {
            domain.space.enter(cpu.id);
        }
        self.arch.activate(domain.as_ref().map(|domain| domain.space.root()));
        if let Some(left) = core::mem::replace(&mut cpu.active, domain)
            && !cpu.active.as_ref().is_some_and(|active| Ref::<_, A>::ptr_eq(active, &left))
        {
            left.space.leave(cpu.id);
        }
    }

    /// Makes other CPUs forget translations of an address space that is active there, and waits until they have.
    pub fn shoot_down(&self, this: usize, targets: u64) {
        let others = targets & !(1 << this);
        for cpu in bits(others) {
            self.remote(cpu).shootdowns.ask();
            self.arch.kick(cpu);
        }
        if targets & 1 << this != 0 {
            self.arch.flush_tlb();
        }
        for cpu in bits(others) {
            let shootdowns = &self.remote(cpu).shootdowns;
            let asked = shootdowns.asked();
            while !shootdowns.are_answered(asked) {
                // The other may be waiting for this one in the same way.
                <A::Relax as dragonfly_memory::Relax>::relax();
            }
        }
    }

    /// Does the TLB shoot-downs that others have asked of this CPU. Safe at any point of the kernel.
    #[inline]
    pub fn answer_shootdown(&self, this: usize) {
        self.remote(this).shootdowns.answer(|| self.arch.flush_tlb());
    }
}

/// The numbers of the bits that are set.
fn bits(mask: u64) -> impl Iterator<Item = usize> {
    (0..64).filter(move |bit| mask >> bit & 1 != 0)
}
