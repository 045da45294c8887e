//! Gates: where callers and receivers meet.

use dragonfly_memory::Charge;

use crate::arch::Arch;
use crate::notification::Notification;
use crate::thread::{Thread, WaitQueue};
use crate::{Lock, Ref};

/// How many waiting receivers are looked at for one on the caller's own CPU; the last of them is taken as it is.
const RECEIVERS_EXAMINED: usize = 8;

/// An IPC end point. Any thread with the right may receive from it; a caller meets one of them.
pub struct Gate<A: Arch> {
    /// Who waits here.
    pub queues: Lock<GateQueues<A>, A>,
    _charge: Charge<A::Heap>,
}

/// Who waits at a gate. At most one of the two queues holds anybody.
pub struct GateQueues<A: Arch> {
    /// Threads that wait for a message.
    pub receivers: WaitQueue<A>,
    /// Threads that wait for a receiver, highest priority first.
    pub callers: WaitQueue<A>,
    /// The notification whose bits receivers get too.
    pub notification: Option<Ref<Notification<A>, A>>,
    /// Whether the gate is closed for good.
    pub is_closed: bool,
}

impl<A: Arch> Gate<A> {
    /// A gate where nobody waits.
    pub fn new(charge: Charge<A::Heap>) -> Self {
        Self {
            queues: Lock::<_, A>::new(GateQueues {
                receivers: WaitQueue::<A>::new(),
                callers: WaitQueue::<A>::new(),
                notification: None,
                is_closed: false,
            }),
            _charge: charge,
        }
    }
}

impl<A: Arch> GateQueues<A> {
    /// Takes a receiver out of the queue and claims it, one on `cpu` if there is one near the front.
    pub fn take_receiver(&mut self, cpu: usize) -> Option<Ref<Thread<A>, A>> {
        loop {
            let receiver = match self.receivers.front()? {
                first if first.cpu() == cpu => self.receivers.pop_front()?,
                _ => self.take_near(cpu)?,
            };
            // A receiver that cannot be claimed is being ended or has timed out: its CPU deals with it.
            if receiver.claim_any() {
                return Some(receiver);
            }
        }
    }

    fn take_near(&mut self, cpu: usize) -> Option<Ref<Thread<A>, A>> {
        let mut examined = 0;
        let near = self.receivers.find(|thread| {
            examined += 1;
            thread.cpu() == cpu || examined == RECEIVERS_EXAMINED
        });
        match near {
            Some(near) => self.receivers.remove(&near),
            None => self.receivers.pop_front(),
        }
    }

    /// Whether the bound notification has bits.
    pub fn has_bits(&self) -> bool {
        self.notification.as_ref().is_some_and(|notification| notification.has_bits())
    }

    /// Takes the bits of the bound notification, if any are set.
    pub fn take_bits(&self) -> Option<u64> {
        let bits = self.notification.as_ref()?.take();
        (bits != 0).then_some(bits)
    }

    /// Takes the first caller out of the queue and claims it.
    pub fn take_caller(&mut self) -> Option<Ref<Thread<A>, A>> {
        loop {
            let caller = self.callers.pop_front()?;
            if caller.claim_any() {
                return Some(caller);
            }
        }
    }
}
