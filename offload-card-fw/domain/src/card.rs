//! All guests' devices, and whose they are.

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt::Display;

use dragonfly_card_devices::tables::Devices as DeviceTables;
use dragonfly_card_devices::{
    Cables, ConsoleDevice, DiskDevice, Fabric, Groups, GuestAccess, NetDevice, RngDevice, Round, SocketHub, VsockDevice,
};
use dragonfly_card_gate::{Answer, Devices};
use dragonfly_rt::sync::Mutex;
use dragonfly_vhost_user::{Platform, Reply};
use log::{debug, info, warn};

use crate::disks::{DiskThread, Disks, Waker};
use crate::letters::{Outcome, SharedPort};
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
pub(crate) struct Card<P: Platform> {
    machines: Vec<Machine<P>>,
    physical: Disks<P>,
    common: Common,
    outside: Outside,
}

/// The devices of one machine file.
struct Machine<P: Platform> {
    number: u32,
    /// The badge of the VMM that has them.
    owner: Option<u64>,
    /// How many there are of each kind.
    devices: Devices,
    /// In the order of the kinds.
    ports: Vec<Served<P>>,
    groups: Groups,
    lines_left: u32,
}

/// A device, by who serves it.
enum Served<P: Platform> {
    /// The worker.
    ByWorker(AnyPort<P>),
    /// The thread of the physical disk that it is in.
    ByThread(SharedPort<P>),
}

/// The devices of a machine, as they were made.
#[derive(Debug, Default)]
pub(crate) struct Made {
    pub(crate) disks: Vec<MadeDisk>,
    pub(crate) nets: Vec<NetDevice>,
    pub(crate) rngs: Vec<RngDevice>,
    pub(crate) vsocks: Vec<VsockDevice>,
    pub(crate) consoles: Vec<ConsoleDevice>,
}

/// A guest's disk, as it was made.
#[derive(Debug)]
pub(crate) struct MadeDisk {
    pub(crate) device: DiskDevice,
    /// The serial number of the physical disk that it is in, if it is in one.
    pub(crate) physical: Option<String>,
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
        let common = Common { nothing: (), fabric, sockets: SocketHub::default(), cables: Cables::default() };
        Self { machines: Vec::new(), physical: Disks::default(), common, outside: Outside::default() }
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
        let disk = |MadeDisk { device, physical }| match physical {
            None => Served::ByWorker(device.into()),
            Some(serial) => Served::ByThread(self.physical.add(&serial, device)),
        };
        let mut ports: Vec<Served<P>> = made.disks.into_iter().map(disk).collect();
        ports.extend(made.nets.into_iter().map(|net| Served::ByWorker(net.into())));
        ports.extend(made.rngs.into_iter().map(|rng| Served::ByWorker(rng.into())));
        ports.extend(made.vsocks.into_iter().map(|vsock| Served::ByWorker(vsock.into())));
        ports.extend(made.consoles.into_iter().map(|console| Served::ByWorker(console.into())));
        self.machines.push(Machine { number, owner: None, devices, ports, groups, lines_left: MAX_LINES });
    }

    /// Has a thread started for each physical disk in use; `start` says how it is woken.
    ///
    /// # Errors
    /// The first one of `start`.
    pub(crate) fn start_disks<E>(
        &mut self,
        start: impl FnMut(Arc<DiskThread<P>>) -> Result<Waker, E>,
    ) -> Result<(), E> {
        self.physical.start(start)
    }

    /// Gives a machine's devices to the VMM with this badge, and says how many they are; sessions that it has had are ended,
    /// those of disks with threads of their own as soon as these come to an end.
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

    /// Plugs a machine's network device in or out, and tells its VMM. None if there is no such device.
    pub(crate) fn set_link(&mut self, number: u32, name: &str, is_up: bool) -> Option<()> {
        let Self { machines, common, .. } = self;
        let machine = machines.iter_mut().find(|machine| machine.number == number)?;
        let mut nets = machine.ports.iter_mut().filter_map(Served::by_worker).filter_map(AnyPort::net);
        nets.find(|net| net.name() == name).map(|net| net.set_link(&mut common.fabric, is_up))
    }

    /// This device, if it is a disk with a thread of its own.
    pub(crate) fn disk_with_thread(&self, badge: u64, device: u32) -> Option<SharedPort<P>> {
        let machine = self.machines.iter().find(|machine| machine.owner == Some(badge))?;
        machine.ports.get(usize::try_from(device).ok()?).and_then(Served::by_thread).cloned()
    }

    /// Tells on the log why a session of the VMM with this badge was ended.
    fn ended(&mut self, badge: u64, reason: &dyn Display) {
        if let Some(machine) = self.machines.iter_mut().find(|machine| machine.owner == Some(badge)) {
            let number = machine.number;
            if machine.may_log() {
                warn!("machine {number}, {reason}");
            } else {
                debug!("machine {number}, {reason}");
            }
        }
    }

    /// Serves all rings once, and ends the sessions of guests that turned out to be gone.
    pub(crate) fn serve(&mut self, now_ns: u64) -> Round {
        let mut round = Round::default();
        for machine in &mut self.machines {
            for port in machine.ports.iter_mut().filter_map(Served::by_worker) {
                round.add(port.serve(&mut self.common, now_ns));
            }
            machine.close_if_gone(&mut self.common);
        }
        self.physical.wake();
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
            for port in machine.ports.iter_mut().filter_map(Served::by_worker) {
                has_work |= port.enable_kicks();
            }
            machine.close_if_gone(&mut self.common);
        }
        has_work
    }
}

