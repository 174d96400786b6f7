//! Run folders, and the run and checkpoint that RUN, RUN@best, RUN@last or RUN@STEP refers to.

use std::path::{Path, PathBuf};

use crate::files::Checked;
use crate::format::did_you_mean;
use crate::run::checkpoints::list_checkpoints;
use crate::run::error::RunError;
use crate::run::record::history::RunState;
use crate::run::storage::directory::RunDirectory;
use crate::run::storage::display_name::read_display_name;

/// The checkpoint in a RUN argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// The default: best on the eval set, by the run's `keep_best_by`.
    Best,
    Last,
    Step(u64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunReference {
    /// A path, an id, or a unique prefix of an id.
    pub run: String,
    pub at: At,
    /// Whether `@` was given.
    pub explicit: bool,
}

impl RunReference {
    /// Parses RUN, RUN@best, RUN@last, RUN@STEP or RUN@step-STEP. An `@` followed by anything else
    /// is part of the name.
    pub fn parse(text: &str) -> Self {
        let split = text.rsplit_once('@').and_then(|(run, at)| {
            let at = match at {
                "best" => At::Best,
                "last" => At::Last,
                step => At::Step(step.strip_prefix("step-").unwrap_or(step).parse().ok()?),
            };
            (!run.is_empty()).then(|| (run.to_owned(), at))
        });
        match split {
            Some((run, at)) => Self {
                run,
                at,
                explicit: true,
            },
            None => Self {
                run: text.to_owned(),
                at: At::Best,
                explicit: false,
            },
        }
    }
}

/// Folders that are searched for runs, and where new runs are created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunFolders {
    roots: Vec<PathBuf>,
    is_given: bool,
}

/// The nearest workspace above `from`: a folder with `tasks/`.
pub fn workspace(from: &Path) -> Option<&Path> {
    from.ancestors()
        .find(|folder| folder.join("tasks").is_dir())
}

/// Where endpoints are defined, the file that is read first: the nearest workspace above `from`, the user's
/// configuration.
pub fn endpoint_files(from: &Path) -> Vec<PathBuf> {
    let user = directories::ProjectDirs::from("", "", "grpo-tui");
    let user = user.map(|folders| folders.config_dir().to_owned());
    let folders = workspace(from).map(Path::to_owned).into_iter().chain(user);
    folders
        .map(|folder| folder.join("endpoints.toml"))
        .collect()
}

impl RunFolders {
    /// `--runs DIR` alone if given; else `runs/` of the nearest workspace above `from`, then the
    /// user's data directory.
    pub fn discover(runs: Option<&Path>, from: &Path) -> Self {
        if let Some(runs) = runs {
            return Self {
                roots: vec![runs.to_owned()],
                is_given: true,
            };
        }
        let workspace = workspace(from).map(|folder| folder.join("runs"));
        let data = directories::ProjectDirs::from("", "", "grpo-tui")
            .map(|folders| folders.data_dir().join("runs"));
        let mut roots: Vec<PathBuf> = workspace.into_iter().chain(data).collect();
        if roots.is_empty() {
            roots.push(PathBuf::from("runs"));
        }
        Self {
            roots,
            is_given: false,
        }
    }

    pub fn is_given(&self) -> bool {
        self.is_given
    }

    pub fn for_new_runs(&self) -> &Path {
        &self.roots[0]
    }

    pub fn roots(&self) -> &[PathBuf] {
        &self.roots
    }

    pub fn described(&self) -> String {
        self.roots
            .iter()
            .map(|root| root.display().to_string())
            .collect::<Vec<_>>()
            .join(", ")
    }

