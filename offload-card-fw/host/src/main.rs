//! `offload-card`: reads the command line and the machine file, and serves until it is told to end.

#![forbid(unsafe_code)]

use std::{fs, process::ExitCode, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use log::{error, info};
use offload_card::{card::Card, cli::Cli, journal, machine::Machine};

/// Bad arguments, machine file, or something that it names.
const BAD_INPUT: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = journal::start(cli.log.into()) {
        eprintln!("error: {error}");
        return ExitCode::FAILURE;
    }
    let card = match prepare(&cli) {
        Ok(Some(card)) => card,
        Ok(None) => return ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            return ExitCode::from(BAD_INPUT);
        }
    };
    match serve(card) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// The card that the machine file describes, if it is to be served.
fn prepare(cli: &Cli) -> Result<Option<Card>> {
    let file = &cli.machine;
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let machine = Machine::parse(file, &text)?;
    if cli.check {
        Card::check(&machine)?;
        info!("{}: in order", file.display());
        return Ok(None);
    }
    Card::start(&machine, Duration::from_micros(cli.poll)).map(Some)
}

fn serve(card: Card) -> Result<()> {
    let stop = card.stop_signal();
    ctrlc::set_handler(move || {
        info!("told to end");
        stop.stop();
    })?;
    card.wait()
}
