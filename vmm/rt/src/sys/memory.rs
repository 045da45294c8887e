//! Memory objects: frames that can be mapped into domains.

use dragonfly_abi::{Call, Rights, Status};

use super::handle::{Owned, define_object};
use super::{Domain, Object, call, call_until_done};

define_object! {
    /// A range of frames.
    Memory
}

/// When a memory object gets its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Commit {
    /// When [`Memory::commit`] says so; an access before is a fault.
    Explicit,
    /// At the first access.
    OnDemand,
}

/// What the kernel tells of a memory object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryInfo {
    /// Size in bytes.
    pub size: u64,
    /// Bytes that have frames.
    pub committed: u64,
    /// How many mappings there are.
    pub mappings: u64,
}

impl Memory {
    /// Makes an object of so many bytes without frames, with all rights. What it takes is charged to the caller's
    /// domain.
    ///
    /// # Errors
    /// [`Status::BadArgument`] unless the size is a positive multiple of the page size, [`Status::NoHandles`],
    /// [`Status::QuotaExceeded`], [`Status::OutOfMemory`].
    pub fn create(size: u64, commit: Commit) -> Result<Owned<Self>, Status> {
        let flags = u64::from(commit == Commit::OnDemand);
        call(Call::MemoryCreate, [size, flags]).map(|words| Owned::from_word(words[0]))
    }

    /// Gives zeroed frames to a range, in bytes. On an error a part of it may have them.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] without WRITE, [`Status::BadArgument`],
    /// [`Status::QuotaExceeded`], [`Status::OutOfMemory`].
    pub fn commit(self, offset: u64, size: u64) -> Result<(), Status> {
        call_until_done(Call::MemoryCommit, [self.word(), offset, size]).map(drop)
    }

    /// Maps a part of the object, in bytes, into a domain. `rights` is READ, with WRITE or EXECUTE or neither.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`], [`Status::Denied`] for rights that the handle lacks or without
    /// MANAGE of the domain, [`Status::BadArgument`], [`Status::Overlap`], [`Status::QuotaExceeded`],
    /// [`Status::OutOfMemory`].
    pub fn map(self, domain: Domain, address: u64, offset: u64, size: u64, rights: Rights) -> Result<(), Status> {
        let arguments = [self.word(), domain.handle().0.into(), address, offset, size, rights.bits().into()];
        call_until_done(Call::MemoryMap, arguments).map(drop)
    }

    /// Size, frames and mappings.
    ///
    /// # Errors
    /// [`Status::BadHandle`], [`Status::BadType`].
    pub fn info(self) -> Result<MemoryInfo, Status> {
        let [size, committed, mappings, ..] = call(Call::MemoryInfo, [self.word()])?;
        Ok(MemoryInfo { size, committed, mappings })
    }
}
