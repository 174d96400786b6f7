//! The folder that a client may name: tasks, runs, models and files in it, but the rows of test sets.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::dataset;
use crate::files::{PathError, inside};
use crate::format::shortened;
use crate::run::{RunDirectory, RunFolders, RunReference};
use crate::score::Task;
use crate::task::{PromptSet, folder_of};

/// Folders that tools read for the client.
const OWN_FOLDERS: [&str; 3] = ["runs", "evals", ".grpo-tui"];

pub(super) struct Workspace {
    /// Without links.
    root: PathBuf,
}

/// A task with the argument that names it to commands.
pub(super) struct NamedTask {
    pub(super) task: Task,
    pub(super) argument: String,
}

impl Workspace {
    pub(super) fn open(folder: &Path) -> std::io::Result<Self> {
        let root = std::fs::canonicalize(folder)?;
        if !root.is_dir() {
            return Err(std::io::ErrorKind::NotADirectory.into());
        }
        Ok(Self { root })
    }

    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    pub(super) fn run_folders(&self) -> RunFolders {
        RunFolders::discover(Some(&self.root.join("runs")), &self.root)
    }

    /// A path that a client names, without links.
    ///
    /// # Errors
    /// A sentence if it is written as, or leads, outside, or into a folder of runs.
    pub(super) fn path(&self, argument: &str, text: &str) -> Result<PathBuf, String> {
        let shown = shortened(text, 120);
        let relative = match Path::new(text).strip_prefix(&self.root) {
            Ok(relative) => relative.to_str().unwrap_or_default(),
            Err(_) => text,
        };
        let path = inside(&self.root, relative).map_err(|error| {
            let why = match error {
                PathError::Written => "is outside the workspace".to_owned(),
                PathError::Link(to) => format!("leads to {}, outside the workspace", to.display()),
                PathError::Broken(to) => {
                    format!("is a link to {}, which does not exist", to.display())
                }
            };
            format!(
                "{argument} {shown:?} {why}: name a file below {}",
                self.root.display()
            )
        })?;
        let below = path.strip_prefix(&self.root).unwrap_or(&path);
        if OWN_FOLDERS.iter().any(|own| below.starts_with(own)) {
            return Err(format!(
                "{argument} {shown:?} is in a folder of results: use status, metrics, rollouts and compare"
            ));
        }
        Ok(path)
    }

    /// An existing file that a client may read.
    ///
    /// # Errors
    /// As [`Self::path`], and for the file of a test set.
    pub(super) fn file(&self, argument: &str, text: &str) -> Result<PathBuf, String> {
        let path = self.path(argument, text)?;
        match std::fs::metadata(&path) {
            Ok(found) if found.is_file() => {}
            Ok(_) => return Err(format!("{argument} {text:?} is not a regular file")),
            Err(error) => return Err(format!("{argument} {text:?}: {error}")),
        }
        match self.test_set_of(&path) {
            Some(task) => Err(format!(
                "{argument} {text:?} is the test set of {task}, which is not read before the end of the budget: use train or eval rows"
            )),
            None => Ok(path),
        }
    }

