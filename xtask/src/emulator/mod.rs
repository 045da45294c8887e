//! Boots a machine in an emulator, watches its serial line, and always ends the emulator.
//!
//! [`boot`] is the one way in, used by `run`, `test` and `bench`. [`qemu`] and [`bochs`] know their program's options,
//! [`serial`] turns bytes into lines, [`backtrace`] turns a panic's addresses into source lines.

pub mod backtrace;
pub mod bochs;
pub mod devices;
pub mod interrupt;
mod observation;
pub(crate) mod pseudo_terminal;
pub mod qemu;
mod qmp;
pub mod serial;

use std::{
    fmt,
    fs::{self, File},
    path::{Path, PathBuf},
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use self::{devices::Devices, observation::Observation, qmp::CpuStates, serial::Event};
use crate::{
    cli::{Acceleration, Emulator, Firmware},
    size::MemorySize,
    tools::Tools,
};

/// How often time limits and Ctrl-C are looked at while the machine says nothing.
const TICK: Duration = Duration::from_millis(50);

/// How long the second serial line may take to end after the first.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The machine to boot.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Program that emulates it.
    pub emulator: Emulator,
    /// Number of CPUs.
    pub cpus: u32,
    /// Memory.
    pub memory: MemorySize,
    /// Firmware.
    pub firmware: Firmware,
    /// How QEMU runs instructions.
    pub acceleration: Acceleration,
    /// One instruction is one nanosecond, so that figures repeat exactly. Bochs is always so.
    pub deterministic: bool,
    /// Whether QEMU waits for a debugger.
    pub debugger: bool,
    /// Whether the user's keys go to the machine's first serial line. QEMU only.
    pub interactive: bool,
    /// Whether there is a second serial line, which carries the guests' consoles.
    pub guests: bool,
    /// Whether KVM is to run in the machine: for Bochs that is a CPU without posted interrupts, whose descriptors Bochs
    /// wants aligned as KVM's are not.
    pub kvm: bool,
    /// Disks and an uplink. QEMU only.
    pub devices: Devices,
}

impl Machine {
    /// A machine with default memory and firmware, for tests and benchmarks.
    #[must_use]
    pub fn new(emulator: Emulator, cpus: u32) -> Self {
        Self {
            emulator,
            cpus,
            memory: MemorySize::DEFAULT,
            firmware: Firmware::Bios,
            acceleration: Acceleration::Tcg,
            deterministic: false,
            debugger: false,
            interactive: false,
            guests: false,
            kvm: false,
            devices: Devices::default(),
        }
    }
}

/// When to give up. What hangs is silent; how long a whole boot takes is a matter of what else the machine does.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// For the whole boot.
    pub total: Option<Duration>,
    /// Without a line of the kernel or a byte of a guest.
    pub silence: Option<Duration>,
}

/// Sees what the machine says while it runs.
pub trait Watcher {
    /// Bytes as they come, for display.
    fn bytes(&mut self, _bytes: &[u8]) {}

    /// A whole line, without its end.
    fn line(&mut self, _line: &str) {}

    /// The machine has been started.
    fn started(&mut self, _line: GuestLine) {}

    /// Bytes of the second serial line as they come.
    fn guests(&mut self, _bytes: &[u8]) {}

    /// The user typed something.
    fn typed(&mut self, _bytes: &[u8]) {}

    /// Called between events, at least every 50 ms; true ends the machine in the user's name.
    fn wants_end(&mut self) -> bool {
        false
    }
}

/// The way to the guests, for a [`Watcher`].
#[derive(Clone, Debug)]
pub struct GuestLine {
    /// What is sent here goes to the second serial line.
    pub input: Sender<Vec<u8>>,
    /// What is sent here comes back to the watcher in its turn.
    pub events: Sender<Event>,
}

/// A boot that is over.
#[derive(Debug)]
pub struct Boot {
    /// Everything the machine said.
    pub log: Vec<String>,
    /// How it ended.
    pub end: End,
    /// What the emulator itself had to say, if it ended unasked.
    pub emulator_messages: String,
    /// What the CPUs were doing when the machine was cut off, if the emulator tells.
    pub cpu_states: CpuStates,
    /// Wall time from start to end.
    pub duration: Duration,
}

/// How a boot ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The software said `dragonfly: exit N`.
    Exit(u32),
    /// The kernel panicked.
    Panic,
    /// The emulator ended although the software had not said so.
    Died,
    /// The machine ran longer than it may.
    TimedOut(Duration),
    /// The machine said nothing for longer than it may.
    Silent(Duration),
    /// The user pressed Ctrl-C.
    Interrupted,
}

