//! The stages that measure: what is measured must be the same twice, and good enough.

use std::time::Instant;

use anyhow::Result;

use super::{
    report::{Outcome, StageResult},
    select::is_wanted,
};
use crate::{
    bench::ipc::{self, Figures, GOALS},
    build::Project,
    cli::Emulator,
    tools::Tools,
};

/// Measures twice in `emulator` and judges the figures.
///
/// # Errors
/// Fails when a machine gives no figures.
pub fn run(
    tools: &Tools,
    project: &Project,
    stage: &'static str,
    emulator: Emulator,
    filters: &[String],
) -> Result<StageResult> {
    let start = Instant::now();
    let first = ipc::figures(project, tools, emulator)?;
    let second = ipc::figures(project, tools, emulator)?;
    let mut outcomes = judge(&first, &second);
    outcomes.retain(|outcome| is_wanted(&outcome.name, filters));
    Ok(StageResult {
        stage,
        outcomes,
        notes: first.iter().map(|(name, value)| format!("{name}: {value}")).collect(),
        excerpt: Vec::new(),
        log: None,
        duration: start.elapsed(),
    })
}

/// Measures something that judges itself; what is measured goes into the report.
///
/// # Errors
/// Fails when the measurement does.
pub fn run_judged(
    stage: &'static str,
    filters: &[String],
    measure: impl FnOnce() -> Result<(Vec<Outcome>, Vec<String>)>,
) -> Result<StageResult> {
    let start = Instant::now();
    let (mut outcomes, notes) = measure()?;
    outcomes.retain(|outcome| is_wanted(&outcome.name, filters));
    Ok(StageResult { stage, outcomes, notes, excerpt: Vec::new(), log: None, duration: start.elapsed() })
}

fn judge(first: &Figures, second: &Figures) -> Vec<Outcome> {
    let mut outcomes = vec![if first == second {
        Outcome::passed("figures repeat exactly")
    } else {
        Outcome::failed("figures repeat exactly", &differences(first, second))
    }];
    for goal in GOALS {
        let name = format!("{} is at most {}", goal.figure, goal.at_most);
        outcomes.push(if goal.is_met(first) {
            Outcome::passed(&name)
        } else {
            let measured =
                first.get(goal.figure).map_or("it was not measured".into(), |value| format!("it is {value}"));
            Outcome::failed(&name, &measured)
        });
    }
    outcomes
}

fn differences(first: &Figures, second: &Figures) -> String {
    let show = |value: Option<&serde_json::Number>| value.map_or("nothing".into(), ToString::to_string);
    let mut names: Vec<_> = first.keys().chain(second.keys()).collect();
    names.sort();
    names.dedup();
    let differing = names.into_iter().filter(|name| first.get(*name) != second.get(*name));
    let shown = differing.map(|name| format!("{name}: {} and {}", show(first.get(name)), show(second.get(name))));
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(null_syscall: u64) -> Figures {
        Figures::from([("null_syscall".into(), null_syscall.into()), ("one_way_same_cpu".into(), 200_u64.into())])
    }

    fn failed(first: &Figures, second: &Figures) -> Vec<String> {
        let outcomes = judge(first, second).into_iter();
        outcomes.filter_map(|outcome| Some(format!("{}: {}", outcome.name, outcome.failure?))).collect()
    }

    #[test]
    fn good_figures_that_repeat_pass() {
        assert!(failed(&figures(50), &figures(50)).is_empty());
    }

    #[test]
    fn figures_that_differ_fail_and_are_shown() {
        assert_eq!(failed(&figures(50), &figures(51)), ["figures repeat exactly: null_syscall: 50 and 51"]);
    }

    #[test]
    fn a_goal_without_a_figure_is_missed() {
        assert_eq!(failed(&Figures::new(), &Figures::new()).len(), GOALS.len());
    }
}
