//! A stop, a kill or a failure in an eval.

use std::io::{BufRead, BufReader};
use std::process::Stdio;

use grpo_tui::facts::PhaseKind;
use grpo_tui::run::{EventBody, EventReader, State, Status};
use grpo_tui::train::{Ended, finished_report};

use super::small_task::{create, fingerprint, whole, work};
use crate::program::{NANO_RUN, program, sample_task, stderr, until};

/// It is not taken for one that is not there.
#[test]
fn a_base_eval_that_cannot_be_read_ends_the_run() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path(), &["max_steps=4"]);
    let base = run.path().join("evals/step-000000-eval-base.jsonl");
    let ended = work(&run, |event| {
        if matches!(event, EventBody::Step(step) if step.step == 2) {
            std::fs::write(&base, "{\"prompt_id\": ").unwrap();
        }
        false
    });
    let error = ended.unwrap_err().to_string();
    assert!(error.contains(&base.display().to_string()), "{error}");
}

/// In the foreground as in a worker.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn a_crash_is_recorded_with_its_cause() {
    let folder = tempfile::tempdir().unwrap();
    let run = create(folder.path(), &[]);
    let path = run.path().to_str().unwrap();
    for (command, step) in [
        (&["train", "--cpu", "--resume", path][..], "2"),
        (&["worker", "--cpu", "--resume", "--run", path], "4"),
    ] {
        let crashed = program(folder.path(), command)
            .env("GRPO_TUI_FAULT", format!("step.update={step}:1"))
            .output()
            .unwrap();
        let said = stderr(&crashed);
        assert_eq!(crashed.status.code(), Some(1), "{said}");
        let cause = "grpo-tui crashed, which is a fault of the program: the bug that \
                     GRPO_TUI_FAULT asks for at step.update";
        assert!(said.contains(&format!("error: {cause}")), "{said}");
        let state = State::observe(run.path()).unwrap();
        assert_eq!(
            (state.status, state.cause.as_deref()),
            (Status::Failed, Some(cause))
        );
    }
    assert!(matches!(work(&run, |_| false).unwrap(), Ended::Finished(_)));
    assert!(
        fingerprint(&run) == fingerprint(&whole(&[])),
        "the resumed run differs"
    );
}

#[test]
fn a_stop_ends_a_run_after_its_eval() {
    let folder = tempfile::tempdir().unwrap();
    let whole = whole(&[]);
    let is_eval = |event: &EventBody| matches!(event, EventBody::Phase(phase) if phase.phase == PhaseKind::Eval);
    let events = EventReader::new(&whole.events_path())
        .read()
        .unwrap()
        .events;
    let evals = events.iter().filter(|event| is_eval(&event.body)).count();
    let best = finished_report(&whole).unwrap().unwrap().best_step;
    // The base on both sets, two on the eval set, the best checkpoint on the test set.
    assert!(
        (evals, best > 0) == (5, true),
        "{evals} evals, best step {best}"
    );
    // The eval that is under way when the stop comes, and what the run then says.
    let cases = [
        (
            1,
            Some("stopped before the next eval (on eval), as requested"),
            None,
        ),
        (
            4,
            Some("stopped before the next eval (on test), as requested"),
            Some(6),
        ),
        (5, None, None),
    ];
    for (stopped_in, expected, step) in cases {
        let run = create(&folder.path().join(format!("eval-{stopped_in}")), &[]);
        let mut seen = 0;
        let ended = work(&run, |event| {
            seen += usize::from(is_eval(event));
            seen == stopped_in
        });
        match (ended.unwrap(), expected) {
            (
                Ended::CutShort {
                    resumes_from,
                    cause,
                },
                Some(expected),
            ) => {
                assert_eq!((resumes_from, cause.as_str()), (step, expected));
                assert!(matches!(work(&run, |_| false).unwrap(), Ended::Finished(_)));
            }
            // Nothing is left to do after the last one.
            (Ended::Finished(_), None) => {}
            (ended, _) => panic!("stopped in eval {stopped_in}: {ended:?}"),
        }
        assert!(
            fingerprint(&run) == fingerprint(&whole),
            "stopped in eval {stopped_in}, the run differs"
        );
    }
}

/// Every answer takes 30 ms, so that there is an eval to interrupt.
#[test]
#[cfg_attr(not(debug_assertions), ignore = "a release build has no failpoints")]
fn the_first_signal_in_an_eval_says_at_once_what_it_waits_for() {
    let folder = tempfile::tempdir().unwrap();
    sample_task(&folder.path().join("task"), [12, 6, 70]);
    let mut child = program(folder.path(), &["train", "task", "--runs", "runs", "--cpu"])
        .args(NANO_RUN.iter().flat_map(|key| ["--set", key]))
        .env("GRPO_TUI_FAULT_DELAY", "eval.answer:30")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let run = || {
        Some(
            std::fs::read_dir(folder.path().join("runs"))
                .ok()?
                .flatten()
                .next()?
                .path(),
        )
    };
    until("the base eval", || {
        let state = run().and_then(|run| State::observe(&run));
        state
            .and_then(|state| state.eval)
            .is_some_and(|eval| eval.total == 70)
    });
    let signal = |name: &str| {
        let sent = std::process::Command::new("kill")
            .args([&format!("-{name}"), &child.id().to_string()])
            .status();
        assert!(sent.unwrap().success());
    };
    signal("INT");
    let mut lines = BufReader::new(child.stderr.take().unwrap())
        .lines()
        .map(Result::unwrap);
    let said = lines.find(|line| line.starts_with("stopping ")).unwrap();
    assert!(
        said.starts_with("stopping after this eval (base eval on test: ")
            && said.contains(" of 70"),
        "{said}"
    );
    assert!(said.ends_with("; again: stops now"), "{said}");
    let last = lines.last().unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        (output.status.code(), output.stdout.is_empty()),
        (Some(130), true),
        "{last}"
    );
    assert!(
        last.starts_with(
            "stopped before the next eval (on eval), as requested; no checkpoint yet. Resume: "
        ),
        "{last}"
    );
}
