//! `offload-card`: reads the command line and the machine file, and serves until it is told to end.

#![forbid(unsafe_code)]

use std::{fs, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use log::{error, info};
use offload_card::{card::Card, cli::Cli, journal, machine::Machine, worker::StopSignal};

/// Bad arguments, machine file, or something that it names.
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = journal::start(cli.log.into()) {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    // Before anything is served, so that whoever is served can end the process in order.
    let stop = match stop_on_signals() {
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

/// A signal for workers that SIGINT and SIGTERM give.
fn stop_on_signals() -> Result<StopSignal> {
    let stop = StopSignal::new()?;
    let signal = stop.clone();
    ctrlc::set_handler(move || {
        info!("told to end");
        signal.stop();
    })?;
    Ok(stop)
}

/// The card that the machine file describes, if it is to be served.
fn prepare(cli: &Cli, stop: StopSignal) -> Result<Option<Card>> {
    let file = &cli.machine;
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let machine = Machine::parse(file, &text)?;
    if cli.check {
        Card::check(&machine)?;
        info!("{}: in order", file.display());
        return Ok(None);
    }
    Card::start(&machine, Duration::from_micros(cli.poll), stop).map(Some)
}
