//! What a device needs of the guest's machine and of the kernel.

use alloc::vec::Vec;

use dragonfly_abi::Status;
use dragonfly_guest_boot::GuestPhys;
use dragonfly_machine::Message;
use dragonfly_vhost_user::Region;

/// What a device needs of the guest's machine and of the kernel: memory to share with the card, and the ways by which guest
/// and card signal each other.
pub(crate) trait Wiring: Send {
    /// What comes along with vhost-user's messages.
    type Resource: Clone;

    /// The guest's RAM.
    fn memory(&self) -> Vec<(Region, Self::Resource)>;

    /// Memory for the state of requests under way, with its size in bytes. It is zero at first, and stays the same until
    /// it is forgotten.
    ///
    /// # Errors
    /// There is none left.
    fn in_flight(&mut self) -> Result<(u64, Self::Resource), Status>;

    /// No request is under way that anyone should know of.
    fn forget_in_flight(&mut self);

    /// `idx` of the used ring at an address; `None` if it is not RAM.
    fn used_index(&self, used_ring: GuestPhys) -> Option<u16>;

    /// What tells the card that there is something in a ring.
    fn kick(&self) -> Self::Resource;

    /// What interrupts the guest for a queue.
    fn call(&self, queue: u16) -> Option<Self::Resource>;

    /// What tells the VMM of broken rings.
    fn err(&self) -> Self::Resource;

    /// What tells the VMM that the configuration space has changed.
    fn config(&self) -> Self::Resource;

    /// Tells the card that there is something in a ring.
    fn ring(&self);

    /// Interrupts the guest for a queue.
    fn interrupt(&self, queue: u16);

    /// Lets the guest's writes to a port tell the card that there is something in a ring.
    fn set_doorbell(&self, port: u16);

    /// Lets them come to the VMM.
    fn clear_doorbell(&self, port: u16);

    /// From now on a queue interrupts by this message; without one its interrupts are kept.
    fn set_message(&self, queue: u16, message: Option<Message>);

    /// Whether the queue has interrupted without a message since this was asked last.
    fn take_pending(&self, queue: u16) -> bool;
}
