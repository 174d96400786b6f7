//! The context of a new run: the task's own defaults, other tasks, models, and the last run of the task.

use std::path::Path;

use super::form::{Values, values_of};
use crate::format::{count, counted};
use crate::hub::{ModelPlace, ModelSource, find_model, local_models};
use crate::plan::{ModelShape, parameters};
use crate::run::{
    FileChange, RunDirectory, RunFolders, RunReference, list_checkpoints, no_model_or_run,
    task_changes,
};
use crate::score::Task;
use crate::text::Tokenizer;

/// Everything that is read in the background.
#[derive(Debug)]
pub struct LaunchContext {
    /// Tasks that can be opened: of the workspace, then the embedded ones.
    pub tasks: Vec<String>,
    /// Models that a run can start from.
    pub models: Vec<Start>,
    pub last: Option<LastRun>,
}

/// A model to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The value of `base_model`.
    pub name: String,
    pub shown: String,
    /// Its path and type, or why it cannot be used.
    pub about: String,
    pub usable: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub struct LastRun {
    pub id: String,
    pub values: Values,
    /// Task files that differ from the run's.
    pub files: Vec<FileChange>,
}

/// The original model of a base model that is a run's result: its part of the task's `[train]` applies too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub of: String,
    /// The original model, or why there is none.
    pub model: Result<String, String>,
    pub parameters: Option<u64>,
    /// See [`Tokenizer::stop_note`].
    pub stop_note: Option<String>,
}

/// The longest chain of runs that is followed.
const MAX_CHAIN_LEN: usize = 32;

pub fn origin(base_model: String, places: &RunFolders) -> Origin {
    let model = original_model(&base_model, places);
    let source = model.as_deref().ok().and_then(|name| find_model(name).ok());
    // What cannot be read, cannot be trained.
    let model = match source.as_ref().map(ModelSource::config) {
        Some(Err(error)) => Err(error.to_string()),
        _ => model,
    };
    let tokenizer = source
        .as_ref()
        .and_then(|source| Tokenizer::load(source).ok());
    Origin {
        stop_note: tokenizer.and_then(|tokenizer| tokenizer.stop_note(&base_model)),
        of: base_model,
        model,
        parameters: source.and_then(|source| parameters(&source)),
    }
}

/// # Errors
/// Why a name on the way is neither a model nor a run.
fn original_model(base_model: &str, places: &RunFolders) -> Result<String, String> {
    let mut name = base_model.to_owned();
    for _ in 0..MAX_CHAIN_LEN {
        let adapter = Path::new(&name).join("adapter_config.json");
        if let Ok(text) = crate::files::read_text(&adapter) {
            let value: serde_json::Value = serde_json::from_str(&text)
                .map_err(|error| format!("{}: {error}", adapter.display()))?;
            let base = value["base_model_name_or_path"].as_str();
            name = base
                .ok_or_else(|| format!("{} names no base model", adapter.display()))?
                .to_owned();
            continue;
        }
        let model = match find_model(&name) {
            Ok(_) => return Ok(name),
            Err(error) => error,
        };
        let run = places.find(&RunReference::parse(&name).run);
        name = run
            .map_err(|_| no_model_or_run(&name, &model, places))?
            .file()
            .config
            .base_model
            .clone();
    }
    Err(format!(
        "{base_model}: the runs that it started from are a circle"
    ))
}

/// Models trained here come first, latest first: the most likely base of the next run.
pub(super) fn models(task: &Task, here: &Path, places: &RunFolders) -> Vec<Start> {
    let workspace = here
        .ancestors()
        .find(|folder| folder.join("tasks").is_dir())
        .map(|folder| vec![folder.to_owned()]);
    // Without a workspace only the folder `models` in the working directory is searched, not everything below a home.
    let folders = workspace.unwrap_or_else(|| vec![here.join("models")]);
    let found = local_models(&folders).into_iter().map(|model| {
        let place = match model.place {
            ModelPlace::Embedded => "embedded",
            ModelPlace::Folder => "folder",
            ModelPlace::Cache => "Hugging Face cache",
        };
        let short = Path::new(&model.name)
            .strip_prefix(here)
            .map_or_else(|_| model.name.clone(), |path| path.display().to_string());
        let (what, usable) = described(&model.source);
        Start {
            name: model.name,
            shown: short,
            about: format!("{place}, {what}"),
            usable,
        }
    });
    let mut starts: Vec<Start> = found.collect();
    starts.sort_by_key(|start| !start.usable);
    let results = places
        .list()
        .into_iter()
        .rev()
        .filter_map(|(path, run)| result(&path, &run.ok()?, task));
    starts.extend(results);
    starts
}

fn result(path: &Path, run: &RunDirectory, task: &Task) -> Option<Start> {
    let last = *list_checkpoints(path).ok()?.last()?;
    let file = run.file();
    let of_task = if file.task == task.name {
        String::new()
    } else {
        format!(" on {}", file.task)
    };
    let named = if run.name().is_empty() {
        String::new()
    } else {
        format!("{}, ", run.name())
    };
    Some(Start {
        name: format!("{}@best", path.display()),
        shown: format!("{}@best", run.id()),
        about: format!(
            "{named}result of {} from {}{of_task}, {}",
            file.job,
            short_name(&file.config.base_model),
            counted(last as usize, "step")
        ),
        usable: true,
    })
}

/// A path's last component; any other name unchanged.
pub fn short_name(name: &str) -> String {
    if !name.starts_with(['/', '.']) {
        return name.to_owned();
    }
    Path::new(name).file_name().map_or_else(
        || name.to_owned(),
        |last| last.to_string_lossy().into_owned(),
    )
}

fn described(source: &ModelSource) -> (String, bool) {
    match source.config() {
        Ok(config) => {
            let family = config.architecture.title();
            let weights = count(ModelShape::from_config(&config).parameters);
            (
                format!(
                    "{family}, {} layers, {weights} weights",
                    config.num_hidden_layers
                ),
                true,
            )
        }
        Err(error) => (format!("unusable: {error}"), false),
    }
}

pub(super) fn last_run(task: &Task, places: &RunFolders) -> Option<LastRun> {
    let trains = |run: &RunDirectory| run.file().task == task.name;
    let runs = places
        .list()
        .into_iter()
        .rev()
        .filter_map(|(_, run)| run.ok());
    let run = runs.into_iter().find(trains)?;
    Some(LastRun {
        id: run.id().to_owned(),
        values: values_of(&run.file().config),
        files: task_changes(task, &run),
    })
}
