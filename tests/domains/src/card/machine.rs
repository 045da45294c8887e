//! Cards, and VMMs of theirs.

use alloc::format;

use dragonfly_abi::{HandleTransfer, Rights, Status};
use dragonfly_archive::Archive;
use dragonfly_card_gate::{Answer, Devices, KICK_HANDLE, LIFE_HANDLE, MAX_HANDLES, Request};
use dragonfly_rt::loader::{Child, Grant, Launch, Program, launch};
use dragonfly_rt::sys::{Commit, DomainSettings, Gate, Memory, Message, Notification, Object, Owned, ThreadSettings};
use dragonfly_rt::{Mapping, bundle, message, start_info};
use dragonfly_vhost_user::wire::{InflightArea, VringAddress};
use dragonfly_vhost_user::{
    F_PROTOCOL_FEATURES, FrontEnd, FrontEndError, MAX_MESSAGE, ProtocolFeatures, Region, Transport,
};

use super::driver::{Driver, SIZE};
use crate::check::{Failure, Outcome};

/// The CPU and priority of cards: beside the tests, and above them.
const CPU: u32 = 1;
const PRIORITY: u8 = 24;

const QUOTA: u64 = 40 << 20;
const BUDGET_NS: u64 = 10_000_000;

/// Bytes of a guest's memory.
const RAM: u64 = 1 << 20;

const VERSION_1: u64 = 1 << 32;

/// Starts a card that receives from a gate.
///
/// # Errors
/// It cannot be started.
pub fn start(gate: Gate) -> Outcome<Child> {
    let missing = || Failure::new("the bundle has no card");
    let archive = Archive::new(bundle().ok_or_else(missing)?);
    let file = archive.find("card").ok().flatten().ok_or_else(missing)?.data;
    let program = Program::parse(file).map_err(|error| Failure::new(format!("{error:?}")))?;
    let grant =
        Grant { name: dragonfly_card_gate::GATE_NAME, handle: gate.handle(), rights: Rights::RECEIVE, badge: 0 };
    let child = launch(&Launch {
        program: &program,
        settings: DomainSettings { quota: QUOTA, max_priority: PRIORITY, cpus: 1 << CPU, death: None },
        cpu: CPU,
        priority: PRIORITY,
        thread: ThreadSettings {
            budget_ns: BUDGET_NS,
            period_ns: BUDGET_NS,
            fault_gate: None,
            report_exhaustion: false,
        },
        system: Rights::LOG | Rights::COPY,
        bundle: start_info().map(|info| info.bundle_size),
        grants: &[grant],
        arguments: "name=card",
    });
    child.map_err(|error| Failure::new(format!("{error:?}")))
}

/// A VMM that has attached.
#[derive(Debug)]
pub struct Vmm {
    gate: Owned<Gate>,
    /// Its devices.
    pub devices: Devices,
    /// Kicks the rings.
    pub kick: Owned<Notification>,
    /// Goes with the card.
    pub life: Owned<Notification>,
}

impl Vmm {
    /// Attaches to a machine as the domain with this badge; `None` if the card refuses.
    ///
    /// # Errors
    /// The card does not answer.
    pub fn attach(gate: Gate, badge: u64, machine: u32) -> Outcome<Option<Self>> {
        let gate = gate.copy(Rights::SEND, badge)?;
        let (label, word) = Request::Attach { machine }.encode();
        message::buffer().accept_handles(MAX_HANDLES);
        let reply = gate.call_timed(Message::new(label, [word, 0, 0, 0]), LATE_NS)?;
        if Answer::decode(reply.tag.label()) != Answer::Done {
            return Ok(None);
        }
        let [word, ..] = reply.words;
        let devices = Devices::decode(word).ok_or_else(|| Failure::new("no numbers of devices"))?;
        let notification = |place| -> Outcome<_> {
            let sent = reply.handle(place).ok_or_else(|| Failure::new("the answer has too few handles"))?;
            Ok(Owned::new(Notification::from_handle(sent.handle)))
        };
        Ok(Some(Self { devices, kick: notification(KICK_HANDLE)?, life: notification(LIFE_HANDLE)?, gate }))
    }

    /// The front end of a device.
    #[must_use]
    pub fn front_end(&self, device: u32) -> FrontEnd<GateTransport> {
        FrontEnd::new(GateTransport { gate: *self.gate, device })
    }
}

