//! Which stages and which of their tests the names on the command line select.

/// Whether `filters` leave a test with this name: there are none, or the name contains one.
#[must_use]
pub fn is_wanted(name: &str, filters: &[String]) -> bool {
    filters.is_empty() || filters.iter().any(|filter| name.contains(filter.as_str()))
}

/// The names given; none selects everything.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    given: Vec<String>,
    /// All stages there are, to tell a stage's name from a test's.
    stages: Vec<&'static str>,
}

impl Selection {
    /// A selection among `stages`.
    #[must_use]
    pub fn new(names: &[String], stages: &[&'static str]) -> Self {
        Self { given: names.into(), stages: stages.into() }
    }

    /// Filters for the tests of `stage`: none if the stage is not selected, no filter if all of it is.
    ///
    /// `STAGE/TEST` selects tests of the stages that contain `STAGE`; a name that is part of a stage's name selects
    /// that stage (unless another is called just that); any other name selects tests in every stage.
    #[must_use]
    pub fn filters(&self, stage: &str) -> Option<Vec<String>> {
        if self.given.is_empty() {
            return Some(Vec::new());
        }
        let mut filters = Vec::new();
        let mut selected = false;
        for name in &self.given {
            let test = match name.split_once('/') {
                Some((start, test)) if self.names_some(start) => {
                    if !self.names(start, stage) {
                        continue;
                    }
                    test
                }
                _ if self.names_some(name) => {
                    if !self.names(name, stage) {
                        continue;
                    }
                    ""
                }
                _ => name,
            };
            if test.is_empty() {
                return Some(Vec::new());
            }
            selected = true;
            filters.push(test.to_string());
        }
        selected.then_some(filters)
    }

    /// Whether `name` means `stage`: it is its name or, if no stage is called that, a part of it.
    fn names(&self, name: &str, stage: &str) -> bool {
        if self.stages.contains(&name) { stage == name } else { stage.contains(name) }
    }

    fn names_some(&self, name: &str) -> bool {
        self.stages.iter().any(|stage| self.names(name, stage))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filters(names: &[&str], stage: &str) -> Option<Vec<String>> {
        let names: Vec<_> = names.iter().map(|name| name.to_string()).collect();
        Selection::new(&names, &["host", "lint-host", "miri", "qemu-1cpu", "qemu-2cpu", "bochs-1cpu"]).filters(stage)
    }

    #[test]
    fn names_select_stages_and_tests_by_substring() {
        let all = Some(Vec::new());
        let only = |test: &str| Some(vec![test.to_string()]);
        for (names, stage, expected) in [
            (&[][..], "host", all.clone()),
            (&["host"], "host", all.clone()),
            (&["host"], "lint-host", None),
            (&["hos"], "lint-host", all.clone()),
            (&["host"], "miri", None),
            (&["qemu"], "qemu-2cpu", all.clone()),
            (&["qemu-2cpu/ipc"], "qemu-2cpu", only("ipc")),
            (&["qemu-2cpu/ipc"], "qemu-1cpu", None),
            (&["1cpu/ipc/call"], "bochs-1cpu", only("ipc/call")),
            (&["revoke"], "host", only("revoke")),
            (&["ipc/call"], "qemu-1cpu", only("ipc/call")),
            (&["qemu-1cpu/"], "qemu-1cpu", all.clone()),
            (&["qemu-1cpu/a", "qemu-1cpu"], "qemu-1cpu", all.clone()),
        ] {
            assert_eq!(filters(names, stage), expected, "{names:?} {stage}");
        }
    }

    #[test]
    fn filters_leave_the_tests_whose_names_contain_one() {
        let filters = ["ipc".to_string(), "revoke".to_string()];
        assert!(is_wanted("an ipc call", &filters) && is_wanted("revoke", &filters) && is_wanted("lock", &[]));
        assert!(!is_wanted("lock", &filters));
    }

    #[test]
    fn several_tests_may_be_named() {
        assert_eq!(filters(&["miri/lock", "revoke"], "miri"), Some(vec!["lock".into(), "revoke".into()]));
    }
}
