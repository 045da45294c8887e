//! How each domain fares, and what follows from it.

use alloc::vec::Vec;

use dragonfly_bundle::{OnFinish, Plan};

/// Exit code of a system in which an essential domain died.
const DIED: u8 = 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// It runs, and has said that it will end with this code.
    Running { announced: u8 },
    /// It ended by itself.
    Finished { exit_code: u8 },
    /// It died and stays down.
    Dead,
}

#[derive(Clone, Debug)]
struct Entry {
    essential: bool,
    restarts_left: u32,
    state: State,
}

/// The domains of a plan, by their index in it.
#[derive(Clone, Debug)]
pub(crate) struct Ledger {
    on_finish: OnFinish,
    entries: Vec<Entry>,
}

impl Ledger {
    /// All domains of the plan, running.
    pub(crate) fn new(plan: &Plan) -> Self {
        let entries = plan.domains.iter().map(|domain| Entry {
            essential: domain.essential,
            restarts_left: domain.restarts,
            state: State::Running { announced: 0 },
        });
        Self { on_finish: plan.on_finish, entries: entries.collect() }
    }

    pub(crate) fn is_running(&self, index: usize) -> bool {
        self.entries.get(index).is_some_and(|entry| matches!(entry.state, State::Running { .. }))
    }

    /// A domain has said with which code it will end.
    pub(crate) fn announce(&mut self, index: usize, exit_code: u8) {
        if let Some(Entry { state: State::Running { announced }, .. }) = self.entries.get_mut(index) {
            *announced = exit_code;
        }
    }

    /// A domain's last thread has ended without a fault; gives its exit code.
    pub(crate) fn finished(&mut self, index: usize) -> Option<u8> {
        let entry = self.entries.get_mut(index)?;
        let State::Running { announced } = entry.state else { return None };
        entry.state = State::Finished { exit_code: announced };
        Some(announced)
    }

    /// A domain has died; gives how often it may be started again after the start that is now due, or `None` if it
    /// stays down.
    pub(crate) fn died(&mut self, index: usize) -> Option<u32> {
        let entry = self.entries.get_mut(index)?;
        match entry.restarts_left.checked_sub(1) {
            Some(left) => {
                entry.restarts_left = left;
                entry.state = State::Running { announced: 0 };
                Some(left)
            }
            None => {
                entry.state = State::Dead;
                None
            }
        }
    }

    /// A running domain is started anew because another asked for it.
    pub(crate) fn replaced(&mut self, index: usize) {
        self.announce(index, 0);
    }

    /// A domain could not be started again.
    pub(crate) fn gave_up(&mut self, index: usize) {
        if let Some(entry) = self.entries.get_mut(index) {
            entry.state = State::Dead;
        }
    }

    /// The system's exit code, once it is to stop: 1 if an essential domain died, or else the first code of an
    /// essential domain that is not 0, or else 0.
    pub(crate) fn exit_code(&self) -> Option<u8> {
        let essential = self.entries.iter().filter(|entry| entry.essential);
        let codes = essential.map(|entry| match entry.state {
            State::Running { .. } => None,
            State::Finished { exit_code } => Some(exit_code),
            State::Dead => Some(DIED),
        });
        let codes: Vec<u8> = codes.collect::<Option<_>>()?;
        if self.on_finish == OnFinish::Wait {
            return None;
        }
        let any_died = self.entries.iter().any(|entry| entry.essential && entry.state == State::Dead);
        Some(if any_died { DIED } else { codes.into_iter().find(|code| *code != 0).unwrap_or(0) })
    }
}

#[cfg(test)]
mod tests {
    use dragonfly_bundle::Plan;

    use super::Ledger;

    fn ledger(text: &str) -> Ledger {
        Ledger::new(&Plan::parse(text).unwrap())
    }

    const TWO: &str = "
        [[domain]]\nname = \"a\"\nprogram = \"p\"\n
        [[domain]]\nname = \"b\"\nprogram = \"p\"\n
        [[domain]]\nname = \"helper\"\nprogram = \"p\"\nessential = false\n";

    #[test]
    fn the_system_ends_when_all_essential_domains_have_ended() {
        let mut ledger = ledger(TWO);
        assert_eq!(ledger.exit_code(), None);
        assert_eq!(ledger.finished(0), Some(0));
        assert_eq!(ledger.exit_code(), None);
        assert_eq!(ledger.finished(1), Some(0));
        assert_eq!(ledger.exit_code(), Some(0));
        assert!(ledger.is_running(2));
    }

    #[test]
    fn the_first_exit_code_that_is_not_zero_is_the_systems() {
        let mut ledger = ledger(TWO);
        ledger.announce(1, 7);
        ledger.announce(2, 9);
        assert_eq!(ledger.finished(2), Some(9));
        assert_eq!(ledger.finished(1), Some(7));
        assert_eq!(ledger.finished(0), Some(0));
        assert_eq!(ledger.exit_code(), Some(7));
    }

    #[test]
    fn a_death_rules_over_exit_codes() {
        let mut ledger = ledger(TWO);
        ledger.announce(0, 7);
        ledger.finished(0);
        assert_eq!(ledger.died(1), None);
        assert_eq!(ledger.exit_code(), Some(1));
    }

    #[test]
    fn the_death_of_a_domain_that_is_not_essential_changes_nothing() {
        let mut ledger = ledger(TWO);
        assert_eq!(ledger.died(2), None);
        ledger.finished(0);
        ledger.finished(1);
        assert_eq!(ledger.exit_code(), Some(0));
    }

    #[test]
    fn a_domain_is_started_again_as_often_as_its_restarts_say() {
        let mut ledger = ledger("[[domain]]\nname = \"a\"\nprogram = \"p\"\nrestarts = 2\n");
        ledger.announce(0, 3);
        assert_eq!(ledger.died(0), Some(1));
        assert!(ledger.is_running(0));
        assert_eq!(ledger.died(0), Some(0));
        assert_eq!(ledger.died(0), None);
        assert_eq!(ledger.exit_code(), Some(1));
    }

    #[test]
    fn what_was_announced_before_a_death_does_not_count_after_it() {
        let mut ledger = ledger("[[domain]]\nname = \"a\"\nprogram = \"p\"\nrestarts = 1\n");
        ledger.announce(0, 3);
        ledger.died(0);
        assert_eq!(ledger.finished(0), Some(0));
    }

    #[test]
    fn a_system_that_is_to_wait_never_ends() {
        let mut ledger = ledger("[[domain]]\nname = \"a\"\nprogram = \"p\"\n[system]\non_finish = \"wait\"\n");
        ledger.finished(0);
        assert_eq!(ledger.exit_code(), None);
    }
}
