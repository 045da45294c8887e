//! Changes to what a worker's devices share, ordered by other threads and made by the worker's own, between two rounds.

use std::{
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
};

use rustix::event::{EventfdFlags, eventfd};

/// One change.
type Order<S> = Box<dyn FnOnce(&mut S) + Send>;

/// Where orders are given.
pub struct Counter<S> {
    sender: Sender<Order<S>>,
    bell: Arc<OwnedFd>,
}

/// Where orders come out, in the order in which they were given.
pub struct Orders<S> {
    receiver: Receiver<Order<S>>,
    bell: Arc<OwnedFd>,
}

/// Both ends.
///
/// # Errors
/// The kernel has no room.
pub fn orders<S>() -> io::Result<(Counter<S>, Orders<S>)> {
    let bell = Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?);
    let (sender, receiver) = channel();
    Ok((Counter { sender, bell: Arc::clone(&bell) }, Orders { receiver, bell }))
}

impl<S> Counter<S> {
    /// Gives an order, which a worker that has ended does not take.
    pub fn order(&self, change: impl FnOnce(&mut S) + Send + 'static) {
        if self.sender.send(Box::new(change)).is_ok() {
            // It fails only when it was rung 2^64 times.
            let _ = rustix::io::write(&*self.bell, &1u64.to_ne_bytes());
        }
    }
}

impl<S> Orders<S> {
    /// Carries out all that have come.
    pub fn carry_out(&self, shared: &mut S) {
        // It fails only when nobody has rung since.
        let _ = rustix::io::read(&*self.bell, &mut [0; 8]);
        self.receiver.try_iter().for_each(|order| order(shared));
    }
}

impl<S> AsFd for Orders<S> {
    /// Readable when there is an order.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }
}

impl<S> fmt::Debug for Counter<S> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Counter").finish_non_exhaustive()
    }
}
