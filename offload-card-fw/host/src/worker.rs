//! A thread that serves devices: it polls their rings while there is work, and sleeps when there is none.

use std::{
    io,
    os::fd::{BorrowedFd, OwnedFd},
    sync::Arc,
    time::{Duration, Instant},
};

use dragonfly_card_devices::{Round, Serve};
use rustix::event::{EventfdFlags, eventfd};

use crate::{
    orders::Orders,
    poller::{Poller, Token},
    port::Port,
};

/// How many rounds go by without sleep until messages are looked at: a system call takes as long as a frame's way.
const ROUNDS_BETWEEN_MESSAGES: u32 = 32;

/// Ends workers, from any thread.
#[derive(Clone, Debug)]
pub struct StopSignal(Arc<OwnedFd>);

impl StopSignal {
    /// A signal that nobody has given.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    /// Tells whoever waits there of it.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn register(&self, poller: &Poller) -> io::Result<()> {
        poller.add(&*self.0, Token::Stop)
    }

    /// Ends all workers that know of it.
    pub fn stop(&self) {
        // It fails only when it was given 2^64 times.
        let _ = rustix::io::write(&*self.0, &1u64.to_ne_bytes());
    }
}

/// What moves frames between the devices' switch and the world, or data between guests' sockets and the host's.
pub trait Outside<S>: Send {
    /// What can be read when something has come.
    fn descriptor(&self) -> BorrowedFd<'_>;

    /// Moves a bounded number of frames; `now_ns` is the time since some moment, in nanoseconds. `None` if nothing is there
    /// any more, and nothing ever comes.
    fn serve(&mut self, shared: &mut S, now_ns: u64) -> Option<Round>;
}

/// Devices that one thread serves.
pub struct Worker<D: Serve> {
    poller: Poller,
    ports: Vec<Port<D>>,
    shared: D::Shared,
    orders: Option<Orders<D::Shared>>,
    outside: Option<Box<dyn Outside<D::Shared>>>,
    begin: Instant,
    /// How long rings are polled after the last work was found.
    poll: Duration,
}

impl<D: Serve> Worker<D> {
    /// A worker for these devices. It sleeps when it has found no work for as long as `poll`.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn new(mut ports: Vec<Port<D>>, shared: D::Shared, poll: Duration, stop: &StopSignal) -> io::Result<Self> {
        let poller = Poller::new()?;
        stop.register(&poller)?;
        for (number, port) in (0..).zip(&mut ports) {
            port.register(number, &poller)?;
        }
        Ok(Self { poller, ports, shared, orders: None, outside: None, begin: Instant::now(), poll })
    }

    /// Takes orders, too.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn with_orders(mut self, orders: Orders<D::Shared>) -> io::Result<Self> {
        self.poller.add(&orders, Token::Order)?;
        self.orders = Some(orders);
        Ok(self)
    }

    /// Moves frames between the devices and what is outside, too.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn with_outside(mut self, outside: Box<dyn Outside<D::Shared>>) -> io::Result<Self> {
        self.poller.add(outside.descriptor(), Token::Outside)?;
        self.outside = Some(outside);
        Ok(self)
    }

    /// Serves until it is told to stop; then all requests that were begun are completed, and the sockets are gone.
    ///
    /// # Errors
    /// The kernel has no room.
    pub fn run(mut self) -> io::Result<()> {
        let outcome = self.serve();
        for port in self.ports {
            port.close(&mut self.shared, &self.poller);
        }
        outcome
    }

    fn serve(&mut self) -> io::Result<()> {
        let mut rounds = 0;
        let mut last_work = Instant::now();
        loop {
            let now = Instant::now();
            let round = self.round(now);
            if round.has_worked {
                last_work = now;
            }
            let is_awake = now.saturating_duration_since(last_work) < self.poll || round.has_worked;
            rounds += 1;
            if is_awake && rounds < ROUNDS_BETWEEN_MESSAGES {
                continue;
            }
            rounds = 0;
            let timeout = if is_awake { Some(Duration::ZERO) } else { self.sleep_time(round) };
            for token in self.poller.wait(timeout)? {
                match token {
                    Token::Stop => return Ok(()),
                    Token::Order => {
                        if let Some(orders) = &self.orders {
                            orders.carry_out(&mut self.shared);
                        }
                    }
                    Token::Listener { device } => {
                        if let Some(port) = self.ports.get_mut(device as usize) {
                            port.accept(&self.poller)?;
                        }
                    }
                    Token::Client { device } => {
                        if let Some(port) = self.ports.get_mut(device as usize) {
                            port.handle_messages(&mut self.shared, &self.poller)?;
                        }
                    }
                    // The next round serves all rings, and what is outside.
                    Token::Kick { .. } | Token::Outside => {}
                }
            }
        }
    }

    /// How long to wait for events after a round without work: not at all, or until there is something to do.
    fn sleep_time(&mut self, round: Round) -> Option<Duration> {
        // All of them, and no early end: each is to be woken by its kicks.
        let mut work_came = false;
        for port in &mut self.ports {
            work_came |= port.enable_kicks();
        }
        if work_came {
            return Some(Duration::ZERO);
        }
        let now_ns = self.since_begin_ns(Instant::now());
        round.wait_until_ns.map(|time_ns| Duration::from_nanos(time_ns.saturating_sub(now_ns)))
    }

    fn round(&mut self, now: Instant) -> Round {
        let now_ns = self.since_begin_ns(now);
        let mut all = Round::default();
        for port in &mut self.ports {
            all.add(port.serve(&mut self.shared, now_ns));
        }
        if let Some(outside) = &mut self.outside {
            match outside.serve(&mut self.shared, now_ns) {
                Some(round) => all.add(round),
                None => {
                    self.poller.remove(outside.descriptor());
                    self.outside = None;
                }
            }
        }
        all
    }

    fn since_begin_ns(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.begin).as_nanos()).unwrap_or(u64::MAX)
    }
}
