//! Calls, replies and receives.
//!
//! A caller that finds a receiver on its own CPU hands over the CPU at once, with its scheduling context; the reply
//! hands both back. Across CPUs the threads are sent through their CPUs' inboxes, each on its own context.

use dragonfly_abi::{FOREVER, FaultKind, MESSAGE_DATA_SIZE, MESSAGE_HANDLES, MessageKind, MessageTag, Status};

use crate::arch::{Arch, Context};
use crate::cpu::Cpu;
use crate::gate::{Gate, GateQueues};
use crate::thread::{Caller, Message, Thread, Waiting, errand};
use crate::{Kernel, Ref, fault, transfer};

impl Message {
    /// Checks what a domain gave as tag and words.
    pub fn decode(badge: u64, tag: u64, words: [u64; 4], kind: MessageKind) -> Result<Self, Status> {
        let tag = MessageTag(tag);
        if tag.bytes() > MESSAGE_DATA_SIZE || tag.handles() > MESSAGE_HANDLES {
            return Err(Status::BadArgument);
        }
        Ok(Self { badge, tag: tag.with_kind(kind), words })
    }

    /// A message of a notification's bits.
    pub const fn of_bits(bits: u64) -> Self {
        Self { badge: 0, tag: MessageTag(0).with_kind(MessageKind::Notification), words: [bits, 0, 0, 0] }
    }

    /// The six words of a receive's results.
    pub const fn results(&self) -> [u64; 6] {
        let [w0, w1, w2, w3] = self.words;
        [self.badge, self.tag.0, w0, w1, w2, w3]
    }
}

impl<A: Arch> Kernel<A> {
    /// Sends the current thread's message, or its fault, to a gate and lets it wait for the reply.
    ///
    /// The timeout is in nanoseconds. On an error the thread has not been touched.
    pub fn send(
        &'static self,
        cpu: &mut Cpu<A>,
        gate: &Ref<Gate<A>, A>,
        message: Message,
        timeout_ns: u64,
    ) -> Result<(), Status> {
        let Some(current) = cpu.current.clone() else { return Err(Status::BadState) };
        let mut queues = gate.queues.lock();
        if queues.is_closed {
            return Err(Status::Aborted);
        }
        let Some(receiver) = queues.take_receiver(cpu.id) else {
            if timeout_ns == 0 {
                return Err(Status::WouldBlock);
            }
            return self.queue_caller(cpu, gate, &mut queues, &current, message, timeout_ns);
        };
        if let Err(status) = deliver(self, &current, &receiver, &message) {
            // What is wrong is the sender's matter: the receiver waits on, as if nothing had come.
            receiver.block();
            let queued = queues.receivers.push_front(receiver);
            debug_assert!(queued.is_ok());
            return Err(status);
        }
        drop(queues);
        let is_fault = message.tag.kind() == MessageKind::Fault;
        let is_donor = receiver.cpu() == cpu.id && may_donate(&message);
        // After the delivery, so that a reply cannot come before.
        let token = current.block();
        current.ipc.lock().begin_wait(Waiting::Reply(receiver.clone()));
        self.begin_timeout(cpu, &current, timeout_ns);
        {
            let mut ipc = receiver.ipc.lock();
            ipc.end_wait();
            ipc.caller = Some(Caller { thread: current, token, is_donor, is_fault });
        }
        if is_donor {
            cpu.end_timeout(&receiver);
            cpu.current = Some(receiver);
        } else {
            cpu.current = None;
            cpu.leave(self.arch);
            self.wake(cpu, receiver);
        }
        Ok(())
    }

    /// No receiver waits: the caller does.
    fn queue_caller(
        &self,
        cpu: &mut Cpu<A>,
        gate: &Ref<Gate<A>, A>,
        queues: &mut GateQueues<A>,
        current: &Ref<Thread<A>, A>,
        message: Message,
        timeout_ns: u64,
    ) -> Result<(), Status> {
        {
            let mut ipc = current.ipc.lock();
            ipc.message = message;
            ipc.begin_wait(Waiting::Send(gate.clone()));
        }
        current.block();
        let priority = |thread: &Thread<A>| core::cmp::Reverse(thread.priority());
        let queued = queues.callers.push_sorted(current.clone(), priority);
        debug_assert!(queued.is_ok());
        self.begin_timeout(cpu, current, timeout_ns);
        cpu.current = None;
        cpu.leave(self.arch);
        Ok(())
    }

