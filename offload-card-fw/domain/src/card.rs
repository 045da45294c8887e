//! All guests' devices, and whose they are.

use alloc::vec::Vec;

use dragonfly_card_devices::tables::Devices as DeviceTables;
use dragonfly_card_devices::{
    Cables, ConsoleDevice, DiskDevice, Fabric, Groups, GuestAccess, NetDevice, RngDevice, Round, SocketHub, VsockDevice,
};
use dragonfly_card_gate::{Answer, Devices};
use dragonfly_vhost_user::Reply;
use log::{debug, info, warn};

use crate::operator::Changed;
use crate::outside::{Outside, UPLINK_PERIOD_NS};
use crate::port::{AnyPort, Common, Resources};

/// How a VMM's guest is reached.
pub(crate) trait Client: GuestAccess {
    /// Whether the guest's memory was found to have vanished: its VMM has ended.
    fn is_gone(&self) -> bool;
}

/// Lines that a VMM may write to the log by what it does; those after them are for debugging only.
const MAX_LINES: u32 = 32;

/// The devices of all machine files, and the switch between their network devices.
pub(crate) struct Card<P> {
    machines: Vec<Machine<P>>,
    common: Common,
    outside: Outside,
}

/// The devices of one machine file.
struct Machine<P> {
    number: u32,
    /// The badge of the VMM that has them.
    owner: Option<u64>,
    /// How many there are of each kind.
    devices: Devices,
    /// In the order of the kinds.
    ports: Vec<AnyPort<P>>,
    groups: Groups,
    lines_left: u32,
}

/// The devices of a machine, as they were made.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) disks: Vec<DiskDevice>,
    pub(crate) nets: Vec<NetDevice>,
    pub(crate) rngs: Vec<RngDevice>,
    pub(crate) vsocks: Vec<VsockDevice>,
    pub(crate) consoles: Vec<ConsoleDevice>,
}

impl Made {
    /// How many there are of each kind; a VMM that is told too few has a machine file that is none.
    fn count(&self) -> Devices {
        let count = |len| u8::try_from(len).unwrap_or(u8::MAX);
        Devices {
            disks: count(self.disks.len()),
            nets: count(self.nets.len()),
            rngs: count(self.rngs.len()),
            vsocks: count(self.vsocks.len()),
            consoles: count(self.consoles.len()),
        }
    }
}

/// The answer to a message: vhost-user's reply if there is one.
type Answered<R> = Result<Option<Reply<R>>, Answer>;

impl<P: Client> Card<P> {
    /// A card without devices, whose network devices will be ports of this switch.
    pub(crate) fn new(fabric: Fabric) -> Self {
        Self {
            machines: Vec::new(),
            common: Common { nothing: (), fabric, sockets: SocketHub::default(), cables: Cables::default() },
            outside: Outside::default(),
        }
    }

    /// The switch.
    pub(crate) fn fabric(&mut self) -> &mut Fabric {
        &mut self.common.fabric
    }

    /// The connections between sockets.
    pub(crate) fn sockets(&mut self) -> &mut SocketHub {
        &mut self.common.sockets
    }

    /// The connections between consoles and other ports.
    pub(crate) fn cables(&mut self) -> &mut Cables {
        &mut self.common.cables
    }

    /// Connects the switch with the world outside and the card's services.
    pub(crate) fn connect(&mut self, outside: Outside) {
        self.outside = outside;
    }

    /// Adds a machine's devices, and its security groups, which the switch has already.
    pub(crate) fn add(&mut self, number: u32, made: Made, groups: Groups) {
        let devices = made.count();
        let mut ports: Vec<AnyPort<P>> = made.disks.into_iter().map(AnyPort::from).collect();
        ports.extend(made.nets.into_iter().map(AnyPort::from));
        ports.extend(made.rngs.into_iter().map(AnyPort::from));
        ports.extend(made.vsocks.into_iter().map(AnyPort::from));
        ports.extend(made.consoles.into_iter().map(AnyPort::from));
        self.machines.push(Machine { number, owner: None, devices, ports, groups, lines_left: MAX_LINES });
    }