/// When something that should happen soon is late, in nanoseconds.
pub const LATE_NS: u64 = 10_000_000_000;

/// Carries messages to a device of the card.
#[derive(Clone, Copy, Debug)]
pub struct GateTransport {
    gate: Gate,
    device: u32,
}

impl Transport for GateTransport {
    type Resource = HandleTransfer;
    type Error = Result<Answer, Status>;

    fn exchange(
        &mut self,
        message: &[u8],
        resources: &[HandleTransfer],
        answer: &mut [u8; MAX_MESSAGE],
    ) -> Result<usize, Self::Error> {
        let (label, word) = Request::Message { device: self.device }.encode();
        let message = Message::with(label, [word, 0, 0, 0], message, resources).map_err(Err)?;
        let reply = self.gate.call_timed(message, LATE_NS).map_err(Err)?;
        match Answer::decode(reply.tag.label()) {
            Answer::Done => Ok(reply.read(answer)),
            other => Err(Ok(other)),
        }
    }
}

impl From<FrontEndError<Result<Answer, Status>>> for Failure {
    #[track_caller]
    fn from(error: FrontEndError<Result<Answer, Status>>) -> Self {
        Self::new(format!("{error:?}"))
    }
}

/// A guest's memory, and what the card signals about its rings.
#[derive(Debug)]
pub struct Session {
    /// The guest's memory.
    pub memory: Owned<Memory>,
    /// It, mapped.
    pub ram: Mapping,
    /// Signalled when buffers were used.
    pub call: Owned<Notification>,
}

impl Session {
    /// A guest with memory.
    ///
    /// # Errors
    /// There is no memory.
    pub fn new() -> Outcome<Self> {
        let memory = Memory::create(RAM, Commit::OnDemand)?;
        let ram = Mapping::new(*memory, 0, RAM, Rights::READ | Rights::WRITE)?;
        Ok(Self { memory, ram, call: Notification::create()? })
    }

    /// Sets a device up, up to its rings. `in_flight` is memory for what is under way on a queue.
    ///
    /// # Errors
    /// The card ends the session.
    pub fn begin(&self, front: &mut FrontEnd<GateTransport>, in_flight: Option<Memory>) -> Outcome {
        front.set_owner()?;
        let features = front.features()? & (VERSION_1 | F_PROTOCOL_FEATURES);
        front.set_features(features)?;
        let extensions = front.protocol_features()? & (ProtocolFeatures::INFLIGHT_SHMFD | ProtocolFeatures::CONFIG);
        front.set_protocol_features(extensions)?;
        if let Some(memory) = in_flight {
            let mmap_size = memory.info()?.size;
            let area = InflightArea { mmap_size, mmap_offset: 0, queues: 1, queue_size: SIZE, padding: 0 };
            front.set_inflight(&area, HandleTransfer::copy(memory.handle(), Rights::READ | Rights::WRITE))?;
        }
        let region = Region { guest_address: 0, size: RAM, user_address: 0, mmap_offset: 0 };
        let ram = HandleTransfer::copy(self.memory.handle(), Rights::READ | Rights::WRITE);
        front.set_memory(&[(region, ram)])?;
        Ok(())
    }

    /// Starts a queue's ring where the driver begins.
    ///
    /// # Errors
    /// The card ends the session.
    pub fn start_ring(
        &self,
        vmm: &Vmm,
        front: &mut FrontEnd<GateTransport>,
        index: u16,
        driver: &Driver<'_>,
    ) -> Outcome {
        let [descriptor, available, used] = driver.addresses();
        front.set_ring_size(index, SIZE)?;
        front.set_ring_base(index, 0)?;
        let (queue, flags, log) = (index.into(), 0, 0);
        front.set_ring_addresses(&VringAddress { index: queue, flags, descriptor, used, available, log })?;
        let send = |notification: Notification| Some(HandleTransfer::copy(notification.handle(), Rights::SEND));
        front.set_call(index, send(*self.call))?;
        front.set_kick(index, send(*vmm.kick))?;
        front.enable_ring(index, true)?;
        Ok(())
    }

    /// Waits for the next chain that a ring gives back: its first descriptor.
    ///
    /// # Errors
    /// It does not come.
    pub fn wait_used(&self, driver: &mut Driver<'_>) -> Outcome<u16> {
        loop {
            if let Some(head) = driver.take_used()? {
                return Ok(head);
            }
            self.call.wait_timed(LATE_NS)?;
        }
    }
}
