//! Rings as a session describes them, made into queues.

use dragonfly_vhost_user::RingConfig;
use dragonfly_virtqueue::{
    Attached, GuestAddress, GuestMemory, MAX_QUEUE_SIZE, Queue, QueueConfig, QueueError, QueueState, RingAddresses,
    RingFeatures, in_flight_region_size,
};
use log::debug;

use crate::serve::Service;

/// The features of rings that devices offer.
pub const OFFERED: RingFeatures = RingFeatures::INDIRECT_DESC
    .union(RingFeatures::EVENT_IDX)
    .union(RingFeatures::VERSION_1)
    .union(RingFeatures::RING_PACKED);

/// A queue's ring, of a device that gives buffers back in the order in which it takes them.
#[derive(Debug, Default)]
pub struct Ring {
    state: State,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Stopped,
    /// The session has described it. What is in flight is found out when it is served first, as that needs memory.
    Described(QueueConfig),
    Runs(Queue),
    /// It cannot be recovered.
    Broken(QueueConfig),
}

impl Ring {
    /// Goes on where the session says, or where the memory for what is in flight says that an earlier device was.
    ///
    /// # Errors
    /// The ring cannot be one.
    pub fn start(&mut self, config: RingConfig, features: u64) -> Result<(), QueueError> {
        let config = queue_config(config, features);
        // Says what is wrong with it now, while there is somebody to tell.
        Queue::new(config)?;
        self.state = State::Described(config);
        Ok(())
    }

    /// Ends, and says where another can go on: behind all that was given back, as what was taken last may not have been.
    pub fn stop(&mut self) -> u32 {
        let (config, state) = match core::mem::take(&mut self.state) {
            State::Stopped => return 0,
            State::Described(config) | State::Broken(config) => (config, config.state),
            State::Runs(queue) => {
                let next_used = queue.state().next_used;
                (*queue.config(), QueueState { next_available: next_used, next_used })
            }
        };
        state.to_vring_base(config.is_packed())
    }

    /// Whether the session has started it, and not stopped it.
    #[must_use]
    pub fn runs(&self) -> bool {
        !matches!(self.state, State::Stopped)
    }

    /// The queue, unless it is stopped or broken.
    ///
    /// # Errors
    /// What was in flight cannot be found out; this is said once.
    pub fn queue<M: GuestMemory>(&mut self, memory: &M) -> Result<Option<&mut Queue>, QueueError> {
        if let State::Described(config) = self.state {
            // A larger ring than there is memory for goes without: buffers are given back in order, so what was not given
            // back is taken again from the used index on. Only a split ring tells that to the next process.
            let needed = in_flight_region_size(config.size, config.is_packed());
            let is_tracked = memory.in_flight().is_some_and(|region| region.len() >= needed);
            let queue = if is_tracked { Queue::recover(config, memory) } else { Queue::new(config) };
            if let Ok(queue) = &queue {
                debug!("a ring of {} entries, tracked: {is_tracked}, goes on at {:?}", config.size, queue.state());
            }
            self.state = State::Broken(config);
            self.state = State::Runs(queue?);
        }
        match &mut self.state {
            State::Runs(queue) if queue.error().is_none() => Ok(Some(queue)),
            _ => Ok(None),
        }
    }

    /// Asks to be told of the next buffers, and says whether there are some already.
    pub fn enable_kicks<M: GuestMemory>(&mut self, memory: &M) -> bool {
        match &mut self.state {
            State::Runs(queue) => queue.enable_kicks(memory),
            // To be served for the first time.
            State::Described(_) => true,
            State::Stopped | State::Broken(_) => false,
        }
    }
}

/// Gives the guest the chains that were staged, of which there are so many.
pub fn finish<M: GuestMemory>(ring: &mut Attached<'_, '_, M>, staged: usize) -> Result<Service, QueueError> {
    if staged == 0 {
        return Ok(Service::default());
    }
    ring.publish()?;
    Ok(Service { has_worked: true, notify: ring.needs_notification(), wait_until_ns: None })
}

/// The largest ring that QEMU's guests make, whatever size QEMU names when it asks for memory for what is in flight.
const USUAL_MAX_SIZE: u16 = 1024;

/// Bytes that a queue has for what is in flight: enough for this size, and for any ring that the guest is likely to make.
#[must_use]
pub fn in_flight_len(size: u16, features: u64) -> Option<u64> {
    let is_packed = RingFeatures::from_bits_truncate(features).contains(RingFeatures::RING_PACKED);
    (1..=MAX_QUEUE_SIZE).contains(&size).then(|| in_flight_region_size(size.max(USUAL_MAX_SIZE), is_packed) as u64)
}

/// The base of a packed ring with both of its halves. DPDK's virtio-user gives the lower one only, of rings in which nothing
/// is in flight; an upper one of zeros beside this wrap counter would be that of a ring that is in flight as a whole.
const fn with_used_position(base: u32) -> u32 {
    const WRAP: u32 = 1 << 15;
    if base >> 16 == 0 && base & WRAP != 0 { base | base << 16 } else { base }
}

fn queue_config(config: RingConfig, features: u64) -> QueueConfig {
    let features = RingFeatures::from_bits_truncate(features);
    let state = if features.contains(RingFeatures::RING_PACKED) {
        QueueState::packed(with_used_position(config.base))
    } else {
        // An index of 16 bits; whatever else a front end says is cut off.
        QueueState::split(config.base as u16)
    };
    QueueConfig {
        size: config.size,
        addresses: RingAddresses {
            descriptors: GuestAddress(config.descriptor),
            driver: GuestAddress(config.available),
            device: GuestAddress(config.used),
        },
        features,
        state,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_front_end_may_leave_out_where_a_packed_rings_used_descriptors_are() {
        for (base, whole) in [(0x8000, 0x8000_8000), (0x8005, 0x8005_8005), (0x8000_8000, 0x8000_8000), (0x3, 0x3)] {
            assert_eq!(with_used_position(base), whole, "{base:#x}");
        }
    }
}
