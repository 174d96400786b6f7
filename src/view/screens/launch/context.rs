//! What a new run finds here: the task's own defaults, and beside them other tasks, models, and the last run of the
//! task.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::form::{Values, values_of};
use crate::format::count;
use crate::hub::{Architecture, ModelPlace, ModelSource, find_model, local_models};
use crate::plan::ModelShape;
use crate::run::{RunDirectory, RunFolders, RunReference, list_checkpoints, sha256};
use crate::task::Task;

/// Everything that was read beside the view.
#[derive(Debug)]
pub struct LaunchContext {
    /// Tasks that can be opened: of the workspace, then those of the program.
    pub tasks: Vec<String>,
    /// Models that a run can start from.
    pub models: Vec<Start>,
    /// The latest run of this task.
    pub last: Option<LastRun>,
}

/// A model to start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// What `base_model` takes.
    pub name: String,
    /// How lists show it.
    pub shown: String,
    /// Where it lies and what it is, or why it cannot be used.
    pub about: String,
    /// Whether the engine computes it.
    pub usable: bool,
}

/// The latest run of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct LastRun {
    pub id: String,
    pub values: Values,
    /// Files of its task that are not as they are now.
    pub files: Vec<Changed>,
}

/// A file of the task: its name, the beginning of its digest in the run, and of that now; empty where it was not, or is
/// not.
pub type Changed = (String, String, String);

/// The model that a base model came from through runs: its part of the task's `[train]` holds too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub of: String,
    /// Where it came from; `None` where nobody knows the name.
    pub model: Option<String>,
}

/// Chains of runs longer than this are not followed.
const LONGEST_CHAIN: usize = 32;

pub(super) fn origin(base_model: &str, places: &RunFolders) -> Option<String> {
    let mut name = base_model.to_owned();
    for _ in 0..LONGEST_CHAIN {
        let adapter = Path::new(&name).join("adapter_config.json");
        if let Ok(text) = crate::files::read_text(&adapter) {
            let value: serde_json::Value = serde_json::from_str(&text).ok()?;
            name = value["base_model_name_or_path"].as_str()?.to_owned();
        } else if find_model(&name).is_ok() {
            return Some(name);
        } else {
            name = places.find(&RunReference::parse(&name).run).ok()?.file().config.base_model.clone();
        }
    }
    None
}

/// What was trained here comes first, the latest before the others: it is what a next training most often starts from.
pub(super) fn models(task: &Task, here: &Path, places: &RunFolders) -> Vec<Start> {
    let workspace = here.ancestors().find(|folder| folder.join("tasks").is_dir()).map(|folder| vec![folder.to_owned()]);
    // Without a workspace, only the folder `models` beside the user: everything below a home is not searched.
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
        Start { name: model.name, shown: short, about: format!("{place}, {what}"), usable }
    });
    let mut starts: Vec<Start> = found.collect();
    starts.sort_by_key(|start| !start.usable);
    let results = places.list().into_iter().rev().filter_map(|(path, run)| result(&path, &run.ok()?, task));
    starts.extend(results);
    starts
}

fn result(path: &Path, run: &RunDirectory, task: &Task) -> Option<Start> {
    let last = *list_checkpoints(path).ok()?.last()?;
    let file = run.file();
    let of_task = if file.task == task.name { String::new() } else { format!(" on {}", file.task) };
    let named = if file.name.is_empty() { String::new() } else { format!("{}, ", file.name) };
    Some(Start {
        name: format!("{}@best", path.display()),
        shown: format!("{}@best", run.id()),
        about: format!(
            "{named}result of {} from {}{of_task}, {last} steps",
            file.job,
            short_name(&file.config.base_model)
        ),
        usable: true,
    })
}

/// A path's last part; any other name as it is.
pub fn short_name(name: &str) -> String {
    if !name.starts_with(['/', '.']) {
        return name.to_owned();
    }
    Path::new(name).file_name().map_or_else(|| name.to_owned(), |last| last.to_string_lossy().into_owned())
}

fn described(source: &ModelSource) -> (String, bool) {
    match source.config() {
        Ok(config) => {
            let family = match config.architecture {
                Architecture::Qwen3 => "Qwen3",
                Architecture::Qwen2 => "Qwen2",
                Architecture::Llama => "Llama",
            };
            let weights = count(ModelShape::of(&config).parameters);
            (format!("{family}, {} layers, {weights} weights", config.num_hidden_layers), true)
        }
        Err(error) => (format!("unusable: {error}"), false),
    }
}

pub(super) fn last_run(task: &Task, places: &RunFolders) -> Option<LastRun> {
    let trains =
        |run: &RunDirectory| run.file().task == task.name && matches!(run.file().job.as_str(), "train" | "sft");
    let runs = places.list().into_iter().rev().filter_map(|(_, run)| run.ok());
    let run = runs.into_iter().find(trains)?;
    Some(LastRun {
        id: run.id().to_owned(),
        values: values_of(&run.file().config),
        files: changed(task, &run.file().task_files),
    })
}

/// Files of the task that a run started now would freeze otherwise than a run did.
fn changed(task: &Task, then: &BTreeMap<String, String>) -> Vec<Changed> {
    let files = task.files().unwrap_or_default().into_iter();
    let now: BTreeMap<String, String> = files.map(|(name, bytes)| (name, sha256(&bytes))).collect();
    let short = |digest: Option<&String>| digest.map_or_else(String::new, |digest| digest.chars().take(8).collect());
    let names: BTreeSet<&String> = now.keys().chain(then.keys()).collect();
    let differs = names.into_iter().filter(|name| now.get(*name) != then.get(*name));
    differs.map(|name| (name.clone(), short(then.get(name)), short(now.get(name)))).collect()
}
