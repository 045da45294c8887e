//! A virtio-net device as the way out of the card's switch (virtio 1.2 5.1).

#[cfg(test)]
mod tests;

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::slice;

use bitflags::bitflags;
use dragonfly_rt::sys::{Interrupt, Owned};
use dragonfly_rt::time;
use log::{error, info};
use virtio_drivers::transport::{DeviceType, Transport};

use crate::Clock;
use crate::error::{Fault, OpenError};
use crate::hal::{Completed, SlotQueue, quiesce};
use crate::interrupt::{Wake, set_interrupt};
use crate::negotiation::{VERSION_1, negotiate, read_config};
use crate::transport::{OnBus, VirtioFunction};

bitflags! {
    /// What the driver makes use of (virtio 1.2 5.1.3). Without offloads each frame is as long as on the wire.
    #[derive(Clone, Copy, Debug)]
    struct Features: u64 {
        const MAC = 1 << 5;
        const VERSION_1 = VERSION_1;
    }
}

/// Receive and transmit queue of the first pair (virtio 1.2 5.1.2).
const RECEIVE: u16 = 0;
const TRANSMIT: u16 = 1;

/// Frames under way in each direction; one descriptor each.
const RING: usize = 64;

/// `struct virtio_net_hdr` (virtio 1.2 5.1.6): all zeros but the number of buffers in what is received.
const HEADER_BYTES: usize = 12;
const NO_HEADER: [u8; HEADER_BYTES] = [0; HEADER_BYTES];

/// Two addresses and a type: nothing shorter is a frame.
const MIN_FRAME_BYTES: usize = 14;

/// The longest frame: a packet of 1500 bytes after Ethernet's header and two tags.
pub const MAX_FRAME_BYTES: usize = 1500 + 14 + 8;

/// Bytes of a slot that are used.
const SLOT_BYTES: usize = HEADER_BYTES + MAX_FRAME_BYTES;

/// A virtio-net device, used without waiting: frames that it does not take are dropped, as on a wire.
///
/// A device that lies is stopped with a line in the log. It then takes and gives nothing.
pub struct Uplink<T: Transport + OnBus = VirtioFunction> {
    name: String,
    transport: T,
    mac: Option<[u8; 6]>,
    receive: SlotQueue<RING>,
    transmit: SlotQueue<RING>,
    /// What wakes who waits for frames.
    interrupt: Option<Owned<Interrupt>>,
    /// Frames were given to the device since it was told.
    has_unsent: bool,
    fault: Option<Fault>,
    clock: Clock,
}

/// Opens the network devices that the domain was given under `PREFIX0`, `PREFIX1`, …: those that can be used. The log tells
/// of each. Frames that come do what `wake` says.
#[must_use]
pub fn open_uplinks(prefix: &str, wake: Option<Wake>) -> Vec<Uplink> {
    let mut uplinks = Vec::new();
    for number in 0_u32.. {
        let name = format!("{prefix}{number}");
        let uplink = match VirtioFunction::open(&name, DeviceType::Network) {
            Ok(None) => break,
            Ok(Some(function)) => Uplink::open(&name, function, wake, time::now),
            Err(error) => Err(error),
        };
        match uplink {
            Ok(uplink) => {
                let mac = uplink.mac.unwrap_or_default().map(|byte| format!("{byte:02x}")).join(":");
                info!("{name}: a network device with address {mac}");
                uplinks.push(uplink);
            }
            Err(error) => error!("{name} is not used: {error}"),
        }
    }
    uplinks
}

impl<T: Transport + OnBus> Uplink<T> {
    /// Sets a device up and gives it buffers to receive into.
    pub(crate) fn open(name: &str, mut transport: T, wake: Option<Wake>, clock: Clock) -> Result<Self, OpenError> {
        let features: Features = negotiate(&mut transport, clock)?;
        let mac = read_config(&transport, |transport| {
            let has_it = features.contains(Features::MAC);
            if has_it { transport.read_config_space::<[u8; 6]>(0).map(Some) } else { Ok(None) }
        })?;
        let interrupt = wake.and_then(|wake| set_interrupt(name, &mut transport, RECEIVE, wake));
        let receive = SlotQueue::new(&mut transport, RECEIVE, RING, SLOT_BYTES)?;
        let transmit = SlotQueue::new(&mut transport, TRANSMIT, RING, SLOT_BYTES)?;
        transport.finish_init();
        let mut uplink = Self {
            name: name.into(),
            transport,
            mac,
            receive,
            transmit,
            interrupt,
            has_unsent: false,
            fault: None,
            clock,
        };
        uplink.receive.set_interrupts(false);
        uplink.transmit.set_interrupts(false);
        for slot in 0..RING {
            uplink.offer(slot).map_err(OpenError::Silent)?;
        }
        uplink.receive.notify(&mut uplink.transport);
        Ok(uplink)
    }

