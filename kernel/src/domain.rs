//! Domains: an address space, a handle table and an account, and the threads that use them.

use core::sync::atomic::Ordering;

use dragonfly_abi::{Rights, Status};
use dragonfly_memory::{Account, Charge};

use crate::arch::Arch;
use crate::capability::{self, Capability, Derivation, Object, Place};
use crate::handle_table::HandleTable;
use crate::notification::Signal;
use crate::space::DomainSpace;
use crate::sync::AtomicBool;
use crate::thread::{self, Thread};
use crate::{Lock, Queue, Ref};

/// A domain.
pub struct Domain<A: Arch> {
    /// What its objects, tables and frames are charged to.
    pub account: Ref<Account<A::Heap>, A>,
    /// The highest priority its threads may have.
    pub max_priority: u8,
    /// The CPUs its threads may use, one bit each.
    pub cpu_mask: u64,
    /// The domain that made it; nothing for the first.
    pub parent: Option<Ref<Domain<A>, A>>,
    /// Its address space.
    pub space: DomainSpace<A>,
    /// Its handles.
    pub table: Lock<HandleTable<A>, A>,
    /// Its threads.
    pub threads: Lock<Threads<A>, A>,
    /// The objects that it made and pays for.
    pub owned: Lock<Queue<Derivation<A>, A, capability::link::Owned>, A>,
    /// The tree of its capabilities.
    pub derivation: Lock<Option<Ref<Derivation<A>, A>>, A>,
    /// What is signalled when its last thread ends.
    pub death: Option<Signal<A>>,
    is_dying: AtomicBool,
    _charge: Charge<A::Heap>,
}

/// The threads of a domain.
pub struct Threads<A: Arch> {
    /// All that have not ended.
    pub members: Queue<Thread<A>, A, thread::link::Member>,
    /// How many those are.
    pub count: u64,
    /// Whether no thread may be added.
    pub is_closed: bool,
}

/// What a domain is made with.
pub struct DomainLimits {
    /// The highest priority its threads may have.
    pub max_priority: u8,
    /// The CPUs its threads may use.
    pub cpu_mask: u64,
}

impl<A: Arch> Domain<A> {
    /// An empty domain.
    pub fn new(
        account: Ref<Account<A::Heap>, A>,
        limits: &DomainLimits,
        parent: Option<Ref<Self, A>>,
        space: DomainSpace<A>,
        death: Option<Signal<A>>,
        charge: Charge<A::Heap>,
    ) -> Self {
        Self {
            account,
            max_priority: limits.max_priority,
            cpu_mask: limits.cpu_mask,
            parent,
            space,
            table: Lock::<_, A>::new(HandleTable::EMPTY),
            threads: Lock::<_, A>::new(Threads { members: Queue::<_, A, _>::new(), count: 0, is_closed: false }),
            owned: Lock::<_, A>::new(Queue::<_, A, _>::new()),
            derivation: Lock::<_, A>::new(None),
            death,
            is_dying: AtomicBool::new(false),
            _charge: charge,
        }
    }

    /// Whether it is being destroyed.
    pub fn is_dying(&self) -> bool {
        self.is_dying.load(Ordering::Acquire)
    }

    /// Begins its destruction: nothing new comes into it.
    pub fn close(&self) {
        self.is_dying.store(true, Ordering::Release);
        self.table.lock().close();
        self.threads.lock().is_closed = true;
        self.space.close();
    }

    /// Whether it is `other` or a domain above it.
    pub fn is_or_contains(&self, other: &Self) -> bool {
        let mut domain = other;
        loop {
            if core::ptr::eq(domain, self) {
                return true;
            }
            match &domain.parent {
                Some(parent) => domain = parent,
                None => return false,
            }
        }
    }

    /// A charge for an object of type `T` with its count and its class in the pool.
    pub fn charge_object<T>(&self) -> Result<Charge<A::Heap>, Status> {
        charge_object::<A, T>(&self.account)
    }
}

/// A charge to an account for a counted object of type `T`.
pub fn charge_object<A: Arch, T>(account: &Ref<Account<A::Heap>, A>) -> Result<Charge<A::Heap>, Status> {
    Account::charge(account, dragonfly_memory::footprint(dragonfly_memory::Vacant::<T, A::Heap>::LAYOUT))
        .map_err(|_| Status::QuotaExceeded)
}

/// Makes the derivation of a new object and its first capability in `holder`'s table.
///
/// `owner` pays for the object; its end is the object's.
pub fn publish<A: Arch>(
    arch: A,
    owner: &Ref<Domain<A>, A>,
    holder: &Ref<Domain<A>, A>,
    object: Object<A>,
    rights: Rights,
) -> Result<dragonfly_abi::Handle, Status> {
    let charge = owner.charge_object::<Derivation<A>>()?;
    let derivation = Ref::<_, A>::try_new(arch.heap(), Derivation::new(object.share(), owner.clone(), charge))
        .map_err(|_| Status::OutOfMemory)?;
    {
        let mut owned = owner.owned.lock();
        if owner.is_dying() {
            return Err(Status::BadHandle);
        }
        // Child domains come first, so that the destruction of this one finds them.
        let is_child = matches!(object, Object::Domain(_));
        let listed = if is_child { owned.push_front(derivation.clone()) } else { owned.push_back(derivation.clone()) };
        listed.map_err(|_| Status::BadState)?;
    }
    note_derivation(&object, Some(&derivation));
    let placed = place_in_table(arch, holder, None, &derivation, object, rights, 0);
    if placed.is_err() {
        note_derivation(&derivation.state.lock().object, None);
        owner.owned.lock().remove(&derivation);
        // The owner reference and the derivation refer to each other.
        derivation.state.lock().owner = None;
    }
    placed
}

/// Tells an object that may outlive its handles of its derivation.
fn note_derivation<A: Arch>(object: &Object<A>, derivation: Option<&Ref<Derivation<A>, A>>) {
    match object {
        Object::Domain(child) => *child.derivation.lock() = derivation.cloned(),
        Object::Thread(thread) => *thread.derivation.lock() = derivation.cloned(),
        _ => {}
    }
}

/// Puts a new capability for the derivation's object into a domain's table, derived from `parent` if there is one.
pub fn place_in_table<A: Arch>(
    arch: A,
    holder: &Ref<Domain<A>, A>,
    parent: Option<&Ref<Capability<A>, A>>,
    derivation: &Ref<Derivation<A>, A>,
    object: Object<A>,
    rights: Rights,
    badge: u64,
) -> Result<dragonfly_abi::Handle, Status> {
    let charge = holder.charge_object::<Capability<A>>()?;
    let capability = Capability::new(object, rights, badge, derivation.clone(), None, charge);
    let capability = Ref::<_, A>::try_new(arch.heap(), capability).map_err(|_| Status::OutOfMemory)?;
    let mut state = derivation.state.lock();
    let mut table = holder.table.lock();
    let slot = table.reserve(arch, &holder.account)?;
    state.attach(parent, &capability, Place::Slot(holder.clone(), slot))?;
    Ok(table.fill(slot, capability))
}
