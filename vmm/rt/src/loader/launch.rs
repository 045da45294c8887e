//! Makes a domain and starts a program in it.
#![expect(unsafe_code, reason = "starts a thread, in a domain other than the own one")]

use alloc::vec::Vec;

use dragonfly_abi::{Handle, PAGE_SIZE, Rights, StartHandles, Status};
use thiserror::Error;

use super::layout::{MESSAGE_BUFFER, STACK, START_PAGE};
use super::program::Program;
use super::start_page::{StartPageError, Words};
use crate::mapping::Mapping;
use crate::stack::STACK_SIZE;
use crate::start::start_info;
use crate::sys::{Commit, Domain, DomainSettings, Memory, Object, Owned, System, Thread, ThreadPlan, ThreadSettings};

/// A handle that a domain is started with, and finds by its name.
#[derive(Clone, Copy, Debug)]
pub struct Grant<'a> {
    /// Its name.
    pub name: &'a str,
    /// The starter's own handle.
    pub handle: Handle,
    /// The rights that the domain gets, of those that the starter has.
    pub rights: Rights,
    /// The badge that the domain's handle gets; 0 keeps the badge.
    pub badge: u64,
}

/// What to start, and with what.
#[derive(Clone, Copy, Debug)]
pub struct Launch<'a> {
    /// The program.
    pub program: &'a Program<'a>,
    /// What the domain may use.
    pub settings: DomainSettings,
    /// The CPU of its first thread.
    pub cpu: u32,
    /// The priority of its first thread.
    pub priority: u8,
    /// Budget and fault gate of its first thread.
    pub thread: ThreadSettings,
    /// What it may do with the machine: rights of [`StartHandles::SYSTEM`].
    pub system: Rights,
    /// Size of the bundle in bytes if the domain is to have it, for reading.
    pub bundle: Option<u64>,
    /// The handles that it finds by name.
    pub grants: &'a [Grant<'a>],
    /// Its arguments, to which the names of the handles are added.
    pub arguments: &'a str,
}

/// Why a domain could not be started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum LaunchError {
    /// The arguments do not fit.
    #[error(transparent)]
    Arguments(#[from] StartPageError),
    /// A system call failed.
    #[error("cannot {step}: {status}")]
    Call {
        /// What it was to do.
        step: &'static str,
        /// Why it failed.
        status: Status,
    },
    /// A handle did not get the number that every domain expects.
    #[error("the kernel gave the new domain handle {:#x} in place of {:#x}", given.0, wanted.0)]
    Numbering {
        /// The number that it should have.
        wanted: Handle,
        /// The number that it got.
        given: Handle,
    },
}

/// Says which step a status came from.
fn at<T>(step: &'static str, result: Result<T, Status>) -> Result<T, LaunchError> {
    result.map_err(|status| LaunchError::Call { step, status })
}

/// A domain that was started. Dropping it destroys the domain.
///
/// Memory objects are charged to the domain that makes them: so program, stack and start page are charged to the
/// starter, not to the new domain's quota.
#[derive(Debug)]
pub struct Child {
    domain: Owned<Domain>,
    thread: Option<Owned<Thread>>,
    memory: Vec<Owned<Memory>>,
}

impl Child {
    /// The domain.
    #[must_use]
    pub fn domain(&self) -> Domain {
        *self.domain
    }

    /// Its first thread.
    #[must_use]
    pub fn thread(&self) -> Option<Thread> {
        self.thread.as_deref().copied()
    }

    /// Ends the domain's threads and takes back all its memory, what was charged to the starter included.
    ///
    /// # Errors
    /// What [`Domain::destroy`] gives.
    pub fn destroy(self) -> Result<(), Status> {
        // Dropping the child closes the handles, and with them goes what they alone kept.
        self.domain.destroy()
    }

    /// Maps a new memory object into the domain, filled with `data` from `offset` on.
    fn add_memory(
        &mut self,
        address: u64,
        size: u64,
        rights: Rights,
        offset: u64,
        data: &[u8],
    ) -> Result<(), LaunchError> {
        let memory = at("make a memory object", Memory::create(size, Commit::Explicit))?;
        at("get memory", memory.commit(0, size))?;
        if !data.is_empty() {
            let mapping = at("map memory for loading", Mapping::new(*memory, 0, size, Rights::READ | Rights::WRITE))?;
            at("write the program", mapping.write(offset, data))?;
        }
        at("map memory into the domain", memory.map(*self.domain, address, 0, size, rights))?;
        self.memory.push(memory);
        Ok(())
    }

    /// Puts a handle into the domain's table, where it must get this number.
    fn grant_start_handle(&self, object: impl Object, rights: Rights, wanted: Handle) -> Result<(), LaunchError> {
        let given = at("grant a start handle", self.domain.grant(object, rights, 0))?;
        if given == wanted { Ok(()) } else { Err(LaunchError::Numbering { wanted, given }) }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // After `destroy` this fails and does nothing; the handles are closed in either case.
        let _ = self.domain.destroy();
    }
}

/// Makes a domain as a child of the own one and starts the program in it.
///
/// # Errors
/// Each [`LaunchError`]; nothing is left of the domain then.
pub fn launch(launch: &Launch<'_>) -> Result<Child, LaunchError> {
    let domain = at("make the domain", Domain::create(Domain::OWN, &launch.settings))?;
    let mut child = Child { domain, thread: None, memory: Vec::new() };
    for segment in &launch.program.segments {
        child.add_memory(segment.address, segment.size, segment.rights, segment.offset, segment.data)?;
    }
    child.add_memory(STACK, STACK_SIZE, Rights::READ | Rights::WRITE, 0, &[])?;

    let plan = ThreadPlan {
        cpu: launch.cpu,
        priority: launch.priority,
        entry: launch.program.entry,
        stack: STACK + STACK_SIZE,
        message_buffer: MESSAGE_BUFFER,
        argument: START_PAGE,
    };
    // SAFETY: the domain is another one.
    let thread = at("make the first thread", unsafe { child.domain.create_thread(&plan) })?;
    at("configure the first thread", thread.configure(&launch.thread))?;

    // The kernel fills a new table from the first slot on: the order gives the numbers that every domain relies on.
    let domain_rights = Rights::COPY | Rights::READ | Rights::MANAGE | Rights::GRANT;
    let thread_rights = Rights::COPY | Rights::READ | Rights::MANAGE | Rights::DESTROY;
    child.grant_start_handle(*child.domain, domain_rights, StartHandles::DOMAIN)?;
    child.grant_start_handle(*thread, thread_rights, StartHandles::THREAD)?;
    child.grant_start_handle(System::OWN, launch.system, StartHandles::SYSTEM)?;
    if launch.bundle.is_some() {
        // So that it can hand the bundle on to domains of its own.
        let rights = Rights::READ | Rights::COPY;
        child.grant_start_handle(Memory::from_handle(StartHandles::BUNDLE), rights, StartHandles::BUNDLE)?;
    }
    let mut words = Words::new(launch.arguments);
    for grant in launch.grants {
        let given = at("grant a handle", child.domain.grant_handle(grant.handle, grant.rights, grant.badge))?;
        words.add_handle(grant.name, given);
    }
    let (cpus, tsc_hz) = start_info().map_or((1, 0), |info| (info.cpus, info.tsc_hz));
    let page = words.start_page(cpus, tsc_hz, launch.bundle.unwrap_or(0))?;
    child.add_memory(START_PAGE, PAGE_SIZE, Rights::READ, 0, &page)?;
    at("start the first thread", thread.start())?;
    child.thread = Some(thread);
    Ok(child)
}
