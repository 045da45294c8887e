//! The switch's ports that are no guest's: the uplink, and the card's own services.

use alloc::vec::Vec;
use core::iter;
use core::net::Ipv4Addr;

use dragonfly_card_devices::Fabric;
use dragonfly_card_services::{Config, Environment, Net, Services, Source};
use dragonfly_physical::Uplink;
use dragonfly_vswitch::{MacAddress, PortId};
use log::{error, info, warn};

use crate::machines::Machine;
use crate::random::Random;

/// The network of QEMU's user-mode network, whose addresses are the same without it: documented as `-netdev user`.
const NETWORK: [u8; 3] = [10, 0, 2];
const PREFIX: u8 = 24;
const ROUTER: Ipv4Addr = host(2);
const RESOLVER: Ipv4Addr = host(3);
const OWN: Ipv4Addr = host(4);
/// That of the first network device; the others' follow.
const FIRST_GUEST: usize = 15;

/// The services' station. Machines' numbers are below 32, so no network device has it by default.
const OWN_MAC: MacAddress = MacAddress([0x52, 0x54, 0, 0xdf, 0xff, 0xff]);

const LEASE_SECONDS: u32 = 24 * 60 * 60;

/// What guests are told; the switch's ports take no longer packets.
const MTU: u16 = 1500;

/// Frames taken from the uplink in one turn.
const BATCH: usize = 32;

/// How often the uplink is looked at when nothing else wakes the worker.
pub(crate) const UPLINK_PERIOD_NS: u64 = 1_000_000;

const fn host(number: u8) -> Ipv4Addr {
    let [first, second, third] = NETWORK;
    Ipv4Addr::new(first, second, third, number)
}

/// Uplink and services, each with its port.
#[derive(Default)]
pub(crate) struct Outside {
    uplink: Option<(PortId, Uplink)>,
    station: Option<Station>,
    /// Memory for frames that come from the uplink.
    frames: Vec<Vec<u8>>,
}

/// The services at their port.
struct Station {
    port: PortId,
    services: Services,
    /// The guests' addresses, in the order of the services' nets.
    macs: Vec<MacAddress>,
    random: Random,
}

impl Outside {
    /// Adds both ports to the switch. Without network devices, and without an uplink, there is nothing to do for them. What
    /// cannot be made is told on the log and left out.
    pub(crate) fn new(machines: &[Machine], uplink: Option<Uplink>, fabric: &mut Fabric, random: Random) -> Self {
        let mut outside = Self::default();
        if machines.iter().all(|machine| machine.devices.nets.is_empty()) {
            return outside;
        }
        outside.uplink = uplink.and_then(|uplink| match fabric.add_uplink() {
            Ok(port) => Some((port, uplink)),
            Err(reason) => {
                error!("the network has no way out: {reason}");
                None
            }
        });
        outside.station = Station::new(machines, outside.uplink.is_some(), fabric, random);
        outside
    }

    /// Whether frames may come at any time, of which nothing tells.
    pub(crate) fn is_polled(&self) -> bool {
        self.uplink.as_ref().is_some_and(|(_, uplink)| uplink.fault().is_none() && uplink.is_polled())
    }

    /// Asks for an interrupt when a frame comes from outside, and says whether some are there already.
    pub(crate) fn enable_interrupt(&mut self) -> bool {
        self.uplink.as_mut().is_some_and(|(_, uplink)| uplink.enable_interrupt())
    }

    /// Moves frames both ways. Whether there were any.
    pub(crate) fn serve(&mut self, fabric: &mut Fabric, now_ns: u64) -> bool {
        let mut has_worked = false;
        if let Some(station) = &mut self.station {
            has_worked |= station.serve(fabric, now_ns);
        }
        let Some((port, uplink)) = &mut self.uplink else { return has_worked };
        while let Some(frame) = fabric.take(*port) {
            // One that the device has no room for is lost, as on any wire.
            uplink.send(&frame);
            fabric.recycle(frame);
            has_worked = true;
        }
        uplink.flush();
        if uplink.is_waiting() {
            self.frames.extend(iter::repeat_with(|| fabric.buffer()).take(BATCH));
            let count = uplink.receive(&mut self.frames);
            self.frames.drain(count.min(self.frames.len())..).for_each(|frame| fabric.recycle(frame));
            fabric.inject(*port, &mut self.frames, now_ns);
            has_worked = true;
        }
        has_worked
    }
}

impl Station {
    fn new(machines: &[Machine], has_uplink: bool, fabric: &mut Fabric, random: Random) -> Option<Self> {
        let config = Config {
            mac: OWN_MAC,
            address: OWN,
            prefix: PREFIX,
            router: has_uplink.then_some(ROUTER),
            resolver: has_uplink.then_some(RESOLVER),
            name: "card".into(),
            domain: "dragonfly".into(),
            lease_seconds: LEASE_SECONDS,
            mtu: MTU,
        };
        let all = machines.iter().flat_map(|machine| machine.devices.nets.iter().map(move |net| (machine, net)));
        let numbered = (FIRST_GUEST..).map_while(|number| u8::try_from(number).ok()).zip(all);
        let nets: Vec<_> = numbered
            .map(|(number, (machine, net))| Net { mac: net.mac, address: host(number), machine: machine.name.clone() })
            .collect();
        let macs = nets.iter().map(|net| net.mac).collect();
        for net in &nets {
            info!("network device {} of {} has the address {}", net.mac, net.machine, net.address);
        }
        let services = match Services::new(config, nets) {
            Ok(services) => services,
            Err(reason) => {
                error!("the network has no DHCP and no DNS: {reason}");
                return None;
            }
        };
        match fabric.add_service(OWN_MAC) {
            Ok(port) => Some(Self { port, services, macs, random }),
            Err(reason) => {
                warn!("the network has no DHCP and no DNS: {reason}");
                None
            }
        }
    }

    fn serve(&mut self, fabric: &mut Fabric, now_ns: u64) -> bool {
        let mut answers = Answers { random: &mut self.random, frames: Vec::new() };
        let mut has_worked = false;
        while let Some(frame) = fabric.take(self.port) {
            // A guest sends by its own address only, which the switch sees to.
            let sender = frame.get(6..12).unwrap_or_default();
            let net = self.macs.iter().position(|mac| mac.0 == sender);
            self.services.receive(net.map_or(Source::Outside, Source::Net), &frame, now_ns, &mut answers);
            fabric.recycle(frame);
            has_worked = true;
        }
        fabric.inject(self.port, &mut answers.frames, now_ns);
        has_worked
    }
}

/// Collects what the services send.
struct Answers<'a> {
    random: &'a mut Random,
    frames: Vec<Vec<u8>>,
}

impl Environment for Answers<'_> {
    fn send(&mut self, frame: &[u8]) {
        self.frames.push(frame.into());
    }

    fn random(&mut self) -> u64 {
        self.random.next()
    }
}