    pub fn folders(&self) -> Vec<PathBuf> {
        let entries = self
            .roots
            .iter()
            .filter_map(|root| std::fs::read_dir(root).ok())
            .flatten()
            .flatten();
        entries
            .filter(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
            .map(|entry| entry.path())
            .collect()
    }

    /// All runs, oldest first. Other folders are omitted; runs that cannot be opened come with
    /// their error.
    pub fn list(&self) -> Vec<(PathBuf, Result<RunDirectory, RunError>)> {
        let mut found = Vec::new();
        for path in self.folders() {
            match RunDirectory::open(&path) {
                // Report a run that has lost its run.toml.
                Err(RunError::NotARun { .. }) if !path.join("events.jsonl").is_file() => {}
                outcome => found.push((path, outcome)),
            }
        }
        let created = |run: &Result<RunDirectory, RunError>| {
            run.as_ref().map_or(0, |run| run.file().created_ms)
        };
        found.sort_by(|a, b| {
            created(&a.1)
                .cmp(&created(&b.1))
                .then_with(|| a.0.cmp(&b.0))
        });
        found
    }

    /// Ids that start with `start`, newest first, each with the run's name, which may be empty; if
    /// there are none, ids whose last parts start with it. Reads only names.
    pub fn labels(&self, start: &str) -> Vec<(String, String)> {
        let mut all = self.folders();
        all.sort_by(|a, b| b.file_name().cmp(&a.file_name()));
        let label = |path: &PathBuf, part: fn(&str) -> &str| {
            let id = path.file_name()?.to_str().map(part)?.to_owned();
            Some((id.starts_with(start).then_some(id)?, name_of(path)?))
        };
        let labels = |part| {
            all.iter()
                .filter_map(|path| label(path, part))
                .collect::<Vec<_>>()
        };
        let whole = labels(|id| id);
        if whole.is_empty() {
            labels(|id| id.rsplit('-').next().unwrap_or(id))
        } else {
            whole
        }
    }

    /// Finds a run by path, id, name, or a unique prefix of an id or of its last part.
    ///
    /// # Errors
    /// [`RunError::NotFound`], [`RunError::Ambiguous`], or the error of opening the run.
    pub fn find(&self, name: &str) -> Result<RunDirectory, RunError> {
        let path = Path::new(name);
        if path.join("run.toml").is_file() || (path.components().count() > 1 && path.is_dir()) {
            return RunDirectory::open(path);
        }
        let runs = self.list();
        let id = |path: &Path| {
            path.file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned()
        };
        let exact = |path: &Path, run: &Result<RunDirectory, RunError>| {
            id(path) == name || run.as_ref().is_ok_and(|run| run.is_named(name))
        };
        let begins = |path: &Path| {
            let id = id(path);
            id.starts_with(name)
                || id
                    .rsplit('-')
                    .next()
                    .is_some_and(|last| last.starts_with(name))
        };
        let not_found = || RunError::NotFound {
            name: name.to_owned(),
            searched: self.described(),
            near: {
                let labels = self.labels("");
                let known = labels
                    .iter()
                    .flat_map(|(id, own)| [id.as_str(), own.as_str()]);
                did_you_mean(name, known.filter(|known| !known.is_empty()))
            },
        };
        if name.is_empty() {
            return Err(not_found());
        }
        let mut fitting: Vec<&PathBuf> = runs
            .iter()
            .filter(|(path, run)| exact(path, run))
            .map(|(path, _)| path)
            .collect();
        if fitting.is_empty() {
            fitting = runs
                .iter()
                .filter(|(path, _)| begins(path))
                .map(|(path, _)| path)
                .collect();
        }
        match fitting.as_slice() {
            [] => Err(not_found()),
            [path] => RunDirectory::open(path),
            several => {
                let candidates = several
                    .iter()
                    .map(|path| id(path))
                    .collect::<Vec<_>>()
                    .join(", ");
                Err(RunError::Ambiguous {
                    name: name.to_owned(),
                    candidates,
                })
            }
        }
    }

    /// Finds the run and the step of a reference.
    ///
    /// # Errors
    /// Same as [`Self::find`], [`RunError::NoCheckpoint`] with the available ones, and
    /// [`RunError::Malformed`] if the best is requested and the log has lost evals.
    pub fn find_checkpoint(
        &self,
        reference: &RunReference,
    ) -> Result<(RunDirectory, u64), RunError> {
        let run = self.find(&reference.run)?;
        // For a run of an older program, the readable evals decide.
        if reference.at == At::Best
            && run.checked() != Checked::Without
            && let Some(damage) = RunState::read(run.path())?.lost_evals()
        {
            let message = format!("{damage}; the best checkpoint is unknown: name one (RUN@STEP)");
            return Err(RunError::malformed(run.path(), message));
        }
        let step = resolve_checkpoint(&run, reference.at)?;
        Ok((run, step))
    }
}

/// A run's display name, or empty; `None` if the folder is not a run.
fn name_of(run: &Path) -> Option<String> {
    #[derive(serde::Deserialize)]
    struct Head {
        #[serde(default)]
        name: String,
    }
    let text = crate::files::read_text(&run.join("run.toml")).ok()?;
    let display_name = read_display_name(run).ok().flatten();
    // The first table is the configuration.
    let head = || {
        toml::from_str(text.split("\n[").next()?)
            .ok()
            .map(|head: Head| head.name)
    };
    Some(display_name.or_else(head).unwrap_or_default())
}

/// Returns the step of a checkpoint. `Best` falls back to the last one if no checkpoint has an
/// eval.
///
/// # Errors
/// [`RunError::NoCheckpoint`] with the available ones.
pub fn resolve_checkpoint(run: &RunDirectory, at: At) -> Result<u64, RunError> {
    let steps = list_checkpoints(run.path())?;
    let found = match at {
        At::Last => steps.last().copied(),
        At::Step(step) => steps.contains(&step).then_some(step),
        At::Best => RunState::read(run.path())?
            .best_step_by(&steps, run.file().config.keep_best_by)
            .or(steps.last().copied()),
    };
    found.ok_or_else(|| {
        let checkpoint = match at {
            At::Best => "best".to_owned(),
            At::Last => "last".to_owned(),
            At::Step(step) => step.to_string(),
        };
        let listed: Vec<String> = steps.iter().map(u64::to_string).collect();
        let available = if listed.is_empty() {
            "it has none yet".to_owned()
        } else {
            format!("there are those of steps {}", listed.join(", "))
        };
        RunError::NoCheckpoint {
            path: run.path().to_owned(),
            checkpoint,
            available,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let check = |text: &str, run: &str, at: At, explicit: bool| {
            assert_eq!(
                RunReference::parse(text),
                RunReference {
                    run: run.into(),
                    at,
                    explicit
                },
                "{text}"
            );
        };
        check("k7f3a2", "k7f3a2", At::Best, false);
        check("k7f3a2@best", "k7f3a2", At::Best, true);
        check("runs/x@last", "runs/x", At::Last, true);
        check("x@50", "x", At::Step(50), true);
        check("x@step-000050", "x", At::Step(50), true);
        check("/a@b/x", "/a@b/x", At::Best, false);
        check("@best", "@best", At::Best, false);
    }
}