/// Does what a vhost-user message of the VMM with this badge says to one of its devices.
///
/// # Errors
/// [`Answer::Refused`] if it has no such device, [`Answer::Closed`] if the message is wrong, [`Answer::Later`] if the device is
/// busy: then [`outcome`] tells what became of it.
pub(crate) fn message<P: Client>(
    card: &Mutex<Card<P>>,
    badge: u64,
    device: u32,
    bytes: &[u8],
    resources: Resources<P::Resource>,
    platform: impl FnOnce() -> P,
) -> Answered<P::Resource> {
    let disk = card.lock().disk_with_thread(badge, device);
    let outcome = match disk {
        Some(disk) => disk.message(bytes, resources, platform)?,
        None => {
            let mut card = card.lock();
            let Card { machines, common, .. } = &mut *card;
            let owned = machines.iter_mut().find(|machine| machine.owner == Some(badge)).ok_or(Answer::Refused)?;
            let device = usize::try_from(device).map_err(|_| Answer::Refused)?;
            let port = owned.ports.get_mut(device).and_then(Served::by_worker).ok_or(Answer::Refused)?;
            port.message(common, bytes, resources, platform)
        }
    };
    answered(card, badge, outcome)
}

/// What became of a message that was answered by [`Answer::Later`].
///
/// # Errors
/// As [`message`]; [`Answer::Refused`] also if there was none.
pub(crate) fn outcome<P: Client>(card: &Mutex<Card<P>>, badge: u64, device: u32) -> Answered<P::Resource> {
    let disk = card.lock().disk_with_thread(badge, device).ok_or(Answer::Refused)?;
    answered(card, badge, disk.outcome()?)
}

/// Tells on the log if a session was ended.
fn answered<P: Client>(card: &Mutex<Card<P>>, badge: u64, outcome: Outcome<P::Resource>) -> Answered<P::Resource> {
    outcome.map_err(|reason| {
        card.lock().ended(badge, &reason);
        Answer::Closed
    })
}

impl<P: Platform> Served<P> {
    fn by_worker(&mut self) -> Option<&mut AnyPort<P>> {
        match self {
            Self::ByWorker(port) => Some(port),
            Self::ByThread(_) => None,
        }
    }

    fn by_thread(&self) -> Option<&SharedPort<P>> {
        match self {
            Self::ByWorker(_) => None,
            Self::ByThread(port) => Some(port),
        }
    }
}

impl<P: Client> Machine<P> {
    fn close(&mut self, common: &mut Common) {
        for port in &mut self.ports {
            match port {
                Served::ByWorker(port) => port.close(common),
                Served::ByThread(port) => port.close(),
            }
        }
    }

    fn close_if_gone(&mut self, common: &mut Common) {
        if self.ports.iter_mut().filter_map(Served::by_worker).any(|port| port.is_gone()) {
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
