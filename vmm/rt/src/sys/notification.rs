//! Notifications: a word of bits that can be waited for.

use dragonfly_abi::{Call, FOREVER, Handle, Status};

use super::handle::{Owned, define_object};
use super::{Gate, Object, Vm, call};

define_object! {
    /// A word of bits: whoever signals sets some, whoever waits takes all.
    Notification
}

impl Notification {
    /// Makes a notification with no bit set, with all rights.
    ///
    /// # Errors
    /// [`Status::NoHandles`], [`Status::QuotaExceeded`], [`Status::OutOfMemory`].
    pub fn create() -> Result<Owned<Self>, Status> {
        call(Call::NotificationCreate, []).map(|words| Owned::from_word(words[0]))
    }

    /// Sets bits and wakes a waiter. Through a handle with a badge the bits are the badge.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without SEND.
    #[inline(always)]
    pub fn signal(self, bits: u64) -> Result<(), Status> {
        call(Call::NotificationSignal, [self.word(), bits]).map(drop)
    }

    /// Waits until some bit is set, and takes all that are.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without RECEIVE, [`Status::Aborted`] if the
    /// notification is gone.
    #[inline(always)]
    pub fn wait(self) -> Result<u64, Status> {
        self.wait_timed(FOREVER)
    }

    /// Waits for so long at most; with 0 it does not wait.
    ///
    /// # Errors
    /// As [`Notification::wait`], [`Status::TimedOut`], and [`Status::WouldBlock`] for a time-out of 0.
    #[inline(always)]
    pub fn wait_timed(self, timeout_ns: u64) -> Result<u64, Status> {
        call(Call::NotificationWait, [self.word(), timeout_ns]).map(|words| words[0])
    }

    /// Lets receivers of a gate get the bits as a message.
    ///
    /// # Errors
    /// As [`Gate::bind`].
    pub fn bind(self, gate: Gate) -> Result<(), Status> {
        call(Call::NotificationBind, [self.word(), gate.handle().0.into()]).map(drop)
    }

    /// Sets the bits when [`clock_now_ns`](super::clock_now_ns) reaches the deadline. A thread has one timer: arming
    /// it again replaces the deadline.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without SEND.
    pub fn arm_timer(self, deadline_ns: u64, bits: u64) -> Result<(), Status> {
        call(Call::TimerArm, [self.word(), deadline_ns, bits]).map(drop)
    }

    /// Disarms the calling thread's timer.
    ///
    /// # Errors
    /// As [`Notification::arm_timer`].
    pub fn disarm_timer(self) -> Result<(), Status> {
        self.arm_timer(FOREVER, 0)
    }

    /// Lets signals send a message-signalled interrupt to a guest instead of setting bits.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without RECEIVE of the notification or SEND of
    /// the virtual machine, [`Status::Aborted`] if the notification is gone.
    pub fn route(self, vm: Vm, address: u64, data: u32) -> Result<(), Status> {
        call(Call::NotificationRoute, [self.word(), vm.handle().0.into(), address, data.into()]).map(drop)
    }

    /// Lets signals set bits again.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without RECEIVE, [`Status::Aborted`].
    pub fn end_route(self) -> Result<(), Status> {
        call(Call::NotificationRoute, [self.word(), Handle::NULL.0.into(), 0, 0]).map(drop)
    }
}
