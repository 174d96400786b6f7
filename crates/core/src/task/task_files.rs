//! The files of a task, and what `task.toml` says whatever judges answers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::error::{TASK_FILE, TaskError};
use super::normalisations::Normalisations;
use super::source::Home;
use crate::config::{Assignments, Layers};

/// A task without the meaning of its definition, which only a kind of scorer reads. Prompt sets are read on demand.
#[derive(Debug, Clone)]
pub struct TaskFiles {
    /// For command lines and run folders.
    pub name: String,
    /// For people.
    pub title: String,
    /// The file that defines right answers, inside the task: the schema, or `task.toml` itself.
    pub definition_file: String,
    pub definition_text: String,
    /// Joined to a row's own system turn by a blank line.
    pub system: Option<String>,
    /// Whether a thinking model may think.
    pub thinking: bool,
    /// Further variables of the model's chat template.
    pub template_kwargs: serde_json::Map<String, serde_json::Value>,
    pub score: ScoreRules,
    pub prompts: PromptFiles,
    pub(crate) home: Home,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PromptSet {
    Train,
    /// Evaluated during training; chooses the checkpoint.
    Eval,
    /// Evaluated at step 0 and at the end.
    Test,
}

impl PromptSet {
    pub const ALL: [Self; 3] = [Self::Train, Self::Eval, Self::Test];

    /// Accepts `proof`, the test set of older programs.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|set| set.name() == current_set_name(name))
    }

    /// Its key in `task.toml`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Eval => "eval",
            Self::Test => "test",
        }
    }
}

/// The current name of a set: `test` for `proof` of older tasks and runs.
pub fn current_set_name(name: &str) -> &str {
    if name == "proof" { "test" } else { name }
}

/// Files of `[prompts]`, inside the task.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptFiles {
    pub train: Option<String>,
    pub eval: Option<String>,
    pub test: Option<String>,
    /// The file of guard prompts with references: knowledge to keep through training.
    pub guard: Option<String>,
    /// Sample completions for the preview.
    pub completions: Option<String>,
}

/// `[score]`: how completions are scored.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRules {
    pub tiers: TierValues,
    /// Partial credit between `invalid` and `valid` by the share of satisfied constraints.
    pub graded: bool,
    /// Strips everything up to the last `</think>`.
    pub strip_thinking: bool,
    /// Checks JSON Schema's `format`.
    pub assert_formats: bool,
    /// The share of a step's completions whose scorer may fail before the run stops.
    pub max_scorer_errors: f64,
    /// Whether a conversation continues after an answer that is not valid.
    pub continue_after_failure: bool,
    /// By field, for comparing with `expected`.
    pub normalise: BTreeMap<String, Normalisations>,
    /// `[score.grounded] except`: dotted paths of fields that the part `grounded` does not count.
    pub grounded_except: Vec<String>,
}

/// The reward of each tier, ascending.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TierValues {
    pub unparsable: f64,
    pub invalid: f64,
    pub valid: f64,
}

impl TaskFiles {
    /// The model that runs of this task start from by default.
    pub fn base_model(&self) -> String {
        let toml = self
            .read(TASK_FILE)
            .map(Cow::into_owned)
            .unwrap_or_default();
        let train = Assignments::from_task(TASK_FILE, &String::from_utf8_lossy(&toml)).ok();
        Layers {
            task: train,
            ..Layers::default()
        }
        .asked_base_model()
    }

    /// `None` for an embedded task.
    pub fn folder(&self) -> Option<&Path> {
        self.home.folder()
    }

    pub fn set_file(&self, set: PromptSet) -> Option<&str> {
        match set {
            PromptSet::Train => self.prompts.train.as_deref(),
            PromptSet::Eval => self.prompts.eval.as_deref(),
            PromptSet::Test => self.prompts.test.as_deref(),
        }
    }

    /// Reads a file of the task, at most [`crate::files::MAX_WHOLE_FILE_BYTES`]; see [`TaskFiles::path`].
    pub fn read(&self, file: &str) -> Result<Cow<'static, [u8]>, TaskError> {
        self.home.read(file, crate::files::MAX_WHOLE_FILE_BYTES)
    }

    /// Opens a file of the task, of any length; see [`TaskFiles::path`].
    pub fn open(&self, file: &str) -> Result<Box<dyn BufRead>, TaskError> {
        self.home.open(file)
    }

    /// The path of a task's file with links resolved.
    ///
    /// # Errors
    /// [`TaskError::Outside`] for an absolute path, for `..`, and for a link that leads out of the folder.
    pub fn path(&self, file: &str) -> Result<PathBuf, TaskError> {
        self.home.path(file)
    }

    /// A file's path in messages.
    pub fn label(&self, file: &str) -> String {
        self.home.label(file)
    }

    /// Names and bytes of files of the task.
    pub(crate) fn read_files<N: AsRef<str>>(
        &self,
        names: &[N],
    ) -> Result<Vec<(String, Vec<u8>)>, TaskError> {
        self.home.read_files(names)
    }
}
