//! The end of a machine: nothing may be left of the kernel's objects.

use std::mem::{forget, take};

use dragonfly_abi::{Call, Status};

use super::World;
use super::action::settle;
use crate::arch::fake::Fake;
use crate::capability::Object;
use crate::simulation::Ref;
use crate::simulation::audit::{self, audit};
use crate::teardown::Progress;

impl World {
    /// Ends the keeper and takes away all it has, then the first domain: nothing must be left of the kernel's objects.
    pub fn finish(mut self) {
        self.deliver_all();
        audit(&self);
        let kernel = self.kernel();
        let place = self.keeper.cpu;
        let domain = self.first().clone();
        let keeper = self.thread_of(&self.keeper);
        let is_child = |object: &Object<Fake>| matches!(object, Object::Domain(child) if !Ref::ptr_eq(child, &domain));
        let handles = domain.table.lock().handles();
        let children = handles.into_iter().filter(|(_, capability)| is_child(&capability.object));
        for child in children.map(|(handle, _)| u64::from(handle.0)).collect::<Vec<_>>() {
            assert_eq!(self.insist(Call::DomainDestroy, &[child]), Status::Ok);
        }
        // The first domain's other threads, on their CPUs; the keeper last.
        loop {
            let threads = audit::threads(&domain);
            let Some(thread) = threads.iter().rev().find(|thread| threads.len() == 1 || !Ref::ptr_eq(thread, &keeper))
            else {
                break;
            };
            let cpu = &mut self.cpus[thread.cpu()];
            self.fake.enter(cpu.id);
            kernel.end(cpu, thread);
            settle(self.fake, cpu);
        }
        self.fake.enter(place);
        let cpu = &mut self.cpus[place];
        loop {
            let Some((_, capability)) = domain.table.lock().handles().pop() else { break };
            while kernel.close(cpu, &capability, &mut { 64 }) == Progress::More {}
        }
        loop {
            let Some(derivation) = domain.owned.lock().front_ref() else { break };
            assert!(derivation.state.lock().object.outlives_handles(), "an object without handles is still there");
            kernel.disown(&derivation);
        }
        *domain.derivation.lock() = None;
        while domain.space.give_back() == Progress::More {}
        settle(self.fake, cpu);
        let (fake, empty) = (self.fake, self.empty);
        drop((domain, keeper));
        drop(self);
        assert_eq!((fake.free_frames(), fake.objects()), empty, "frames and objects are not all back");
        retire(fake);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Objects of a kernel that went wrong may not stand being dropped.
            forget((take(&mut self.cpus), self.first.take()));
        }
    }
}

#[expect(unsafe_code, reason = "it frees the machine")]
fn retire(fake: Fake) {
    // SAFETY: `World::finish` has seen that there are no kernel objects, and has dropped the world.
    unsafe { fake.retire() };
}
