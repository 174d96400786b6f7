//! What a run leaves behind, in a form in which two runs of one configuration must be equal; and whether all of it is
//! whole.

use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use grpo_tui::run::{EventReader, RunState, State, checkpoint_path, list_checkpoints, read_step};
use serde_json::Value;

/// What must be equal, by name: checkpoints, rollouts, evals, and what the events say. Times and rates are left out.
pub(super) type Evidence = BTreeMap<String, Vec<u8>>;

/// Everything of a run that has ended. Without `every_checkpoint`, the checkpoints of the last step only: a run that
/// was stopped in between has others.
pub(super) fn collect(run: &Path, every_checkpoint: bool) -> Evidence {
    let mut found = Evidence::new();
    let state = RunState::read(run).unwrap();
    let checkpoints = list_checkpoints(run).unwrap();
    let last = *checkpoints.last().unwrap();
    for step in checkpoints
        .into_iter()
        .filter(|step| every_checkpoint || *step == last)
    {
        for path in files(&checkpoint_path(run, step)) {
            let bytes = if path.ends_with("trainer.json") {
                timeless(&read(&path))
            } else {
                std::fs::read(&path).unwrap()
            };
            found.insert(relative(run, &path), bytes);
        }
        if every_checkpoint {
            let recorded = state
                .checkpoints
                .get(&step)
                .unwrap_or_else(|| panic!("the log lacks the checkpoint of step {step}"));
            found.insert(
                format!("checkpoint event {step}"),
                recorded.path.clone().into_bytes(),
            );
        }
    }
    for step in 1..=state.last_step {
        found.insert(
            format!("rollouts of step {step}"),
            serde_json::to_vec(&read_step(run, step).unwrap()).unwrap(),
        );
        for (line, group) in &state.groups[&step] {
            found.insert(
                format!("group event {step}/{line}"),
                serde_json::to_vec(group).unwrap(),
            );
        }
    }
    for (key, eval) in &state.evals {
        found.insert(
            format!("eval event {key:?}"),
            serde_json::to_vec(&eval.summary).unwrap(),
        );
        let lines = std::fs::read_to_string(run.join(&eval.file)).unwrap();
        found.insert(
            eval.file.clone(),
            lines.lines().flat_map(timeless).collect(),
        );
    }
    let timed = |name: &str| {
        ["time/", "tokens_per_second/", "seconds", "step_time"]
            .iter()
            .any(|start| name.starts_with(start))
    };
    for (name, series) in state.metrics.iter().filter(|(name, _)| !timed(name)) {
        let bits =
            (1..=state.last_step).flat_map(|step| series.at(step).map_or([0; 8], f64::to_le_bytes));
        found.insert(format!("metric {name}"), bits.collect());
    }
    for (rule, alert) in &state.alerts {
        found.insert(format!("alert {rule}"), serde_json::to_vec(alert).unwrap());
    }
    let end = state.end.unwrap();
    found.insert(
        "end".to_owned(),
        format!("{} at {}, {}", end.status, end.step, state.last_step).into_bytes(),
    );
    let recorded = State::observe(run).unwrap();
    found.insert(
        "state.json".to_owned(),
        format!("{} at {}", recorded.status.name(), recorded.step).into_bytes(),
    );
    found
}

/// In what two runs differ; empty where they are equal.
pub(super) fn differences(one: &Evidence, other: &Evidence) -> Vec<String> {
    let names: std::collections::BTreeSet<_> = one.keys().chain(other.keys()).collect();
    names
        .into_iter()
        .filter(|name| one.get(*name) != other.get(*name))
        .cloned()
        .collect()
}

/// Checks that everything under its final name is whole and private, at any moment after a death; returns how many
/// records were looked at. `ended`: nothing else may be there either.
pub(super) fn check_whole(run: &Path, ended: bool) -> usize {
    let mut records = 0;
    // Whoever asks may be doing so now.
    let exchanged = |path: &PathBuf| {
        !ended
            && [".request.json", ".request.tmp", ".answers.jsonl"]
                .iter()
                .any(|ending| path.to_string_lossy().ends_with(ending))
    };
    for path in files(run).into_iter().filter(|path| !exchanged(path)) {
        let name = relative(run, &path);
        let mode = path.metadata().unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{name}");
        // A promise is made once its file is whole.
        let unfinished = name.ends_with(".tmp")
            || name.contains(".partial/")
            || name.ends_with(".accepted.json")
            || name == "reserve";
        assert!(!(ended && unfinished), "{name} is left over");
        if unfinished || name.starts_with("task/") || name.starts_with("checkpoints/") {
            continue;
        }
        records += match name.rsplit('.').next().unwrap() {
            "json" => serde_json::from_str::<Value>(&read(&path))
                .map(|_| 1)
                .unwrap_or_else(|error| panic!("{name}: {error}")),
            "jsonl" => check_lines(&name, &read(&path), ended || name.starts_with("evals/")),
            "zst" | "toml" | "lock" | "log" => 1,
            _ => panic!("{name} is not known"),
        };
    }
    for step in list_checkpoints(run).unwrap() {
        for path in files(&checkpoint_path(run, step)) {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("safetensors") => check_tensors(&path),
                _ => drop(
                    serde_json::from_str::<Value>(&read(&path))
                        .unwrap_or_else(|error| panic!("{}: {error}", path.display())),
                ),
            }
            records += 1;
        }
    }
    if ended {
        let checkpoints = list_checkpoints(run).unwrap().len();
        assert_eq!(
            std::fs::read_dir(run.join("checkpoints")).unwrap().count(),
            checkpoints,
            "a part of a checkpoint is left over"
        );
        assert_eq!(
            std::fs::read_dir(run.join("control")).unwrap().count(),
            0,
            "a request is left over"
        );
    }
    let log = EventReader::new(&run.join("events.jsonl")).read().unwrap();
    assert!(
        log.skipped.is_empty() && log.gaps == 0 && !log.restarted,
        "{:?}, {} missing",
        log.skipped,
        log.gaps
    );
    records + log.events.len()
}

/// Every line is JSON; the last one may be torn unless `sealed`.
fn check_lines(name: &str, text: &str, sealed: bool) -> usize {
    assert!(
        !sealed || text.is_empty() || text.ends_with('\n'),
        "{name} ends in a torn line"
    );
    let whole = text.rfind('\n').map_or("", |end| &text[..end]);
    for (index, line) in whole.lines().enumerate() {
        assert!(
            serde_json::from_str::<Value>(line).is_ok(),
            "{name} line {} is torn",
            index + 1
        );
    }
    whole.lines().count()
}

/// A safetensors file is as long as its header says.
fn check_tensors(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    let ends = header
        .as_object()
        .unwrap()
        .values()
        .filter_map(|tensor| tensor["data_offsets"][1].as_u64());
    assert_eq!(
        bytes.len() as u64,
        8 + length as u64 + ends.max().unwrap(),
        "{}",
        path.display()
    );
}

/// One JSON object without what no two runs share.
fn timeless(text: &str) -> Vec<u8> {
    let mut value: Value = serde_json::from_str(text).unwrap();
    // A checksum is one of the time, too.
    for name in ["seconds", "xxh3", "xxh3_before"] {
        value.as_object_mut().unwrap().remove(name);
    }
    format!("{value}\n").into_bytes()
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn relative(run: &Path, path: &Path) -> String {
    path.strip_prefix(run).unwrap().display().to_string()
}

/// All files below a folder, in order.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path))
        } else {
            found.push(path)
        }
    }
    found.sort();
    found
}
