//! What a guest's console says about the checks.

use std::time::Duration;

use super::{
    console::{Console, Line},
    messages::KnownMessages,
    scenario::LinuxGuest,
};
use crate::{guest::stream::GuestEnd, test::report::Outcome};

/// How far the guest's clock may be off, of the time that it measured.
const CLOCK_ERROR: f64 = 0.01;
/// What a line's way from guest to host may add, and the guest's clock of hundredths, in seconds.
const CLOCK_READING: f64 = 0.03;

/// Judges a guest by its console; `known` are the kernel messages that mean nothing. `has_wall_clock` says whether the
/// emulator's time is the host's.
#[must_use]
pub fn judge(guest: &LinuxGuest, console: &Console, known: &KnownMessages, has_wall_clock: bool) -> Vec<Outcome> {
    let mut outcomes: Vec<_> = guest.script.checks().iter().map(|check| judge_check(guest, console, check)).collect();
    let unexpected = console.texts().filter_map(failure).filter(|(name, _)| !guest.script.checks().contains(name));
    outcomes.extend(unexpected.map(|(name, why)| Outcome::failed(name, why)));
    outcomes.push(judge_cpus(guest, console));
    outcomes.push(judge_end(guest, console));
    if guest.script.shows_messages() {
        outcomes.push(judge_messages(console, known));
    }
    // The clock of a guest begins anew with each boot.
    if has_wall_clock && guest.boots == 1 {
        outcomes.extend(judge_clock(console));
    }
    for outcome in &mut outcomes {
        outcome.name = format!("{}: {}", guest.name, outcome.name);
    }
    outcomes
}

/// What follows `[check] WORD ` in a line.
fn said<'a>(line: &'a str, word: &str) -> Option<&'a str> {
    line.split_once("[check] ")?.1.strip_prefix(word)?.strip_prefix(' ')
}

fn failure(line: &str) -> Option<(&str, &str)> {
    said(line, "fail").map(|rest| rest.split_once(": ").unwrap_or((rest, "it is not so")))
}

/// A check passes if it does so in each boot.
fn judge_check(guest: &LinuxGuest, console: &Console, check: &str) -> Outcome {
    if let Some((_, why)) = console.texts().filter_map(failure).find(|(name, _)| *name == check) {
        return Outcome::failed(check, why);
    }
    match console.texts().filter(|line| said(line, "ok") == Some(check)).count() {
        count if count == guest.boots => Outcome::passed(check),
        0 => Outcome::failed(check, "it said nothing"),
        count => Outcome::failed(check, &format!("it passed {count} times in {} boots", guest.boots)),
    }
}

fn judge_cpus(guest: &LinuxGuest, console: &Console) -> Outcome {
    const NAME: &str = "number of CPUs";
    let numbers: Vec<_> = console.texts().filter_map(|line| said(line, "note")?.strip_prefix("cpus: ")).collect();
    if numbers.len() == guest.boots && numbers.iter().all(|number| *number == guest.vcpus.to_string()) {
        Outcome::passed(NAME)
    } else {
        Outcome::failed(NAME, &format!("{numbers:?}, not {} in each of {} boots", guest.vcpus, guest.boots))
    }
}

fn judge_end(guest: &LinuxGuest, console: &Console) -> Outcome {
    const NAME: &str = "end";
    let mut expected = vec![GuestEnd::Rebooted; guest.boots - 1];
    expected.push(guest.script.end());
    let has_passed = console.texts().any(|line| line.contains(&format!("[linux] pass {}", guest.script.name())));
    if console.ends != expected {
        Outcome::failed(NAME, &format!("{:?}, not {expected:?}", console.ends))
    } else if guest.script.ends_well() && !has_passed {
        Outcome::failed(NAME, "the script did not come to its end")
    } else {
        Outcome::passed(NAME)
    }
}

fn judge_messages(console: &Console, known: &KnownMessages) -> Outcome {
    const NAME: &str = "no message that the kernel does not print elsewhere";
    const SHOWN: usize = 5;
    match &known.unknown(console.texts())[..] {
        [] => Outcome::passed(NAME),
        messages => {
            let shown = &messages[..messages.len().min(SHOWN)];
            Outcome::failed(NAME, &format!("{} of them: {}", messages.len(), shown.join("; ")))
        }
    }
}

/// Compares the guest's clock with the host's from the first third of the time stamps to the last; none if there are few.
///
/// Lines come late, never early, so the one of each third that took the least time counts.
fn judge_clock(console: &Console) -> Option<Outcome> {
    const NAME: &str = "clock keeps the host's time";
    const FEWEST: usize = 6;
    let stamps: Vec<_> = console.lines.iter().filter_map(stamp).collect();
    if stamps.len() < FEWEST {
        return None;
    }
    let third = stamps.len() / 3;
    let promptest = |stamps: &[Stamp]| stamps.iter().copied().min_by(|a, b| a.delay().total_cmp(&b.delay()));
    let first = promptest(&stamps[..third])?;
    let last = promptest(&stamps[stamps.len() - third..])?;
    let passed = last.guest - first.guest;
    let error = last.delay() - first.delay();
    Some(if error.abs() <= passed * CLOCK_ERROR + CLOCK_READING {
        Outcome::passed(NAME)
    } else {
        Outcome::failed(NAME, &format!("in {passed:.2} s of the guest {:.2} s passed", passed + error))
    })
}

