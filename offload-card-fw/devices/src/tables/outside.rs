//! The way out of a machine file's network: the uplink, and tunnels to other hosts through it.

use alloc::{format, string::String, vec::Vec};
use core::net::Ipv4Addr;

use dragonfly_settings::{Section, SettingsError};
use dragonfly_vswitch::{MacAddress, tunnel::TunnelProtocol, vlan::VlanMode};

use super::{
    address,
    net::{DEFAULT_MTU, MAX_VLAN, MTUS, mac},
};

/// The keys of [`Outside`] at the top of a machine file.
pub const OUTSIDE_TABLES: [&str; 2] = ["uplink", "tunnel"];

/// The longest name of a network interface, as `IFNAMSIZ` of Linux has room for it and a zero.
const MAX_INTERFACE: usize = 15;
/// Networks of tunnels have numbers of 24 bits (RFC 7348 5, RFC 8926 3.4).
const MAX_NETWORK: u64 = (1 << 24) - 1;

/// What connects the network devices of a machine file with the world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// The way out, if there is one.
    pub uplink: Option<Uplink>,
    /// Tunnels that go through it.
    pub tunnels: Vec<Tunnel>,
}

/// An `[uplink]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink {
    /// What it is.
    pub interface: Interface,
    /// The VLANs that it is in: one without tags, or more with tags.
    pub vlans: VlanMode,
    /// The longest IP packet that goes out, in bytes.
    pub mtu: u16,
    /// What the card itself is in the physical network, where tunnels end.
    pub station: Option<Underlay>,
}

/// A network interface of the system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Interface {
    /// A TAP device, which is made if it is not there.
    Tap(String),
    /// One that is there and stays the system's, whose frames are shared.
    Shared(String),
}

/// An end of tunnels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Underlay {
    /// Its Ethernet address.
    pub mac: MacAddress,
    /// Its Internet address.
    pub address: Ipv4Addr,
    /// The length of its network's prefix.
    pub prefix: u8,
    /// The router to other networks.
    pub gateway: Option<Ipv4Addr>,
}

/// A `[[tunnel]]` table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The name in log lines.
    pub name: String,
    /// How frames are wrapped.
    pub protocol: TunnelProtocol,
    /// The virtual network's number.
    pub network: u32,
    /// The other host.
    pub remote: Ipv4Addr,
    /// The VLAN whose frames go through.
    pub vlan: u16,
    /// Whether outer packets have a checksum over all of them.
    pub has_checksum: bool,
}

impl Outside {
    /// Reads the tables; others at the top are not looked at.
    ///
    /// # Errors
    /// The first fault of the text.
    pub fn read(top: &Section<'_>) -> Result<Self, SettingsError> {
        let uplink = top.table("uplink")?.as_ref().map(Uplink::read).transpose()?;
        let sections = top.tables("tunnel")?;
        let mut tunnels: Vec<Tunnel> = Vec::new();
        let station = uplink.as_ref().and_then(|uplink| uplink.station);
        for section in &sections {
            let Some(station) = station else {
                let message = "needs an end in the physical network: give [uplink] an `address`";
                return Err(section.error("remote", message.into()));
            };
            let tunnel = Tunnel::read(section)?;
            if tunnels.iter().any(|other| other.name == tunnel.name) {
                let message = format!("has \"{}\" again: give each tunnel a name of its own", tunnel.name);
                return Err(section.error("name", message));
            }
            if station.next_hop(tunnel.remote).is_none() {
                let message = format!("is {}, which is in another network: give [uplink] a `gateway`", tunnel.remote);
                return Err(section.error("remote", message));
            }
            tunnels.push(tunnel);
        }
        Ok(Self { uplink, tunnels })
    }
}

impl Uplink {
    const KEYS: &[&str] = &["tap", "interface", "vlan", "tagged", "mtu", "mac", "address", "gateway"];

