//! Boots a machine in an emulator, watches its serial line, and always ends the emulator.
//!
//! [`boot`] is the one way in, used by `run`, `test` and `bench`. [`qemu`] and [`bochs`] know their program's options,
//! [`serial`] turns bytes into lines, [`backtrace`] turns a panic's addresses into source lines.

pub mod backtrace;
pub mod bochs;
pub mod interrupt;
pub mod qemu;
mod qmp;
pub mod serial;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    process::Child,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use self::serial::{Event, LineSplitter};
use crate::{
    cli::{Acceleration, Emulator, Firmware},
    size::MemorySize,
    tools::Tools,
};

/// How long an emulator may take to end after the software said that it ends.
const GRACE: Duration = Duration::from_secs(5);
/// How often time limits and Ctrl-C are looked at while the machine says nothing.
const TICK: Duration = Duration::from_millis(50);

/// The machine to boot.
#[derive(Clone, Copy, Debug)]
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
    /// Whether the user's keys go to the machine's serial line. QEMU only.
    pub interactive: bool,
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
        }
    }
}

/// When to give up.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// For the whole boot.
    pub total: Option<Duration>,
    /// Without a line on the serial port.
    pub silence: Option<Duration>,
}

/// Sees what the machine says while it runs.
pub trait Watcher {
    /// Bytes as they come, for display.
    fn bytes(&mut self, _bytes: &[u8]) {}

    /// A whole line, without its end.
    fn line(&mut self, _line: &str) {}
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
    /// Where each CPU was when the machine was cut off, if the emulator tells.
    pub instruction_pointers: Vec<u64>,
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
    let mut observation = Observation::new(watcher);
    let end = loop {
        if let Some(end) = observation.over(start, limits) {
            break end;
        }
        match running.next_event() {
            Ok(Event::Bytes(bytes)) => observation.bytes(&bytes),
            Ok(Event::End) | Err(RecvTimeoutError::Disconnected) => {
                observation.last_line();
                // Ctrl-C reaches the emulator too, maybe sooner than this program's own handler.
                thread::sleep(TICK);
                break if interrupt::requested() { End::Interrupted } else { observation.end_of_machine() };
            }
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
    let instruction_pointers = monitor.and_then(|socket| qmp::instruction_pointers(socket).ok()).unwrap_or_default();
    drop(running);
    Ok(Boot { log, end, emulator_messages, instruction_pointers, duration })
}

/// What has been seen of a machine so far.
struct Observation<'a> {
    watcher: &'a mut dyn Watcher,
    splitter: LineSplitter,
    log: Vec<String>,
    exit: Option<u32>,
    panicked: bool,
    heard: Instant,
}

impl<'a> Observation<'a> {
    fn new(watcher: &'a mut dyn Watcher) -> Self {
        Self {
            watcher,
            splitter: LineSplitter::default(),
            log: Vec::new(),
            exit: None,
            panicked: false,
            heard: Instant::now(),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.watcher.bytes(bytes);
        for line in self.splitter.push(bytes) {
            self.line(line);
        }
    }

    fn line(&mut self, line: String) {
        self.heard = Instant::now();
        self.exit = self.exit.or_else(|| serial::exit_code(&line));
        self.panicked |= serial::is_panic(&line);
        self.watcher.line(&line);
        self.log.push(line);
    }

    /// The end, if the machine must not or need not run any longer.
    fn over(&self, start: Instant, limits: Limits) -> Option<End> {
        if interrupt::requested() {
            return Some(End::Interrupted);
        }
        let quiet = self.heard.elapsed();
        if (self.exit.is_some() || self.panicked) && quiet > GRACE {
            return Some(self.end_of_machine());
        }
        if let Some(limit) = limits.total.filter(|&limit| start.elapsed() > limit) {
            return Some(End::TimedOut(limit));
        }
        limits.silence.filter(|&limit| quiet > limit).map(End::Silent)
    }

    fn end_of_machine(&self) -> End {
        match self.exit {
            _ if self.panicked => End::Panic,
            Some(code) => End::Exit(code),
            None => End::Died,
        }
    }

    /// Takes what came after the last line end for a line.
    fn last_line(&mut self) {
        if let Some(rest) = self.splitter.rest() {
            self.line(rest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Deaf;

    impl Watcher for Deaf {}

    fn end_after(said: &[u8]) -> End {
        let mut deaf = Deaf;
        let mut observation = Observation::new(&mut deaf);
        observation.bytes(said);
        observation.last_line();
        observation.end_of_machine()
    }

    #[test]
    fn the_software_decides_how_its_boot_ended() {
        assert_eq!(end_after(b"hello\ndragonfly: exit 0\n"), End::Exit(0));
        assert_eq!(end_after(b"hello\ndragonfly: exit 3\n"), End::Exit(3));
        assert_eq!(end_after(b"the machine was off before the line end: dragonfly: exit 0"), End::Exit(0));
    }

    #[test]
    fn an_emulator_that_ends_unasked_is_a_crash() {
        assert_eq!(end_after(b"hello\n"), End::Died);
        assert_eq!(end_after(b""), End::Died);
    }

    #[test]
    fn a_panic_outranks_the_exit_that_follows_it() {
        assert_eq!(end_after(b"panic: at the disco\ndragonfly: exit 1\n"), End::Panic);
    }

    #[test]
    fn a_silent_machine_is_cut_off() {
        let mut deaf = Deaf;
        let observation = Observation::new(&mut deaf);
        let limits = Limits { total: None, silence: Some(Duration::ZERO) };
        assert_eq!(observation.over(Instant::now(), limits), Some(End::Silent(Duration::ZERO)));
    }
}
