//! What a worker waits for.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    buffer::spare_capacity,
    event::{Timespec, epoll},
    io::Errno,
};

/// Events taken at once.
const BATCH: usize = 64;

/// Who an event is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The process is to end.
    Stop,
    /// An order has come.
    Order,
    /// A client calls at a device's socket.
    Listener {
        /// The worker's number of the device.
        device: u32,
    },
    /// A device's client has sent something, or is gone.
    Client {
        /// The worker's number of the device.
        device: u32,
    },
    /// What is outside the switch has sent something.
    Outside,
    /// A ring has new buffers.
    Kick {
        /// The worker's number of the device.
        device: u32,
        /// The queue.
        queue: u16,
    },
}

impl Token {
    const STOP: u16 = u16::MAX;
    const LISTENER: u16 = u16::MAX - 1;
    const CLIENT: u16 = u16::MAX - 2;
    const ORDER: u16 = u16::MAX - 3;
    const OUTSIDE: u16 = u16::MAX - 4;

    /// As epoll keeps it.
    #[must_use]
    pub fn data(self) -> epoll::EventData {
        let (device, what) = match self {
            Self::Stop => (0, Self::STOP),
            Self::Order => (0, Self::ORDER),
            Self::Listener { device } => (device, Self::LISTENER),
            Self::Client { device } => (device, Self::CLIENT),
            Self::Outside => (0, Self::OUTSIDE),
            Self::Kick { device, queue } => (device, queue),
        };
        epoll::EventData::new_u64(u64::from(device) << 16 | u64::from(what))
    }

    fn of(data: epoll::EventData) -> Self {
        let device = (data.u64() >> 16) as u32;
        match data.u64() as u16 {
            Self::STOP => Self::Stop,
            Self::ORDER => Self::Order,
            Self::LISTENER => Self::Listener { device },
            Self::CLIENT => Self::Client { device },
            Self::OUTSIDE => Self::Outside,
            queue => Self::Kick { device, queue },
        }
    }
}

/// An epoll instance.
pub struct Poller {
    epoll: Arc<OwnedFd>,
    events: Vec<epoll::Event>,
}

impl Poller {
    /// Waits for nothing yet.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn new() -> io::Result<Self> {
        let epoll = Arc::new(epoll::create(epoll::CreateFlags::CLOEXEC)?);
        Ok(Self { epoll, events: Vec::with_capacity(BATCH) })
    }

    /// For those that add what they wait for themselves.
    #[must_use]
    pub fn epoll(&self) -> Arc<OwnedFd> {
        Arc::clone(&self.epoll)
    }

    /// Waits for this too, as long as it can be read.
    ///
    /// # Errors
    /// It is nothing that can be waited for.
    pub fn add(&self, source: impl AsFd, token: Token) -> io::Result<()> {
        Ok(epoll::add(&*self.epoll, source, token.data(), epoll::EventFlags::IN)?)
    }

    /// Waits for this no longer.
    pub fn remove(&self, source: impl AsFd) {
        // It was added, so this does not fail.
        let _ = epoll::delete(&*self.epoll, source);
    }

    /// Waits until something happens, at most so long; for ever without a time.
    ///
    /// # Errors
    /// Those of the kernel that no signal explains.
    pub fn wait(&mut self, at_most: Option<Duration>) -> io::Result<impl Iterator<Item = Token> + use<>> {
        let timeout = at_most.map(|time| Timespec {
            tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(time.subsec_nanos()),
        });
        self.events.clear();
        match epoll::wait(&*self.epoll, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let tokens: Vec<_> = self.events.iter().map(|event| Token::of(event.data)).collect();
        Ok(tokens.into_iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_come_back_as_they_were() {
        for token in [
            Token::Stop,
            Token::Order,
            Token::Listener { device: 3 },
            Token::Client { device: u32::MAX },
            Token::Outside,
            Token::Kick { device: 0, queue: 0 },
            Token::Kick { device: 7, queue: 31 },
        ] {
            assert_eq!(Token::of(token.data()), token);
        }
    }
}
