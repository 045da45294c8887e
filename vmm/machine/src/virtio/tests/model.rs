//! A back end that remembers what it was told and holds the function to what it promises.

use std::sync::{Arc, Mutex, MutexGuard};

use super::super::*;

/// What the model offers: a feature of its own, indirect descriptors, and two that are not the back end's to offer.
pub const FEATURES: u64 = 1 << 9 | 1 << 28;
const UNSERVED: u64 = 1 << 30 | 1 << 38;
const PACKED: u64 = 1 << 34;

/// Its queues.
const QUEUES: usize = 2;

/// What the model was told.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Call {
    Negotiate(u64),
    Start(u16, QueueSetup),
    Stop(u16),
    Notify(u16),
    Doorbell(u16, Option<u16>),
    Message(u16, Option<u32>),
    Reset,
}

/// The model, of which the test has one half and the function the other.
#[derive(Clone, Default)]
pub struct Model(Arc<Mutex<State>>);

#[derive(Default)]
pub struct State {
    calls: Vec<Call>,
    pub config: Vec<u8>,
    pub is_failing: bool,
    queues: [Queue; QUEUES],
}

#[derive(Clone, Copy, Default)]
struct Queue {
    is_running: bool,
    doorbell: Option<u16>,
    message: Option<Message>,
    is_pending: bool,
    base: u32,
}

impl Model {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// What it was told since this was asked last.
    pub fn take_calls(&self) -> Vec<Call> {
        core::mem::take(&mut self.state().calls)
    }

    /// A queue has used buffers: gives the message that it sends.
    pub fn interrupt(&self, queue: u16) -> Option<u32> {
        let queue = &mut self.state().queues[usize::from(queue)];
        queue.is_pending = queue.message.is_none();
        queue.message.map(|message| message.data)
    }

    /// The port of each queue.
    pub fn doorbells(&self) -> Vec<Option<u16>> {
        self.state().queues.iter().map(|queue| queue.doorbell).collect()
    }

    /// The queues that run.
    pub fn running(&self) -> Vec<u16> {
        (0..QUEUES as u16).filter(|number| self.state().queues[usize::from(*number)].is_running).collect()
    }

    /// So many requests of a queue are done.
    pub fn work(&self, queue: u16, requests: u32) {
        self.state().queues[usize::from(queue)].base += requests;
    }
}

impl Backend for Model {
    fn features(&self) -> u64 {
        FEATURES | UNSERVED | PACKED
    }

    fn negotiate(&mut self, features: u64) -> Result<(), Failed> {
        assert!(self.running().is_empty());
        assert_eq!(features & !(FEATURES | PACKED), 0);
        let mut state = self.state();
        state.calls.push(Call::Negotiate(features));
        if state.is_failing { Err(Failed) } else { Ok(()) }
    }

    fn read_config(&mut self, offset: u16, data: &mut [u8]) {
        for (at, byte) in (usize::from(offset)..).zip(data) {
            *byte = self.state().config.get(at).copied().unwrap_or(at as u8);
        }
    }

    fn write_config(&mut self, offset: u16, data: &[u8]) {
        let config = &mut self.state().config;
        let end = usize::from(offset) + data.len();
        config.resize(end.max(config.len()), 0);
        config[usize::from(offset)..end].copy_from_slice(data);
    }

    fn start_queue(&mut self, number: u16, setup: &QueueSetup) -> Result<(), Failed> {
        let mut state = self.state();
        state.calls.push(Call::Start(number, *setup));
        if state.is_failing {
            return Err(Failed);
        }
        let queue = &mut state.queues[usize::from(number)];
        assert!(!queue.is_running && setup.size != 0);
        (queue.is_running, queue.base) = (true, setup.base);
        Ok(())
    }

    fn stop_queue(&mut self, number: u16) -> Result<u32, Failed> {
        let mut state = self.state();
        state.calls.push(Call::Stop(number));
        let is_failing = state.is_failing;
        let queue = &mut state.queues[usize::from(number)];
        assert!(queue.is_running && queue.doorbell.is_none());
        queue.is_running = false;
        if is_failing { Err(Failed) } else { Ok(queue.base) }
    }

    fn notify(&mut self, number: u16) {
        let mut state = self.state();
        state.calls.push(Call::Notify(number));
        assert!(state.queues[usize::from(number)].is_running);
    }

    fn set_doorbell(&mut self, number: u16, port: Option<u16>) {
        let mut state = self.state();
        state.calls.push(Call::Doorbell(number, port));
        assert!(port.is_none() || state.queues.iter().all(|queue| queue.doorbell != port));
        let queue = &mut state.queues[usize::from(number)];
        assert!(queue.is_running && queue.doorbell.is_some() != port.is_some());
        queue.doorbell = port;
    }

    fn set_message(&mut self, number: u16, message: Option<Message>) {
        let mut state = self.state();
        state.calls.push(Call::Message(number, message.map(|message| message.data)));
        let queue = &mut state.queues[usize::from(number)];
        assert_ne!(queue.message, message);
        queue.message = message;
    }

    fn take_pending(&mut self, number: u16) -> bool {
        core::mem::take(&mut self.state().queues[usize::from(number)].is_pending)
    }

    fn reset(&mut self) {
        let mut state = self.state();
        assert!(state.queues.iter().all(|queue| queue.doorbell.is_none() && queue.message.is_none()));
        state.calls.push(Call::Reset);
        state.config.clear();
        state.queues = [Queue::default(); QUEUES];
    }
}
