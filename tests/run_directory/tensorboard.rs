//! `runs export --tensorboard`: TensorBoard's own reader finds every step and eval, with its time.

use std::collections::BTreeMap;
use std::path::Path;

use grpo_tui::report::Report;
use grpo_tui::run::{EventBody, EventReader, RunDirectory};

use super::command::runs_command;
use super::finished::{Made, made};
use super::memory_folder;
use crate::program::sample_data;

/// By tag: wall time in seconds, step, and value.
type Scalars = BTreeMap<String, Vec<(f64, u64, f64)>>;

const READ: &str = "
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
found = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0}).Reload()
print(json.dumps({tag: [[e.wall_time, e.step, e.value if e.value == e.value else -1] for e in found.Scalars(tag)] for tag in found.Tags()['scalars']}))
";

/// What TensorBoard reads from the folder of a run; NaN as -1.
fn read(folder: &Path) -> Scalars {
    let python = crate::program::peer("TENSORBOARD_PYTHON");
    let output = std::process::Command::new(python)
        .args(["-c", READ])
        .arg(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
#[ignore = "with TensorBoard's reader: .ci/run"]
fn steps_and_evals_with_tensorboard_s_reader() {
    let folder = memory_folder();
    let recorded = sample_data("finished-run");
    let logs = folder.path().join("logs");
    let (code, _, error) = runs_command(
        folder.path(),
        &[
            "export",
            recorded.to_str().unwrap(),
            "--tensorboard",
            logs.to_str().unwrap(),
        ],
    );
    assert_eq!(code, 0, "{error}");
    let report = Report::read(RunDirectory::open(&recorded).unwrap()).unwrap();
    let found = read(&logs.join(report.directory.id()));
    let mut expected = Scalars::new();
    let mut add = |tag: String, time_ms: u64, step: u64, value: f64| {
        expected
            .entry(tag)
            .or_default()
            .push((time_ms as f64 / 1e3, step, value));
    };
    let failures = report
        .history
        .metrics
        .keys()
        .filter(|name| name.starts_with("failures/"));
    let failures: Vec<&String> = failures.collect();
    for event in EventReader::new(&report.directory.events_path())
        .read()
        .unwrap()
        .events
    {
        match event.body {
            EventBody::Step(step) => {
                for name in &failures {
                    let value = step.metrics.get(*name).copied().unwrap_or(0.0);
                    add(format!("train/{name}"), event.time_ms, step.step, value);
                }
                for (name, value) in step
                    .metrics
                    .iter()
                    .filter(|(name, _)| !name.starts_with("failures/"))
                {
                    add(format!("train/{name}"), event.time_ms, step.step, *value);
                }
            }
            EventBody::Eval(eval) => {
                let summary = eval.summary;
                add(
                    format!("{}/valid", eval.set),
                    event.time_ms,
                    eval.step,
                    summary.valid,
                );
                add(
                    format!("{}/exact", eval.set),
                    event.time_ms,
                    eval.step,
                    summary.exact.unwrap(),
                );
                add(
                    format!("{}/parse", eval.set),
                    event.time_ms,
                    eval.step,
                    summary.parse,
                );
                add(
                    format!("{}/valid_after_unwrapping", eval.set),
                    event.time_ms,
                    eval.step,
                    summary.tolerant,
                );
                add(
                    format!("{}/mean_tokens", eval.set),
                    event.time_ms,
                    eval.step,
                    summary.mean_tokens,
                );
                add(
                    format!("{}/truncated", eval.set),
                    event.time_ms,
                    eval.step,
                    summary.truncated,
                );
            }
            _ => {}
        }
    }
    assert_eq!(
        found.keys().collect::<Vec<_>>(),
        expected.keys().collect::<Vec<_>>()
    );
    for (tag, expected) in expected {
        let found = &found[&tag];
        assert_eq!(found.len(), expected.len(), "{tag}");
        for (found, expected) in found.iter().zip(expected) {
            assert_eq!(
                (found.0, found.1, found.2 as f32),
                (expected.0, expected.1, expected.2 as f32),
                "{tag}"
            );
        }
    }
}

#[test]
#[ignore = "with TensorBoard's reader: .ci/run"]
fn a_value_that_is_not_finite_stays_one_with_tensorboard_s_reader() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let run = made(&root, &Made::default());
    assert_eq!(
        runs_command(
            &root,
            &[
                "export",
                run.id(),
                "--tensorboard",
                folder.path().to_str().unwrap()
            ]
        )
        .0,
        0
    );
    let found = read(&folder.path().join(run.id()));
    assert_eq!(
        (
            found["train/grad_norm"].len(),
            found["train/grad_norm"][16].2
        ),
        (40, -1.0)
    );
    assert_eq!(
        found["train/kl"]
            .iter()
            .map(|(_, step, _)| *step)
            .collect::<Vec<_>>(),
        (1..=40).collect::<Vec<_>>()
    );
}

/// Each run has its folder, and its file is not overwritten by accident.
#[test]
fn the_files_of_several_runs_are_named_by_them() {
    let folder = memory_folder();
    let root = folder.path().join("runs");
    let runs = ["a", "b"].map(|name| {
        made(
            &root,
            &Made {
                name,
                ..Made::default()
            },
        )
    });
    let logs = folder.path().join("logs");
    let export = |more: &[&str]| {
        let [first, second] = [runs[0].id(), runs[1].id()];
        runs_command(
            &root,
            &[
                &[
                    "export",
                    first,
                    second,
                    "--tensorboard",
                    logs.to_str().unwrap(),
                ],
                more,
            ]
            .concat(),
        )
    };
    let (code, text, error) = export(&["--json"]);
    assert_eq!(code, 0, "{error}");
    let documents = crate::program::lines(&text);
    for (document, run) in documents.iter().zip(&runs) {
        let file = Path::new(document["file"].as_str().unwrap());
        assert_eq!(
            (file.parent().unwrap(), document["run"].as_str()),
            (logs.join(run.id()).as_path(), Some(run.id()))
        );
        assert_eq!(
            std::fs::metadata(file).unwrap().len(),
            document["bytes"].as_u64().unwrap()
        );
        assert!(
            file.file_name()
                .unwrap()
                .to_str()
                .unwrap()
                .contains("tfevents"),
            "{file:?}"
        );
    }
    let (code, _, error) = export(&[]);
    assert!(code == 2 && error.contains("tfevents"), "{error}");
    assert_eq!(export(&["--force"]).0, 0);
    assert_eq!(
        runs_command(
            &root,
            &["export", runs[0].id(), "--tensorboard", "x", "--csv"]
        )
        .0,
        2
    );
}
