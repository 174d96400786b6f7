//! A task's files, and the parts of `task.toml` common to all scorers.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};

use super::error::{TASK_FILE, TaskError};
use super::leaf_rules::LeafRules;
use super::normalisations::Normalisations;
use super::source::Home;
use crate::config::{Assignments, Layers, choices};
use crate::files;

/// A task without the scorer-specific part of its definition. Prompt sets are read on demand.
#[derive(Debug, Clone)]
pub struct TaskFiles {
    /// Name in command lines and run folders.
    pub name: String,
    pub title: String,
    /// The schema, or `task.toml` itself.
    pub definition_file: String,
    pub definition_text: String,
    /// Prepended to a row's system turn with a blank line.
    pub system: Option<String>,
    /// Whether a thinking model may think.
    pub thinking: bool,
    /// Further chat template variables.
    pub template_kwargs: serde_json::Map<String, serde_json::Value>,
    pub score: ScoreRules,
    pub prompts: PromptFiles,
    pub(crate) home: Home,
}

choices! {
    /// A prompt set, by its key in `task.toml`.
    #[derive(PartialOrd, Ord)]
    PromptSet {
        Train = "train",
        /// Evaluated during training; selects the checkpoint.
        Eval = "eval",
        /// Held-out: evaluated at step 0 and at the end.
        Test = "test" | "proof",
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PromptFiles {
    pub train: Option<String>,
    pub eval: Option<String>,
    pub test: Option<String>,
    /// Guard prompts with references: knowledge to retain in training.
    pub guard: Option<String>,
    pub completions: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRules {
    pub tiers: TierValues,
    /// Partial credit between `invalid` and `valid` by the share of satisfied constraints.
    pub graded: bool,
    /// Strips everything up to the last `</think>`.
    pub strip_thinking: bool,
    /// Checks JSON Schema's `format`.
    pub assert_formats: bool,
    /// Share of a step's completions whose scorer may fail before the run stops.
    pub max_scorer_errors: f64,
    /// Whether a conversation continues after an invalid answer.
    pub continue_after_failure: bool,
    /// Rules by field, for comparison with `expected`.
    pub normalise: BTreeMap<String, Normalisations>,
    /// Tolerances and aliases of values, and how leaves earn credit.
    pub leaves: LeafRules,
    /// `[score.grounded] except`: dotted paths of fields that the part `grounded` ignores.
    pub grounded_except: Vec<String>,
}

impl Default for ScoreRules {
    fn default() -> Self {
        Self {
            tiers: TierValues {
                unparsable: 0.0,
                invalid: 0.5,
                valid: 1.0,
            },
            graded: false,
            strip_thinking: true,
            assert_formats: false,
            max_scorer_errors: 0.1,
            continue_after_failure: false,
            normalise: BTreeMap::new(),
            leaves: LeafRules::default(),
            grounded_except: Vec::new(),
        }
    }
}

/// Reward of each tier, ascending.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TierValues {
    pub unparsable: f64,
    pub invalid: f64,
    pub valid: f64,
}

impl TaskFiles {
    /// The default model of the task's runs.
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

    pub fn folder(&self) -> Option<&Path> {
        self.home.folder()
    }

    /// `None` for a hidden test set ([`files::hide_files`]).
    pub fn set_file(&self, set: PromptSet) -> Option<&str> {
        match set {
            PromptSet::Train => self.prompts.train.as_deref(),
            PromptSet::Eval => self.prompts.eval.as_deref(),
            PromptSet::Test if files::hides_test_sets() => None,
            PromptSet::Test => self.prompts.test.as_deref(),
        }
    }

    /// [`Self::read`], also of a hidden test set: for copies and digests.
    pub(crate) fn read_hidden(&self, file: &str) -> Result<Cow<'static, [u8]>, TaskError> {
        self.home.read_hidden(file)
    }

    /// Reads at most [`crate::files::MAX_WHOLE_FILE_BYTES`]; see [`TaskFiles::path`].
    pub fn read(&self, file: &str) -> Result<Cow<'static, [u8]>, TaskError> {
        self.home.read(file, crate::files::MAX_WHOLE_FILE_BYTES)
    }

    pub fn open(&self, file: &str) -> Result<Box<dyn BufRead>, TaskError> {
        self.home.open(file)
    }

    /// Resolves links.
    ///
    /// # Errors
    /// [`TaskError::Outside`] for an absolute path, `..`, or a link that leaves the folder.
    pub fn path(&self, file: &str) -> Result<PathBuf, TaskError> {
        self.home.path(file)
    }

    pub fn label(&self, file: &str) -> String {
        self.home.label(file)
    }

    pub(crate) fn read_files<N: AsRef<str>>(
        &self,
        names: &[N],
    ) -> Result<Vec<(String, Vec<u8>)>, TaskError> {
        self.home.read_files(names)
    }
}
