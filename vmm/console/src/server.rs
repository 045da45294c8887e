//! Receives calls and interrupts.

use alloc::boxed::Box;

use dragonfly_abi::{HandleTransfer, MessageKind, Status};
use dragonfly_rt::sys::{Gate, Interrupt, Message, Notification, Object, Owned, Ports, Received, Thread, clock_now_ns};
use dragonfly_rt::{message, named};
use log::{info, warn};

use crate::cmos;
use crate::consoles::Consoles;
use crate::protocol::{
    ENDED, EndStatus, GATE_NAME, MAX_BYTES, MOVE, OK, PENDING, READ, REFUSED, REGISTER, TIME, WRITE,
};
use crate::uart::Uart;

/// Names of the handles that `bundle.toml` gives.
const PORTS: &str = "com2";
const INTERRUPT: &str = "com2-irq";
const CLOCK: &str = "rtc";

/// Bit of the notification that the port's interrupt sets.
const INTERRUPTED: u64 = 1;

/// The serial line.
struct Line {
    uart: Uart<Ports>,
    interrupt: Interrupt,
}

/// The server.
pub(crate) struct Server {
    gate: Gate,
    _notification: Owned<Notification>,
    line: Option<Line>,
    consoles: Consoles<Owned<Notification>>,
    /// Seconds since 1970 at a time of the kernel's clock.
    time: Option<(u64, u64)>,
    /// Bytes of the message at hand.
    bytes: Box<[u8; MAX_BYTES]>,
}

impl Server {
    /// Takes the devices into use.
    pub(crate) fn start() -> Result<Self, Status> {
        let gate: Gate = named(GATE_NAME).ok_or(Status::BadHandle)?;
        let notification = Notification::create()?;
        gate.bind(*notification)?;
        let line = start_line(*notification)?;
        if line.is_none() {
            warn!("this machine has no second serial port: what guests print is lost");
        }
        let seconds = named(CLOCK).map_or(Ok(None), cmos::read)?;
        let time = seconds.map(|seconds| (seconds, clock_now_ns()));
        if time.is_none() {
            warn!("this machine has no clock that can be read");
        }
        message::buffer().accept_handles(1);
        let bytes = Box::new([0; MAX_BYTES]);
        Ok(Self { gate, _notification: notification, line, consoles: Consoles::new(), time, bytes })
    }

    /// Serves for as long as the gate works.
    pub(crate) fn serve(&mut self) -> Result<(), Status> {
        info!("ready");
        let mut received = self.gate.receive()?;
        loop {
            received = match received.message.tag.kind() {
                MessageKind::Notification => {
                    self.interrupted()?;
                    self.gate.receive()?
                }
                MessageKind::Call | MessageKind::Fault => {
                    let answer = self.request(&received)?;
                    self.gate.reply_receive(answer)?
                }
            };
        }
    }

    fn interrupted(&mut self) -> Result<(), Status> {
        if let Some(Line { uart, interrupt }) = &mut self.line {
            // First of all: the line is edge-triggered, so that a cause which comes up while it is held back would
            // never be told. What has come up until now is served below.
            interrupt.acknowledge()?;
            // The queue is taken out so that both it and the consoles can be changed.
            let mut output = core::mem::take(&mut self.consoles.output);
            let consoles = &mut self.consoles;
            let served = uart.serve(&mut output, |byte| {
                consoles.received(byte).into_iter().for_each(tell);
            });
            self.consoles.output = output;
            served?;
        }
        Ok(())
    }

    fn request(&mut self, received: &Received) -> Result<Message, Status> {
        let message = &received.message;
        // Taken over in any case, so that one that was not asked for is closed.
        let handle =
            message.handle(0).map(|HandleTransfer { handle, .. }| Owned::new(Notification::from_handle(handle)));
        let [guest, word, ..] = message.words;
        let owner = received.badge;
        let done = match message.tag.label() {
            REGISTER => handle.and_then(|notify| {
                let (is_registered, waiting) = self.consoles.register(guest, owner, notify);
                waiting.into_iter().for_each(tell);
                is_registered.then_some(0)
            }),
            WRITE => {
                let size = message.read(&mut *self.bytes);
                let taken = self.consoles.write(guest, owner, self.bytes.get(..size).unwrap_or_default());
                self.transmit()?;
                taken
            }
            READ => {
                let Some(size) = self.consoles.read(guest, owner, &mut *self.bytes) else { return Ok(refused()) };
                return Message::with(OK, [0; 4], self.bytes.get(..size).unwrap_or_default(), &[]);
            }
            ENDED => {
                let ended = EndStatus::from_raw(word).is_some_and(|status| self.consoles.end(guest, owner, status));
                self.transmit()?;
                ended.then_some(0)
            }
            MOVE => {
                let Some(order) = self.consoles.take_move(guest, owner) else { return Ok(refused()) };
                let words = order.map_or([0; 4], |(vcpu, cpu)| [1, vcpu.into(), cpu.into(), 0]);
                return Ok(Message::new(OK, words));
            }
            PENDING if self.consoles.is_owner(guest, owner) => Some(self.pending()?),
            TIME => {
                let Some((seconds, at_ns)) = self.time else { return Ok(refused()) };
                return Ok(Message::new(OK, [seconds, at_ns, 0, 0]));
            }
            _ => None,
        };
        Ok(done.map_or_else(refused, |word| Message::new(OK, [word as u64, 0, 0, 0])))
    }

    /// How many bytes have not left the machine yet.
    fn pending(&mut self) -> Result<usize, Status> {
        self.transmit()?;
        let Some(line) = &mut self.line else { return Ok(0) };
        Ok(self.consoles.output.len() + usize::from(!line.uart.has_sent_all()?))
    }

    fn transmit(&mut self) -> Result<(), Status> {
        match &mut self.line {
            Some(line) => line.uart.transmit(&mut self.consoles.output),
            None => {
                self.consoles.output.clear();
                Ok(())
            }
        }
    }
}

fn start_line(notification: Notification) -> Result<Option<Line>, Status> {
    let (Some(ports), Some(interrupt)) = (named::<Ports>(PORTS), named::<Interrupt>(INTERRUPT)) else {
        return Ok(None);
    };
    let Some(uart) = Uart::start(ports)? else { return Ok(None) };
    let cpu = Thread::FIRST.info()?.cpu as u32;
    interrupt.bind(notification, INTERRUPTED, cpu)?;
    interrupt.acknowledge()?;
    Ok(Some(Line { uart, interrupt }))
}

/// Tells a VMM that there is input.
fn tell(notify: &Owned<Notification>) {
    // Through a badged handle: the bits are the VMM's choice. It may be gone.
    let _ = notify.signal(1);
}

fn refused() -> Message {
    Message::new(REFUSED, [0; 4])
}
