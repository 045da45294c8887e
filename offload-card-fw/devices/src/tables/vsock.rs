//! A guest's sockets in a machine file.

use alloc::{string::String, vec::Vec};
use core::ops::RangeInclusive;

use dragonfly_settings::{Section, SettingsError};

/// Numbers of guests: those below are the hypervisor's, the host's and a guest's own, the last one is nobody's (virtio 1.2
/// 5.10.4).
const CIDS: RangeInclusive<u64> = 3..=0xffff_fffe;
const MAX_CONNECTIONS: u64 = 1024;
const DEFAULT_CONNECTIONS: u32 = 64;

/// A `[[vsock]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vsock {
    /// The name in log lines.
    pub name: String,
    /// The guest's number, if it is given.
    pub cid: Option<u32>,
    /// Numbers of the guests that it may be connected with, if they name it, too.
    pub peers: Vec<u32>,
    /// The most connections at a time.
    pub connections: u32,
    /// Where programs of the host reach the guest, a name for whoever opens it. Only a card with a system under it can.
    pub host_socket: Option<String>,
}

impl Vsock {
    const KEYS: &[&str] = &["name", "cid", "peers", "connections", "host_socket"];

    pub(super) fn read(section: &Section<'_>, more_keys: &[&str]) -> Result<Self, SettingsError> {
        section.only_keys(&[Self::KEYS, more_keys].concat())?;
        let connections = section.integer("connections", 1..=MAX_CONNECTIONS)?;
        // All are in range by their own lines, so nothing is lost.
        Ok(Self {
            name: section.name("name")?,
            cid: section.integer("cid", CIDS)?.map(|cid| cid as u32),
            peers: section.integers("peers", CIDS)?.into_iter().map(|cid| cid as u32).collect(),
            connections: connections.map_or(DEFAULT_CONNECTIONS, |number| number as u32),
            host_socket: section.string("host_socket")?,
        })
    }
}
