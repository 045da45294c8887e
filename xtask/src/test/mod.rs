//! `cargo xtask test`: everything that must hold, in stages.
//!
//! [`plan`] is the table of stages and levels, [`work`] what they do, [`select`] applies the names on the command line, [`host`], [`boot`]
//! [`bench`], [`guests`], [`card`] and [`dpdk`] run the kinds of stage, [`protocol`] and [`cargo_output`] read what tests
//! say, [`defects`] knows what the emulators do wrong, [`nbd`] is a disk that loses its power, [`report`] counts and shows.

pub mod bench;
pub mod boot;
pub mod card;
pub mod cargo_output;
pub mod command;
mod defects;
mod devices;
mod dpdk;
pub mod guests;
pub mod host;
mod nbd;
pub mod plan;
pub mod protocol;
pub mod report;
pub mod select;
pub mod work;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    process::ExitCode,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Instant,
};

use anyhow::{Result, bail};

use self::{
    boot::BootStage,
    defects::run_or_again,
    guests::{
        GuestStage, bare::BareStage, direct::DirectBoots, host::GuestHost, power_cut, run_access, run_status,
        scenario::POWER_CUT,
    },
    host::HostStage,
    plan::{Level, STAGES, Stage},
    report::{Report, StageResult},
    select::Selection,
    work::{BootWork, HostWork, Subject, Work},
};
use crate::{
    bench::{exits, requests},
    build::{Parts, Project, cargo::Profile},
    cli::{Emulator, Test},
    emulator::interrupt,
    tools::Tools,
};

/// Machines that run at the same time, if none of them goes by the host's clock, so that they do not disturb each other.
const AT_ONCE: usize = 2;

/// Runs the tests that `arguments` select and prints the counts on the last line.
///
/// # Errors
/// Fails when the workspace cannot be read or the user interrupts. A stage that cannot run is a failed test instead.
pub fn run(tools: &Tools, arguments: &Test) -> Result<ExitCode> {
    let level = match arguments {
        Test { soak: true, .. } => Level::Soak,
        Test { quick: true, .. } => Level::Quick,
        _ => Level::Whole,
    };
    let names: Vec<_> = STAGES.iter().map(|stage| stage.name).collect();
    let selection = Selection::new(&arguments.names, &names);
    let selected: Vec<_> = plan::stages(level, arguments.emulator, &arguments.names)
        .filter_map(|stage| Some((*stage, selection.filters(stage.name)?)))
        .collect();
    if arguments.list {
        for (stage, filters) in &selected {
            let only = if filters.is_empty() { String::new() } else { format!(" (only {})", filters.join(", ")) };
            println!("{:<20} {}{only}", stage.name, stage.about);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if selected.is_empty() {
        bail!("no test of level {} is called so; `cargo xtask test --soak --list` has all stages", level.word());
    }
    let start = Instant::now();
    println!("{} of {} stages, level {}", selected.len(), STAGES.len(), level.word());
    let project = Project::load()?;
    let logs = project.build_folder("logs")?;
    let run = TestRun {
        tools,
        project: &project,
        level,
        logs: &logs,
        direct: DirectBoots::default(),
        report: Mutex::default(),
    };
    let mut boots = Vec::new();
    let mut others = Vec::new();
    for (stage, filters) in selected {
        match stage.work {
            Work::Host(work) => run.host(stage, work, filters)?,
            // Such a stage has no tests but those about booting.
            Work::Boot(work) if work.subject == Subject::Boot && !names_boot_test(&filters) => {}
            Work::Boot(work) => boots.push(Boot { name: stage.name, work, filters }),
            Work::Bench(_)
            | Work::Exits(_)
            | Work::Requests
            | Work::RequestsOnKvm
            | Work::Guests(_)
            | Work::PowerCut(_)
            | Work::BareGuests(_)
            | Work::Card(_)
            | Work::CardUnderDpdk
            | Work::RunStatus
            | Work::RunAccess => others.push((stage, filters)),
        }
    }
    run.boots(boots)?;
    let (exact, others): (Vec<_>, Vec<_>) = others.into_iter().partition(|(stage, _)| stage.work.is_exact());
    let perform = |(stage, filters): &(Stage, Vec<String>)| {
        println!("start  {}", stage.name);
        run.add(stage.name, run_or_again(|| run.perform(*stage, filters.clone())))
    };
    at_once(&exact, perform)?;
    // One at a time: a guest's clock is compared with the host's.
    others.iter().try_for_each(perform)?;
    let report = run.report.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("\n{:.0} s, logs in {}", start.elapsed().as_secs_f64(), logs.display());
    for line in report.summary() {
        println!("{line}");
    }
    Ok(if report.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Does the same with all of them, a few at a time in their order; the first error ends it.
fn at_once<T: Sync>(items: &[T], work: impl Fn(&T) -> Result<()> + Sync) -> Result<()> {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(item)?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().try_for_each(|worker| worker.join().unwrap_or_else(|_| bail!("a test thread panicked")))
    })
}

/// Whether filters leave any of the tests about booting.
fn names_boot_test(filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| filter.contains(boot::BOOT_TESTS))
}

/// One run of `cargo xtask test`.
struct TestRun<'a> {
    tools: &'a Tools,
    project: &'a Project,
    level: Level,
    logs: &'a Path,
    direct: DirectBoots,
    report: Mutex<Report>,
}

