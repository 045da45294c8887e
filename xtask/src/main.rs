//! `cargo xtask`: reads the command line and says what became of it.

#![forbid(unsafe_code)]

use std::{fs, process::ExitCode};

use anyhow::{Context, Result};
use clap::Parser;
use xtask::{
    bad_input::BadInput,
    bench,
    build::{Project, cargo::Profile, iso},
    clean,
    cli::{Bench, Cli, Doctor, Image, Task},
    emulator::interrupt,
    guest::{
        description::{self, Extras},
        disk,
    },
    run, test,
    tools::{Tools, doctor, kernel_size, rust},
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match perform(&cli) {
        Ok(code) => code,
        Err(_) if interrupt::requested() => {
            eprintln!("interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            if error.is::<BadInput>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn perform(cli: &Cli) -> Result<ExitCode> {
    let tools = Tools::new(cli.offline)?;
    match &cli.command {
        Task::Setup => {
            rust::ensure_components(cli.offline)?;
            rust::ensure_bare_target(cli.offline)?;
            tools.ensure_all()?;
            disk::ensure(&tools)?;
            rust::ensure_miri(cli.offline)?;
            println!("Everything is there; `cargo xtask doctor` shows it.");
        }
        Task::Doctor(Doctor { size: true }) => kernel_size::report(&Project::load()?.root)?,
        Task::Doctor(Doctor { size: false }) => {
            return Ok(if doctor::report(&tools)? { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Task::Build(arguments) => {
            let project = Project::load()?;
            let profile = Profile::from_debug(arguments.debug);
            let parts = match &arguments.bundle {
                Some(name) => project.build(&tools, name, profile)?,
                None => project.build_for_guests(&tools, &[], 1, profile)?,
            };
            println!("{}\n{}", parts.loader.display(), parts.kernel.display());
        }
        Task::Image(arguments) => write_image(&tools, arguments)?,
        Task::Run(arguments) => return run::run(&tools, arguments),
        Task::Test(arguments) => return test::run(&tools, arguments),
        Task::Bench(Bench::Ipc(arguments)) => bench::ipc::run(&tools, arguments)?,
        Task::Bench(Bench::Exits(arguments)) => bench::exits::run(&tools, arguments)?,
        Task::Bench(Bench::Requests(arguments)) => bench::requests::run(&tools, arguments)?,
        Task::Bench(Bench::Card(arguments)) => bench::card::run(&tools, arguments)?,
        Task::Clean(arguments) => clean::run(&tools, arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// `cargo xtask image`.
fn write_image(tools: &Tools, arguments: &Image) -> Result<()> {
    let project = Project::load()?;
    let profile = Profile::from_debug(arguments.debug);
    let parts = match &arguments.bundle {
        Some(name) => project.build(tools, name, profile)?,
        None => {
            let guests = description::guests(&arguments.guests, tools, &project.root, &Extras::default())?;
            description::check(&guests, description::HOST_CPUS_AT_MOST)?;
            project.build_for_guests(tools, &guests, arguments.cpus, profile)?
        }
    };
    let image = iso::make(&project, &tools.iso()?, &parts, &arguments.append)?;
    let bytes = fs::read(&image).with_context(|| format!("cannot read {}", image.display()))?;
    fs::write(&arguments.out, bytes).with_context(|| format!("cannot write {}", arguments.out.display()))?;
    println!("{}", arguments.out.display());
    Ok(())
}
