//! The wiring of a device by the kernel's objects.

use alloc::vec::Vec;

use dragonfly_abi::guest::DoorbellKind;
use dragonfly_abi::{HandleTransfer, PAGE_SIZE, Rights, Status};
use dragonfly_card_gate::IN_FLIGHT_BYTES_PER_QUEUE;
use dragonfly_guest_boot::GuestPhys;
use dragonfly_machine::Message;
use dragonfly_rt::Mapping;
use dragonfly_rt::sys::{Commit, Doorbell, Memory, Notification, Object, Owned, Vm};
use dragonfly_vhost_user::Region;
use log::debug;

use super::wiring::Wiring;
use crate::ram::{HIGH_START, Layout};
use crate::shared::wake;

/// What a queue's interrupts set in its notification while it has no message.
const PENDING: u64 = 1;

/// Where `idx` is in a split ring's used ring (virtio 1.2, 2.7.8).
const USED_INDEX: u64 = 2;

/// The guest as a device is connected with it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Guest {
    /// Its virtual machine.
    pub(crate) vm: Vm,
    /// Its RAM.
    pub(crate) memory: Memory,
    /// Where that is.
    pub(crate) layout: Layout,
    /// Is told of broken rings.
    pub(crate) events: Notification,
}

/// A device's connections.
pub(crate) struct KernelWiring {
    guest: Guest,
    /// Kicks the guest's rings: the card's, and gone with it.
    pub(crate) kick: Notification,
    /// One for each queue: interrupts the guest.
    calls: Vec<Owned<Notification>>,
    /// Tells of this device's broken rings.
    err: Owned<Notification>,
    /// Tells of changes to a configuration space.
    config: Owned<Notification>,
    /// Memory for the state of requests under way.
    in_flight: Option<Owned<Memory>>,
}

impl KernelWiring {
    /// The connections of a device with so many queues. A broken ring sets `broken` in the guest's notification of events, a change
    /// to the configuration space [`wake::CONFIG`].
    pub(crate) fn new(guest: Guest, kick: Notification, queues: u16, broken: u64) -> Result<Self, Status> {
        let calls = (0..queues).map(|_| Notification::create()).collect::<Result<_, _>>()?;
        let err = guest.events.copy(Rights::SEND | Rights::COPY, broken)?;
        let config = guest.events.copy(Rights::SEND | Rights::COPY, wake::CONFIG)?;
        Ok(Self { guest, kick, calls, err, config, in_flight: None })
    }

    /// Lets the guest's driver be told that the device has failed.
    pub(crate) fn report_broken(&self) {
        // It is there for as long as the device.
        let _ = self.err.signal(PENDING);
    }

    fn call_of(&self, queue: u16) -> Option<Notification> {
        self.calls.get(usize::from(queue)).map(|call| **call)
    }
}

impl Wiring for KernelWiring {
    type Resource = HandleTransfer;

    fn memory(&self) -> Vec<(Region, HandleTransfer)> {
        let Layout { low, high } = self.guest.layout;
        let resource = HandleTransfer::copy(self.guest.memory.handle(), Rights::READ | Rights::WRITE);
        let region = |address, size, mmap_offset| {
            (Region { guest_address: address, size, user_address: address, mmap_offset }, resource)
        };
        let mut regions = Vec::from([region(0, low, 0)]);
        if high > 0 {
            regions.push(region(HIGH_START, high, low));
        }
        regions
    }

    fn in_flight(&mut self) -> Result<(u64, HandleTransfer), Status> {
        let size = IN_FLIGHT_BYTES_PER_QUEUE * self.calls.len() as u64;
        let memory = match &self.in_flight {
            Some(memory) => memory,
            None => self.in_flight.insert(Memory::create(size, Commit::OnDemand)?),
        };
        Ok((size, HandleTransfer::copy(memory.handle(), Rights::READ | Rights::WRITE)))
    }

    fn forget_in_flight(&mut self) {
        self.in_flight = None;
    }

    fn used_index(&self, used_ring: GuestPhys) -> Option<u16> {
        let address = used_ring.0.checked_add(USED_INDEX)?;
        let offset = self.guest.layout.offset(address, 2)?;
        let page = offset - offset % PAGE_SIZE;
        // Two pages, should it not be aligned as rings are.
        let size = if offset % PAGE_SIZE + 2 > PAGE_SIZE { 2 * PAGE_SIZE } else { PAGE_SIZE };
        let mapping = Mapping::new(self.guest.memory, page, size, Rights::READ).ok()?;
        let mut index = [0; 2];
        mapping.read(offset - page, &mut index).ok()?;
        Some(u16::from_le_bytes(index))
    }

    fn kick(&self) -> HandleTransfer {
        HandleTransfer::copy(self.kick.handle(), Rights::SEND)
    }

    fn call(&self, queue: u16) -> Option<HandleTransfer> {
        self.call_of(queue).map(|call| HandleTransfer::copy(call.handle(), Rights::SEND))
    }

    fn err(&self) -> HandleTransfer {
        HandleTransfer::copy(self.err.handle(), Rights::SEND)
    }

    fn config(&self) -> HandleTransfer {
        HandleTransfer::copy(self.config.handle(), Rights::SEND)
    }

    fn ring(&self) {
        // Through the card's badge. A card that is gone needs no kick: the next one looks at all rings.
        let _ = self.kick.signal(PENDING);
    }

    fn interrupt(&self, queue: u16) {
        if let Some(call) = self.call_of(queue) {
            // It is there for as long as the device.
            let _ = call.signal(PENDING);
        }
    }

    fn set_doorbell(&self, port: u16) {
        let doorbell = Doorbell { kind: DoorbellKind::Port, address: port.into() };
        if let Err(status) = self.guest.vm.set_doorbell(doorbell, self.kick, PENDING) {
            // Then its writes come to the VMM, which kicks.
            debug!("no doorbell at port {port:#x}: {status}");
        }
    }

    fn clear_doorbell(&self, port: u16) {
        // It may not have been set.
        let _ = self.guest.vm.clear_doorbell(Doorbell { kind: DoorbellKind::Port, address: port.into() });
    }

    fn set_message(&self, queue: u16, message: Option<Message>) {
        let Some(call) = self.call_of(queue) else { return };
        // Both are there for as long as the device.
        let _ = match message {
            Some(Message { address, data }) => call.route(self.guest.vm, address, data),
            None => call.end_route(),
        };
    }

    fn take_pending(&self, queue: u16) -> bool {
        self.call_of(queue).is_some_and(|call| call.wait_timed(0).is_ok_and(|bits| bits != 0))
    }
}