    /// The device's address, if it has one.
    pub const fn mac(&self) -> Option<[u8; 6]> {
        self.mac
    }

    /// Why the device was stopped, if it was.
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Takes frames that came, as many as there is room for; returns how many. The vectors' memory is used again.
    pub fn receive(&mut self, frames: &mut [Vec<u8>]) -> usize {
        if self.fault.is_some() {
            return 0;
        }
        self.receive.set_interrupts(false);
        let mut count = 0;
        let outcome = self.take(frames, &mut count);
        self.check(outcome);
        count
    }

    /// Whether frames wait to be received.
    pub fn is_waiting(&self) -> bool {
        self.fault.is_none() && self.receive.has_completed()
    }

    /// Whether nothing tells of frames that come: who waits for them has to look now and then.
    pub const fn is_polled(&self) -> bool {
        self.interrupt.is_none()
    }

    /// Asks for an interrupt when a frame comes, until frames are next received. Whether some wait already: then there may
    /// be none.
    pub fn enable_interrupt(&mut self) -> bool {
        if self.fault.is_none() && self.interrupt.is_some() {
            self.receive.set_interrupts(true);
        }
        self.is_waiting()
    }

    /// Gives the device a frame, of which [`Self::flush`] tells it. `false`: it was dropped, because the device has too many
    /// already, or it is no frame.
    pub fn send(&mut self, frame: &[u8]) -> bool {
        if self.fault.is_some() || !(MIN_FRAME_BYTES..=MAX_FRAME_BYTES).contains(&frame.len()) {
            return false;
        }
        let outcome = self.put(frame);
        self.check(outcome).unwrap_or(false)
    }

    /// Tells the device of the frames that were sent.
    pub fn flush(&mut self) {
        if self.has_unsent && self.fault.is_none() {
            self.has_unsent = false;
            self.transmit.notify(&mut self.transport);
        }
    }

    fn take(&mut self, frames: &mut [Vec<u8>], count: &mut usize) -> Result<(), Fault> {
        let mut has_offered = false;
        while let Some(frame) = frames.get_mut(*count) {
            let Some(Completed { slot, written }) = self.receive.take_completed()? else { break };
            let length = written.saturating_sub(HEADER_BYTES);
            if length >= MIN_FRAME_BYTES {
                frame.clear();
                frame.resize(length, 0);
                self.receive.read(slot, HEADER_BYTES, frame);
                *count += 1;
            }
            self.offer(slot)?;
            has_offered = true;
        }
        if has_offered {
            self.receive.notify(&mut self.transport);
        }
        Ok(())
    }

    /// Gives the device a slot to receive into.
    fn offer(&mut self, slot: usize) -> Result<(), Fault> {
        self.receive.submit(slot, &[], slice::from_ref(&(0..SLOT_BYTES)))
    }

    fn put(&mut self, frame: &[u8]) -> Result<bool, Fault> {
        while self.transmit.take_completed()?.is_some() {}
        let Some(slot) = self.transmit.free_slot() else { return Ok(false) };
        self.transmit.write(slot, 0, &NO_HEADER);
        self.transmit.write(slot, HEADER_BYTES, frame);
        self.transmit.submit(slot, slice::from_ref(&(0..HEADER_BYTES + frame.len())), &[])?;
        self.has_unsent = true;
        Ok(true)
    }

    /// After a fault the device is never used again, and kept from accessing memory.
    fn check<R>(&mut self, outcome: Result<R, Fault>) -> Option<R> {
        outcome
            .inspect_err(|fault| {
                error!("{}: the uplink was stopped: {fault}", self.name);
                self.fault = Some(*fault);
                if !quiesce(&mut self.transport, self.clock) {
                    self.transport.cut_off();
                }
            })
            .ok()
    }
}

impl<T: Transport + OnBus> Drop for Uplink<T> {
    fn drop(&mut self) {
        if self.fault.is_none() && !quiesce(&mut self.transport, self.clock) {
            self.transport.cut_off();
        }
    }
}
