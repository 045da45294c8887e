//! `offload-card`: reads the command line and the machine file, and serves until it is told to end.

#![forbid(unsafe_code)]

use std::{fs, path::Path, process::ExitCode, thread, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use log::{error, info, warn};
use offload_card::{
    card::Card,
    cli::{Cli, Command},
    journal,
    machine::Machine,
    rules::Rules,
    tool,
    worker::StopSignal,
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

/// Bad arguments, machine file, or something that it names.
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = journal::start(cli.log.into()) {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    if let Some(command) = &cli.command {
        let done = match command {
            Command::Volume(arguments) => tool::volume(arguments),
            Command::Snapshot(arguments) => tool::snapshot(arguments),
        };
        return match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                error!("{error:#}");
                ExitCode::from(BAD_INPUT)
            }
        };
    }
    let stop = match StopSignal::new() {
        Ok(stop) => stop,
        Err(error) => {
            error!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    let card = match prepare(&cli, stop) {
        Ok(Some(card)) => card,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            return ExitCode::from(BAD_INPUT);
        }
    };
    match card.wait() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn read(file: &Path) -> Result<Machine> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(Machine::parse(file, &text)?)
}

/// The card that the machine file describes, if it is to be served.
fn prepare(cli: &Cli, stop: StopSignal) -> Result<Option<Card>> {
    let file = cli.machine.as_ref().context("give a --machine file")?;
    let machine = read(file)?;
    if cli.check {
        Card::check(&machine)?;
        info!("{}: in order", file.display());
        return Ok(None);
    }
    // Before anything is served, so that whoever is served can end the process in order.
    let signals = Signals::new([SIGHUP, SIGINT, SIGTERM]).context("cannot take signals")?;
    let mut card = Card::start(&machine, Duration::from_micros(cli.poll), stop.clone())?;
    let (rules, file) = (card.take_rules(), file.clone());
    let obey = move || obey(signals, &stop, rules.as_ref(), &file);
    // It ends with the process.
    thread::Builder::new().name("signals".into()).spawn(obey).context("cannot start a thread")?;
    Ok(Some(card))
}

/// Does what signals say, until one of them is to end the process.
fn obey(mut signals: Signals, stop: &StopSignal, rules: Option<&Rules>, file: &Path) {
    for signal in signals.forever() {
        if signal != SIGHUP {
            info!("told to end");
            stop.stop();
            return;
        }
        match (rules, read(file)) {
            (Some(rules), Ok(machine)) => rules.change(&machine),
            (None, _) => warn!("told to read the rules anew, but there is no network device"),
            (_, Err(error)) => warn!("{error:#}: the rules stay as they are"),
        }
    }
}
