//! The stage that cuts the machine's power while Debian writes, and looks for what it had reported as safe.
//!
//! The guest's disk is an [`nbd::Server`](crate::test::nbd::Server) behind the emulator's: nothing outlives a cut but what a flush
//! has brought there, on its way through the guest, the card, the card's driver and the emulator.

use std::time::Duration;

use anyhow::Result;

use super::{
    GuestStage,
    console::{Console, Consoles},
    scenario::LinuxGuest,
};
use crate::{
    emulator::{End, Machine},
    guest::stream::GuestEnd,
    test::{
        nbd::Server,
        report::{Outcome, StageResult},
    },
};

const DISK_BYTES: usize = 48 << 20;
const IN_ORDER: &str = "the file system is in order";

/// Boots and cuts so many times, and boots once more.
///
/// # Errors
/// Fails when something cannot be had or built, or an emulator does not start.
pub fn run(stage: &GuestStage<'_>, cuts: u64) -> Result<StageResult> {
    let folder = tempfile::tempdir()?;
    let server = Server::start(&folder.path().join("data.sock"), DISK_BYTES, Duration::ZERO)?;
    let [plan] = stage.scenario.guests else { anyhow::bail!("one guest is to lose its power") };
    let guests = [stage.guest(plan, None, folder.path(), |_| Ok(()))?];
    let machine = Machine::new(stage.scenario.emulator, stage.scenario.cpus);
    let (mut outcomes, mut printed) = (Vec::new(), Vec::new());
    let mut reported = 0;
    for boot in 0..=cuts {
        let is_last = boot == cuts;
        // Each time in another moment, the same ones in each run.
        let at_record = reported + 20 + boot * 7 % 40;
        let is_time = |consoles: &Consoles| {
            let is_time =
                !is_last && consoles.guests.first().and_then(last_record).is_some_and(|last| last >= at_record);
            if is_time {
                server.cut(boot);
            }
            is_time
        };
        // One that is to boot twice is told to go on.
        let boots = if is_last { 1 } else { 2 };
        let booted =
            stage.host.boot(machine.clone(), [], stage.scenario.at_most_s, &guests, Consoles::new([boots]), is_time)?;
        let console = booted.consoles.guests.first();
        outcomes.extend(console.map(|console| judge(plan, console, booted.boot.end, is_last, boot, reported)));
        let lines = console.into_iter().flat_map(|console| &console.lines);
        printed.extend(lines.map(|line| format!("{:9.3} boot {boot}: {}", line.at.as_secs_f64(), line.text)));
        reported = console.and_then(last_record).map_or(reported, |last| last + 1);
        if is_last || outcomes.iter().any(|outcome: &Outcome| outcome.failure.is_some()) {
            let notes = vec![format!("{reported} records were reported as safe")];
            return stage.host.finish(&booted, outcomes, notes, printed);
        }
    }
    anyhow::bail!("there was no boot")
}

/// The number of the last record that the guest has reported.
fn last_record(console: &Console) -> Option<u64> {
    let numbers = console.texts().filter_map(|line| note(line, "record"));
    numbers.last()
}

fn note(line: &str, name: &str) -> Option<u64> {
    line.split_once("[check] note ")?.1.strip_prefix(name)?.strip_prefix(": ")?.trim_end().parse().ok()
}

/// What a boot shows of the one before, which has reported so many records.
fn judge(plan: &LinuxGuest, console: &Console, end: End, is_last: bool, boot: u64, reported: u64) -> Outcome {
    let name = format!("{}: boot {boot}", plan.name);
    let is_in_order = console.texts().any(|line| line.contains(&format!("[check] ok {IN_ORDER}")));
    let failure = console.texts().find_map(|line| line.split_once("[check] fail "));
    let whole = console.texts().find_map(|line| note(line, "whole"));
    let has_ended = match is_last {
        true => end == End::Exit(0) && console.ends == [GuestEnd::PoweredOff],
        false => end == End::Interrupted,
    };
    match (failure, whole) {
        (Some((_, why)), _) => Outcome::failed(&name, why),
        (None, Some(whole)) if whole < reported => {
            Outcome::failed(&name, &format!("{reported} records were reported as safe, and {whole} are there"))
        }
        (None, Some(_)) if is_in_order && has_ended => Outcome::passed(&name),
        (None, Some(_)) if is_in_order => Outcome::failed(&name, &format!("another end: {end}")),
        _ => Outcome::failed(&name, "the guest does not say what it found"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::guests::{console::Line, scenario::POWER_CUT};

    fn failure(texts: &[&str], end: End, is_last: bool, reported: u64) -> Option<String> {
        let mut console = Console::default();
        console.lines = texts.iter().map(|text| Line { at: Duration::ZERO, text: (*text).into() }).collect();
        console.ends.extend(is_last.then_some(GuestEnd::PoweredOff));
        judge(&POWER_CUT.guests[0], &console, end, is_last, 1, reported).failure
    }

    const OK: &str = "[check] ok the file system is in order";

    #[test]
    fn records_that_were_reported_must_be_there_and_more_may_be() {
        for (whole, is_good) in [("8", false), ("9", true), ("10", true)] {
            let found = failure(&[OK, &format!("[check] note whole: {whole}")], End::Interrupted, false, 9);
            assert_eq!(found.is_none(), is_good, "{found:?}");
        }
    }

    #[test]
    fn a_file_system_that_is_not_in_order_fails_and_so_does_silence() {
        let bad = "[check] fail the file system is in order: bad";
        assert!(failure(&[bad, "[check] note whole: 9"], End::Interrupted, false, 9).unwrap().contains("bad"));
        assert!(failure(&[OK], End::Interrupted, false, 0).is_some());
        assert!(failure(&["[check] note whole: 9"], End::Interrupted, false, 9).is_some());
    }

    #[test]
    fn a_boot_that_was_not_cut_when_it_should_or_did_not_end_fails() {
        let texts = [OK, "[check] note whole: 9\r"];
        assert!(failure(&texts, End::Exit(0), true, 9).is_none());
        assert!(failure(&texts, End::Died, true, 9).is_some());
        assert!(failure(&texts, End::TimedOut(Duration::ZERO), false, 9).is_some());
    }
}
