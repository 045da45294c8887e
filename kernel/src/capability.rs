//! Capabilities and how they derive from each other.
//!
//! A capability is an object, rights and a badge at a *place*: a slot of a domain's handle table, or a mapping in a
//! domain's address space. All capabilities for one object form a tree, which [`Derivation`] holds; revoking one takes
//! away its subtree. The tree changes only under the derivation's lock.

use core::sync::atomic::Ordering;

use dragonfly_abi::{ObjectType, Rights, Status};
use dragonfly_memory::{Charge, Link, Linked, SpaceAddr};

use crate::arch::Arch;
use crate::device::{InterruptLine, PortRange};
use crate::domain::Domain;
use crate::gate::Gate;
use crate::memory_object::Memory;
use crate::notification::Notification;
use crate::space::MappedRange;
use crate::sync::AtomicU64;
use crate::thread::{Phase, Thread};
use crate::vcpu::Vcpu;
use crate::vm::Vm;
use crate::{Lock, Queue, Ref};

/// Links of a capability and a derivation, by what they are for.
pub mod link {
    /// A capability among the children of its parent.
    pub struct Sibling;
    /// A mapping among those of its address space.
    pub struct Space;
    /// A derivation among the objects that a domain owns.
    pub struct Owned;
}

/// An object of any type.
pub enum Object<A: Arch> {
    /// Address space, handles, account.
    Domain(Ref<Domain<A>, A>),
    /// Thread.
    Thread(Ref<Thread<A>, A>),
    /// IPC end point.
    Gate(Ref<Gate<A>, A>),
    /// Bits to wait for.
    Notification(Ref<Notification<A>, A>),
    /// Frames.
    Memory(Ref<Memory<A>, A>),
    /// I/O ports.
    Ports(PortRange),
    /// An interrupt line.
    Interrupt(Ref<InterruptLine<A>, A>),
    /// The machine.
    System,
    /// A virtual machine.
    Vm(Ref<Vm<A>, A>),
    /// A virtual CPU.
    Vcpu(Ref<Vcpu<A>, A>),
}

impl<A: Arch> Object<A> {
    /// Its type.
    pub fn object_type(&self) -> ObjectType {
        match self {
            Self::Domain(_) => ObjectType::Domain,
            Self::Thread(_) => ObjectType::Thread,
            Self::Gate(_) => ObjectType::Gate,
            Self::Notification(_) => ObjectType::Notification,
            Self::Memory(_) => ObjectType::Memory,
            Self::Ports(_) => ObjectType::Ports,
            Self::Interrupt(_) => ObjectType::Interrupt,
            Self::System => ObjectType::System,
            Self::Vm(_) => ObjectType::Vm,
            Self::Vcpu(_) => ObjectType::Vcpu,
        }
    }

    /// Whether it lives on without handles: a domain until its parent goes, a thread until it ends.
    pub fn outlives_handles(&self) -> bool {
        match self {
            Self::Domain(_) => true,
            Self::Thread(thread) => thread.phase() != Phase::Ended,
            _ => false,
        }
    }

    /// Another reference to the same object.
    pub fn share(&self) -> Self {
        match self {
            Self::Domain(object) => Self::Domain(object.clone()),
            Self::Thread(object) => Self::Thread(object.clone()),
            Self::Gate(object) => Self::Gate(object.clone()),
            Self::Notification(object) => Self::Notification(object.clone()),
            Self::Memory(object) => Self::Memory(object.clone()),
            Self::Ports(object) => Self::Ports(*object),
            Self::Interrupt(object) => Self::Interrupt(object.clone()),
            Self::System => Self::System,
            Self::Vm(object) => Self::Vm(object.clone()),
            Self::Vcpu(object) => Self::Vcpu(object.clone()),
        }
    }
}

/// All capabilities for one object.
pub struct Derivation<A: Arch> {
    /// The tree.
    pub state: Lock<DerivationState<A>, A>,
    owned: Link,
    _charge: Charge<A::Heap>,
}

/// The tree of a derivation.
pub struct DerivationState<A: Arch> {
    /// The object, as long as the derivation is not dead.
    pub object: Object<A>,
    /// The domain that made the object and pays for it. Its end is the object's end. Nothing once that has happened.
    pub owner: Option<Ref<Domain<A>, A>>,
    /// Capabilities without a parent.
    pub roots: Queue<Capability<A>, A, link::Sibling>,
    /// How many capabilities there are, in all places.
    pub count: u64,
    /// Whether the object is being taken away: nothing new derives.
    pub is_closing: bool,
}

