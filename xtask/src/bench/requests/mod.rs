//! What a request to the card costs a guest in the hypervisor, in instructions and exits, beside KVM with vhost-net and
//! QEMU's disk.
//!
//! `tests/guests/requests` is the guest. Exits are counted by whoever runs it and told at its end: [`costs`] takes the
//! difference of two runs, one with more requests of a kind. Instructions are those of the whole machine, as the guest
//! counts them; nothing sleeps meanwhile.

mod dragonfly;
mod kvm;

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result, ensure};
use dragonfly_peer_image::Figures;
use serde::{Deserialize, Serialize};

use crate::{
    build::{Project, cargo::Program},
    cli::{BenchRequests, Peer},
    test::report::Outcome,
    tools::Tools,
};

/// The guest that makes requests.
const GUEST: Program<'_> = Program { package: "dragonfly-guest-requests", bin: "guest-requests", features: &[] };

/// A kind of requests.
#[derive(Clone, Copy, Debug)]
struct Case {
    /// The guest's name for it.
    name: &'static str,
    /// How many are made.
    requests: u32,
    /// Whether the guest looks for what was done instead of being interrupted.
    is_polling: bool,
}

const fn case(name: &'static str, requests: u32, is_polling: bool) -> Case {
    Case { name, requests, is_polling }
}

/// All kinds: the number in the name is how many are made at a time.
const CASES: [Case; 6] = [
    case("block_1", 1000, true),
    case("block_32", 3200, true),
    case("block_32_interrupts", 3200, false),
    case("packet_1", 1000, true),
    case("packet_32", 3200, true),
    case("packet_32_interrupts", 3200, false),
];

/// How many times more of one kind are made in the run that tells what that kind costs. Such a run has some hundred exits more
/// or less for other reasons on KVM, where QEMU, a firmware and timers are at work, too.
const MORE: u32 = 10;

/// More than so much above the committed figure is a step back, in percent.
const TOLERANCE: f64 = 5.0;

/// What the guest measured of a kind.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Cost {
    /// Instructions of the whole machine for each request.
    instructions: u64,
    /// Doorbells that the guest rang for each request.
    kicks: f64,
}

/// What one run of the guest gave.
#[derive(Clone, Debug)]
struct Totals {
    costs: BTreeMap<String, Cost>,
    /// Exits of the whole run.
    exits: u64,
    /// Those of them that reached the VMM, where that is known.
    vmm_exits: Option<u64>,
}

impl Totals {
    fn new<'a>(printed: impl IntoIterator<Item = &'a str>, exits: u64, vmm_exits: Option<u64>) -> Result<Self> {
        let figures = Figures::read(printed);
        ensure!(figures.is_complete(), "the guest did not come to its end");
        // Of the two numbers of a line, the guest's second one is in thousandths.
        let costs = figures.iter().map(|(name, figure)| {
            let cost = Cost { instructions: figure.minimum, kicks: figure.median as f64 / 1000.0 };
            (name.to_string(), cost)
        });
        Ok(Self { costs: costs.collect(), exits, vmm_exits })
    }
}

/// What requests of a kind cost.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct RequestCost {
    /// Instructions of the whole machine for each.
    pub instructions: u64,
    /// Exits for each, whoever deals with them.
    pub exits: f64,
    /// Those that reach the VMM, where that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vmm_exits: Option<f64>,
    /// Doorbells that the guest rings for each.
    pub kicks: f64,
}

/// Costs by kind.
pub type Costs = BTreeMap<String, RequestCost>;

/// The guest's command line: how many requests of each kind, and [`MORE`] times as many beside them of the one kind `more`.
fn request_counts(more: Option<&str>) -> String {
    let mut line = String::new();
    for Case { name, requests, .. } in CASES {
        let times = if more == Some(name) { 1 + MORE } else { 1 };
        // Writing to a string cannot fail.
        let _ = write!(line, "{name}={} ", requests * times);
    }
    line.trim_end().into()
}

/// Costs from a run, and one more run for each kind with more requests of that.
fn costs(base: &Totals, more: &[Totals]) -> Result<Costs> {
    let each = CASES.iter().zip(more).map(|(Case { name, requests, .. }, more)| {
        let requests = f64::from(requests * MORE);
        let per_request = |more: u64, base: u64| hundredths((more as f64 - base as f64) / requests);
        let cost = more.costs.get(*name).with_context(|| format!("the guest did not measure {name}"))?;
        let cost = RequestCost {
            instructions: cost.instructions,
            exits: per_request(more.exits, base.exits),
            vmm_exits: more.vmm_exits.zip(base.vmm_exits).map(|(more, base)| per_request(more, base)),
            kicks: cost.kicks,
        };
        Ok(((*name).to_string(), cost))
    });
    each.collect()
}

