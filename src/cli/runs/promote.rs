//! `runs promote`: a checkpoint's weights in a folder of their own, whole or not there, with a note where they come from.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::json;

use super::{Failure, Outcome, Seen, print};
use crate::run::{RunPlaces, RunReference, checkpoint_path, replace_file, sha256_file, sync_folder};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// RUN, RUN@best, RUN@last or RUN@STEP; RUN alone means RUN@best
    run: String,
    /// Folder to create
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What was written, as one JSON document
    #[arg(long)]
    json: bool,
}

/// What only a resume needs.
const TRAINING_FILES: [&str; 2] = ["optimizer.safetensors", "trainer.json"];

pub(super) fn run(arguments: &Arguments, places: &RunPlaces) -> Outcome {
    let out = &arguments.out;
    if out.symlink_metadata().is_ok() {
        return Err(Failure::usage(format!("{} exists; name a folder that does not", out.display())));
    }
    let (run, step) = places.find_checkpoint(&RunReference::parse(&arguments.run))?;
    let seen = Seen::read(run)?;
    let name = out.file_name().ok_or_else(|| Failure::usage(format!("{} is no name for a folder", out.display())))?;
    let parent = out.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let building = parent.join(format!(".{}.{}.tmp", name.to_string_lossy(), std::process::id()));
    let written = fill(&seen, step, &building).and_then(|document| {
        std::fs::rename(&building, out).map_err(|error| failure("create", out, &error))?;
        Ok(document)
    });
    if written.is_err() {
        let _ = std::fs::remove_dir_all(&building);
    }
    let document = written?;
    sync_folder(parent)?;
    if arguments.json {
        return print(&format!("{document:#}\n"));
    }
    let run = seen.directory.id();
    eprintln!("wrote {}: the checkpoint of step {step} of {run}; provenance.json says where it comes from", out.display());
    Ok(ExitCode::SUCCESS)
}

fn fill(seen: &Seen, step: u64, building: &Path) -> Result<serde_json::Value, Failure> {
    DirBuilder::new().mode(0o700).create(building).map_err(|error| failure("create", building, &error))?;
    let checkpoint = checkpoint_path(seen.directory.path(), step);
    let mut files = serde_json::Map::new();
    for entry in std::fs::read_dir(&checkpoint).map_err(|error| failure("read", &checkpoint, &error))? {
        let entry = entry.map_err(|error| failure("read", &checkpoint, &error))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let is_file = entry.file_type().is_ok_and(|kind| kind.is_file());
        if !is_file || TRAINING_FILES.contains(&name.as_str()) {
            continue;
        }
        let copy = building.join(&name);
        std::fs::copy(entry.path(), &copy).map_err(|error| failure("write", &copy, &error))?;
        std::fs::File::open(&copy).and_then(|file| file.sync_all()).map_err(|error| failure("write", &copy, &error))?;
        files.insert(name, sha256_file(&copy)?.into());
    }
    let file = seen.directory.file();
    let evals: Vec<_> = seen.history.evals.values().filter(|eval| eval.step == step && eval.target == "trained").collect();
    let document = json!({
        "run": file.id, "step": step, "task": file.task, "task_files": file.task_files, "base_model": file.config.base_model,
        "model_digest": file.model_digest, "config_digest": file.config_digest, "config": file.config, "host": file.host,
        "created": file.created, "binary_version": file.binary_version, "files": files,
        "evals": evals.into_iter().map(|eval| json!({"set": eval.set, "summary": eval.summary})).collect::<Vec<_>>(),
    });
    replace_file(&building.join("provenance.json"), format!("{document:#}\n").as_bytes())?;
    Ok(document)
}

fn failure(action: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::failed(format!("cannot {action} {}: {error}", path.display()))
}