/// Value of a mapping's progress while it stays: no address of a domain.
const STAYS: u64 = u64::MAX;

/// Where a capability is.
pub enum Place<A: Arch> {
    /// Not placed yet, or taken away.
    Nowhere,
    /// In a slot of a domain's handle table.
    Slot(Ref<Domain<A>, A>, u16),
    /// In a domain's address space, at [`Capability::range`].
    Mapping(Ref<Domain<A>, A>),
    /// In a guest's memory, at [`Capability::range`].
    GuestMapping(Ref<Vm<A>, A>),
}

/// An object, rights and a badge at a place.
pub struct Capability<A: Arch> {
    /// The object.
    pub object: Object<A>,
    /// What its holder may do.
    pub rights: Rights,
    /// What a receiver sees of messages sent through it; 0 for none.
    pub badge: u64,
    /// The tree it belongs to.
    pub derivation: Ref<Derivation<A>, A>,
    /// Its neighbours in the tree; changed under the derivation's lock.
    pub node: Lock<Node<A>, A>,
    /// What is mapped, if it is a mapping.
    pub range: Option<MappedRange>,
    /// Up to where a mapping has been taken out of its address space, or [`STAYS`].
    left_up_to: AtomicU64,
    sibling: Link,
    space: Link,
    _charge: Charge<A::Heap>,
}

/// A capability's neighbours in the tree.
pub struct Node<A: Arch> {
    /// What it was derived from; nothing at the top.
    pub parent: Option<Ref<Capability<A>, A>>,
    /// What was derived from it.
    pub children: Queue<Capability<A>, A, link::Sibling>,
    /// Where it is. `Nowhere` also means: not in the tree.
    pub place: Place<A>,
}

impl<A: Arch> Linked<link::Owned> for Derivation<A> {
    fn link(&self) -> &Link {
        &self.owned
    }
}

impl<A: Arch> Linked<link::Sibling> for Capability<A> {
    fn link(&self) -> &Link {
        &self.sibling
    }
}

impl<A: Arch> Linked<link::Space> for Capability<A> {
    fn link(&self) -> &Link {
        &self.space
    }
}

impl<A: Arch> Derivation<A> {
    /// A tree without capabilities.
    pub fn new(object: Object<A>, owner: Ref<Domain<A>, A>, charge: Charge<A::Heap>) -> Self {
        Self {
            state: Lock::<_, A>::new(DerivationState {
                object,
                owner: Some(owner),
                roots: Queue::<_, A, _>::new(),
                count: 0,
                is_closing: false,
            }),
            owned: Link::new(),
            _charge: charge,
        }
    }
}

impl<A: Arch> Capability<A> {
    /// A capability that is nowhere yet.
    pub fn new(
        object: Object<A>,
        rights: Rights,
        badge: u64,
        derivation: Ref<Derivation<A>, A>,
        range: Option<MappedRange>,
        charge: Charge<A::Heap>,
    ) -> Self {
        Self {
            object,
            rights,
            badge,
            derivation,
            node: Lock::<_, A>::new(Node { parent: None, children: Queue::<_, A, _>::new(), place: Place::Nowhere }),
            range,
            left_up_to: AtomicU64::new(STAYS),
            sibling: Link::new(),
            space: Link::new(),
            _charge: charge,
        }
    }

    /// Whether it is a mapping on its way out: it resolves no more faults.
    pub fn is_leaving(&self) -> bool {
        self.left_up_to.load(Ordering::Relaxed) != STAYS
    }

    /// Up to where a mapping has been taken out, if that has begun. Like the next, called under the address space's
    /// lock, which orders it with the page faults.
    pub fn left_up_to(&self) -> Option<SpaceAddr> {
        match self.left_up_to.load(Ordering::Relaxed) {
            STAYS => None,
            address => Some(SpaceAddr::new(address)),
        }
    }

    /// Notes up to where a mapping has been taken out.
    pub fn set_left_up_to(&self, address: SpaceAddr) {
        self.left_up_to.store(address.as_u64(), Ordering::Relaxed);
    }

    /// Checks that it has these rights.
    pub fn need(&self, rights: Rights) -> Result<(), Status> {
        if self.rights.contains(rights) { Ok(()) } else { Err(Status::Denied) }
    }

    /// Whether it is the authority over the machine, with these rights.
    pub fn system(&self, rights: Rights) -> Result<(), Status> {
        match self.object {
            Object::System => self.need(rights),
            _ => Err(Status::BadType),
        }
    }

