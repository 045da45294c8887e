//! A virtio device made of the card's own device side, and ways for it to lie.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::time::Duration;

use dragonfly_rt::sys::InterruptMessage;
use dragonfly_virtqueue::{
    GuestAddress, GuestMemory, MemoryMap, Queue, QueueConfig, QueueState, RingAddresses, RingFeatures,
};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use crate::hal::device_memory;
use crate::negotiation::VERSION_1;
use crate::transport::OnBus;

/// A clock that goes on by a tenth of a second whenever somebody looks at it.
pub(crate) fn clock() -> Duration {
    std::thread_local!(static NOW: Cell<u32> = const { Cell::new(0) });
    NOW.with(|now| {
        now.set(now.get() + 1);
        Duration::from_millis(100) * now.get()
    })
}

/// What the device does with a queue when it is notified.
pub(crate) type Work = Box<dyn FnMut(u16, &mut Ring, &MemoryMap)>;

/// A queue that the driver has set up.
pub(crate) struct Ring {
    pub(crate) queue: Queue,
    config: QueueConfig,
}

impl Ring {
    /// Changes which request the newest entry of the used ring is about (virtio 1.2 2.7.8).
    pub(crate) fn forge(&self, memory: &MemoryMap, id: u32) {
        let newest = self.queue.state().next_used.index.wrapping_sub(1) % self.config.size;
        let entry = self.config.addresses.device.0 + 4 + 8 * u64::from(newest);
        memory.write(GuestAddress(entry), &id.to_le_bytes()).unwrap();
    }
}

/// The state of a device, which the test keeps too.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) offered: u64,
    pub(crate) accepted: u64,
    pub(crate) config: Vec<u8>,
    /// Changes with each read of the configuration's generation.
    pub(crate) is_restless: bool,
    /// Does not take resets and features.
    pub(crate) is_deaf: bool,
    pub(crate) status: u32,
    pub(crate) is_cut_off: bool,
    pub(crate) queues: Vec<Option<Ring>>,
    pub(crate) work: Option<Work>,
}

/// A device, as drivers see it.
#[derive(Clone, Default)]
pub(crate) struct FakeDevice(pub(crate) Rc<RefCell<State>>);

impl FakeDevice {
    /// A device with two queues.
    pub(crate) fn new(features: u64, config: Vec<u8>, work: Work) -> Self {
        let queues = (0..2).map(|_| None).collect();
        let state = State { offered: features | VERSION_1, config, queues, work: Some(work), ..State::default() };
        Self(Rc::new(RefCell::new(state)))
    }

    /// Lets the device work on a queue.
    pub(crate) fn work(&self, index: u16) {
        let memory = device_memory();
        let mut state = self.0.borrow_mut();
        let Some(mut work) = state.work.take() else { return };
        if let Some(Some(ring)) = state.queues.get_mut(usize::from(index)) {
            work(index, ring, &memory);
        }
        state.work = Some(work);
    }
}

impl OnBus for FakeDevice {
    fn admit(&mut self) {
        let mut state = self.0.borrow_mut();
        assert_eq!(state.status, 0, "let at memory before it was reset");
        state.is_cut_off = false;
    }

    fn cut_off(&mut self) {
        self.0.borrow_mut().is_cut_off = true;
    }

    fn set_message(&mut self, _queue: u16, _message: InterruptMessage) -> bool {
        true
    }
}

impl Transport for FakeDevice {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
    }

    fn read_device_features(&mut self) -> u64 {
        self.0.borrow().offered
    }

    fn write_driver_features(&mut self, driver_features: u64) {
        self.0.borrow_mut().accepted = driver_features;
    }

    fn max_queue_size(&mut self, _queue: u16) -> u32 {
        256
    }

    fn notify(&mut self, queue: u16) {
        self.work(queue);
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_retain(self.0.borrow().status)
    }

    fn set_status(&mut self, status: DeviceStatus) {
        let mut state = self.0.borrow_mut();
        if !state.is_deaf {
            state.status = status.bits();
        }
    }

    fn set_guest_page_size(&mut self, _guest_page_size: u32) {}

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(&mut self, queue: u16, size: u32, descriptors: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        let addresses = RingAddresses {
            descriptors: GuestAddress(descriptors),
            driver: GuestAddress(driver),
            device: GuestAddress(device),
        };
        let (features, state) = (RingFeatures::VERSION_1, QueueState::default());
        let config = QueueConfig { size: size as u16, addresses, features, state };
        self.0.borrow_mut().queues[usize::from(queue)] = Some(Ring { queue: Queue::new(config).unwrap(), config });
    }

    fn queue_unset(&mut self, _queue: u16) {}

    fn queue_used(&mut self, queue: u16) -> bool {
        self.0.borrow().queues[usize::from(queue)].is_some()
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }

    fn read_config_generation(&self) -> u32 {
        let mut state = self.0.borrow_mut();
        if state.is_restless {
            state.config[0] = state.config[0].wrapping_add(1);
        }
        state.config[0].into()
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T, Error> {
        let state = self.0.borrow();
        let field = state.config.get(offset..offset + size_of::<T>()).ok_or(Error::ConfigSpaceTooSmall)?;
        T::read_from_bytes(field).map_err(|_| Error::InvalidParam)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, _offset: usize, _value: T) -> Result<(), Error> {
        Err(Error::Unsupported)
    }
}
