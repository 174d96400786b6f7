//! Copies a checkpoint's weights with their provenance into a new folder.

use std::path::Path;

use serde_json::{Value, json};

use super::lookup::{RunFolders, RunReference};
use crate::files::{self, Access};
use crate::hub::{ModelSource, find_model};
use crate::run::checkpoints::{base_parameter_count, checkpoint_path, verify_checkpoint};
use crate::run::error::RunError;
use crate::run::record::history::RunState;
use crate::run::storage::directory::{RunDirectory, sha256, sha256_file};
use crate::run::storage::durable::{replace_file, replace_json};
use crate::score::Task;
use crate::secrets::redact_json;
use crate::task::TEMPLATE_KWARGS;
use crate::text::{TextError, exported_files, exported_templates};

/// Files needed only for resuming.
const TRAINING_FILES: [&str; 2] = ["optimizer.safetensors", "trainer.json"];

pub const PROVENANCE: &str = "provenance.json";

/// Copies the checkpoint of `step` into the new folder `out`; after full fine-tuning also the
/// base's configuration and tokenizer. `card`: contents of README.md. Returns the contents of
/// `provenance.json`.
///
/// # Errors
/// [`RunError::StartHasNoFiles`] for the start of full training, [`RunError::Taken`] if `out`
/// exists or is not a name, [`RunError::Io`] naming what could not be read or written.
pub fn promote(run: &RunDirectory, step: u64, card: &str, out: &Path) -> Result<Value, RunError> {
    if out.symlink_metadata().is_ok() || out.file_name().is_none() {
        return Err(RunError::Taken {
            path: out.to_owned(),
        });
    }
    if base_parameter_count(&checkpoint_path(run.path(), step)).is_some() {
        return Err(RunError::StartHasNoFiles {
            base: run.file().config.base_model.clone(),
        });
    }
    let fail = |path: &Path, source| RunError::io("create", path)(source);
    files::create_folder_with(out, Access::Private, fail, |building| {
        fill(run, step, card, building)
    })
}

fn fill(run: &RunDirectory, step: u64, card: &str, building: &Path) -> Result<Value, RunError> {
    let checkpoint = checkpoint_path(run.path(), step);
    verify_checkpoint(&checkpoint, |name| !TRAINING_FILES.contains(&name))?;
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
        files::open(&copy)
            .and_then(|file| file.sync_all())
            .map_err(RunError::io("write", &copy))?;
        files.insert(name, sha256_file(&copy)?.into());
    }
    for (name, bytes) in model_files(run)? {
        let path = building.join(name);
        path.parent()
            .map_or(Ok(()), std::fs::create_dir_all)
            .map_err(RunError::io("write", &path))?;
        replace_file(&path, &bytes)?;
        files.insert(name.to_owned(), sha256(&bytes).into());
    }
    replace_file(&building.join("README.md"), card.as_bytes())?;
    let file = run.file();
    let history = RunState::read(run.path())?;
    let evals = history
        .evals
        .values()
        .filter(|eval| eval.step == step && eval.is_of_trained());
    let task = Task::load(&run.first_task_path()).ok();
    let mut document = json!({
        "run": file.id, "step": step, "task": file.task, "task_files": file.task_files, "base_model": file.config.base_model,
        "model_digest": file.model_digest, "config_digest": file.config_digest, "config": file.config, "host": file.host,
        "thinking": task.as_ref().map(|task| task.thinking), TEMPLATE_KWARGS: task.as_ref().map(|task| &task.template_kwargs),
        "created": file.created, "binary_version": file.binary_version, "files": files,
        "evals": evals.map(|eval| json!({"set": eval.set, "summary": eval.summary})).collect::<Vec<_>>(),
    });
    redact_json(&mut document);
    replace_json(&building.join(PROVENANCE), &document)?;
    Ok(document)
}

/// Chat templates that an adapter was trained with, by file; none if its base is not here.
///
/// # Errors
/// [`RunError::Base`] for one that cannot be read.
pub(crate) fn trained_templates(
    run: &RunDirectory,
) -> Result<Vec<(&'static str, String)>, RunError> {
    match base_source(run) {
        Ok(source) => exported_templates(&source).map_err(|error| unread(&source, &error)),
        Err(_) => Ok(Vec::new()),
    }
}

fn unread(base: &ModelSource, error: &TextError) -> RunError {
    RunError::Base {
        name: base.name.clone(),
        problem: error.to_string(),
    }
}

fn base_source(run: &RunDirectory) -> Result<ModelSource, RunError> {
    let run_folders = RunFolders::discover(run.path().parent(), run.path());
    origin(&run.file().config.base_model, &run_folders)
}

/// The files beside weights: an adapter's chat template; of full training those that make a model
/// folder, whose configuration must name f32, the dtype of checkpoints.
fn model_files(run: &RunDirectory) -> Result<Vec<(&'static str, Vec<u8>)>, RunError> {
    if run.file().config.lora_rank > 0 {
        let templates = trained_templates(run)?.into_iter();
        return Ok(templates
            .map(|(name, text)| (name, text.into_bytes()))
            .collect());
    }
    let source = base_source(run)?;
    let mut files = exported_files(&source).map_err(|error| unread(&source, &error))?;
    for (_, bytes) in files.iter_mut().filter(|(name, _)| *name == "config.json") {
        let Ok(mut config) = serde_json::from_slice::<Value>(bytes) else {
            continue;
        };
        for key in ["dtype", "torch_dtype"] {
            if let Some(element_type) = config.get_mut(key) {
                *element_type = "float32".into();
            }
        }
        *bytes = format!("{config:#}\n").into_bytes();
    }
    Ok(files)
}

fn origin(name: &str, run_folders: &RunFolders) -> Result<ModelSource, RunError> {
    let refused = |problem: String| RunError::Base {
        name: name.to_owned(),
        problem,
    };
    match find_model(name) {
        Ok(source) if !source.is_adapter() && source.exists("config.json") => Ok(source),
        Ok(source) if source.exists("adapter_config.json") => {
            let text = source
                .read("adapter_config.json")
                .map_err(|error| refused(error.to_string()))?;
            let config: Value =
                serde_json::from_slice(&text).map_err(|error| refused(error.to_string()))?;
            let base = config["base_model_name_or_path"].as_str();
            // An adapter's base is not an adapter.
            let base =
                base.filter(|base| find_model(base).map_or(true, |source| !source.is_adapter()));
            origin(
                base.ok_or_else(|| {
                    refused("its adapter_config.json names no base model".to_owned())
                })?,
                run_folders,
            )
        }
        Ok(_) => origin(
            &run_folders
                .find(&RunReference::parse(name).run)?
                .file()
                .config
                .base_model,
            run_folders,
        ),
        Err(error) => match run_folders.find(&RunReference::parse(name).run) {
            Ok(run) => origin(&run.file().config.base_model, run_folders),
            Err(_) => Err(refused(error.to_string())),
        },
    }
}