    /// Answers the caller of the current thread; both go on.
    ///
    /// # Errors
    /// `NoCaller`; `Aborted` if the caller is gone; what [`transfer`] says if handles could not be handed over, which
    /// the caller is told too.
    pub fn reply(&'static self, cpu: &mut Cpu<A>, message: &Message) -> Result<(), Status> {
        let Some(server) = cpu.current.clone() else { return Err(Status::BadState) };
        let (answered, status) = self.answer(cpu, &server, message);
        match answered {
            Answered::Donor(caller) => {
                cpu.current = Some(caller);
                cpu.make_ready(self.arch, server);
            }
            Answered::Other(caller) => self.wake(cpu, caller),
            Answered::DonorGone => cpu.change_context(self.arch),
            Answered::Nobody => {}
        }
        match status {
            Status::Ok => Ok(()),
            status => Err(status),
        }
    }

    /// Waits for a message. On success the current thread may be another one, or none.
    ///
    /// # Errors
    /// `Busy` with a caller unanswered, `Aborted` if the gate is closed, `WouldBlock`.
    pub fn receive(&'static self, cpu: &mut Cpu<A>, gate: &Ref<Gate<A>, A>, timeout_ns: u64) -> Result<(), Status> {
        let Some(server) = cpu.current.clone() else { return Err(Status::BadState) };
        match self.receive_for(cpu, &server, gate, timeout_ns)? {
            Received::Nothing => {
                cpu.current = None;
                cpu.leave(self.arch);
            }
            Received::Call => {}
            Received::Donation => cpu.change_context(self.arch),
        }
        Ok(())
    }

    /// Answers the caller, if there is one, then waits for a message. The common case, a caller on this CPU and no
    /// other waiting, hands the CPU straight back.
    pub fn reply_receive(
        &'static self,
        cpu: &mut Cpu<A>,
        gate: &Ref<Gate<A>, A>,
        message: &Message,
    ) -> Result<(), Status> {
        let Some(server) = cpu.current.clone() else { return Err(Status::BadState) };
        let timeout_ns = server.buffer.timeout_ns(message.tag);
        let (answered, _) = self.answer(cpu, &server, message);
        let keeps_context = !matches!(answered, Answered::DonorGone);
        let received = self.receive_for(cpu, &server, gate, timeout_ns);
        match answered {
            Answered::Donor(caller) => {
                cpu.current = Some(caller);
                match received {
                    Ok(Received::Nothing) => return Ok(()),
                    Ok(_) => {}
                    Err(status) => server.context.set_results(status, [0; 6]),
                }
                cpu.make_ready(self.arch, server);
                return Ok(());
            }
            Answered::Other(caller) => self.wake(cpu, caller),
            Answered::DonorGone | Answered::Nobody => {}
        }
        match received {
            Ok(Received::Nothing) => {
                cpu.current = None;
                cpu.leave(self.arch);
            }
            Ok(Received::Call) if keeps_context => {}
            Err(status) if keeps_context => return Err(status),
            Err(status) => {
                server.context.set_results(status, [0; 6]);
                cpu.change_context(self.arch);
            }
            Ok(_) => cpu.change_context(self.arch),
        }
        Ok(())
    }

    /// Gives a server's answer to its caller, and claims that.
    fn answer(&'static self, cpu: &mut Cpu<A>, server: &Ref<Thread<A>, A>, message: &Message) -> (Answered<A>, Status) {
        let Some(caller) = server.ipc.lock().caller.take() else { return (Answered::Nobody, Status::NoCaller) };
        if !caller.thread.claim(caller.token) {
            let gone = if caller.is_donor { Answered::DonorGone } else { Answered::Nobody };
            return (gone, Status::Aborted);
        }
        let thread = caller.thread;
        let mut status = Status::Ok;
        if caller.is_fault {
            fault::answer(server, &thread, message);
        } else if let Err(refused) = deliver(self, server, &thread, message) {
            thread.context.set_results(refused, [0; 6]);
            status = refused;
        }
        thread.ipc.lock().end_wait();
        if caller.is_donor {
            cpu.end_timeout(&thread);
            (Answered::Donor(thread), status)
        } else {
            (Answered::Other(thread), status)
        }
    }