/// A boot that is to be made.
struct Boot {
    name: &'static str,
    work: BootWork,
    filters: Vec<String>,
}

impl TestRun<'_> {
    fn host(&self, stage: Stage, work: HostWork, filters: Vec<String>) -> Result<()> {
        println!("start  {}", stage.name);
        let result = HostStage {
            tools: self.tools,
            project: self.project,
            name: stage.name,
            work,
            level: self.level,
            filters,
            logs: self.logs,
        }
        .run();
        self.add(stage.name, result)
    }

    /// Builds what they need, once, and boots the machines, a few at a time.
    fn boots(&self, boots: Vec<Boot>) -> Result<()> {
        if boots.is_empty() {
            return Ok(());
        }
        println!("build  kernel, loader and bundle");
        let parts = match self.prepare(&boots) {
            Ok(parts) => parts,
            Err(error) => {
                for boot in &boots {
                    self.add(boot.name, Ok(StageResult::broken(boot.name, &error)))?;
                }
                return Ok(());
            }
        };
        at_once(&boots, |boot| {
            println!("start  {}", boot.name);
            // Of its bundle, which was built for it.
            match parts.get(boot.work.bundle()) {
                Some(parts) => self.add(boot.name, self.boot(boot, parts)),
                None => Ok(()),
            }
        })
    }

    /// Fetches the emulators before anything is timed, and builds.
    fn prepare(&self, boots: &[Boot]) -> Result<BTreeMap<&'static str, Parts>> {
        let wanted = |emulator| boots.iter().any(|boot| boot.work.emulator == emulator);
        self.tools.iso()?;
        if wanted(Emulator::Qemu) {
            self.tools.qemu()?;
        }
        if wanted(Emulator::Bochs) {
            self.tools.bochs()?;
        }
        let bundles: BTreeSet<_> = boots.iter().map(|boot| boot.work.bundle()).collect();
        bundles
            .into_iter()
            .map(|bundle| Ok((bundle, self.project.build(self.tools, bundle, Profile::Release)?)))
            .collect()
    }

    fn boot(&self, boot: &Boot, parts: &Parts) -> Result<StageResult> {
        BootStage {
            tools: self.tools,
            project: self.project,
            parts,
            name: boot.name,
            work: boot.work,
            level: self.level,
            filters: boot.filters.clone(),
            logs: self.logs,
        }
        .run()
    }

    /// Runs a stage that is neither a command on the host nor a boot of the test domain.
    fn perform(&self, stage: Stage, filters: Vec<String>) -> Result<StageResult> {
        let Self { tools, project, logs, direct, .. } = self;
        match stage.work {
            Work::Bench(emulator) => bench::run(tools, project, stage.name, emulator, &filters),
            Work::Exits(emulator) => bench::run_judged(stage.name, &filters, || exits::test(tools, project, emulator)),
            Work::Requests => bench::run_judged(stage.name, &filters, || requests::test(tools, project)),
            Work::RequestsOnKvm => bench::run_judged(stage.name, &filters, || requests::test_peer(tools, project)),
            Work::Card(devices) => card::run(tools, project, stage.name, devices, logs, &filters),
            Work::CardUnderDpdk => dpdk::run(tools, project, stage.name, logs, &filters),
            Work::RunStatus => run_status::run(tools, stage.name, logs, &filters),
            Work::RunAccess => run_access::run(tools, stage.name, logs, &filters),
            Work::Guests(scenario) => {
                let card_restarts = scenario.card_restarts;
                let host = GuestHost { tools, project, name: stage.name, filters, logs, card_restarts };
                GuestStage { host, scenario, direct }.run()
            }
            Work::PowerCut(cuts) => {
                let host = GuestHost { tools, project, name: stage.name, filters, logs, card_restarts: 0 };
                power_cut::run(&GuestStage { host, scenario: &POWER_CUT, direct }, cuts)
            }
            Work::BareGuests(scenario) => {
                let host = GuestHost { tools, project, name: stage.name, filters, logs, card_restarts: 0 };
                BareStage { host, scenario }.run()
            }
            Work::Host(_) | Work::Boot(_) => bail!("this stage runs elsewhere"),
        }
    }

    /// Takes a stage's result; one that could not run is a failure, but an interrupted run has no result.
    fn add(&self, name: &'static str, result: Result<StageResult>) -> Result<()> {
        if interrupt::requested() {
            bail!("interrupted");
        }
        let result = result.unwrap_or_else(|error| StageResult::broken(name, &error));
        self.report.lock().unwrap_or_else(PoisonError::into_inner).add(result);
        Ok(())
    }
}
