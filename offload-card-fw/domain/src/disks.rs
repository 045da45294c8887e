//! Physical disks, each with a thread of its own that waits for it, so that nobody else does.
//!
//! Guests' kicks come to the worker, as they do for all rings. After each of its rounds it wakes a disk's thread if that sleeps
//! and there is something to do: [`DiskThread::has_work`] says why nothing is missed.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicBool, Ordering};

use dragonfly_card_devices::{DiskDevice, Round};
use dragonfly_rt::sync::Mutex;
use dragonfly_vhost_user::Platform;

use crate::card::Client;
use crate::letters::{DiskPort, SharedPort};

/// Wakes a thread that sleeps, or that is about to.
pub(crate) type Waker = Box<dyn Fn() + Send>;

/// The guests' disks in one physical disk, and whether the thread sleeps that serves them.
pub(crate) struct DiskThread<P: Platform> {
    ports: Mutex<Vec<SharedPort<P>>>,
    is_asleep: AtomicBool,
}

/// All physical disks in use, by their serial numbers.
pub(crate) struct Disks<P: Platform> {
    disks: Vec<PhysicalDisk<P>>,
}

struct PhysicalDisk<P: Platform> {
    serial: String,
    thread: Arc<DiskThread<P>>,
    /// None until the thread runs.
    waker: Option<Waker>,
}

impl<P: Platform> Default for Disks<P> {
    fn default() -> Self {
        Self { disks: Vec::new() }
    }
}

impl<P: Client> Disks<P> {
    /// A guest's disk that is in the physical disk of this serial number.
    pub(crate) fn add(&mut self, serial: &str, device: DiskDevice) -> SharedPort<P> {
        let port = Arc::new(DiskPort::new(device));
        let known = self.disks.iter().position(|disk| disk.serial == serial);
        if let Some(disk) = known.and_then(|place| self.disks.get(place)) {
            disk.thread.ports.lock().push(port.clone());
        } else {
            let ports = Mutex::new(Vec::from([port.clone()]));
            let thread = Arc::new(DiskThread { ports, is_asleep: AtomicBool::new(false) });
            self.disks.push(PhysicalDisk { serial: serial.into(), thread, waker: None });
        }
        port
    }

    /// Has a thread started for each disk; `start` says how it is woken.
    ///
    /// # Errors
    /// The first one of `start`.
    pub(crate) fn start<E>(&mut self, mut start: impl FnMut(Arc<DiskThread<P>>) -> Result<Waker, E>) -> Result<(), E> {
        for disk in &mut self.disks {
            disk.waker = Some(start(disk.thread.clone())?);
        }
        Ok(())
    }

    /// Wakes those threads that sleep though there is something to do.
    pub(crate) fn wake(&self) {
        for PhysicalDisk { thread, waker, .. } in &self.disks {
            if let Some(wake) = waker
                && thread.has_work()
            {
                wake();
            }
        }
    }
}

impl<P: Client> DiskThread<P> {
    /// Serves for as long as the card lives. `now_ns` tells the time, and `wait` waits until it is woken, or until that time.
    ///
    /// # Errors
    /// The first one of `wait`.
    pub(crate) fn serve<E>(&self, now_ns: impl Fn() -> u64, wait: impl Fn(Option<u64>) -> Result<(), E>) -> E {
        loop {
            let round = self.round(now_ns());
            if round.has_worked {
                continue;
            }
            self.is_asleep.store(true, Ordering::SeqCst);
            if !self.enable_kicks()
                && let Err(error) = wait(round.wait_until_ns)
            {
                return error;
            }
            self.is_asleep.store(false, Ordering::SeqCst);
        }
    }

    /// Serves all rings once, does what messages say that were left, and ends the sessions of guests that turned out to be gone.
    pub(crate) fn round(&self, now_ns: u64) -> Round {
        let mut round = Round::default();
        for port in self.ports.lock().iter() {
            round.add(port.serve(now_ns));
        }
        round
    }

    /// Asks for kicks of all rings, and says whether there is something to do already.
    fn enable_kicks(&self) -> bool {
        // All of them, and no early end: each is to be served again when it is kicked.
        self.ports.lock().iter().fold(false, |has_work, port| port.enable_kicks() | has_work)
    }

    /// Whether the thread sleeps and is to be woken.
    ///
    /// One that does not sleep looks at all rings before it does, after it has said so; a guest that has put something there
    /// before is seen then, and so is a message that was left before. Where it holds a lock though it says that it sleeps it may have looked already, and is woken.
    fn has_work(&self) -> bool {
        let has_work = |ports: &Vec<SharedPort<P>>| ports.iter().any(|port| port.may_have_work());
        self.is_asleep.load(Ordering::SeqCst) && self.ports.try_lock().is_none_or(|ports| has_work(&ports))
    }
}
