//! Runs the tests, each in a domain of its own.
//!
//! The same program plays both parts. The runner starts it again for each test, with the test's number among the
//! arguments. It waits for the result, a fault or the end of the time, destroys the domain, and compares: the account
//! and the machine's free pages must be what they were.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use dragonfly_abi::{FaultKind, FaultReply, HandleInfo, MessageKind, PAGE_SIZE, Rights, StartHandles, Status};
use dragonfly_rt::loader::{Grant, Launch, Program, launch};
use dragonfly_rt::sys::{
    self, Domain, DomainSettings, Gate, Message, Notification, Object, Owned, Received, System, Thread, ThreadSettings,
};
use dragonfly_rt::{argument, arguments, cpus, named, println, supervisor};

use crate::check::{Failure, Outcome, equal, that};
use crate::light::{self, Segment};
use crate::options::Options;
use crate::tests::{Context, TOPICS, Test};

/// Name of this program in the bundle.
const PROGRAM: &str = "kernel-tests";

/// Label of the message that brings a test's result: the first word is 1 if it passed, the data says why it failed.
const RESULT: u32 = 1;

/// Priority of a test's first thread: above the threads that it makes, below the runner.
const TEST_PRIORITY: u8 = 55;

/// The most that a message's data says of a failure.
const MESSAGE_SIZE: usize = 1000;

/// Badge of faults, which is no domain's.
const FAULT: u64 = 1 << 63;

/// The program's entry.
pub fn run() {
    match argument("role") {
        Some("test") => run_one(),
        _ => {
            let exit_code = match run_all() {
                Ok((passed, failed)) => {
                    println!("[test] end {passed} {failed}");
                    u8::from(failed > 0)
                }
                Err(failure) => {
                    println!("[test] fail runner/the tests can be started: {failure}");
                    println!("[test] end 0 1");
                    1
                }
            };
            let _ = supervisor::finish(exit_code);
        }
    }
}

/// Runs the tests that the arguments select; gives how many passed and failed.
fn run_all() -> Outcome<(u64, u64)> {
    let options = Options::parse(arguments()).map_err(|word| Failure::new(format_args!("bad argument {word}")))?;
    let program = light::find_program(PROGRAM)?;
    let runner = Runner::new(&program, options)?;

    let (mut passed, mut failed) = (0, 0);
    let mut index = 0;
    for (topic, tests) in TOPICS {
        for test in *tests {
            let name = format!("{topic}/{}", test.name);
            let number = index;
            index += 1;
            if !runner.options.selects(&name) {
                continue;
            }
            if cpus() < test.cpus {
                println!("[test] note {name}: needs {} CPUs, so it is no part of this run", test.cpus);
                continue;
            }
            println!("[test] start {name}");
            match runner.run(number, test) {
                Ok(()) => {
                    println!("[test] pass {name}");
                    passed += 1;
                }
                Err(failure) => {
                    println!("[test] fail {name}: {failure}");
                    failed += 1;
                }
            }
        }
    }
    Ok((passed, failed))
}

/// What all tests are started from.
struct Runner<'a> {
    program: &'a Program<'a>,
    options: Options<'a>,
    /// The parts of the program that nobody writes to, for the tests' light domains.
    segments: Vec<Segment>,
    /// Results and faults come here.
    gate: Owned<Gate>,
    /// Set when a test's domain has ended; bound to the gate.
    death: Owned<Notification>,
    priority: u8,
}

impl<'a> Runner<'a> {
    fn new(program: &'a Program<'a>, options: Options<'a>) -> Outcome<Self> {
        let segments = light::load(program)?;
        let (gate, death) = (Gate::create()?, Notification::create()?);
        gate.bind(*death)?;
        let priority = Thread::FIRST.info()?.priority as u8;
        that(priority > TEST_PRIORITY, format_args!("the runner's priority {priority} is not above the tests'"))?;
        let runner = Self { program, options, segments, gate, death, priority };
        // The first start makes the heap and the handle table as large as they have to be, so that the figures after
        // the later ones can be compared.
        runner.start(u64::MAX)?.destroy()?;
        runner.forget_messages();
        Ok(runner)
    }

    /// Runs one test and checks that everything it took is back.
    fn run(&self, number: u64, test: &Test) -> Outcome {
        let before = Figures::take()?;
        let started = sys::clock_now_ns();
        let child = self.start(number)?;
        let limit_ns = test.limit_s * self.options.level.choose(1, 3, 60) * 1_000_000_000;
        let result = self.wait(started, limit_ns);
        let destroyed = child.destroy();
        self.forget_messages();
        result?;
        destroyed?;
        before.compare(&Figures::take()?)
    }

    /// Starts a test in a new domain.
    fn start(&self, number: u64) -> Outcome<dragonfly_rt::loader::Child> {
        let own = Domain::OWN.info()?;
        let settings = DomainSettings {
            quota: (own.quota.saturating_sub(own.used) / 2).min(1 << 30),
            max_priority: self.priority - 1,
            cpus: (1 << cpus()) - 1,
            death: Some((*self.death, 1)),
        };
        let mut words = format!("role=test name=test case={number}");
        for word in arguments().split_ascii_whitespace() {
            if word.starts_with("test.") && !word.starts_with("test.filter") || word.starts_with("log=") {
                words.push(' ');
                words.push_str(word);
            }
        }
        let mut grants = Vec::new();
        let names: Vec<String> = (0..self.segments.len()).map(segment_name).collect();
        for (name, Segment { memory, address, size, rights }) in names.iter().zip(&self.segments) {
            words.push_str(&format!(" {name}={address},{size},{}", rights.bits()));
            grants.push(Grant { name, handle: memory.handle(), rights: *rights | Rights::COPY, badge: 0 });
        }
        let rights = Rights::SEND | Rights::COPY;
        grants.push(Grant { name: supervisor::GATE_NAME, handle: self.gate.handle(), rights, badge: 0 });
        let started = launch(&Launch {
            program: self.program,
            settings,
            cpu: 0,
            priority: TEST_PRIORITY,
            thread: ThreadSettings {
                budget_ns: 10_000_000,
                period_ns: 10_000_000,
                fault_gate: Some((*self.gate, FAULT)),
                report_exhaustion: false,
            },
            system: Rights::COPY | Rights::READ | Rights::LOG | Rights::DEVICES | Rights::DMA,
            bundle: None,
            grants: &grants,
            arguments: &words,
        });
        started.map_err(Failure::new)
    }

