//! Defects of the emulators that no guest survives (docs/CAVEATS.md). A stage that fails behind one is no proof of anything.

use anyhow::Result;

use super::report::StageResult;

/// A defect.
struct Defect {
    /// What the kernel says of it.
    line: &'static str,
    /// What has happened.
    what: &'static str,
}

/// Those that are known.
const DEFECTS: [Defect; 2] = [
    Defect {
        line: "the processor has overwritten a guest's registers with its own",
        what: "QEMU lost a guest's registers",
    },
    Defect {
        line: "the processor resumes a guest at a wrong instruction",
        what: "Bochs went on with a guest at a wrong instruction",
    },
];

/// Runs a stage, and once more if it failed behind a defect, whatever becomes of it then.
///
/// # Errors
/// Fails when the stage cannot be run.
pub fn run_or_again(mut run: impl FnMut() -> Result<StageResult>) -> Result<StageResult> {
    let first = run()?;
    let defect = DEFECTS.iter().find(|defect| !first.is_success() && first.log_has(defect.line));
    let Some(Defect { what, .. }) = defect else { return Ok(first) };
    println!("again  {}: {what} (docs/CAVEATS.md)", first.stage);
    let mut second = run()?;
    second.notes.push(format!("the second run: in the first {what}"));
    Ok(second)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{super::report::Outcome, DEFECTS, Defect, StageResult, run_or_again};

    /// How often a stage is run with such an end and such a log, and how it ends.
    fn runs(outcome: &Outcome, text: &str) -> (usize, Vec<Outcome>, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let mut times = 0;
        let result = run_or_again(|| {
            times += 1;
            let mut result = StageResult::start("stage", folder.path().join("stage.log"))?;
            fs::write(folder.path().join("stage.log"), text)?;
            result.outcomes.push(outcome.clone());
            Ok(result)
        });
        let result = result.unwrap();
        (times, result.outcomes, result.notes)
    }

    #[test]
    fn only_what_fails_behind_a_defect_runs_again_and_once() {
        let (good, bad) = (Outcome::passed("a"), Outcome::failed("a", "why"));
        for Defect { line, what } in DEFECTS {
            let log = format!("[    1.0] warn  {line}\n");
            let note = format!("the second run: in the first {what}");
            assert_eq!(runs(&bad, &log), (2, vec![bad.clone()], vec![note]));
            assert_eq!(runs(&good, &log), (1, vec![good.clone()], vec![]));
        }
        assert_eq!(runs(&bad, "[    1.0] warn  something else\n"), (1, vec![bad.clone()], vec![]));
    }

    #[test]
    fn the_kernel_tells_of_defects_in_these_words() {
        let [registers, place] = DEFECTS.map(|defect| defect.line);
        assert!(include_str!("../../../kernel/src/arch/x86_64/guest/svm/mod.rs").contains(registers));
        assert!(include_str!("../../../kernel/src/arch/x86_64/guest/vmx/exit.rs").contains(place));
    }
}
