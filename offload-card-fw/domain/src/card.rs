//! All guests' devices, and whose they are.

use alloc::vec::Vec;

use dragonfly_card_devices::{DiskDevice, Fabric, GuestAccess, NetDevice, Round, Serve};
use dragonfly_card_gate::{Answer, Devices};
use dragonfly_vhost_user::Reply;
use log::{debug, info, warn};

use crate::outside::{Outside, UPLINK_PERIOD_NS};
use crate::port::{Port, Resources};

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
    fabric: Fabric,
    outside: Outside,
}

/// The devices of one machine file.
struct Machine<P> {
    number: u32,
    /// The badge of the VMM that has them.
    owner: Option<u64>,
    disks: Vec<Port<DiskDevice, P>>,
    nets: Vec<Port<NetDevice, P>>,
    lines_left: u32,
}

/// The answer to a message: vhost-user's reply if there is one.
type Answered<R> = Result<Option<Reply<R>>, Answer>;

impl<P: Client> Card<P> {
    /// A card without devices, whose network devices will be ports of this switch.
    pub(crate) fn new(fabric: Fabric) -> Self {
        Self { machines: Vec::new(), fabric, outside: Outside::default() }
    }

    /// The switch.
    pub(crate) fn fabric(&mut self) -> &mut Fabric {
        &mut self.fabric
    }

    /// Connects the switch with the world outside and the card's services.
    pub(crate) fn connect(&mut self, outside: Outside) {
        self.outside = outside;
    }

    /// Adds a machine's devices.
    pub(crate) fn add(&mut self, number: u32, disks: Vec<DiskDevice>, nets: Vec<NetDevice>) {
        let disks = disks.into_iter().map(Port::new).collect();
        let nets = nets.into_iter().map(Port::new).collect();
        self.machines.push(Machine { number, owner: None, disks, nets, lines_left: MAX_LINES });
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
        machine.close(&mut self.fabric);
        machine.owner = Some(badge);
        if machine.may_log() {
            info!("machine {number} is attached by domain {badge}");
        }
        // As many as lines of a machine file.
        Ok(Devices { disks: machine.disks.len() as u32, nets: machine.nets.len() as u32 })
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
        let (outcome, name) = if let Some(port) = machine.disks.get_mut(device) {
            let outcome = port.message(&mut (), bytes, resources, platform);
            (outcome, port.device.name())
        } else {
            let port = device.checked_sub(machine.disks.len()).and_then(|net| machine.nets.get_mut(net));
            let port = port.ok_or(Answer::Refused)?;
            let outcome = port.message(&mut self.fabric, bytes, resources, platform);
            (outcome, port.device.name())
        };
        outcome.map_err(|reason| {
            let number = machine.number;
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
            for disk in &mut machine.disks {
                round.add(disk.serve(&mut (), now_ns));
            }
            for net in &mut machine.nets {
                round.add(net.serve(&mut self.fabric, now_ns));
            }
            machine.close_if_gone(&mut self.fabric);
        }
        let has_worked = self.outside.serve(&mut self.fabric, now_ns);
        let wait_until_ns = self.outside.is_polled().then(|| now_ns.saturating_add(UPLINK_PERIOD_NS));
        round.add(Round { has_worked, wait_until_ns });
        round
    }

    /// Asks for kicks of all rings and for the uplink's interrupt, and says whether there is something to do already.
    pub(crate) fn enable_kicks(&mut self) -> bool {
        let mut has_work = self.outside.enable_interrupt();
        for machine in &mut self.machines {
            // All of them, and no early end: each is to be served again when it is kicked.
            for disk in &mut machine.disks {
                has_work |= disk.enable_kicks();
            }
            for net in &mut machine.nets {
                has_work |= net.enable_kicks();
            }
            machine.close_if_gone(&mut self.fabric);
        }
        has_work
    }
}

impl<P: Client> Machine<P> {
    fn close(&mut self, fabric: &mut Fabric) {
        self.disks.iter_mut().for_each(|disk| disk.close(&mut ()));
        self.nets.iter_mut().for_each(|net| net.close(fabric));
    }

    fn close_if_gone(&mut self, fabric: &mut Fabric) {
        let is_gone = self.disks.iter().any(Port::is_gone) || self.nets.iter().any(Port::is_gone);
        if is_gone {
            if self.may_log() {
                warn!("machine {}: its memory is gone, and so are its sessions", self.number);
            }
            self.close(fabric);
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