    /// Takes the next message from a gate for a thread of this CPU, or lets it wait there.
    fn receive_for(
        &'static self,
        cpu: &mut Cpu<A>,
        server: &Ref<Thread<A>, A>,
        gate: &Ref<Gate<A>, A>,
        timeout_ns: u64,
    ) -> Result<Received, Status> {
        if server.ipc.lock().caller.is_some() {
            return Err(Status::Busy);
        }
        loop {
            let mut queues = gate.queues.lock();
            if queues.is_closed {
                return Err(Status::Aborted);
            }
            if let Some(bits) = queues.take_bits() {
                server.context.set_results(Status::Ok, Message::of_bits(bits).results());
                return Ok(Received::Call);
            }
            if let Some(caller) = queues.take_caller() {
                drop(queues);
                match self.meet(cpu, server, caller) {
                    Some(received) => return Ok(received),
                    None => continue,
                }
            }
            if timeout_ns == 0 {
                return Err(Status::WouldBlock);
            }
            server.ipc.lock().begin_wait(Waiting::Receive(gate.clone()));
            server.block();
            let queued = queues.receivers.push_back(server.clone());
            debug_assert!(queued.is_ok());
            drop(queues);
            self.begin_timeout(cpu, server, timeout_ns);
            return Ok(Received::Nothing);
        }
    }

    /// A server receives from a caller that waited at the gate and has been claimed. Nothing if that failed: then the
    /// caller has been told.
    fn meet(
        &'static self,
        cpu: &mut Cpu<A>,
        server: &Ref<Thread<A>, A>,
        caller: Ref<Thread<A>, A>,
    ) -> Option<Received> {
        let message = caller.ipc.lock().message;
        if let Err(status) = deliver(self, &caller, server, &message) {
            caller.ipc.lock().end_wait();
            caller.context.set_results(status, [0; 6]);
            self.wake(cpu, caller);
            return None;
        }
        let is_donor = caller.cpu() == cpu.id && may_donate(&message);
        let is_fault = message.tag.kind() == MessageKind::Fault;
        caller.ipc.lock().begin_wait(Waiting::Reply(server.clone()));
        let token = caller.block();
        server.ipc.lock().caller = Some(Caller { thread: caller, token, is_donor, is_fault });
        Some(if is_donor { Received::Donation } else { Received::Call })
    }

    /// Makes a thread ready that has been claimed: here, or through its CPU's inbox.
    pub fn wake(&self, cpu: &mut Cpu<A>, thread: Ref<Thread<A>, A>) {
        if thread.cpu() == cpu.id {
            cpu.end_timeout(&thread);
            cpu.make_ready(self.arch, thread);
        } else {
            self.post(thread, errand::WAKE);
        }
    }

    /// Bounds the wait of a thread of this CPU that has just been blocked.
    pub fn begin_timeout(&self, cpu: &mut Cpu<A>, thread: &Ref<Thread<A>, A>, timeout_ns: u64) {
        if timeout_ns != FOREVER {
            let deadline = self.arch.now().saturating_add(self.arch.ticks_from_ns(timeout_ns));
            cpu.begin_timeout(thread, deadline);
        }
    }
}

/// Whom an answer has claimed.
enum Answered<A: Arch> {
    /// A caller on this CPU, which gets the charged scheduling context back.
    Donor(Ref<Thread<A>, A>),
    /// A caller on another CPU, or a fault of another.
    Other(Ref<Thread<A>, A>),
    /// The caller is gone, and with it the scheduling context that the server runs on.
    DonorGone,
    /// There was no caller, or it is gone.
    Nobody,
}

/// What a receive came to.
enum Received {
    /// Nothing: the thread waits.
    Nothing,
    /// A message; the thread stays on its scheduling context.
    Call,
    /// A call from this CPU; the thread goes over to the caller's scheduling context.
    Donation,
}

/// Whether who handles a message may run on its sender's scheduling context. One without budget would keep the handler
/// from running until the budget is back.
fn may_donate(message: &Message) -> bool {
    message.tag.kind() != MessageKind::Fault || message.tag.label() != FaultKind::BudgetExhausted as u32
}

/// Hands a message over: words, bytes, handles. The receiver has been claimed, or is current.
fn deliver<A: Arch>(
    kernel: &'static Kernel<A>,
    from: &Thread<A>,
    to: &Ref<Thread<A>, A>,
    message: &Message,
) -> Result<(), Status> {
    if !message.tag.is_short() {
        if message.tag.kind() == MessageKind::Fault {
            to.buffer.write_state(&from.context.state());
        } else {
            transfer::hand_over(kernel, from, to, message.tag.handles())?;
            to.buffer.copy_data(&from.buffer, message.tag.bytes());
        }
    }
    to.context.set_results(Status::Ok, message.results());
    Ok(())
}