/// Rounds, and has no number below zero. What the machine does beside the requests is an exit more or less for a thousand of them.
fn hundredths(value: f64) -> f64 {
    ((value * 100.0).round() / 100.0).max(0.0)
}

/// What both cost, as it is written to files.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct RequestFigures {
    /// On Dragonfly.
    pub dragonfly: Costs,
    /// On KVM with vhost-net and QEMU.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub kvm: Costs,
}

impl RequestFigures {
    /// Reads the committed figures.
    ///
    /// # Errors
    /// Fails when there is no such file, or it holds something else.
    pub fn committed(project: &Project) -> Result<Self> {
        let path = project.root.join("tests/figures/requests-qemu.json");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no figures of requests", path.display()))
    }

    fn write(&self, path: &Path) -> Result<()> {
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("cannot write {}", path.display()))
    }

    /// A table for people.
    #[must_use]
    pub fn table(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{:<22} {:>12} {:>8} {:>8} {:>8} | {:>12} {:>8} {:>8}",
            "for each request", "instructions", "exits", "to VMM", "kicks", "KVM: instr.", "exits", "kicks"
        )];
        for (name, cost) in &self.dragonfly {
            let RequestCost { instructions, exits, vmm_exits, kicks } = cost;
            let vmm_exits = vmm_exits.map_or("-".into(), |exits| exits.to_string());
            let mut line = format!("{name:<22} {instructions:>12} {exits:>8} {vmm_exits:>8} {kicks:>8} |");
            if let Some(RequestCost { instructions, exits, kicks, .. }) = self.kvm.get(name) {
                let _ = write!(line, " {instructions:>12} {exits:>8} {kicks:>8}");
            }
            lines.push(line);
        }
        lines
    }

    /// The figures that `bench card` writes beside those of the host, by name.
    #[must_use]
    pub fn named(&self) -> BTreeMap<String, f64> {
        let mut named = BTreeMap::new();
        for (costs, peer) in [(&self.dragonfly, ""), (&self.kvm, "kvm_")] {
            for (kind, name) in [("packet", "packet"), ("block", "block_request")] {
                if let Some(cost) = costs.get(&format!("{kind}_1")) {
                    named.insert(format!("{peer}exits_per_{name}"), cost.exits);
                    named.insert(format!("{peer}instructions_per_{name}"), cost.instructions as f64);
                }
            }
        }
        named
    }
}

/// Measures, prints the figures and writes them where asked to.
///
/// # Errors
/// Fails when a build fails or a machine gives no figures.
pub fn run(tools: &Tools, arguments: &BenchRequests) -> Result<()> {
    let project = Project::load()?;
    let kvm = match arguments.vs {
        Some(Peer::Kvm) => kvm::measure(tools, &project)?,
        None => committed_kvm(&project),
    };
    let figures = RequestFigures { kvm, dragonfly: dragonfly::measure(tools, &project)? };
    for line in figures.table() {
        println!("{line}");
    }
    arguments.json.as_ref().map_or(Ok(()), |path| figures.write(path))
}

/// Measures; KVM's figures are those that were committed.
///
/// # Errors
/// Fails when a build fails or a machine gives no figures.
pub fn measure(tools: &Tools, project: &Project) -> Result<RequestFigures> {
    Ok(RequestFigures { kvm: committed_kvm(project), dragonfly: dragonfly::measure(tools, project)? })
}

/// KVM's figures as they were committed; there may be none yet.
fn committed_kvm(project: &Project) -> Costs {
    RequestFigures::committed(project).unwrap_or_default().kvm
}

/// Measures Dragonfly's side and judges it by the committed figures; gives the table too.
///
/// # Errors
/// Fails when there are no committed figures, or the machine gives none.
pub fn test(tools: &Tools, project: &Project) -> Result<(Vec<Outcome>, Vec<String>)> {
    let committed = RequestFigures::committed(project)?;
    let now = measure(tools, project)?;
    Ok((judge(&committed.dragonfly, &now.dragonfly), now.table()))
}

/// Measures KVM's side and compares the committed figures of Dragonfly's with it; gives the table too.
///
/// # Errors
/// Fails when there are no committed figures, or the machine gives none.
pub fn test_peer(tools: &Tools, project: &Project) -> Result<(Vec<Outcome>, Vec<String>)> {
    let figures = RequestFigures { kvm: kvm::measure(tools, project)?, ..RequestFigures::committed(project)? };
    Ok((compare(&figures), figures.table()))
}

/// No request costs more than on KVM, in instructions or exits.
fn compare(RequestFigures { dragonfly, kvm }: &RequestFigures) -> Vec<Outcome> {
    let compared = CASES.map(|Case { name, .. }| {
        let title = format!("{name} costs no more than on KVM");
        match (dragonfly.get(name), kvm.get(name)) {
            (Some(own), Some(peer)) if own.instructions <= peer.instructions && own.exits <= peer.exits => {
                Outcome::passed(&title)
            }
            (own, peer) => Outcome::failed(&title, &format!("{own:?}; KVM: {peer:?}")),
        }
    });
    compared.into()
}

