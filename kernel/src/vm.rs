//! Virtual machines: a guest's physical memory, its virtual CPUs, and the doorbells in it.

use core::sync::atomic::Ordering;

use dragonfly_abi::Status;
use dragonfly_abi::guest::{DoorbellKind, MAX_VCPUS};
use dragonfly_memory::Charge;

use crate::arch::Arch;
use crate::cpu::Cpu;
use crate::domain::Domain;
use crate::notification::Notification;
use crate::space::GuestSpace;
use crate::sync::{AtomicBool, AtomicUsize};
use crate::teardown::Progress;
use crate::vcpu::Vcpu;
use crate::{Kernel, Lock, Ref};

/// Doorbells of a virtual machine. It bounds the search at an exit.
const MAX_DOORBELLS: usize = 64;

/// A virtual machine.
pub struct Vm<A: Arch> {
    /// Its physical memory.
    pub space: GuestSpace<A>,
    /// Its virtual CPUs by number.
    vcpus: Lock<Vcpus<A>, A>,
    doorbells: Lock<[Option<Doorbell<A>>; MAX_DOORBELLS], A>,
    /// How many doorbells there are.
    doorbell_count: AtomicUsize,
    is_closed: AtomicBool,
    _charge: Charge<A::Heap>,
}

/// Virtual CPUs by number.
type Vcpus<A> = [Option<Ref<Vcpu<A>, A>>; MAX_VCPUS as usize];

/// Where a doorbell is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoorbellPlace {
    /// Memory or port.
    pub kind: DoorbellKind,
    /// Guest-physical address or number of the port.
    pub address: u64,
}

/// Guest writes to a place that signal.
struct Doorbell<A: Arch> {
    place: DoorbellPlace,
    notification: Ref<Notification<A>, A>,
    bits: u64,
}

impl<A: Arch> Vm<A> {
    /// A virtual machine without memory and vCPUs, for a domain that pays for it.
    pub fn new(kernel: &'static Kernel<A>, owner: &Domain<A>) -> Result<Self, Status> {
        let charge = owner.charge_object::<Self>()?;
        Ok(Self {
            space: GuestSpace::new_guest(kernel, &owner.account)?,
            vcpus: Lock::<_, A>::new([const { None }; MAX_VCPUS as usize]),
            doorbells: Lock::<_, A>::new([const { None }; MAX_DOORBELLS]),
            doorbell_count: AtomicUsize::new(0),
            is_closed: AtomicBool::new(false),
            _charge: charge,
        })
    }

    /// Whether it is being taken away: nothing runs any more.
    #[inline]
    pub fn is_closed(&self) -> bool {
        self.is_closed.load(Ordering::Acquire)
    }

    /// Gives a new virtual CPU its number.
    pub fn add(&self, number: u32, vcpu: &Ref<Vcpu<A>, A>) -> Result<(), Status> {
        let mut vcpus = self.vcpus.lock();
        let slot = vcpus.get_mut(number as usize).ok_or(Status::BadArgument)?;
        if self.is_closed() {
            return Err(Status::BadHandle);
        }
        if slot.is_some() {
            return Err(Status::Busy);
        }
        *slot = Some(vcpu.clone());
        Ok(())
    }

    /// Takes a virtual CPU's number back.
    pub fn remove(&self, number: u32) {
        let removed = self.vcpus.lock().get_mut(number as usize).and_then(Option::take);
        drop(removed);
    }

    /// The virtual CPU with a number.
    pub fn vcpu(&self, number: u32) -> Option<Ref<Vcpu<A>, A>> {
        self.vcpus.lock().get(number as usize)?.clone()
    }

    /// The virtual CPUs, lowest number first.
    pub fn vcpus(&self) -> impl Iterator<Item = Ref<Vcpu<A>, A>> {
        (0..MAX_VCPUS).filter_map(|number| self.vcpu(number))
    }

    /// Sets a doorbell, or takes it away.
    pub fn set_doorbell(
        &self,
        place: DoorbellPlace,
        target: Option<(Ref<Notification<A>, A>, u64)>,
    ) -> Result<(), Status> {
        let mut doorbells = self.doorbells.lock();
        let found = doorbells.iter_mut().find(|slot| slot.as_ref().is_some_and(|doorbell| doorbell.place == place));
        let replaced = match (found, target) {
            (None, None) => return Err(Status::NotMapped),
            (Some(slot), target) => {
                if target.is_none() {
                    self.doorbell_count.fetch_sub(1, Ordering::Relaxed);
                }
                let new = target.map(|(notification, bits)| Doorbell { place, notification, bits });
                core::mem::replace(slot, new)
            }
            (None, Some((notification, bits))) => {
                let slot = doorbells.iter_mut().find(|slot| slot.is_none()).ok_or(Status::NoHandles)?;
                self.doorbell_count.fetch_add(1, Ordering::Relaxed);
                slot.replace(Doorbell { place, notification, bits })
            }
        };
        drop(doorbells);
        drop(replaced);
        Ok(())
    }

    /// What a guest's write to a place signals.
    #[inline]
    pub fn doorbell(&self, place: DoorbellPlace) -> Option<(Ref<Notification<A>, A>, u64)> {
        if self.doorbell_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        let doorbells = self.doorbells.lock();
        let doorbell = doorbells.iter().flatten().find(|doorbell| doorbell.place == place)?;
        Some((doorbell.notification.clone(), doorbell.bits))
    }
}

impl<A: Arch> Kernel<A> {
    /// Ends a virtual machine that nobody can name any more: whoever runs one of its vCPUs is told `Aborted`.
    pub fn close_vm(&'static self, cpu: &mut Cpu<A>, vm: &Ref<Vm<A>, A>, budget: &mut u32) -> Progress {
        vm.is_closed.store(true, Ordering::SeqCst);
        vm.space.close();
        for vcpu in vm.vcpus() {
            if self.stop(cpu, &vcpu) == Progress::More {
                return Progress::More;
            }
            vm.remove(vcpu.number);
        }
        for slot in 0..MAX_DOORBELLS {
            let removed = vm.doorbells.lock()[slot].take();
            drop(removed);
        }
        vm.space.clear(self, cpu, budget)
    }
}
