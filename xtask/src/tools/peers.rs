//! Programs that the card is measured beside: DPDK's testpmd and Open vSwitch on DPDK.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::{Tools, existing, sets};

/// DPDK's plug-ins that are needed here, which DPDK looks for where a real system has them.
///
/// They are named without their folder: DPDK refuses files below one that everybody may write to, such as `/tmp`, and the
/// cache may be there.
const PLUG_INS: [&str; 4] =
    ["librte_bus_vdev.so.25", "librte_mempool_ring.so.25", "librte_net_vhost.so.25", "librte_net_virtio.so.25"];

/// DPDK and Open vSwitch, unpacked.
#[derive(Clone, Debug)]
pub struct Peers {
    /// Folder of the start scripts.
    bin: PathBuf,
    /// The schema of Open vSwitch's database.
    pub schema: PathBuf,
    /// Versions of the packages, DPDK's and Open vSwitch's.
    pub versions: [String; 2],
}

impl Peers {
    /// Folder of the start scripts.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Options of DPDK for its plug-ins.
    pub fn plug_ins() -> impl Iterator<Item = &'static str> {
        PLUG_INS.into_iter().flat_map(|name| ["-d", name])
    }

    /// A program's start script.
    #[must_use]
    pub fn program(&self, name: &str) -> PathBuf {
        self.bin.join(name)
    }
}

impl Tools {
    /// The peers of the card's network, fetched if need be. Always the private set, so that figures compare.
    ///
    /// # Errors
    /// See [`Tools::ensure_all`].
    pub fn peers(&self) -> Result<Peers> {
        self.find_or_fetch(&sets::DPDK, Self::find_peers)
    }

    /// The peers, if they are on this machine.
    #[must_use]
    pub fn find_peers(&self) -> Option<Peers> {
        let (root, manifest) = self.private(&sets::DPDK)?;
        let version = |name| manifest.version_of(name).unwrap_or("unknown").to_string();
        Some(Peers {
            bin: self.cache.bin(),
            schema: existing(root.join("usr/share/openvswitch/vswitch.ovsschema"))?,
            versions: ["dpdk", "openvswitch-switch-dpdk"].map(version),
        })
    }
}
