//! Removes what a killed worker left incomplete.

use std::path::Path;

use crate::run::checkpoints::{CHECKPOINT_MARK, checkpoint_step};
use crate::run::error::RunError;
use crate::run::storage::lock::RunLock;

/// Reserved disk space for the end event.
pub(super) const RESERVE: &str = "reserve";

/// Removes temporary files, and checkpoints whose removal had begun.
///
/// # Errors
/// [`RunError::Io`] naming what could not be removed.
pub(super) fn clear(lock: &RunLock) -> Result<(), RunError> {
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
        ];
        let whole = [
            "state.json",
            "notes.md",
            "evals/step-000000-eval-base.jsonl",
            "checkpoints/step-000006/trainer.json",
            "checkpoints/mine/a",
        ];
        for name in left_over.iter().chain(&whole) {
            std::fs::create_dir_all(place(name).parent().unwrap()).unwrap();
            std::fs::write(place(name), "x").unwrap();
        }
        clear(&RunLock::acquire(folder.path()).unwrap()).unwrap();
        assert!(whole.iter().all(|name| place(name).exists()));
        assert!(left_over.iter().all(|name| !place(name).exists()));
        assert!(
            !place("checkpoints/.step-000004.partial").exists()
                && !place("checkpoints/step-000002").exists()
        );
    }
}
