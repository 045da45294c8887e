//! `cargo xtask bench exits`: what exits of virtual machines cost, beside KVM's.

use std::path::PathBuf;

use anyhow::Result;

use super::{
    dragonfly,
    exit_figures::{EXIT_GOALS, ExitFigures},
    kvm,
};
use crate::{
    build::Project,
    cli::{BenchExits, Emulator, Peer},
    test::report::Outcome,
    tools::Tools,
};

/// More than so much above the committed figure is a step back, in percent.
const TOLERANCE: u64 = 5;

/// Measures, prints the figures and writes them where asked to.
///
/// # Errors
/// Fails when a build fails or a machine gives no figures. A missed goal is told, and fails the tests.
pub fn run(tools: &Tools, arguments: &BenchExits) -> Result<()> {
    let project = Project::load()?;
    let emulator = arguments.emulator;
    let mut figures = ExitFigures::default();
    match arguments.vs {
        Some(Peer::Kvm) => figures.set_kvm(&kvm::measure(tools, &project, emulator)?),
        // There may be none yet.
        None => figures = only_kvm(ExitFigures::read(&committed(&project, emulator)).unwrap_or_default()),
    }
    figures.set_dragonfly(&dragonfly::measure(tools, &project, emulator)?);
    for line in figures.table(emulator) {
        println!("{line}");
    }
    if let Some(path) = &arguments.json {
        figures.write(path)?;
    }
    Ok(())
}

/// Where the committed figures are.
fn committed(project: &Project, emulator: Emulator) -> PathBuf {
    project.root.join(format!("tests/figures/exits-{}.json", emulator.word()))
}

fn only_kvm(mut figures: ExitFigures) -> ExitFigures {
    figures.exits.values_mut().for_each(|pair| pair.dragonfly = None);
    figures
}

/// Measures Dragonfly's side and judges it by the committed figures and the goals; gives the table too.
///
/// # Errors
/// Fails when there are no committed figures, or the machine gives none.
pub fn test(tools: &Tools, project: &Project, emulator: Emulator) -> Result<(Vec<Outcome>, Vec<String>)> {
    let committed = ExitFigures::read(&committed(project, emulator))?;
    let mut now = only_kvm(committed.clone());
    now.set_dragonfly(&dragonfly::measure(tools, project, emulator)?);
    Ok((judge(&committed, &now, emulator), now.table(emulator)))
}

fn judge(committed: &ExitFigures, now: &ExitFigures, emulator: Emulator) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for (name, before) in &committed.exits {
        let Some(before) = before.dragonfly else { continue };
        let title = format!("{name} is no dearer than it was");
        outcomes.push(match now.exits.get(name).and_then(|pair| pair.dragonfly) {
            None => Outcome::failed(&title, "it was not measured"),
            Some(value) if value * 100 > before * (100 + TOLERANCE) => {
                Outcome::failed(&title, &format!("{value}, and was {before}: more than {TOLERANCE} % above"))
            }
            Some(_) => Outcome::passed(&title),
        });
    }
    for goal in EXIT_GOALS {
        let part = goal.part(emulator);
        // What the peer has not been measured at has no goal yet.
        let Some(pair) = now.exits.get(goal.figure).copied().filter(|pair| pair.kvm.is_some()) else { continue };
        let title = format!("{} costs at most 1/{part} of KVM's", goal.figure);
        outcomes.push(if pair.reaches(part) {
            Outcome::passed(&title)
        } else {
            let ratio = pair.ratio().map_or("it was not measured".into(), |ratio| format!("it costs 1/{ratio:.1}"));
            Outcome::failed(&title, &ratio)
        });
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn figures(cpuid: u64) -> ExitFigures {
        let mut figures = ExitFigures::default();
        figures.set_dragonfly(&BTreeMap::from([("cpuid".into(), cpuid)]));
        figures.set_kvm(&BTreeMap::from([("cpuid".into(), 3000)]));
        figures
    }

    fn failed(before: u64, now: u64) -> Vec<String> {
        let outcomes = judge(&figures(before), &figures(now), Emulator::Qemu).into_iter();
        outcomes.filter_map(|outcome| Some(format!("{}: {}", outcome.name, outcome.failure?))).collect()
    }

    #[test]
    fn a_figure_may_rise_by_a_twentieth() {
        assert!(failed(200, 210).is_empty());
        assert_eq!(failed(200, 211), ["cpuid is no dearer than it was: 211, and was 200: more than 5 % above"]);
    }

    #[test]
    fn a_missed_goal_fails_even_if_it_was_missed_before() {
        assert_eq!(failed(400, 400), ["cpuid costs at most 1/10 of KVM's: it costs 1/7.5"]);
    }

    #[test]
    fn a_figure_that_is_missing_fails() {
        let now = only_kvm(figures(1));
        assert_eq!(judge(&figures(1), &now, Emulator::Qemu).iter().filter(|it| it.failure.is_some()).count(), 2);
    }
}
