//! Domains: address space, handle table and account.

use dragonfly_abi::{Call, Handle, Rights, StartHandles, Status};

use super::handle::{Owned, define_object};
use super::{Notification, Object, Thread, ThreadPlan, call, call_until_done};

define_object! {
    /// An address space with a handle table and an account.
    Domain
}

/// What a new domain may use.
#[derive(Clone, Copy, Debug)]
pub struct DomainSettings {
    /// Memory in bytes, taken out of the parent's account.
    pub quota: u64,
    /// The highest priority of its threads.
    pub max_priority: u8,
    /// The CPUs that its threads may run on, one bit each.
    pub cpus: u64,
    /// Told, by these bits, when its last thread has ended.
    pub death: Option<(Notification, u64)>,
}

/// What the kernel tells of a domain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DomainInfo {
    /// Memory that it may use, in bytes.
    pub quota: u64,
    /// Memory that it uses, in bytes.
    pub used: u64,
    /// Threads that have not ended.
    pub threads: u64,
    /// Handles in its table.
    pub handles: u64,
}

impl Domain {
    /// The caller's own domain.
    pub const OWN: Self = Self(StartHandles::DOMAIN);

    /// Makes a domain with nothing in it, as a child of `parent`.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE of the parent,
    /// [`Status::BadArgument`], [`Status::BadCpu`], [`Status::NoHandles`], [`Status::QuotaExceeded`],
    /// [`Status::OutOfMemory`].
    pub fn create(parent: Self, settings: &DomainSettings) -> Result<Owned<Self>, Status> {
        let (death, bits) =
            settings.death.map_or((Handle::NULL, 0), |(notification, bits)| (notification.handle(), bits));
        let arguments =
            [parent.word(), settings.quota, settings.max_priority.into(), settings.cpus, death.0.into(), bits];
        call(Call::DomainCreate, arguments).map(|words| Owned::from_word(words[0]))
    }

    /// Ends the domain's threads and takes back everything it owned, child domains included.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without DESTROY.
    pub fn destroy(self) -> Result<(), Status> {
        call_until_done(Call::DomainDestroy, [self.word()]).map(drop)
    }

    /// Account, threads and handles.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without READ.
    pub fn info(self) -> Result<DomainInfo, Status> {
        let [quota, used, threads, handles, ..] = call(Call::DomainInfo, [self.word()])?;
        Ok(DomainInfo { quota, used, threads, handles })
    }

    /// Puts a copy of one of the caller's handles into the domain's table; gives its number there. Badge 0 keeps the
    /// handle's badge.
    ///
    /// # Errors
    /// As [`Object::copy`], and [`Status::Denied`] without GRANT of the domain.
    pub fn grant(self, object: impl Object, rights: Rights, badge: u64) -> Result<Handle, Status> {
        self.grant_handle(object.handle(), rights, badge)
    }

    /// As [`Domain::grant`], for a handle whose type does not matter.
    ///
    /// # Errors
    /// As [`Domain::grant`].
    pub fn grant_handle(self, handle: Handle, rights: Rights, badge: u64) -> Result<Handle, Status> {
        let arguments = [handle.0.into(), self.word(), rights.bits().into(), badge];
        call(Call::HandleCopy, arguments).map(|words| Handle(words[0] as u32))
    }

    /// Makes a stopped thread.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, [`Status::BadArgument`],
    /// [`Status::BadCpu`], [`Status::Overlap`] at the message buffer's address, [`Status::NoHandles`],
    /// [`Status::QuotaExceeded`], [`Status::OutOfMemory`].
    ///
    /// # Safety
    /// If the domain is the caller's own, then entry, stack and argument must be such that the code there may run
    /// beside the domain's other threads. It has no control block at the bottom of its stack, so it must not use
    /// [`crate::message`], the log or [`crate::time::sleep`]; [`crate::thread::Builder`] makes threads that may.
    #[expect(unsafe_code, reason = "lets a thread run at any address")]
    pub unsafe fn create_thread(self, plan: &ThreadPlan) -> Result<Owned<Thread>, Status> {
        let place = u64::from(plan.cpu) | u64::from(plan.priority) << 32;
        let arguments = [self.word(), place, plan.entry, plan.stack, plan.message_buffer, plan.argument];
        call(Call::ThreadCreate, arguments).map(|words| Owned::from_word(words[0]))
    }

    /// Removes the mapping that starts at an address.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without MANAGE, [`Status::BadArgument`],
    /// [`Status::NotMapped`].
    ///
    /// # Safety
    /// If the domain is the caller's own, nothing may use the memory any more.
    #[expect(unsafe_code, reason = "takes memory away that Rust code could still use")]
    pub unsafe fn unmap(self, address: u64) -> Result<(), Status> {
        call_until_done(Call::MemoryUnmap, [self.word(), address]).map(drop)
    }
}
