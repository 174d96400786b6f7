//! `[score.judge]`: a judge that is a local model, or the frozen result of a run.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Map, Value};

use crate::task::{Home, Read, Section};

pub(crate) const JUDGE_KEYS: [&str; 6] = [
    "model",
    "run",
    "device",
    "concurrency",
    "timeout_seconds",
    "extra_body",
];
const RUN_FILE: &str = "run.toml";

/// A local judge model, served by this program.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LocalModel {
    /// Argument of `serve`: model name or folder, or `RUN@best`.
    pub name: String,
    pub device: ModelDevice,
    /// Base of relative names and runs.
    pub(crate) folder: PathBuf,
    /// The run that owns this copy of the task: its processes share the server.
    pub(crate) run: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ModelDevice {
    Cpu,
    /// Index among the GPUs visible to this process.
    Gpu(usize),
}

impl ModelDevice {
    fn from_text(text: &str) -> Option<Self> {
        match text.strip_prefix("gpu:") {
            Some(index) => index.parse().ok().map(Self::Gpu),
            None => (text == "cpu").then_some(Self::Cpu),
        }
    }

    pub(crate) fn arguments(self) -> Vec<String> {
        match self {
            Self::Cpu => vec!["--cpu".to_owned()],
            Self::Gpu(index) => vec!["--gpu".to_owned(), index.to_string()],
        }
    }
}

impl std::fmt::Display for ModelDevice {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cpu => formatter.write_str("the CPU"),
            Self::Gpu(index) => write!(formatter, "GPU {index}"),
        }
    }
}

/// Parsed `[score.judge]`.
pub(crate) struct JudgeTable {
    pub(crate) model: LocalModel,
    pub(crate) concurrency: usize,
    pub(crate) timeout: Duration,
    pub(crate) extra_body: Map<String, Value>,
}

impl JudgeTable {
    pub(crate) fn read(section: &Section<'_>, start: usize, home: &Home) -> Read<Self> {
        let place = |key: &str| section.get(key).map_or(start, |(_, offset)| offset);
        let named = |key: &str| Ok(section.string(key)?.filter(|name| !name.trim().is_empty()));
        let (folder, run) = surroundings(home.folder());
        let name = match (named("model")?, named("run")?) {
            (Some(model), None) => resolved(model, &folder),
            (None, Some(run)) if run.ends_with("@last") => {
                let message =
                    "names a checkpoint that changes: write RUN@best, or RUN@STEP for one step";
                return Err(section.error("run", place("run"), message));
            }
            (None, Some(run)) if run.contains('@') => resolved(run, &folder),
            (None, Some(run)) => resolved(run, &folder) + "@best",
            _ => {
                let message = "`[judge]` needs either `model` or `run`: write for example `model = \"Qwen/Qwen3-4B\"`";
                return Err(section.error_at(start, message));
            }
        };
        let device = match section.string("device")? {
            None => ModelDevice::Cpu,
            Some(text) => ModelDevice::from_text(&text).ok_or_else(|| {
                section.error(
                    "device",
                    place("device"),
                    format!("takes \"cpu\" or \"gpu:0\", \"gpu:1\" ..., not {text:?}"),
                )
            })?,
        };
        Ok(Self {
            model: LocalModel {
                name,
                device,
                folder,
                run,
            },
            concurrency: section.whole("concurrency", 16, 1..=512)? as usize,
            timeout: Duration::from_secs_f64(section.seconds("timeout_seconds", 600.0)?),
            extra_body: section.json_object("extra_body")?,
        })
    }
}

/// A task's workspace (the folder with `tasks/`), else the current folder; and the run that owns
/// the copy.
fn surroundings(task: Option<&Path>) -> (PathBuf, Option<PathBuf>) {
    let task = task.and_then(|folder| std::path::absolute(folder).ok());
    let above = || task.iter().flat_map(|folder| folder.ancestors());
    let workspace = above()
        .find(|folder| folder.join("tasks").is_dir())
        .map(Path::to_owned);
    let run = above()
        .find(|folder| folder.join(RUN_FILE).is_file())
        .map(Path::to_owned);
    (
        workspace
            .or_else(|| std::env::current_dir().ok())
            .unwrap_or_default(),
        run,
    )
}

/// Makes a workspace-relative path absolute.
fn resolved(name: String, workspace: &Path) -> String {
    let (path, at) = name
        .split_once('@')
        .map_or((name.as_str(), ""), |(path, _)| (path, &name[path.len()..]));
    let inside = workspace.join(path);
    match inside.exists() {
        true => format!("{}{at}", inside.display()),
        false => name,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_the_workspace_and_a_copy_of_the_task_knows_its_run() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for inner in ["tasks/reply", "models/judge", "runs/one/task"] {
            std::fs::create_dir_all(root.join(inner)).unwrap();
        }
        std::fs::write(root.join("runs/one").join(RUN_FILE), "").unwrap();
        assert_eq!(
            surroundings(Some(&root.join("tasks/reply"))),
            (root.clone(), None)
        );
        assert_eq!(
            surroundings(Some(&root.join("runs/one/task"))),
            (root.clone(), Some(root.join("runs/one")))
        );
        let place = root.join("models/judge").display().to_string();
        assert_eq!(resolved("models/judge".to_owned(), &root), place);
        assert_eq!(
            resolved("models/judge@best".to_owned(), &root),
            place + "@best"
        );
        assert_eq!(resolved("Qwen/Qwen3-4B".to_owned(), &root), "Qwen/Qwen3-4B");
    }

    #[test]
    fn a_device_is_the_cpu_or_a_gpu_by_its_number() {
        let read = ModelDevice::from_text;
        assert_eq!(
            (read("cpu"), read("gpu:1")),
            (Some(ModelDevice::Cpu), Some(ModelDevice::Gpu(1)))
        );
        assert!(
            ["gpu", "gpu:", "gpu:-1", "cuda:0", "CPU", ""]
                .into_iter()
                .all(|text| read(text).is_none())
        );
        assert_eq!(ModelDevice::Gpu(1).arguments(), ["--gpu", "1"]);
    }
}
