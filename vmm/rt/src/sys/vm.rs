//! Virtual machines: guest-physical memory, interrupts and doorbells.

use dragonfly_abi::guest::{DIRTY_WORDS, DoorbellKind};
use dragonfly_abi::{Call, Handle, PAGE_SIZE, Rights, Status};

use super::handle::{Owned, define_object};
use super::{Memory, Notification, Object, call, call_until_done};
use crate::message;

define_object! {
    /// A virtual machine.
    Vm
}

/// A write of the guest that signals instead of coming to the VMM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doorbell {
    /// What the address is one of.
    pub kind: DoorbellKind,
    /// Guest-physical address or port.
    pub address: u64,
}

impl Vm {
    /// Makes a virtual machine without memory and vCPUs, with all rights.
    ///
    /// # Errors
    /// [`Status::NotSupported`] if the machine cannot run guests, [`Status::NoHandles`], [`Status::QuotaExceeded`],
    /// [`Status::OutOfMemory`].
    pub fn create() -> Result<Owned<Self>, Status> {
        call(Call::VmCreate, []).map(|words| Owned::from_word(words[0]))
    }

    /// Maps a part of a memory object, in bytes, at a guest-physical address.
    ///
    /// # Errors
    /// As [`Memory::map`], with MANAGE of the virtual machine in place of the domain's.
    pub fn map(self, memory: Memory, address: u64, offset: u64, size: u64, rights: Rights) -> Result<(), Status> {
        let arguments = [memory.handle().0.into(), self.word(), address, offset, size, rights.bits().into()];
        call_until_done(Call::MemoryMap, arguments).map(drop)
    }

    /// Lets guest writes to an address signal these bits.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE or, of the notification, SEND,
    /// [`Status::BadArgument`] for a port past the last, [`Status::NoHandles`] if there are 64.
    pub fn set_doorbell(self, doorbell: Doorbell, notification: Notification, bits: u64) -> Result<(), Status> {
        self.doorbell(doorbell, notification.handle(), bits)
    }

    /// Lets guest writes to an address come to the VMM again.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, [`Status::BadArgument`],
    /// [`Status::NotMapped`] if there is none.
    pub fn clear_doorbell(self, doorbell: Doorbell) -> Result<(), Status> {
        self.doorbell(doorbell, Handle::NULL, 0)
    }

    fn doorbell(self, doorbell: Doorbell, notification: Handle, bits: u64) -> Result<(), Status> {
        // A guest-physical address has 48 bits; one with more would change the kind.
        let kind = (doorbell.kind as u64) << 48;
        if doorbell.address >= dragonfly_abi::guest::GUEST_END {
            return Err(Status::BadArgument);
        }
        call(Call::VmDoorbell, [self.word(), doorbell.address | kind, 0, notification.0.into(), bits]).map(drop)
    }

    /// Sends a message-signalled interrupt (SDM 3A, "Message Signalled Interrupts"). One that means nothing is dropped.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without SEND.
    pub fn interrupt(self, address: u64, data: u32) -> Result<(), Status> {
        call(Call::VmInterrupt, [self.word(), address, data.into()]).map(drop)
    }

    /// Starts the log of pages to which the guest writes.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, [`Status::BadState`] if there is
    /// one or one is being ended, [`Status::QuotaExceeded`], [`Status::OutOfMemory`]: it is to be stopped then, or
    /// started again.
    pub fn start_dirty_log(self) -> Result<(), Status> {
        call_until_done(Call::VmDirtyLog, [self.word(), 1]).map(drop)
    }

    /// Ends the log.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, [`Status::BadState`] if there is
    /// none.
    pub fn stop_dirty_log(self) -> Result<(), Status> {
        call_until_done(Call::VmDirtyLog, [self.word(), 0]).map(drop)
    }

    /// Takes pages of a range that the guest has written out of the log, and calls `visit` for the address of each. Gives
    /// where to go on; that is `end` when the range is done.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, [`Status::BadArgument`] if the
    /// range is empty, no whole pages or beyond what a guest has, [`Status::BadState`] if there is no log.
    pub fn take_dirty(self, start: u64, end: u64, mut visit: impl FnMut(u64)) -> Result<u64, Status> {
        let [first, count, next, ..] = call(Call::VmDirtyPages, [self.word(), start, end])?;
        if count != 0 {
            let mut bitmap = [0; DIRTY_WORDS * 8];
            message::buffer().read(&mut bitmap);
            for (base, byte) in (first..).step_by(8 * PAGE_SIZE as usize).zip(bitmap) {
                (0..8).filter(|bit| byte >> bit & 1 != 0).for_each(|bit| visit(base + bit * PAGE_SIZE));
            }
        }
        Ok(next)
    }
}