fn judge(committed: &Costs, now: &Costs) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for Case { name, is_polling, .. } in CASES {
        let title = format!("{name} costs no more than it did");
        let (Some(before), Some(cost)) = (committed.get(name), now.get(name)) else {
            outcomes.push(Outcome::failed(&title, "there is no figure"));
            continue;
        };
        let pairs = [
            ("instructions", before.instructions as f64, cost.instructions as f64),
            ("exits", before.exits, cost.exits),
        ];
        let risen = pairs.iter().filter(|(_, before, now)| *now > before * (1.0 + TOLERANCE / 100.0));
        let risen: Vec<_> = risen.map(|(what, before, now)| format!("{now} {what}, and were {before}")).collect();
        outcomes.push(if risen.is_empty() {
            Outcome::passed(&title)
        } else {
            Outcome::failed(&title, &risen.join("; "))
        });
        if is_polling {
            let title = format!("{name} causes no exit while card and guest are awake");
            outcomes.push(if cost.exits == 0.0 && cost.kicks == 0.0 {
                Outcome::passed(&title)
            } else {
                Outcome::failed(&title, &format!("{} exits and {} kicks for each", cost.exits, cost.kicks))
            });
        }
    }
    outcomes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn totals(exits: u64) -> Totals {
        let lines: Vec<_> = CASES.iter().map(|case| format!("[bench] {} 700 31", case.name)).collect();
        Totals::new(lines.iter().map(String::as_str).chain(["[bench] end"]), exits, Some(exits / 2)).unwrap()
    }

    fn all(exits: f64, instructions: u64) -> Costs {
        let cost = RequestCost { instructions, exits, vmm_exits: None, kicks: 0.0 };
        CASES.iter().map(|case| (case.name.to_string(), cost)).collect()
    }

    fn failures(committed: &Costs, now: &Costs) -> Vec<String> {
        judge(committed, now)
            .into_iter()
            .filter_map(|outcome| Some(format!("{}: {}", outcome.name, outcome.failure?)))
            .collect()
    }

    #[test]
    fn exits_of_a_request_are_the_difference_of_two_runs() {
        let more: Vec<_> = CASES.iter().map(|case| totals(500 + 20 * u64::from(case.requests))).collect();
        let costs = costs(&totals(500), &more).unwrap();
        let expected = RequestCost { instructions: 700, exits: 2.0, vmm_exits: Some(1.0), kicks: 0.031 };
        assert!(costs.len() == CASES.len() && costs.values().all(|cost| *cost == expected), "{costs:?}");
    }

    #[test]
    fn a_run_may_have_more_requests_of_one_kind() {
        assert!(request_counts(None).starts_with("block_1=1000 block_32=3200 "));
        assert!(request_counts(Some("block_32")).starts_with("block_1=1000 block_32=35200 "));
    }

    #[test]
    fn figures_may_rise_by_a_twentieth_but_polling_never_exits() {
        assert!(failures(&all(0.0, 1000), &all(0.0, 1050)).is_empty());
        assert_eq!(failures(&all(0.0, 1000), &all(0.0, 1051)).len(), CASES.len());
        let failures = failures(&all(0.5, 1), &all(0.5, 1));
        assert_eq!(failures.len(), CASES.iter().filter(|case| case.is_polling).count());
        assert!(failures[0].contains("0.5 exits"), "{failures:?}");
    }

    #[test]
    fn a_request_may_cost_what_it_costs_on_kvm_and_no_more() {
        let failures = |dragonfly, kvm| {
            let outcomes = compare(&RequestFigures { dragonfly, kvm });
            outcomes.iter().filter(|outcome| outcome.failure.is_some()).count()
        };
        assert_eq!(failures(all(0.0, 10), all(0.0, 10)), 0);
        assert_eq!(failures(all(0.0, 11), all(0.0, 10)), CASES.len());
        assert_eq!(failures(all(0.1, 1), all(0.0, 10)), CASES.len());
        assert_eq!(failures(all(0.0, 1), Costs::new()), CASES.len());
    }

    #[test]
    fn a_kind_without_figures_fails() {
        assert_eq!(failures(&all(0.0, 1), &Costs::new()).len(), CASES.len());
    }

    #[test]
    fn requests_one_at_a_time_are_those_that_the_card_is_known_by() {
        let figures = RequestFigures { dragonfly: all(0.0, 900), kvm: all(1.0, 9000) };
        let named = figures.named();
        assert_eq!((named["exits_per_packet"], named["kvm_exits_per_block_request"]), (0.0, 1.0));
        assert_eq!(named["kvm_instructions_per_packet"], 9000.0);
    }
}
