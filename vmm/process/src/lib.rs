//! The VMM: runs one guest.
//!
//! [`plan`] reads the machine file that the argument `machine=N` names, [`guest`] builds the machine of it: RAM, devices,
//! vCPUs, the kernel in its memory. Each vCPU is run by a thread of its own ([`vcpu`]), which enters the guest by a system
//! call, does what the exit asks for, and enters again. What threads need of each other is [`shared`]: the devices under a
//! lock, which an exit takes only if it is about a device. Disks and networks are the offload card's ([`card`]). One more thread serves the console and the devices' timers
//! ([`service`]) until the guest comes to its end: then a crash has been reported on the log, the console server is told,
//! and the guest is started anew if it asked for that.
//!
//! Files and guest are foreign. A description that cannot be run is one line on the log; nothing that a guest does ends
//! more than itself.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;

mod card;
mod clock;
mod console;
mod cpuid;
mod crash;
mod end;
mod exits;
mod guest;
mod plan;
mod problem;
mod ram;
mod service;
mod shared;
mod vcpu;

use alloc::sync::Arc;

use dragonfly_abi::Status;
use dragonfly_console::protocol::EndStatus;
use dragonfly_machine_file::OnReboot;
use dragonfly_rt::sys::{Domain, Notification, Thread};
use dragonfly_rt::thread::Builder;
use dragonfly_rt::{argument, bundle, cpus, supervisor};
use log::{error, info, warn};

use card::Card;
use console::Console;
use end::End;
use plan::Plan;
use problem::{Problem, at};
use shared::wake;

/// Exit code of the domain after a description that cannot be run.
const BAD_INPUT: u8 = 2;

/// Exit code of the domain after a guest's crash.
const CRASHED: u8 = 3;

/// The program.
pub fn run() {
    let mut watch = None;
    let exit_code = match plan::number(argument("machine")) {
        Ok(number) => {
            let (status, exit_code) = match run_guest(number, &mut watch) {
                Ok(End::Crash) => (EndStatus::Crashed, CRASHED),
                Ok(End::PowerOff | End::Reset) => (EndStatus::PoweredOff, 0),
                Err(problem) => {
                    error!("{problem}");
                    (EndStatus::BadInput, BAD_INPUT)
                }
            };
            let console = Console::new(number);
            console.ended(status);
            console.drain();
            exit_code
        }
        Err(problem) => {
            error!("{problem}");
            BAD_INPUT
        }
    };
    // The supervisor may be what is gone.
    let _: Result<(), Status> = supervisor::finish(exit_code);
    // Last of all, as it is ended wherever it is, which may be in the heap: that is nobody's any more then.
    if let Some(Err(status)) = watch.map(Thread::destroy) {
        warn!("the thread that looks after the offload card cannot be ended: {status}");
    }
}

/// Runs the guest until it is over; gives the thread that looks after the card, which runs on.
fn run_guest(number: u32, watch: &mut Option<Thread>) -> Result<End, Problem> {
    let events = at("make a notification", Notification::create())?.keep();
    // First of all, so that the console server takes from this domain how it ends.
    at("register with the console server", Console::new(number).register(events, wake::INPUT))?;
    let bundle = bundle().ok_or(Problem::NoBundle)?;
    let plan = Plan::read(bundle, number)?;
    let account = at("ask for the own account", Domain::OWN.info())?;
    plan.check(cpus(), account.quota.saturating_sub(account.used))?;
    // Above the vCPUs, which would keep console and timers waiting for their turn to end. Where the domain has no such
    // priority they have to.
    let cpu = at("ask for the first thread's CPU", Thread::FIRST.info())?.cpu as u32;
    let above = Builder::new(cpu, plan.file.priority.saturating_add(1));
    let card = Card::find(&plan.file, number)?;
    *watch = card.as_ref().and_then(|card| card.watch(cpu, plan.file.priority));
    let lives = {
        let (plan, card) = (plan.clone(), card.clone());
        move || run_lives(&plan, card.as_ref(), number, events)
    };
    match above.spawn(lives) {
        Ok(thread) => at("wait for the guest's end", thread.join())?,
        Err(_) => run_lives(&plan, card.as_ref(), number, events),
    }
}

/// Runs the guest again for as long as it asks for that.
fn run_lives(plan: &Plan<'_>, card: Option<&Arc<Card>>, number: u32, events: Notification) -> Result<End, Problem> {
    let mut console = Console::new(number);
    loop {
        let end = guest::live(plan, card, &mut console, events)?;
        info!("{} {}", plan.file.name, end.text());
        if end != End::Reset || plan.file.on_reboot == OnReboot::PowerOff {
            return Ok(end);
        }
        console.ended(EndStatus::Rebooted);
    }
}
