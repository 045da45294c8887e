//! Taking away: capabilities, objects, domains. Each in bounded slices.

use dragonfly_abi::Status;
use dragonfly_memory::PageFormat;

use crate::arch::Arch;
use crate::capability::{Capability, Derivation, DerivationState, Object, Place};
use crate::cpu::Cpu;
use crate::domain::Domain;
use crate::gate::Gate;
use crate::notification::Notification;
use crate::space::Space;
use crate::thread::{Phase, errand};
use crate::{Kernel, Ref};

/// How much one system call takes away before it lets others run: capabilities, page-table leaves, waiting threads.
pub const SLICE: u32 = 64;

/// Whether a piece of work is complete, or has to go on in another slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Progress {
    /// All is done.
    Done,
    /// More is to do.
    More,
}

impl Progress {
    /// As the status of a system call.
    pub fn status(self) -> Result<(), Status> {
        match self {
            Self::Done => Ok(()),
            Self::More => Err(Status::Again),
        }
    }
}

impl<A: Arch> Kernel<A> {
    /// Takes one capability away, as its holder asks. What was derived from it now derives from its parent. With the
    /// last capability goes the object, unless it lives on by itself.
    pub fn close(&'static self, cpu: &mut Cpu<A>, capability: &Ref<Capability<A>, A>, budget: &mut u32) -> Progress {
        let derivation = &capability.derivation;
        {
            let mut state = derivation.state.lock();
            if state.count != 1 || state.object.outlives_handles() {
                return self.remove_locked(&mut state, capability, budget);
            }
            // Nothing derives from now on: this one stays the last.
            state.is_closing = true;
        }
        // The capability goes after the object's contents, so that the call can be repeated until they have gone.
        if self.empty_object(cpu, &capability.object, budget) == Progress::More
            || self.remove(capability, budget) == Progress::More
        {
            return Progress::More;
        }
        self.disown(derivation);
        Progress::Done
    }

    /// Takes a mapping away. With the last capability goes the memory, too, after the pages that show it.
    pub fn unmap<F: PageFormat>(
        &'static self,
        cpu: &mut Cpu<A>,
        space: &Space<A, F>,
        mapping: &Ref<Capability<A>, A>,
        budget: &mut u32,
    ) -> Progress {
        match space.unmap(self, mapping, budget) {
            Progress::Done => self.close(cpu, mapping, budget),
            Progress::More => Progress::More,
        }
    }

    /// Takes one capability away. What was derived from it now derives from its parent.
    pub fn remove(&'static self, capability: &Ref<Capability<A>, A>, budget: &mut u32) -> Progress {
        let mut state = capability.derivation.state.lock();
        self.remove_locked(&mut state, capability, budget)
    }

    fn remove_locked(
        &'static self,
        state: &mut DerivationState<A>,
        capability: &Ref<Capability<A>, A>,
        budget: &mut u32,
    ) -> Progress {
        if !state.orphan_children(capability, budget) || self.vacate(capability, budget) == Progress::More {
            return Progress::More;
        }
        let _ = state.detach(capability);
        Progress::Done
    }

    /// Takes away everything derived from a capability, or all capabilities of a derivation.
    pub fn revoke(
        &'static self,
        derivation: &Ref<Derivation<A>, A>,
        top: Option<&Ref<Capability<A>, A>>,
        budget: &mut u32,
    ) -> Progress {
        let mut state = derivation.state.lock();
        while let Some(leaf) = state.leaf(top) {
            if *budget == 0 || self.vacate(&leaf, budget) == Progress::More {
                return Progress::More;
            }
            *budget = budget.saturating_sub(1);
            let _ = state.detach(&leaf);
        }
        Progress::Done
    }

    /// Empties the place of a capability. Called under the derivation's lock.
    fn vacate(&'static self, capability: &Ref<Capability<A>, A>, budget: &mut u32) -> Progress {
        let place = match &capability.node.lock().place {
            Place::Nowhere => Place::Nowhere,
            Place::Slot(domain, slot) => Place::Slot(domain.clone(), *slot),
            Place::Mapping(domain) => Place::Mapping(domain.clone()),
            Place::GuestMapping(vm) => Place::GuestMapping(vm.clone()),
        };
        match place {
            Place::Nowhere => Progress::Done,
            Place::Slot(domain, slot) => {
                let removed = domain.table.lock().empty(slot, capability);
                drop(removed);
                Progress::Done
            }
            Place::Mapping(domain) => domain.space.remove(self, capability, budget),
            Place::GuestMapping(vm) => vm.space.remove(self, capability, budget),
        }
    }

    /// Takes a dead object's derivation out of its owner's list.
    pub fn disown(&self, derivation: &Ref<Derivation<A>, A>) {
        let owner = derivation.state.lock().owner.take();
        if let Some(owner) = owner {
            let removed = owner.owned.lock().remove(derivation);
            drop(removed);
        }
    }

    /// Ends what goes on at an object that nobody can reach any more.
    fn empty_object(&'static self, cpu: &mut Cpu<A>, object: &Object<A>, budget: &mut u32) -> Progress {
        match object {
            Object::Gate(gate) => self.close_gate(cpu, gate, budget),
            Object::Notification(notification) => self.close_notification(cpu, notification, budget),
            Object::Memory(memory) => memory.release(budget),
            Object::Interrupt(line) => {
                self.close_interrupt(line);
                Progress::Done
            }
            Object::Vm(vm) => self.close_vm(cpu, vm, budget),
            Object::Vcpu(vcpu) => self.close_vcpu(cpu, vcpu),
            Object::Domain(_) | Object::Thread(_) | Object::Ports(_) | Object::System => Progress::Done,
        }
    }