/// The same moment by the guest's clock and by the host's, in seconds.
#[derive(Clone, Copy, Debug)]
struct Stamp {
    guest: f64,
    host: f64,
}

impl Stamp {
    /// How much later the host's clock is, with the time that the line took.
    fn delay(self) -> f64 {
        self.host - self.guest
    }
}

fn stamp(Line { at, text }: &Line) -> Option<Stamp> {
    Some(Stamp { guest: said(text, "time")?.parse().ok()?, host: Duration::as_secs_f64(at) })
}

/// How long the guest took to its first program, by its own clock; none if it does not say.
#[must_use]
pub fn start_s(console: &Console) -> Option<f64> {
    console.texts().find_map(|line| said(line, "note")?.strip_prefix("uptime: ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        test::guests::scenario::{Script, System},
        tools::guests::GuestLinux,
    };

    const GUEST: LinuxGuest = LinuxGuest {
        name: "a",
        linux: GuestLinux::Debian12Cloud,
        system: System::Memory,
        tables: "",
        has_rules: false,
        seconds: 0,
        vcpus: 2,
        script: Script::Reboot,
        boots: 2,
    };

    fn console(texts: &[&str], ends: &[GuestEnd]) -> Console {
        let lines = texts.iter().map(|text| Line { at: Duration::ZERO, text: (*text).into() });
        let mut console = Console::default();
        (console.lines, console.ends) = (lines.collect(), ends.to_vec());
        console
    }

    fn failures(console: &Console) -> Vec<String> {
        let outcomes = judge(&GUEST, console, &KnownMessages::default(), true).into_iter();
        outcomes.filter_map(|outcome| Some(format!("{}: {}", outcome.name, outcome.failure?))).collect()
    }

    const BOOT: [&str; 3] = ["[check] note cpus: 2", "[check] ok clock source", "[check] ok kernel messages"];
    const ENDS: [GuestEnd; 2] = [GuestEnd::Rebooted, GuestEnd::PoweredOff];

    fn good() -> Vec<&'static str> {
        [&BOOT[..], &BOOT, &["[linux] pass reboot"]].concat()
    }

    #[test]
    fn a_guest_that_does_all_that_it_must_passes() {
        assert!(failures(&console(&good(), &ENDS)).is_empty());
    }

    #[test]
    fn a_check_that_fails_says_why_and_one_that_is_missing_fails_too() {
        let fails: Vec<_> =
            good().iter().map(|line| line.replace("ok clock source", "fail clock source: pit")).collect();
        let fails: Vec<_> = fails.iter().map(String::as_str).collect();
        assert_eq!(failures(&console(&fails, &ENDS)), ["a: clock source: pit"]);
        let one = [&BOOT[..], &["[check] note cpus: 2", "[check] ok kernel messages", "[linux] pass reboot"]].concat();
        assert_eq!(failures(&console(&one, &ENDS)), ["a: clock source: it passed 1 times in 2 boots"]);
    }

    #[test]
    fn another_number_of_cpus_fails() {
        let other: Vec<_> = good().iter().map(|line| line.replace("cpus: 2", "cpus: 1")).collect();
        let other: Vec<_> = other.iter().map(String::as_str).collect();
        assert_eq!(failures(&console(&other, &ENDS)).len(), 1);
    }

    #[test]
    fn another_end_fails() {
        assert_eq!(
            failures(&console(&good(), &[GuestEnd::Rebooted, GuestEnd::Crashed])),
            ["a: end: [Rebooted, Crashed], not [Rebooted, PoweredOff]"]
        );
        let unfinished = &good()[..6];
        assert_eq!(failures(&console(unfinished, &ENDS)), ["a: end: the script did not come to its end"]);
    }

    #[test]
    fn a_message_that_is_not_known_fails_and_is_shown() {
        let texts = [&good()[..], &["[dmesg] <4>[ 1.0] tsc: unstable"]].concat();
        assert_eq!(
            failures(&console(&texts, &ENDS)),
            ["a: no message that the kernel does not print elsewhere: 1 of them: <4>[ 1.0] tsc: unstable"]
        );
    }

    fn clock(stamps: &[(f64, f64)]) -> Option<String> {
        let lines = stamps
            .iter()
            .map(|(guest, host)| Line { at: Duration::from_secs_f64(*host), text: format!("[check] time {guest}") });
        let mut console = Console::default();
        console.lines = lines.collect();
        let outcome = judge_clock(&console)?;
        Some(outcome.failure.unwrap_or_else(|| "passed".into()))
    }

    #[test]
    fn a_clock_may_be_one_hundredth_off_and_lines_late() {
        let stamps = [(2.0, 7.3), (2.1, 7.1), (6.0, 11.9), (7.0, 12.2), (12.0, 17.9), (12.1, 17.15)];
        assert_eq!(clock(&stamps).as_deref(), Some("passed"));
        let fast = stamps.map(|(guest, host)| (guest, host * 1.05));
        assert_eq!(clock(&fast).as_deref(), Some("in 10.00 s of the guest 10.55 s passed"));
        assert!(clock(&stamps[..5]).is_none());
    }
}
