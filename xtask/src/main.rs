//! `cargo xtask`: reads the command line and says what became of it.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;
use xtask::{
    cli::{Cli, Task},
    tools::{Tools, doctor, rust},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match perform(&cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn perform(cli: &Cli) -> anyhow::Result<ExitCode> {
    let tools = Tools::new(cli.offline)?;
    match &cli.command {
        Task::Setup => {
            rust::ensure_bare_target(cli.offline)?;
            tools.ensure_all()?;
            rust::ensure_miri(cli.offline)?;
            Ok(ExitCode::SUCCESS)
        }
        Task::Doctor => Ok(if doctor::report(&tools)? { ExitCode::SUCCESS } else { ExitCode::FAILURE }),
        _ => anyhow::bail!("not built yet"),
    }
}
