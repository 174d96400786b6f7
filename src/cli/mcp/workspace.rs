//! The folder that a client may name: tasks, runs, models and files in it, but the rows of test sets.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::files::{FileId, file_id, inside};
use crate::format::shortened;
use crate::run::{RunDirectory, RunFolders, RunReference};
use crate::score::Task;
use crate::task::{TASK_FILE, folder_of};

/// Folders that tools read for the client.
const OWN_FOLDERS: [&str; 3] = ["runs", "evals", ".grpo-tui"];

/// A folder without links.
pub(super) struct Workspace(PathBuf);

impl Workspace {
    pub(super) fn open(folder: &Path) -> std::io::Result<Self> {
        std::fs::read_dir(folder)?;
        std::fs::canonicalize(folder).map(Self)
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    pub(super) fn runs(&self) -> PathBuf {
        self.0.join("runs")
    }

    pub(super) fn run_folders(&self) -> RunFolders {
        RunFolders::discover(Some(&self.runs()), &self.0)
    }

    /// Files of the test sets of all tasks below the workspace, however deep, also of tasks that do not load.
    fn test_files(&self) -> Vec<PathBuf> {
        let (mut found, mut folders) = (Vec::new(), vec![self.0.clone()]);
        while let Some(folder) = folders.pop() {
            let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            let below = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
            folders.extend(below.map(|entry| entry.path()));
            let text = crate::files::read_text(&folder.join(TASK_FILE)).unwrap_or_default();
            let toml = text.parse::<toml::Table>().unwrap_or_default();
            let named = ["test", "proof"].map(|name| toml.get("prompts")?.get(name)?.as_str());
            found.extend(named.into_iter().flatten().map(|file| folder.join(file)));
        }
        found
    }

    pub(super) fn test_sets(&self) -> BTreeSet<FileId> {
        let found = self
            .test_files()
            .into_iter()
            .filter_map(|path| std::fs::metadata(path).ok());
        found.map(|found| file_id(&found)).collect()
    }

    /// A path that a client names, without links.
    ///
    /// # Errors
    /// A sentence if it is written as, or leads, outside, or into a folder of runs.
    pub(super) fn path(&self, text: &str) -> Result<PathBuf, String> {
        let relative = Path::new(text)
            .strip_prefix(&self.0)
            .ok()
            .and_then(Path::to_str);
        let path = inside(&self.0, relative.unwrap_or(text)).ok();
        let is_own = |path: &PathBuf| {
            OWN_FOLDERS
                .iter()
                .any(|own| path.starts_with(self.0.join(own)))
        };
        path.filter(|path| !is_own(path)).ok_or_else(|| {
            let (text, root) = (shortened(text, 120), self.0.display());
            format!("{text:?} is outside the workspace, or in its runs/, evals/ or .grpo-tui/: name a file below {root}")
        })
    }

    /// An existing file that a client may read: no test set.
    pub(super) fn file(&self, text: &str) -> Result<PathBuf, String> {
        let path = self.path(text)?;
        crate::files::open(&path).map_err(|error| format!("{text:?}: {error}"))?;
        Ok(path)
    }

    /// The text of a task's file that a client may read.
    pub(super) fn task_text(&self, task: &str, file: &str) -> Result<String, String> {
        let (task, _) = self.task(task)?;
        if let Some(folder) = task.folder() {
            self.file(&folder.join(file).display().to_string())?;
        }
        // Copies of rows, such as a .bak, are no file of the task, and may hold test rows.
        if !task.file_names().contains(&file) || task.prompts.test.as_deref() == Some(file) {
            return Err(format!("{file} is the test set, or no file of the task"));
        }
        let bytes = task.read(file).map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Folders of `tasks/` with a task.toml.
    pub(super) fn task_names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.0.join("tasks"))
            .into_iter()
            .flatten()
            .flatten();
        let tasks = entries.filter(|entry| entry.path().join(TASK_FILE).is_file());
        let names: BTreeSet<String> = tasks
            .map(|task| task.file_name().to_string_lossy().into_owned())
            .collect();
        names.into_iter().collect()
    }

    /// A task of the workspace, by its name or folder, or an embedded one; and what names it to commands.
    ///
    /// # Errors
    /// A sentence if there is none, or it is outside.
    pub(super) fn task(&self, text: &str) -> Result<(Task, String), String> {
        let is_name = !text.contains('/') && !text.starts_with(['.', '-']);
        let in_tasks = format!("tasks/{text}");
        let folder = match is_name {
            true if self.0.join(&in_tasks).exists() => Some(self.path(&in_tasks)?),
            // Commands look in the folders above, too.
            true if folder_of(text, &self.0).is_some() => {
                return Err(format!("task {text:?} is outside the workspace"));
            }
            true => None,
            false => Some(self.path(text)?),
        };
        let task = folder
            .as_ref()
            .map_or_else(|| Task::embedded(text), |folder| Task::load(folder));
        let argument =
            folder.map_or_else(|| text.to_owned(), |folder| folder.display().to_string());
        let task = task.map_err(|error| {
            format!(
                "{error}; tasks of the workspace: {}",
                self.task_names().join(", ")
            )
        })?;
        Ok((task, argument))
    }

    /// # Errors
    /// A sentence if there is no such run in the workspace.
    pub(super) fn run(&self, text: &str) -> Result<RunDirectory, String> {
        let is_name = !text.is_empty() && !text.contains('/') && !text.starts_with(['.', '-']);
        let run = self
            .run_folders()
            .find(text)
            .map_err(|error| error.to_string());
        let is_inside = |run: &RunDirectory| {
            std::fs::canonicalize(run.path()).is_ok_and(|path| path.starts_with(&self.0))
        };
        run.and_then(|run| match is_name && is_inside(&run) {
            true => Ok(run),
            false => Err(format!(
                "run {:?}: name a run of the workspace by its id or name",
                shortened(text, 80)
            )),
        })
    }

    /// The model as commands take it: in the workspace, embedded, in the cache, or a run of the workspace.
    ///
    /// # Errors
    /// A sentence for a path outside, and for a server.
    pub(super) fn model(&self, text: &str) -> Result<String, String> {
        let is_path =
            text.starts_with(['/', '.', '~']) || text.contains("..") || self.0.join(text).exists();
        if text.is_empty() || text.contains([':', '=']) || text.starts_with('-') {
            return Err(format!(
                "model {:?}: only a person may name a server or a constrained model, on the command line",
                shortened(text, 80)
            ));
        }
        if is_path {
            self.path(text)?;
        } else if let Ok(run) = self.run_folders().find(&RunReference::parse(text).run) {
            self.run(run.id())?;
        }
        Ok(text.to_owned())
    }
}
