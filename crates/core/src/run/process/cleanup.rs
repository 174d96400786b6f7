//! Removes what a killed worker left incomplete.

use std::path::Path;

use crate::run::checkpoints::{CHECKPOINT_MARK, checkpoint_step};
use crate::run::error::RunError;
use crate::run::evals::summary::answers_path;
use crate::run::record::events::EvalKey;
use crate::run::record::history::RunState;
use crate::run::storage::durable::{entries, remove_if_there};
use crate::run::storage::lock::RunLock;

pub(super) const RESERVE: &str = "reserve";

/// Removes temporary files, checkpoints whose removal had begun, and answers of evals that the log has.
pub(super) fn clear(lock: &RunLock) -> Result<(), RunError> {
    // A log that cannot be read is an error of what reads it next.
    let history = RunState::read(lock.run()).unwrap_or_default();
    for EvalKey { step, set, target } in history.evals.keys() {
        remove_if_there(&answers_path(lock.run(), *step, set, target.name()))?;
    }
    for folder in ["", "evals", "checkpoints"] {
        let folder = lock.run().join(folder);
        let Ok(entries) = std::fs::read_dir(&folder) else {
            continue;
        };
        for entry in entries.flatten() {
            let (path, name) = (entry.path(), entry.file_name());
            if is_left_over(&path, &name.to_string_lossy()) {
                let removed = if path.is_dir() {
                    std::fs::remove_dir_all(&path)
                } else {
                    std::fs::remove_file(&path)
                };
                removed.map_err(RunError::io("remove", &path))?;
            }
        }
    }
    Ok(())
}

/// Removes the answers of evals that a finished run has no use for.
pub(super) fn clear_answers(lock: &RunLock) -> Result<(), RunError> {
    for entry in entries(&lock.run().join("evals"))? {
        if entry.file_name().to_string_lossy().starts_with("answers-") {
            remove_if_there(&entry.path())?;
        }
    }
    Ok(())
}

pub(super) fn has_left_over(run: &Path) -> bool {
    ["", "evals", "checkpoints"].iter().any(|folder| {
        let entries = entries(&run.join(folder)).unwrap_or_default();
        entries.iter().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            is_left_over(&entry.path(), &name) || name.starts_with("answers-")
        })
    })
}

/// `state.json.4121.tmp`, the reserve, `.step-000004.partial`, and `step-000002` without its mark, which is written
/// last and removed first. May match an index that a viewer is writing, which is harmless.
fn is_left_over(path: &Path, name: &str) -> bool {
    let unfinished_file = (name.ends_with(".tmp") || name == RESERVE) && !path.is_dir();
    let unfinished_folder = name.starts_with(".step-") && name.ends_with(".partial");
    let half_removed =
        checkpoint_step(name).is_some() && path.is_dir() && !path.join(CHECKPOINT_MARK).exists();
    unfinished_file || unfinished_folder || half_removed
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::facts::Target;
    use crate::run::record::events::Eval;
    use crate::run::record::writer::EventWriter;

    #[test]
    fn only_what_is_unfinished_goes() {
        let folder = tempfile::tempdir().unwrap();
        let place = |name: &str| folder.path().join(name);
        let left_over = [
            "state.json.4121.tmp",
            "events.index.7.0.tmp",
            "evals/step-000000-eval-base.jsonl.9.tmp",
            "checkpoints/.step-000004.partial/model.safetensors",
            "checkpoints/step-000002/model.safetensors",
            "evals/answers-step-000000-eval-base.jsonl",
        ];
        let whole = [
            "state.json",
            "notes.md",
            "evals/step-000000-eval-base.jsonl",
            "evals/answers-step-000003-eval-trained.jsonl",
            "checkpoints/step-000006/trainer.json",
            "checkpoints/mine/a",
        ];
        for name in left_over.iter().chain(&whole) {
            std::fs::create_dir_all(place(name).parent().unwrap()).unwrap();
            std::fs::write(place(name), "x").unwrap();
        }
        let lock = RunLock::acquire(folder.path()).unwrap();
        let eval = Eval {
            set: "eval".into(),
            target: Target::Base,
            ..Eval::default()
        };
        EventWriter::open(&lock).unwrap().append(eval).unwrap();
        assert!(has_left_over(folder.path()));
        clear(&lock).unwrap();
        assert!(whole.iter().all(|name| place(name).exists()));
        assert!(left_over.iter().all(|name| !place(name).exists()));
        assert!(
            !place("checkpoints/.step-000004.partial").exists()
                && !place("checkpoints/step-000002").exists()
        );
        assert!(has_left_over(folder.path()), "an eval that is not recorded");
        clear_answers(&lock).unwrap();
        assert!(!has_left_over(folder.path()));
    }
}
