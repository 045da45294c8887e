//! The way out of the switch: a network interface of Linux ([`link`]), and the card's station there, where tunnels end.

pub mod link;

use std::{
    io,
    net::Ipv4Addr,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::{Context, Result};
use dragonfly_card_devices::{
    Fabric, Round, Unfinished,
    tables::{self, Interface},
};
use dragonfly_card_services::{Neighbours, Resolution};
use dragonfly_vswitch::{MacAddress, PortId};
use log::{debug, info, warn};

use self::link::{HEADER, Link};
use crate::worker::Outside;

/// Frames taken from the interface in one turn.
const BATCH: usize = 64;
/// The longest frame: a packet of IP with two tags, and one more that the kernel has taken off.
const LONGEST: usize = u16::MAX as usize + 14 + 3 * 4;

/// An interface at its port of the switch.
#[derive(Debug)]
pub struct Uplink {
    link: Link,
    name: String,
    port: PortId,
    station: Option<Station>,
    buffer: Box<[u8]>,
    frames: Vec<Unfinished>,
    /// The interface is gone, which was said.
    is_gone: bool,
}

/// The card in the physical network.
#[derive(Debug)]
struct Station {
    neighbours: Neighbours,
    tunnels: Vec<Tunnel>,
}

#[derive(Debug)]
struct Tunnel {
    name: String,
    next_hop: Ipv4Addr,
    port: PortId,
}

impl Uplink {
    /// Adds the ports of the uplink and its tunnels to the switch, and opens the interface; nothing if there is none.
    ///
    /// # Errors
    /// The interface cannot be used, or tables contradict each other.
    pub fn open(tables: &tables::Outside, fabric: &mut Fabric) -> Result<Option<Self>> {
        let Some(table) = &tables.uplink else { return Ok(None) };
        let port = fabric.add_uplink_in(table.vlans.clone(), table.mtu)?;
        fabric.leave_unfinished(port);
        let station = table.station.map(|own| -> Result<_> {
            let mut tunnels = Vec::new();
            for tunnel in &tables.tunnels {
                let next_hop = own.next_hop(tunnel.remote).context("a tunnel leads nowhere")?;
                tunnels.push(Tunnel {
                    name: tunnel.name.clone(),
                    next_hop,
                    port: fabric.add_tunnel(tunnel, &own, port)?,
                });
            }
            let wanted = tunnels.iter().map(|tunnel| tunnel.next_hop);
            Ok(Station { neighbours: Neighbours::new(own.mac.0, own.address, wanted), tunnels })
        });
        let (Interface::Tap(name) | Interface::Shared(name)) = &table.interface;
        Ok(Some(Self {
            link: Link::open(&table.interface).context("[uplink]")?,
            name: name.clone(),
            port,
            station: station.transpose()?,
            buffer: vec![0; LONGEST].into(),
            frames: Vec::new(),
            is_gone: false,
        }))
    }

    /// Takes frames from the interface, as many as a turn may.
    fn receive(&mut self, fabric: &mut Fabric) {
        for _ in 0..BATCH {
            let mut header = [0; HEADER];
            let len = match self.link.receive(&mut header, &mut self.buffer) {
                Ok(len) => len,
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => break,
                // It is down, and may come up.
                Err(error) if error.kind() == io::ErrorKind::NetworkDown => break,
                Err(error) => {
                    warn!("uplink {}: nothing comes from it any more: {error}", self.name);
                    self.is_gone = true;
                    break;
                }
            };
            let Some(frame) = self.buffer.get(..len) else { continue };
            if let Some(station) = &mut self.station
                && station.takes(&self.link, frame, fabric)
            {
                continue;
            }
            let mut bytes = fabric.buffer();
            bytes.extend_from_slice(frame);
            let mut whole = Unfinished { header: Default::default(), bytes };
            whole.header.iter_mut().zip(header).for_each(|(to, from)| *to = from);
            self.frames.push(whole);
        }
    }

    /// Sends what the switch has for the world. Whether there was something.
    fn send(&self, fabric: &mut Fabric) -> bool {
        let mut has_worked = false;
        while let Some(Unfinished { header, bytes }) = fabric.take_unfinished(self.port) {
            // Its last two bytes tell a number of buffers, which only rings have.
            if let Some(header) = header.first_chunk()
                && let Err(error) = self.link.send(header, &bytes)
            {
                // As on any wire.
                debug!("uplink {}: a frame of {} bytes is lost: {error}", self.name, bytes.len());
            }
            fabric.recycle(bytes);
            has_worked = true;
        }
        has_worked
    }
}

impl Station {
    /// Whether a frame is the card's own, not one for the switch.
    fn takes(&mut self, link: &Link, frame: &[u8], fabric: &mut Fabric) -> bool {
        match self.neighbours.receive(frame) {
            Resolution::Others => return false,
            Resolution::Done => {}
            Resolution::Answer(answer) => send_own(link, &answer),
            Resolution::Found(address, mac) => {
                let mac = MacAddress(mac);
                for tunnel in self.tunnels.iter().filter(|tunnel| tunnel.next_hop == address) {
                    info!("tunnel {}: its packets go to {address}, which is {:02x?}", tunnel.name, mac.0);
                    fabric.set_next_hop(tunnel.port, mac);
                }
            }
        }
        true
    }
}

/// Sends a frame of the card's own, which is asked for again if it is lost.
fn send_own(link: &Link, frame: &[u8]) {
    if let Err(error) = link.send(&[0; HEADER], frame) {
        debug!("a packet of address resolution is lost: {error}");
    }
}

impl Outside<Fabric> for Uplink {
    fn descriptor(&self) -> BorrowedFd<'_> {
        self.link.as_fd()
    }

    fn serve(&mut self, fabric: &mut Fabric, now_ns: u64) -> Option<Round> {
        if self.is_gone {
            return None;
        }
        let mut has_worked = self.send(fabric);
        self.receive(fabric);
        has_worked |= !self.frames.is_empty();
        fabric.inject_unfinished(self.port, &mut self.frames, now_ns);
        let link = &self.link;
        let ask = |station: &mut Station| station.neighbours.ask(now_ns, |frame| send_own(link, &frame));
        Some(Round { has_worked, wait_until_ns: self.station.as_mut().and_then(ask) })
    }
}
