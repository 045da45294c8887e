//! A back end told of a guest's memory and rings.

use std::{os::fd::OwnedFd, path::Path, sync::Arc};

use anyhow::{Result, ensure};
use dragonfly_vhost_user::{F_PROTOCOL_FEATURES, FrontEnd, ProtocolFeatures, Region, wire::VringAddress};
use rustix::event::{EventfdFlags, eventfd};

use crate::{
    memory::Memory,
    ring::{self, Place},
    socket::Socket,
};

/// A device of the standard (virtio 1.2, 6).
pub const VERSION_1: u64 = 1 << 32;
/// Packed rings.
pub const RING_PACKED: u64 = 1 << 34;
/// Where the front end says that it has the memory mapped.
const USER_BASE: u64 = 0x7f00_0000_0000;

/// How a back end is told of a queue's new buffers.
#[derive(Debug)]
pub struct Kick(Arc<OwnedFd>);

impl Kick {
    /// Tells it.
    pub fn give(&self) {
        // A full counter is one kick more than are needed.
        let _ = rustix::io::write(&self.0, &1_u64.to_ne_bytes());
    }
}

/// Connects to a device with these features and enables its queues, whose rings are all of one kind and begin at `base`.
///
/// # Errors
/// Nobody is there, or it refuses.
pub fn open(
    socket: &Path,
    memory: &Memory,
    features: u64,
    queues: &[(u16, Place)],
    base: u32,
) -> Result<(FrontEnd<Socket>, Vec<Kick>)> {
    let event = || eventfd(0, EventfdFlags::NONBLOCK).map(Arc::new);
    let mut back_end = FrontEnd::new(Socket::connect(socket)?);
    let offered = back_end.features()?;
    ensure!(features & !offered == 0, "{}: features {:#x} are not offered", socket.display(), features & !offered);
    let extensions = back_end.protocol_features()? & ProtocolFeatures::MQ;
    back_end.set_protocol_features(extensions)?;
    back_end.set_owner()?;
    back_end.set_features(features | F_PROTOCOL_FEATURES)?;
    let region = Region { guest_address: 0, size: memory.len() as u64, user_address: USER_BASE, mmap_offset: 0 };
    back_end.set_memory(&[(region, memory.file())])?;
    let mut kicks = Vec::new();
    for &(queue, place) in queues {
        let kick = event()?;
        back_end.set_ring_size(queue, ring::SIZE)?;
        back_end.set_ring_base(queue, base)?;
        back_end.set_ring_addresses(&VringAddress {
            index: queue.into(),
            flags: 0,
            descriptor: USER_BASE + place.descriptors,
            used: USER_BASE + place.device,
            available: USER_BASE + place.driver,
            log: 0,
        })?;
        back_end.set_call(queue, Some(event()?))?;
        back_end.set_kick(queue, Some(kick.clone()))?;
        back_end.enable_ring(queue, true)?;
        kicks.push(Kick(kick));
    }
    // All that was said has been handled when this is answered.
    back_end.features()?;
    Ok((back_end, kicks))
}
