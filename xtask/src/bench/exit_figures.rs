//! What exits cost on Dragonfly and on KVM, and what they may cost.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::cli::Emulator;

/// Figures of both by name: `{"exits": {"cpuid": {"dragonfly": 1, "kvm": 10}}}` as JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExitFigures {
    /// The figures, in ticks of the time-stamp counter, which are instructions.
    pub exits: BTreeMap<String, Pair>,
}

/// One figure of both. Either has what its machine has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    /// Dragonfly's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dragonfly: Option<u64>,
    /// KVM's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kvm: Option<u64>,
}

/// A figure that may be at most some part of KVM's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExitGoal {
    /// Its name.
    pub figure: &'static str,
    /// The part that may not be exceeded is one of so many: on SVM, and on VT-x.
    parts: (u64, u64),
}

/// The figures with a goal.
pub const EXIT_GOALS: [ExitGoal; 5] = [
    ExitGoal { figure: "cpuid", parts: (10, 6) },
    ExitGoal { figure: "hypercall", parts: (10, 6) },
    ExitGoal { figure: "port_write", parts: (5, 10) },
    ExitGoal { figure: "mmio_write", parts: (5, 10) },
    ExitGoal { figure: "guest_start", parts: (1, 1) },
];

impl ExitGoal {
    /// One of how many parts of KVM's figure is allowed. QEMU has SVM, Bochs VT-x.
    #[must_use]
    pub fn part(&self, emulator: Emulator) -> u64 {
        match emulator {
            Emulator::Qemu => self.parts.0,
            Emulator::Bochs => self.parts.1,
        }
    }

    /// The goal of a figure, if it has one.
    #[must_use]
    pub fn of(figure: &str) -> Option<Self> {
        EXIT_GOALS.into_iter().find(|goal| goal.figure == figure)
    }
}

impl Pair {
    /// KVM's figure is so many times Dragonfly's; none where one is missing.
    #[must_use]
    pub fn ratio(self) -> Option<f64> {
        Some(self.kvm? as f64 / self.dragonfly.filter(|value| *value > 0)? as f64)
    }

    /// Whether both are there and Dragonfly's is at most one of so many parts of KVM's.
    #[must_use]
    pub fn reaches(self, parts: u64) -> bool {
        self.dragonfly.zip(self.kvm).is_some_and(|(dragonfly, kvm)| dragonfly.saturating_mul(parts) <= kvm)
    }
}

impl ExitFigures {
    /// Reads committed figures.
    ///
    /// # Errors
    /// Fails when there is no such file, or it holds something else.
    pub fn read(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("{} holds no figures of exits", path.display()))
    }

    /// Writes them.
    ///
    /// # Errors
    /// Fails when the file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        fs::write(path, text + "\n").with_context(|| format!("cannot write {}", path.display()))
    }

    /// Takes figures of Dragonfly's.
    pub fn set_dragonfly(&mut self, figures: &BTreeMap<String, u64>) {
        for (name, value) in figures {
            self.exits.entry(name.clone()).or_default().dragonfly = Some(*value);
        }
    }

    /// Takes figures of KVM's.
    pub fn set_kvm(&mut self, figures: &BTreeMap<String, u64>) {
        for (name, value) in figures {
            self.exits.entry(name.clone()).or_default().kvm = Some(*value);
        }
    }

    /// A table for people.
    #[must_use]
    pub fn table(&self, emulator: Emulator) -> Vec<String> {
        let mut lines = vec![format!("{:<16} {:>12} {:>12} {:>8}", "instructions", "Dragonfly", "KVM", "ratio")];
        let shown = |value: Option<u64>| value.map_or("-".into(), |value| value.to_string());
        for (name, pair) in &self.exits {
            let ratio = pair.ratio().map_or(String::new(), |ratio| format!("{ratio:.1}"));
            let goal = ExitGoal::of(name).map_or(String::new(), |goal| {
                let part = goal.part(emulator);
                format!("goal {part}: {}", if pair.reaches(part) { "met" } else { "MISSED" })
            });
            let line = format!("{name:<16} {:>12} {:>12} {ratio:>8}  {goal}", shown(pair.dragonfly), shown(pair.kvm));
            lines.push(line.trim_end().into());
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair(dragonfly: u64, kvm: u64) -> Pair {
        Pair { dragonfly: Some(dragonfly), kvm: Some(kvm) }
    }

    #[test]
    fn a_goal_is_reached_at_its_part_and_missed_above_or_without_a_figure() {
        assert!(pair(100, 1000).reaches(10));
        assert!(!pair(101, 1000).reaches(10));
        assert!(!Pair { dragonfly: Some(1), kvm: None }.reaches(10));
    }

    #[test]
    fn goals_depend_on_the_back_end() {
        let goal = ExitGoal::of("port_write").unwrap();
        assert_eq!((goal.part(Emulator::Qemu), goal.part(Emulator::Bochs)), (5, 10));
        assert_eq!(ExitGoal::of("eoi"), None);
    }

    #[test]
    fn figures_survive_being_written_and_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exits.json");
        let mut figures = ExitFigures::default();
        figures.set_dragonfly(&BTreeMap::from([("cpuid".into(), 250)]));
        figures.set_kvm(&BTreeMap::from([("cpuid".into(), 2800), ("timer".into(), 9)]));
        figures.write(&path).unwrap();
        assert_eq!(ExitFigures::read(&path).unwrap(), figures);
        let json: serde_json::Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
        assert_eq!(json["exits"]["cpuid"], serde_json::json!({ "dragonfly": 250, "kvm": 2800 }));
    }

    #[test]
    fn the_table_says_which_goals_are_met() {
        let mut figures = ExitFigures::default();
        figures.set_dragonfly(&BTreeMap::from([("cpuid".into(), 250), ("hypercall".into(), 400)]));
        figures.set_kvm(&BTreeMap::from([("cpuid".into(), 2800), ("hypercall".into(), 3000)]));
        let table = figures.table(Emulator::Qemu);
        assert!(table[1].ends_with("11.2  goal 10: met") && table[2].ends_with("7.5  goal 10: MISSED"), "{table:#?}");
    }
}
