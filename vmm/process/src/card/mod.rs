//! The guest's disks, networks and other devices: the offload card serves them, and this is its front end.
//!
//! The VMM [attaches](Card::attach) to the card as the machine of its number. Each device has a vhost-user session, whose
//! messages go through the card's [gate](transport). A [`Device`] tells the card what the guest's driver does to the
//! registers of its PCI function ([`Slot`]); memory and signals are [connected](kernel) once, so that rings are kicked
//! and interrupts come with no VMM in between. When the card dies a [thread](Card::watch) attaches to its successor and
//! tells it everything again.
//!
//! The lock of the card is taken after that of the machine.

mod device;
mod kernel;
mod offer;
mod slot;
#[cfg(test)]
mod tests;
mod transport;
mod wiring;

use alloc::format;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::iter;

use dragonfly_abi::Status;
use dragonfly_card_gate::{Answer, Devices, GATE_NAME, KICK_HANDLE, LIFE_HANDLE, Request};
use dragonfly_machine::virtio::{DeviceKind, Failed};
use dragonfly_machine_file::MachineFile;
use dragonfly_rt::sync::Mutex;
use dragonfly_rt::sys::{Gate, Message, Notification, Object, Owned, Thread};
use dragonfly_rt::thread::Builder;
use dragonfly_rt::{message, named, supervisor};
use log::{error, info, warn};

use crate::problem::{Problem, at};
use crate::shared::wake;
use device::Device;
pub(crate) use kernel::Guest;
use kernel::KernelWiring;
pub(crate) use slot::Slot;
use transport::GateTransport;

/// How many handles come with the answer to an attachment: the kick and the life.
const ATTACH_HANDLES: u32 = 2;

/// How often to find out whether the card answers, in nanoseconds: guests' drivers may ask for nothing that shows that it does not.
const CHECK_PERIOD_NS: u64 = 2_000_000_000;

/// The card as one guest's VMM sees it.
pub(crate) struct Card {
    gate: Gate,
    /// Number of the machine file.
    machine: u32,
    state: Mutex<State>,
    /// Wakes the thread that looks after the card's end when there is a card to look after.
    attached: Owned<Notification>,
}

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// Those of the guest that runs, disks first.
    devices: Vec<Device<GateTransport, KernelWiring>>,
}

/// What attaching gives.
struct Connection {
    devices: Devices,
    kick: Owned<Notification>,
    /// Gone when the card is.
    life: Owned<Notification>,
}

impl Card {
    /// The card, if the machine file has devices.
    ///
    /// # Errors
    /// It has devices, and the VMM has no way to a card.
    pub(crate) fn find(file: &MachineFile, machine: u32) -> Result<Option<Arc<Self>>, Problem> {
        let Some((key, _)) = file.card_devices() else { return Ok(None) };
        let Some(gate) = named(GATE_NAME) else {
            let message = format!(
                "is served by the offload card, to which the VMM has no gate: add the card's domain and `use = \
                 [\"{GATE_NAME}\"]` of the VMM to bundle.toml, or take the table out"
            );
            return Err(file.error(key, message).into());
        };
        let attached = at("make a notification", Notification::create())?;
        Ok(Some(Arc::new(Self { gate, machine, state: Mutex::new(State::default()), attached })))
    }

    /// Takes the devices of the machine file for a guest that starts, in place of one before it.
    ///
    /// # Errors
    /// The card does not serve them.
    pub(crate) fn attach(self: &Arc<Self>, file: &MachineFile, guest: Guest) -> Result<Vec<Slot>, Problem> {
        let (key, _) = file.card_devices().unwrap_or_default();
        let fails = |why: &dyn core::fmt::Display| -> Problem {
            file.error(key, format!("cannot be served by the offload card: {why}")).into()
        };
        let mut state = self.state.lock();
        let connection = self.connect().map_err(|status| match status {
            Status::Refused => fails(&"it refuses, and says why on the log"),
            status => fails(&status),
        })?;
        let Devices { disks, nets, rngs, vsocks, consoles } = connection.devices;
        let kinds = [
            (disks, file.disks, DeviceKind::Block),
            (nets, file.nets, DeviceKind::Network),
            (rngs, file.rngs, DeviceKind::Entropy),
            (vsocks, file.vsocks, DeviceKind::Socket),
            (consoles, file.consoles, DeviceKind::Console),
        ];
        for (count, wanted, kind) in kinds {
            if u32::from(count) != wanted {
                let why = format!(
                    "it has {count} devices of the kind {kind:?} for this machine, which has {wanted}: have the card \
                     read the same machine file"
                );
                return Err(fails(&why));
            }
        }
        let kinds = kinds.into_iter().flat_map(|(count, _, kind)| iter::repeat_n(kind, count.into()));
        state.devices.clear();
        for (number, kind) in (0..).zip(kinds) {
            let transport = GateTransport { gate: self.gate, device: number };
            let wire = |queues| KernelWiring::new(guest, *connection.kick, queues, wake::broken(number));
            let device = Device::connect(kind, transport, wire).map_err(|error| fails(&error))?;
            state.devices.push(device);
        }
        state.connection = Some(connection);
        at("wake the thread for the offload card's end", self.attached.signal(1))?;
        let descriptions = state.devices.iter().map(Device::description);
        let slots = (0..).zip(descriptions);
        Ok(slots.map(|(number, description)| Slot::new(self.clone(), number, description)).collect())
    }