    fn close_gate(&'static self, cpu: &mut Cpu<A>, gate: &Ref<Gate<A>, A>, budget: &mut u32) -> Progress {
        loop {
            let mut queues = gate.queues.lock();
            queues.is_closed = true;
            let Some(thread) = queues.take_receiver(cpu.id).or_else(|| queues.take_caller()) else {
                let notification = queues.notification.take();
                drop(queues);
                if let Some(notification) = notification {
                    notification.waiters.lock().gate = None;
                }
                return Progress::Done;
            };
            drop(queues);
            self.abort(cpu, thread);
            *budget = budget.saturating_sub(1);
            if *budget == 0 {
                return Progress::More;
            }
        }
    }

    fn close_notification(
        &'static self,
        cpu: &mut Cpu<A>,
        notification: &Ref<Notification<A>, A>,
        budget: &mut u32,
    ) -> Progress {
        loop {
            let mut waiters = notification.waiters.lock();
            waiters.is_closed = true;
            let Some(thread) = waiters.queue.pop_front() else {
                let gate = waiters.gate.take();
                waiters.route = None;
                drop(waiters);
                if let Some(gate) = gate {
                    gate.queues.lock().notification = None;
                }
                return Progress::Done;
            };
            let is_claimed = thread.claim_any();
            drop(waiters);
            if is_claimed {
                self.abort(cpu, thread);
            }
            *budget = budget.saturating_sub(1);
            if *budget == 0 {
                return Progress::More;
            }
        }
    }

    /// Destroys a domain and all that it owned, child domains first. Calls itself `Busy` for a domain that contains
    /// the caller: who would finish the work?
    pub fn destroy(&'static self, cpu: &mut Cpu<A>, domain: &Ref<Domain<A>, A>) -> Result<(), Status> {
        let Some(current) = cpu.current.clone() else { return Err(Status::BadState) };
        if domain.is_or_contains(&current.domain) {
            return Err(Status::Busy);
        }
        let mut budget = SLICE;
        let mut lowest = domain.clone();
        loop {
            lowest.close();
            // Child domains come first in the list.
            let child = lowest.owned.lock().front().and_then(|derivation| match &derivation.state.lock().object {
                Object::Domain(child) => Some(child.clone()),
                _ => None,
            });
            match child {
                Some(child) => lowest = child,
                None => break,
            }
        }
        self.destroy_childless(cpu, &lowest, &mut budget).status()?;
        if Ref::<_, A>::ptr_eq(&lowest, domain) { Ok(()) } else { Err(Status::Again) }
    }

    fn destroy_childless(&'static self, cpu: &mut Cpu<A>, domain: &Ref<Domain<A>, A>, budget: &mut u32) -> Progress {
        if self.end_threads(cpu, domain, budget) == Progress::More
            || self.close_handles(cpu, domain, budget) == Progress::More
            || self.take_owned(cpu, domain, budget) == Progress::More
            || domain.space.clear(self, cpu, budget) == Progress::More
        {
            return Progress::More;
        }
        // Last its own capabilities and its place in the parent's list.
        let own = domain.derivation.lock().clone();
        if let Some(derivation) = own {
            let capabilities = {
                let mut state = derivation.state.lock();
                state.is_closing = true;
                state.count
            };
            // Another CPU may be about to drop the last of its threads, and what that holds of the account. Each
            // capability refers to the domain, its derivation does, and the caller of this.
            if Ref::<_, A>::count(domain) > capabilities + 2 {
                return Progress::More;
            }
            if self.revoke(&derivation, None, budget) == Progress::More {
                return Progress::More;
            }
            self.disown(&derivation);
            *domain.derivation.lock() = None;
        }
        Progress::Done
    }

    fn end_threads(&'static self, cpu: &mut Cpu<A>, domain: &Ref<Domain<A>, A>, budget: &mut u32) -> Progress {
        loop {
            let Some(thread) = domain.threads.lock().members.front_ref() else { return Progress::Done };
            if *budget == 0 {
                return Progress::More;
            }
            *budget -= 1;
            thread.doom();
            if thread.cpu() == cpu.id {
                self.end(cpu, &thread);
            } else {
                self.post(thread, errand::END);
                return Progress::More;
            }
        }
    }

    fn close_handles(&'static self, cpu: &mut Cpu<A>, domain: &Ref<Domain<A>, A>, budget: &mut u32) -> Progress {
        loop {
            let capability = domain.table.lock().next_to_empty(budget);
            match capability {
                Some(capability) if self.close(cpu, &capability, budget) == Progress::More => return Progress::More,
                Some(_) => {}
                None if domain.table.lock().is_emptied() => return Progress::Done,
                None => return Progress::More,
            }
        }
    }

    fn take_owned(&'static self, cpu: &mut Cpu<A>, domain: &Ref<Domain<A>, A>, budget: &mut u32) -> Progress {
        loop {
            let Some(derivation) = domain.owned.lock().front_ref() else { return Progress::Done };
            let object = {
                let mut state = derivation.state.lock();
                state.is_closing = true;
                state.object.share()
            };
            if let Object::Thread(thread) = &object
                && thread.phase() != Phase::Ended
            {
                return Progress::More;
            }
            if *budget == 0
                || self.revoke(&derivation, None, budget) == Progress::More
                || self.empty_object(cpu, &object, budget) == Progress::More
            {
                return Progress::More;
            }
            self.disown(&derivation);
            *budget = budget.saturating_sub(1);
        }
    }
}