impl End {
    /// Whether the software ended by itself and was content.
    #[must_use]
    pub fn is_clean(self) -> bool {
        self == Self::Exit(0)
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(0) => f.write_str("clean exit"),
            Self::Exit(code) => write!(f, "exit with code {code}"),
            Self::Panic => f.write_str("kernel panic"),
            Self::Died => f.write_str("the machine stopped without a word"),
            Self::TimedOut(limit) => write!(f, "time-out after {} s", limit.as_secs()),
            Self::Silent(limit) => write!(f, "hang: no output for {} s", limit.as_secs()),
            Self::Interrupted => f.write_str("interrupted"),
        }
    }
}

/// An emulator that has been started. Dropping it kills the process.
#[derive(Debug)]
pub struct Running {
    child: Child,
    events: Receiver<Event>,
    /// The second serial line, if there is one.
    guests: Option<GuestLine>,
    /// The end of a pseudo-terminal that is held open until the emulator has ended, and then ends the other.
    held: Option<File>,
    /// Tells the reader of a serial file that the emulator has ended; a pipe's reader sees that itself.
    ended: Option<Arc<AtomicBool>>,
    messages: Messages,
    /// Socket of QEMU's machine protocol.
    monitor: Option<PathBuf>,
    /// Holds the emulator's configuration and state files; removed with it.
    _folder: tempfile::TempDir,
}

/// The files that the emulator writes what it has to say itself to, the most telling first.
#[derive(Debug)]
struct Messages(Vec<PathBuf>);

impl Messages {
    /// The last lines of the first file that has any: they tell why it stopped.
    fn last_lines(&self) -> String {
        const LINES: usize = 30;
        let texts = self.0.iter().filter_map(|path| fs::read(path).ok()).filter(|bytes| !bytes.is_empty());
        let text = texts.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).next().unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LINES)..].join("\n")
    }
}

impl Running {
    /// What the serial line did next, if it did anything within a tick.
    fn next_event(&mut self) -> Result<Event, RecvTimeoutError> {
        if let Some(ended) = &self.ended
            && !ended.load(Ordering::SeqCst)
            && self.child.try_wait().is_ok_and(|status| status.is_some())
        {
            ended.store(true, Ordering::SeqCst);
            self.held = None;
        }
        self.events.recv_timeout(TICK)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Both fail only when the process is gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if let Some(ended) = &self.ended {
            ended.store(true, Ordering::SeqCst);
        }
    }
}

/// Boots `image` on `machine` and watches it to its end.
///
/// # Errors
/// Fails when the emulator cannot be had or started; whatever the machine does is an [`End`].
pub fn boot(tools: &Tools, machine: &Machine, image: &Path, limits: Limits, watcher: &mut dyn Watcher) -> Result<Boot> {
    interrupt::listen()?;
    let mut running = match machine.emulator {
        Emulator::Qemu => qemu::start(&tools.qemu()?, machine, image)?,
        Emulator::Bochs => bochs::start(&tools.bochs()?, machine, image)?,
    };
    let start = Instant::now();
    if let Some(line) = &running.guests {
        watcher.started(line.clone());
    }
    let mut guests_end = running.guests.is_none();
    let mut observation = Observation::new(watcher);
    // Set when the machine has ended and only what is left on the second serial line is waited for.
    let mut ended: Option<Instant> = None;
    let end = loop {
        if ended.is_some_and(|ended| guests_end || ended.elapsed() > LAST_WORDS) {
            observation.last_line();
            // Ctrl-C reaches the emulator too, maybe sooner than this program's own handler.
            thread::sleep(TICK);
            break if interrupt::requested() { End::Interrupted } else { observation.end_of_machine() };
        }
        if let Some(end) = observation.over(start, limits) {
            break end;
        }
        match running.next_event() {
            Ok(Event::Bytes(bytes)) => observation.bytes(&bytes),
            Ok(Event::Guests(bytes)) => observation.guests(&bytes),
            Ok(Event::Typed(bytes)) => observation.typed(&bytes),
            Ok(Event::GuestsEnd) => guests_end = true,
            Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => ended = ended.or_else(|| Some(Instant::now())),
            Err(RecvTimeoutError::Timeout) => {}
        }
    };
    let duration = start.elapsed();
    observation.last_line();
    let log = observation.log;
    let emulator_messages = if end == End::Died { running.messages.last_lines() } else { String::new() };
    let was_cut_off = matches!(end, End::TimedOut(_) | End::Silent(_));
    let monitor = running.monitor.as_deref().filter(|_| was_cut_off);
    // Help in the search for a hang; without it the log must do.
    let cpu_states = monitor.and_then(|socket| qmp::cpu_states(socket, machine.cpus).ok()).unwrap_or_default();
    drop(running);
    Ok(Boot { log, end, emulator_messages, cpu_states, duration })
}