    /// Waits for a test's result.
    fn wait(&self, started_ns: u64, limit_ns: u64) -> Outcome {
        let left_ns = (started_ns + limit_ns).saturating_sub(sys::clock_now_ns());
        let received = match self.gate.receive_timed(left_ns.max(1)) {
            Ok(received) => received,
            Err(Status::TimedOut) => {
                return Err(Failure::new(format_args!("no result after {} s", limit_ns / 1_000_000_000)));
            }
            Err(status) => return Err(status.into()),
        };
        let message = received.message;
        match message.tag.kind() {
            MessageKind::Notification => Err(Failure::new("the test's domain ended without a result")),
            MessageKind::Fault => {
                let failure = describe_fault(&received);
                sys::reply(Message::new(FaultReply::End as u32, [0; 4]))?;
                Err(failure)
            }
            MessageKind::Call => {
                let mut text = [0; MESSAGE_SIZE];
                let length = message.read(&mut text);
                sys::reply(Message::default())?;
                if message.tag.label() == RESULT && message.words[0] == 1 {
                    return Ok(());
                }
                let text = text.get(..length).unwrap_or_default();
                Err(Failure::reported(&String::from_utf8_lossy(text)))
            }
        }
    }

    /// Takes what a destroyed domain may have left at the gate: its death, mostly.
    fn forget_messages(&self) {
        while self.gate.receive_timed(0).is_ok() {}
    }
}

fn describe_fault(received: &Received) -> Failure {
    let [subject, rip, detail, rsp] = received.message.words;
    let kind = received.message.tag.label();
    let name = FaultKind::from_raw(kind).map_or(format!("{kind}"), |kind| format!("{kind:?}"));
    Failure::new(format_args!("unexpected fault {name}: {subject:#x} at {rip:#x}, detail {detail:#x}, stack {rsp:#x}"))
}

/// What must be the same before and after a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Figures {
    used: u64,
    handles: u64,
    free_pages: u64,
}

impl Figures {
    fn take() -> Outcome<Self> {
        let own = Domain::OWN.info()?;
        let (free_pages, _) = System::OWN.free_pages()?;
        Ok(Self { used: own.used, handles: own.handles, free_pages })
    }

    /// The runner's own heap may have grown: that is in its account as well.
    fn compare(&self, after: &Self) -> Outcome {
        equal("handles of the runner after the test", after.handles, self.handles)?;
        let grown = after.used.saturating_sub(self.used).div_ceil(PAGE_SIZE);
        equal("free pages after the test", after.free_pages + grown, self.free_pages)?;
        that(after.used >= self.used, "the runner's account has less in it than before the test")?;
        that(grown <= 64, format_args!("the runner's account has grown by {grown} pages"))
    }
}

/// Name of a part of the program among a test's handles and arguments.
fn segment_name(index: usize) -> String {
    format!("segment.{index}")
}

/// The parts of the program as the arguments tell them.
fn given_segments() -> Vec<Segment> {
    let segment = |index| {
        let name = segment_name(index);
        let mut numbers = argument(&name)?.split(',').map(|number| number.parse::<u64>().ok());
        let (address, size, rights) = (numbers.next()??, numbers.next()??, numbers.next()??);
        let rights = Rights::from_bits(u32::try_from(rights).ok()?)?;
        Some(Segment { memory: named(&name)?, address, size, rights })
    };
    (0..).map_while(segment).collect()
}

/// Runs the test that the arguments name and tells the runner.
fn run_one() {
    let Some(gate) = named::<Gate>(supervisor::GATE_NAME) else { return };
    light::set_program(given_segments());
    let number: u64 = argument("case").and_then(|number| number.parse().ok()).unwrap_or(u64::MAX);
    let test = usize::try_from(number).ok().and_then(|number| {
        TOPICS.iter().flat_map(|(topic, tests)| tests.iter().map(move |test| (topic, test))).nth(number)
    });
    let outcome = match test {
        Some((topic, test)) => {
            let options = Options::parse(arguments()).unwrap_or_default();
            (test.run)(&Context { name: format!("{topic}/{}", test.name), options })
        }
        None => Err(Failure::new("there is no such test")),
    };
    let text = outcome.as_ref().map_or_else(|failure| format!("{failure}"), |()| String::new());
    let text = text.as_bytes();
    let text = text.get(..text.len().min(MESSAGE_SIZE)).unwrap_or_default();
    if let Ok(message) = Message::with(RESULT, [outcome.is_ok().into(), 0, 0, 0], text, &[]) {
        let _ = gate.call(message);
    }
}

/// The handles that a test's domain starts with, for tests about them.
///
/// # Errors
/// What `HandleInfo` gives.
pub fn start_handles() -> Outcome<[HandleInfo; 3]> {
    Ok([
        Domain::from_handle(StartHandles::DOMAIN).handle_info()?,
        Thread::from_handle(StartHandles::THREAD).handle_info()?,
        System::from_handle(StartHandles::SYSTEM).handle_info()?,
    ])
}