    /// What a signal through this capability sets: the badge, or without one the bits that the signaller names.
    pub fn bits_to_signal(&self, bits: u64) -> u64 {
        if self.badge == 0 { bits } else { self.badge }
    }

    /// The port range, if it is one with these rights.
    pub fn ports(&self, rights: Rights) -> Result<PortRange, Status> {
        match self.object {
            Object::Ports(ports) => self.need(rights).map(|()| ports),
            _ => Err(Status::BadType),
        }
    }
}

macro_rules! typed {
    ($($(#[$meta:meta])* $method:ident $variant:ident $type:ty;)*) => {
        impl<A: Arch> Capability<A> { $(
            $(#[$meta])*
            pub fn $method(&self, rights: Rights) -> Result<&Ref<$type, A>, Status> {
                match &self.object {
                    Object::$variant(object) => self.need(rights).map(|()| object),
                    _ => Err(Status::BadType),
                }
            }
        )* }
    };
}

typed! {
    /// The domain, if it is one with these rights.
    domain Domain Domain<A>;
    /// The thread, if it is one with these rights.
    thread Thread Thread<A>;
    /// The gate, if it is one with these rights.
    gate Gate Gate<A>;
    /// The notification, if it is one with these rights.
    notification Notification Notification<A>;
    /// The memory, if it is that with these rights.
    memory Memory Memory<A>;
    /// The interrupt line, if it is one with these rights.
    interrupt Interrupt InterruptLine<A>;
    /// The virtual machine, if it is one with these rights.
    vm Vm Vm<A>;
    /// The virtual CPU, if it is one with these rights.
    vcpu Vcpu Vcpu<A>;
}

impl<A: Arch> DerivationState<A> {
    /// Puts a new capability into the tree, below `parent` if there is one. Its place must be set already.
    pub fn attach(
        &mut self,
        parent: Option<&Ref<Capability<A>, A>>,
        capability: &Ref<Capability<A>, A>,
        place: Place<A>,
    ) -> Result<(), Status> {
        if self.is_closing {
            return Err(Status::BadHandle);
        }
        let list_refused = |_| Status::BadState;
        match parent {
            Some(parent) => {
                let mut node = parent.node.lock();
                if matches!(node.place, Place::Nowhere) {
                    return Err(Status::BadHandle);
                }
                node.children.push_back(capability.clone()).map_err(list_refused)?;
            }
            None => self.roots.push_back(capability.clone()).map_err(list_refused)?,
        }
        let mut node = capability.node.lock();
        node.parent = parent.cloned();
        node.place = place;
        self.count += 1;
        Ok(())
    }

    /// Gives up to `budget` of a capability's children to its parent. True when it has none left.
    pub fn orphan_children(&mut self, capability: &Capability<A>, budget: &mut u32) -> bool {
        loop {
            let child = {
                let mut node = capability.node.lock();
                if *budget == 0 {
                    return node.children.is_empty();
                }
                match node.children.pop_front() {
                    Some(child) => child,
                    None => return true,
                }
            };
            *budget -= 1;
            let parent = capability.node.lock().parent.clone();
            let child_of = child.clone();
            // A link that has just left a queue is accepted by the next.
            let pushed = match &parent {
                Some(parent) => parent.node.lock().children.push_back(child),
                None => self.roots.push_back(child),
            };
            debug_assert!(pushed.is_ok());
            child_of.node.lock().parent = parent;
        }
    }

    /// Takes a capability without children out of the tree and gives its place back.
    pub fn detach(&mut self, capability: &Capability<A>) -> Place<A> {
        let (parent, place) = {
            let mut node = capability.node.lock();
            (node.parent.take(), core::mem::replace(&mut node.place, Place::Nowhere))
        };
        if !matches!(place, Place::Nowhere) {
            let removed = match parent {
                Some(parent) => parent.node.lock().children.remove(capability),
                None => self.roots.remove(capability),
            };
            debug_assert!(removed.is_some());
            self.count -= 1;
        }
        place
    }

    /// A capability without children in the subtree below `top`, or in the whole tree.
    pub fn leaf(&self, top: Option<&Ref<Capability<A>, A>>) -> Option<Ref<Capability<A>, A>> {
        let mut leaf = match top {
            Some(top) => top.node.lock().children.front_ref()?,
            None => self.roots.front_ref()?,
        };
        loop {
            let child = leaf.node.lock().children.front_ref();
            match child {
                Some(child) => leaf = child,
                None => return Some(leaf),
            }
        }
    }
}