    /// The numbers of devices whose configuration space has changed since this was asked last.
    pub(crate) fn changed(&self) -> Vec<usize> {
        let mut changed = Vec::new();
        for (number, device) in self.state.lock().devices.iter_mut().enumerate() {
            match device.take_config_change() {
                Ok(true) => changed.push(number),
                Ok(false) => {}
                Err(Failed) => device.wiring_mut().report_broken(),
            }
        }
        changed
    }

    /// Starts the thread that looks after the card's end, on this CPU with this priority. Without it a guest's devices
    /// stand still after the card's end. It does not end by itself.
    pub(crate) fn watch(self: &Arc<Self>, cpu: u32, priority: u8) -> Option<Thread> {
        let start = |priority| {
            let card = self.clone();
            Builder::new(cpu, priority).spawn(move || card.look_after())
        };
        // Above the vCPUs, which would keep it waiting, if the domain may.
        let thread = start(priority.saturating_add(1)).or_else(|_| start(priority));
        if let Err(status) = &thread {
            warn!("nobody looks after the offload card's end: {status}");
        }
        thread.ok().map(|running| running.thread())
    }

    /// Lets go of the guest's memory: nothing of it is served any more.
    pub(crate) fn detach(&self) {
        let mut state = self.state.lock();
        state.devices.iter_mut().for_each(Device::end);
        state.devices.clear();
    }

    /// Waits until the card is gone, and goes on with the next one, again and again.
    fn look_after(&self) {
        loop {
            // Never signalled: a wait for the life ends when the card, or just this attachment to it, is gone.
            let waited = match self.life() {
                Some(life) => life.wait_timed(CHECK_PERIOD_NS),
                None => self.attached.wait(),
            };
            if waited == Err(Status::TimedOut) {
                // Whatever it says: one that hangs is started anew, and then its life ends.
                let _ = transport::call(self.gate, || Ok(Message::new(supervisor::CHECK, [0; 4])));
            }
            if let Err(status @ (Status::Denied | Status::BadType)) = waited {
                return error!("nobody looks after the offload card's end: {status}");
            }
            let mut state = self.state.lock();
            if state.connection.as_ref().is_some_and(|connection| connection.life.handle_info().is_err()) {
                self.attach_again(&mut state);
            }
        }
    }

    fn attach_again(&self, state: &mut State) {
        warn!("the offload card is gone: the guest's devices wait for the next one");
        match self.connect() {
            Ok(connection) => {
                let resumed = state.resume(*connection.kick);
                state.connection = Some(connection);
                info!("{resumed} of {} devices go on with the next offload card", state.devices.len());
            }
            Err(status) => {
                error!("there is no other offload card ({status}): the guest's devices stand still");
                state.connection = None;
            }
        }
    }

    fn life(&self) -> Option<Notification> {
        self.state.lock().connection.as_ref().map(|connection| *connection.life)
    }

    /// Attaches to the card; [`Status::Refused`] if it does not want to.
    fn connect(&self) -> Result<Connection, Status> {
        let (label, word) = Request::Attach { machine: self.machine }.encode();
        let attach = || {
            message::buffer().accept_handles(ATTACH_HANDLES);
            Ok(Message::new(label, [word, 0, 0, 0]))
        };
        let mut answer = transport::call(self.gate, attach);
        if answer.as_ref().err() == Some(&Status::TimedOut) {
            // The next one.
            answer = transport::call(self.gate, attach);
        }
        message::buffer().accept_handles(0);
        let answer = answer?;
        let handle = |place| {
            let transfer = answer.handle(place);
            transfer.map(|transfer| Owned::new(Notification::from_handle(transfer.handle)))
        };
        let (kick, life) = (handle(KICK_HANDLE), handle(LIFE_HANDLE));
        let [word, ..] = answer.words;
        match (Answer::decode(answer.tag.label()), kick, life, Devices::decode(word)) {
            (Answer::Done, Some(kick), Some(life), Some(devices)) => Ok(Connection { devices, kick, life }),
            _ => Err(Status::Refused),
        }
    }

    /// Does something with a device, if the guest that it belongs to has not ended.
    fn with<A>(&self, number: usize, work: impl FnOnce(&mut Device<GateTransport, KernelWiring>) -> A) -> Option<A> {
        self.state.lock().devices.get_mut(number).map(work)
    }
}

impl State {
    /// Lets the devices go on with a card that has this kick; gives how many do.
    fn resume(&mut self, kick: Notification) -> usize {
        let mut resumed = 0;
        for device in &mut self.devices {
            device.wiring_mut().kick = kick;
            match device.resume() {
                Ok(()) => resumed += 1,
                Err(Failed) => device.wiring_mut().report_broken(),
            }
        }
        resumed
    }
}
