//! A checkpoint's weights in a folder of their own, whole or not there, with a note where they come from.

use std::path::Path;

use serde_json::{Value, json};

use super::checkpoints::checkpoint_path;
use super::directory::{RunDirectory, sha256_file};
use super::durable::{create_folder, replace_file, sync_folder};
use super::error::RunError;
use super::history::RunState;
use crate::secrets::redact_json;

/// What only a resume needs.
const TRAINING_FILES: [&str; 2] = ["optimizer.safetensors", "trainer.json"];

/// Copy the checkpoint of `step` into the new folder `out`; what `provenance.json` says.
///
/// # Errors
/// [`RunError::Taken`] where `out` exists or is no name, [`RunError::Io`] naming what could not be read or written.
pub fn promote(run: &RunDirectory, step: u64, out: &Path) -> Result<Value, RunError> {
    let (true, Some(name)) = (out.symlink_metadata().is_err(), out.file_name()) else {
        return Err(RunError::Taken { path: out.to_owned() });
    };
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let building = parent.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = fill(run, step, &building)
        .and_then(|document| std::fs::rename(&building, out).map_err(RunError::io("create", out)).map(|()| document));
    if written.is_err() {
        let _ = std::fs::remove_dir_all(&building);
    }
    let document = written?;
    sync_folder(parent)?;
    Ok(document)
}

fn fill(run: &RunDirectory, step: u64, building: &Path) -> Result<Value, RunError> {
    create_folder(building)?;
    let checkpoint = checkpoint_path(run.path(), step);
    let mut files = serde_json::Map::new();
    for entry in std::fs::read_dir(&checkpoint).map_err(RunError::io("read", &checkpoint))? {
        let entry = entry.map_err(RunError::io("read", &checkpoint))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || TRAINING_FILES.contains(&name.as_str()) {
            continue;
        }
        let copy = building.join(&name);
        std::fs::copy(entry.path(), &copy).map_err(RunError::io("write", &copy))?;
        std::fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(RunError::io("write", &copy))?;
        files.insert(name, sha256_file(&copy)?.into());
    }
    let file = run.file();
    let history = RunState::read(run.path())?;
    let evals = history.evals.values().filter(|eval| eval.step == step && eval.target == "trained");
    let mut document = json!({
        "run": file.id, "step": step, "task": file.task, "task_files": file.task_files, "base_model": file.config.base_model,
        "model_digest": file.model_digest, "config_digest": file.config_digest, "config": file.config, "host": file.host,
        "created": file.created, "binary_version": file.binary_version, "files": files,
        "evals": evals.map(|eval| json!({"set": eval.set, "summary": eval.summary})).collect::<Vec<_>>(),
    });
    redact_json(&mut document);
    replace_file(&building.join("provenance.json"), format!("{document:#}\n").as_bytes())?;
    Ok(document)
}