    /// Gives a machine's devices to the VMM with this badge, and says how many they are; sessions that it has had are ended.
    ///
    /// # Errors
    /// [`Answer::Refused`]: there is no such machine, it is another's, or the VMM has another.
    pub(crate) fn attach(&mut self, number: u32, badge: u64) -> Result<Devices, Answer> {
        let has_another = self.machines.iter().any(|machine| machine.owner == Some(badge) && machine.number != number);
        let machine = self.machines.iter_mut().find(|machine| machine.number == number);
        let machine = machine.filter(|machine| !has_another && machine.owner.is_none_or(|owner| owner == badge));
        let machine = machine.ok_or(Answer::Refused)?;
        machine.close(&mut self.common);
        machine.owner = Some(badge);
        if machine.may_log() {
            info!("machine {number} is attached by domain {badge}");
        }
        Ok(machine.devices)
    }

    /// Puts the rules that a machine file has now in the place of those it had. Once this returns, nothing more reaches anybody by
    /// an old one. None if there is no such machine.
    pub(crate) fn change_rules(&mut self, number: u32, devices: &DeviceTables) -> Option<Changed> {
        let machine = self.machines.iter().find(|machine| machine.number == number)?;
        let change = machine.groups.change(devices);
        change.make(&mut self.common.fabric);
        let (rules, groups) = change.count();
        Some(Changed { rules, groups, differs_in_more: change.differs_in_more })
    }

    /// Does what a vhost-user message of the VMM with this badge says to one of its devices.
    ///
    /// # Errors
    /// [`Answer::Refused`] if it has no such device, [`Answer::Closed`] if the message is wrong.
    pub(crate) fn message(
        &mut self,
        badge: u64,
        device: u32,
        bytes: &[u8],
        resources: Resources<P::Resource>,
        platform: impl FnOnce() -> P,
    ) -> Answered<P::Resource> {
        let owned = self.machines.iter_mut().find(|machine| machine.owner == Some(badge));
        let machine = owned.ok_or(Answer::Refused)?;
        let device = usize::try_from(device).map_err(|_| Answer::Refused)?;
        let port = machine.ports.get_mut(device).ok_or(Answer::Refused)?;
        port.message(&mut self.common, bytes, resources, platform).map_err(|reason| {
            let (number, name) = (machine.number, port.name());
            if count_line(&mut machine.lines_left) {
                warn!("machine {number}, {name}: the session is ended: {reason}");
            } else {
                debug!("machine {number}, {name}: the session is ended: {reason}");
            }
            Answer::Closed
        })
    }

    /// Serves all rings once, and ends the sessions of guests that turned out to be gone.
    pub(crate) fn serve(&mut self, now_ns: u64) -> Round {
        let mut round = Round::default();
        for machine in &mut self.machines {
            for port in &mut machine.ports {
                round.add(port.serve(&mut self.common, now_ns));
            }
            machine.close_if_gone(&mut self.common);
        }
        let has_worked = self.outside.serve(&mut self.common.fabric, now_ns);
        let wait_until_ns = self.outside.is_polled().then(|| now_ns.saturating_add(UPLINK_PERIOD_NS));
        round.add(Round { has_worked, wait_until_ns });
        round
    }

    /// Asks for kicks of all rings and for the uplink's interrupt, and says whether there is something to do already.
    pub(crate) fn enable_kicks(&mut self) -> bool {
        let mut has_work = self.outside.enable_interrupt();
        for machine in &mut self.machines {
            // All of them, and no early end: each is to be served again when it is kicked.
            for port in &mut machine.ports {
                has_work |= port.enable_kicks();
            }
            machine.close_if_gone(&mut self.common);
        }
        has_work
    }
}

impl<P: Client> Machine<P> {
    fn close(&mut self, common: &mut Common) {
        self.ports.iter_mut().for_each(|port| port.close(common));
    }

    fn close_if_gone(&mut self, common: &mut Common) {
        if self.ports.iter().any(AnyPort::is_gone) {
            if self.may_log() {
                warn!("machine {}: its memory is gone, and so are its sessions", self.number);
            }
            self.close(common);
        }
    }

    fn may_log(&mut self) -> bool {
        count_line(&mut self.lines_left)
    }
}

/// Whether there is a line left to write to the log, which is then taken.
fn count_line(left: &mut u32) -> bool {
    let may = *left > 0;
    *left = left.saturating_sub(1);
    may
}
