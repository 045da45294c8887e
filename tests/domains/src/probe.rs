//! Asks what an access does: a light thread makes it, and its fault, if there is one, comes here.
#![expect(unsafe_code, reason = "the accesses are machine code at known addresses")]

use core::arch::naked_asm;
use core::sync::atomic::{AtomicU64, Ordering};
use core::time::Duration;

use dragonfly_abi::arch::ThreadState;
use dragonfly_abi::{FaultKind, FaultReply, MessageKind, Rights, Status};
use dragonfly_rt::sys::{self, Domain, Gate, Message, Object, Received, exit_thread};
use dragonfly_rt::{message, time};

use crate::check::{Failure, Outcome};
use crate::light::{Builder, Entry, Words, handle};

/// How long tests wait for what must come, in nanoseconds: long enough for a host that runs four CPUs on one.
pub const LIMIT_NS: u64 = 30_000_000_000;

/// A fault as its handler learns of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The label.
    pub kind: u32,
    /// What the kernel tells in the message's words.
    pub words: [u64; 4],
    /// The badge.
    pub badge: u64,
    /// The registers.
    pub state: ThreadState,
}

impl Fault {
    /// The fault in a message, if it is one; read before the next call.
    #[must_use]
    pub fn of(received: &Received) -> Option<Self> {
        let Received { badge, message } = *received;
        (message.tag.kind() == MessageKind::Fault).then(|| Self {
            kind: message.tag.label(),
            words: message.words,
            badge,
            state: message::buffer().thread_state(),
        })
    }

    /// Whether it is a page fault at this address with this kind of access.
    #[must_use]
    pub fn is_page_fault(&self, address: u64, access: Rights) -> bool {
        self.kind == FaultKind::PageFault as u32
            && self.words[0] == address
            && self.words[2] == u64::from(access.bits())
    }
}

/// Reads a word at an address from a domain, on a CPU.
///
/// # Errors
/// A failure if it neither comes back nor faults. The inner error is the fault.
pub fn read(domain: Domain, cpu: u32, address: u64) -> Outcome<Result<u64, Fault>> {
    access(domain, cpu, reader, address, 0)
}

/// Writes a word at an address from a domain, on a CPU.
///
/// # Errors
/// As [`read`].
pub fn write(domain: Domain, cpu: u32, address: u64, value: u64) -> Outcome<Result<u64, Fault>> {
    access(domain, cpu, writer, address, value)
}

/// Runs the code at an address in a domain, on a CPU. The code is to end with `ret`.
///
/// # Errors
/// As [`read`].
pub fn execute(domain: Domain, cpu: u32, address: u64) -> Outcome<Result<u64, Fault>> {
    access(domain, cpu, executor, address, 0)
}

fn access(domain: Domain, cpu: u32, entry: Entry, address: u64, value: u64) -> Outcome<Result<u64, Fault>> {
    let gate = Gate::create()?;
    let given = domain.grant(*gate, Rights::SEND, 0)?;
    let result = {
        let _thread = Builder::new(cpu).fault_gate(*gate, 0).spawn(domain, entry, &[given.0.into(), address, value])?;
        let received = gate
            .receive_timed(LIMIT_NS)
            .map_err(|status| Failure::new(format_args!("nothing came of the access to {address:#x}: {status:?}")))?;
        match Fault::of(&received) {
            Some(fault) => {
                sys::reply(Message::new(FaultReply::End as u32, [0; 4]))?;
                Err(fault)
            }
            None => {
                sys::reply(Message::default())?;
                Ok(received.message.words[0])
            }
        }
    };
    // The domain's copy goes too.
    gate.revoke()?;
    Ok(result)
}

extern "C" fn reader(words: &Words) -> ! {
    // SAFETY: the thread is there to find out whether it may read; a fault goes to the tester.
    let value = unsafe { read_word(words[1]) };
    report(words[0], value)
}

extern "C" fn writer(words: &Words) -> ! {
    // SAFETY: tests name addresses where no Rust data is.
    unsafe { write_word(words[1], words[2]) };
    report(words[0], words[2])
}

extern "C" fn executor(words: &Words) -> ! {
    // SAFETY: tests put code there that returns, or nothing at all.
    let value = unsafe { run_code(words[1]) };
    report(words[0], value)
}

/// Tells the tester what came back, and ends.
fn report(gate: u64, value: u64) -> ! {
    let gate: Gate = handle(gate);
    let _ = gate.call(Message::new(0, [value, 0, 0, 0]));
    exit_thread()
}

/// # Safety
/// The thread must be able to bear a fault.
#[unsafe(naked)]
pub unsafe extern "C" fn read_word(address: u64) -> u64 {
    naked_asm!("mov rax, [rdi]", "ret")
}

/// # Safety
/// As for [`read_word`], and nothing of Rust's may be there.
#[unsafe(naked)]
pub unsafe extern "C" fn write_word(address: u64, value: u64) {
    naked_asm!("mov [rdi], rsi", "ret")
}

/// # Safety
/// As for [`read_word`], and the code there must return.
#[unsafe(naked)]
pub unsafe extern "C" fn run_code(address: u64) -> u64 {
    naked_asm!("jmp rdi")
}

/// Waits for a message for as long as it may take at most.
///
/// # Errors
/// A failure that says what did not come.
#[track_caller]
pub fn expect_message(gate: Gate, what: &str) -> Outcome<Received> {
    match gate.receive_timed(LIMIT_NS) {
        Ok(received) => Ok(received),
        Err(status) => Err(missing(what, status)),
    }
}

/// Waits for a fault for as long as it may take at most.
///
/// # Errors
/// A failure that says what did not come.
#[track_caller]
pub fn expect_fault(gate: Gate, what: &str) -> Outcome<Fault> {
    let received = match gate.receive_timed(LIMIT_NS) {
        Ok(received) => received,
        Err(status) => return Err(missing(what, status)),
    };
    match Fault::of(&received) {
        Some(fault) => Ok(fault),
        None => Err(Failure::new(format_args!("{what}: a message came that is no fault: {received:x?}"))),
    }
}

/// Waits for bits for as long as it may take at most.
///
/// # Errors
/// A failure that says what did not come.
#[track_caller]
pub fn expect_bits(notification: sys::Notification, what: &str) -> Outcome<u64> {
    match notification.wait_timed(LIMIT_NS) {
        Ok(bits) => Ok(bits),
        Err(status) => Err(missing(what, status)),
    }
}

/// Waits until a word has a value, for as long as it may take at most, and lets others run meanwhile.
///
/// # Errors
/// A failure that says what did not come.
#[track_caller]
pub fn expect_value(word: &AtomicU64, value: u64, what: &str) -> Outcome {
    expect_that(|| word.load(Ordering::Acquire) == value, what)
}

/// Waits until a condition holds, as [`expect_value`] does.
///
/// # Errors
/// A failure that says what did not come.
#[track_caller]
pub fn expect_that(condition: impl Fn() -> bool, what: &str) -> Outcome {
    let end = sys::clock_now_ns() + LIMIT_NS;
    while !condition() {
        if sys::clock_now_ns() > end {
            return Err(Failure::new(format_args!("{what}: did not come")));
        }
        pause();
    }
    Ok(())
}

/// Lets threads of lower priority run for a moment.
pub fn pause() {
    time::sleep(Duration::from_micros(50));
}

#[track_caller]
fn missing(what: &str, status: Status) -> Failure {
    Failure::new(format_args!("{what}: did not come: {status:?}"))
}