    /// The task whose test set the file is, under whatever name.
    fn test_set_of(&self, path: &Path) -> Option<String> {
        let identity = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.dev(), found.ino()))
        };
        let file = identity(path)?;
        self.task_names().into_iter().find(|name| {
            let task = Task::load(&self.root.join("tasks").join(name)).ok();
            let test = task.and_then(|task| task.path(task.set_file(PromptSet::Test)?).ok());
            test.and_then(|test| identity(&test)) == Some(file)
        })
    }

    /// Folders of `tasks/` with a task.toml.
    pub(super) fn task_names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.root.join("tasks")).into_iter();
        let folders = entries
            .flatten()
            .flatten()
            .filter(|entry| entry.path().join(crate::task::TASK_FILE).is_file());
        let mut names: Vec<String> = folders
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    /// A task of the workspace, by its name or folder, or an embedded one.
    ///
    /// # Errors
    /// A sentence if there is none, it is outside, or it trains on its test set.
    pub(super) fn task(&self, text: &str) -> Result<NamedTask, String> {
        let is_name = !text.contains(['/', '\\']) && !text.starts_with(['.', '-']);
        let in_tasks = format!("tasks/{text}");
        let in_tasks =
            Some(in_tasks.as_str()).filter(|path| is_name && self.root.join(path).exists());
        let task = match in_tasks {
            Some(path) => Task::load(&self.path("task", path)?),
            // Commands look in the folders above, too.
            None if is_name && let Some(found) = folder_of(text, &self.root) => {
                let found = found.display();
                return Err(format!(
                    "task {text:?} leads to {found}, outside the workspace"
                ));
            }
            None if is_name => Task::embedded(text),
            None => Task::load(&self.path("task", text)?),
        };
        let task = task.map_err(|error| match in_tasks {
            None if is_name => format!(
                "{error}; tasks of the workspace: {}",
                match self.task_names() {
                    names if names.is_empty() => "none".to_owned(),
                    names => names.join(", "),
                }
            ),
            _ => error.to_string(),
        })?;
        for set in [PromptSet::Train, PromptSet::Eval] {
            let path = |set| task.path(task.set_file(set)?).ok();
            if path(set).is_some() && path(set) == path(PromptSet::Test) {
                return Err(format!(
                    "{text}: the {} set and the test set are one file: give them files of their own",
                    set.name()
                ));
            }
        }
        let argument = task
            .folder()
            .map_or_else(|| text.to_owned(), |folder| folder.display().to_string());
        Ok(NamedTask { task, argument })
    }

    /// # Errors
    /// A sentence if there is no such run in the workspace.
    pub(super) fn run(&self, text: &str) -> Result<RunDirectory, String> {
        if text.is_empty() || text.contains(['/', '\\']) || text.starts_with(['.', '-']) {
            let text = shortened(text, 80);
            return Err(format!("run {text:?}: name a run by its id or name"));
        }
        let run = self
            .run_folders()
            .find(text)
            .map_err(|error| error.to_string())?;
        let place = std::fs::canonicalize(run.path()).map_err(|error| error.to_string())?;
        if !place.starts_with(&self.root) {
            let place = place.display();
            return Err(format!(
                "run {text:?} leads to {place}, outside the workspace"
            ));
        }
        Ok(run)
    }

    /// The model as commands take it: in the workspace, embedded, in the cache, or a run of the workspace.
    ///
    /// # Errors
    /// A sentence for a path outside, and for a server.
    pub(super) fn model(&self, text: &str) -> Result<String, String> {
        let model = text.strip_prefix("constrained:").unwrap_or(text);
        if text.contains('=') || text.starts_with('-') || model.is_empty() {
            return Err(format!(
                "model {:?}: not a model's name",
                shortened(text, 80)
            ));
        }
        if model.starts_with("endpoint:") {
            return Err(format!(
                "model {model:?} is a server, which would get the prompts: only a person may name one, on the command line"
            ));
        }
        let is_path = Path::new(model).is_absolute()
            || model.starts_with(['.', '~'])
            || model.split('/').any(|part| part == "..")
            || self.root.join(model).exists();
        if is_path {
            self.path("model", model)?;
        } else if let Ok(run) = self.run_folders().find(&RunReference::parse(model).run) {
            self.run(run.id())?;
        }
        Ok(text.to_owned())
    }

    /// Checks that prompts are of the train or eval set, and no others.
    pub(super) fn check_prompts<'a>(
        task: &Task,
        ids: impl Iterator<Item = &'a str>,
    ) -> Result<(), String> {
        let mut sets = Vec::new();
        for set in PromptSet::ALL {
            let rows = match task.set_file(set) {
                Some(_) => dataset::load(task, set).map_err(|error| error.to_string())?,
                None => Vec::new(),
            };
            let ids: BTreeSet<String> = rows.into_iter().map(|row| row.id).collect();
            sets.push((set, ids));
        }
        for id in ids {
            let mut known = sets.iter().filter(|(_, ids)| ids.contains(id));
            let is_of_test = known.clone().any(|(set, _)| *set == PromptSet::Test);
            if is_of_test || known.next().is_none() {
                let why = if is_of_test {
                    "is in the test set"
                } else {
                    "is not in the train or eval set"
                };
                let id = shortened(id, 80);
                return Err(format!(
                    "prompt {id:?} {why} of {}: name one of the train or eval set",
                    task.name
                ));
            }
        }
        Ok(())
    }
}