    fn read(section: &Section<'_>) -> Result<Self, SettingsError> {
        section.only_keys(Self::KEYS)?;
        let interface = match (interface(section, "tap")?, interface(section, "interface")?) {
            (Some(tap), None) => Interface::Tap(tap),
            (None, Some(shared)) => Interface::Shared(shared),
            (Some(_), Some(_)) => {
                return Err(section.error("interface", "is given beside `tap`: leave one of them out".into()));
            }
            (None, None) => {
                let message = "is missing: name a TAP device, or an `interface` to share";
                return Err(section.error("tap", message.into()));
            }
        };
        // Both are in range by their own lines, so nothing is lost.
        let vlan = section.integer("vlan", 0..=MAX_VLAN)?.map(|vlan| vlan as u16);
        let tagged: Vec<_> = section.integers("tagged", 1..=MAX_VLAN)?.into_iter().map(|vlan| vlan as u16).collect();
        let vlans = if tagged.is_empty() {
            VlanMode::Access(vlan.unwrap_or(0))
        } else {
            VlanMode::Trunk { tagged, native: vlan }
        };
        let mtu = section.integer("mtu", MTUS)?.unwrap_or(DEFAULT_MTU) as u16;
        Ok(Self { interface, vlans, mtu, station: Underlay::read(section)? })
    }
}

impl Underlay {
    fn read(section: &Section<'_>) -> Result<Option<Self>, SettingsError> {
        let given = section.string("mac")?;
        let gateway = section.string("gateway")?;
        let Some(text) = section.string("address")? else {
            let lonely = given.map(|_| "mac").or(gateway.map(|_| "gateway"));
            let message = "is given without `address`: give that, too";
            return lonely.map_or(Ok(None), |key| Err(section.error(key, message.into())));
        };
        let network = text.split_once('/').and_then(|(address, prefix)| {
            let prefix = prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?;
            Some((address.parse().ok()?, prefix))
        });
        let Some((address, prefix)) = network else {
            let message = format!("is \"{text}\": give an address and its network's prefix like \"192.0.2.1/24\"");
            return Err(section.error("address", message));
        };
        let given = given.map(|text| mac(section, &text)).transpose()?;
        let gateway = gateway.map(|text| host(section, "gateway", &text)).transpose()?;
        let station = Self { mac: section.required("mac", given)?, address, prefix, gateway };
        match gateway {
            Some(gateway) if !station.is_near(gateway) => {
                Err(section.error("gateway", format!("is {gateway}, which is not in the network {address}/{prefix}")))
            }
            _ => Ok(Some(station)),
        }
    }

    /// Who a packet to this host is given to: itself or the router. `None` if there is no router.
    #[must_use]
    pub fn next_hop(&self, host: Ipv4Addr) -> Option<Ipv4Addr> {
        if self.is_near(host) { Some(host) } else { self.gateway }
    }

    fn is_near(&self, host: Ipv4Addr) -> bool {
        let distance = 32_u32.saturating_sub(self.prefix.into());
        (host.to_bits() ^ self.address.to_bits()).checked_shr(distance).unwrap_or(0) == 0
    }
}

impl Tunnel {
    const KEYS: &[&str] = &["name", "protocol", "network", "remote", "vlan", "checksum"];

    fn read(section: &Section<'_>) -> Result<Self, SettingsError> {
        section.only_keys(Self::KEYS)?;
        let protocols = [("vxlan", TunnelProtocol::Vxlan), ("geneve", TunnelProtocol::Geneve)];
        let remote = section.required("remote", section.string("remote")?)?;
        Ok(Self {
            name: section.name("name")?,
            protocol: section.required("protocol", section.choice("protocol", &protocols)?)?,
            // Both are in range by their own lines, so nothing is lost.
            network: section.required("network", section.integer("network", 0..=MAX_NETWORK)?)? as u32,
            remote: host(section, "remote", &remote)?,
            vlan: section.integer("vlan", 0..=MAX_VLAN)?.unwrap_or(0) as u16,
            has_checksum: section.boolean("checksum")?.unwrap_or(false),
        })
    }
}

/// The name of a network interface.
fn interface(section: &Section<'_>, key: &str) -> Result<Option<String>, SettingsError> {
    let Some(name) = section.string(key)? else { return Ok(None) };
    let is_fit = |byte: u8| byte.is_ascii_graphic() && !matches!(byte, b'/' | b':' | b'%');
    if name.is_empty() || name.len() > MAX_INTERFACE || !name.bytes().all(is_fit) || matches!(&*name, "." | "..") {
        let message = format!("is \"{name}\": an interface's name has 1 to {MAX_INTERFACE} letters, like \"tap0\"");
        return Err(section.error(key, message));
    }
    Ok(Some(name))
}

/// The address of one host.
fn host(section: &Section<'_>, key: &str, text: &str) -> Result<Ipv4Addr, SettingsError> {
    let address = text.parse().ok().filter(|address: &Ipv4Addr| !address.is_multicast() && !address.is_broadcast());
    address.ok_or_else(|| address::error(section, key, text))
}
