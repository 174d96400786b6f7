//! A task: a folder with `task.toml`, what defines right answers, prompt sets and sample completions.

mod embedded;
mod error;
mod normalisations;
mod parse;
mod references;
mod resolve;
mod score_keys;
mod source;
mod toml_section;
mod tools;

pub(crate) use error::Read;
pub use error::TaskError;
pub(crate) use normalisations::read_normalisations;
pub use normalisations::{ALL_FIELDS, NORMALISATIONS};
pub use parse::PARTS;
pub(crate) use references::follow_references;
pub use references::{decode_path, encode_path, encode_reference, escaped, referenced_part};
pub(crate) use score_keys::{ASSERT_FORMATS, GRADED, KeyInfo, NORMALISE, SCHEMA};
pub use score_keys::{ScoreKey, score_keys};
pub(crate) use source::Home;
pub(crate) use toml_section::Section;
#[cfg(feature = "download")]
pub(crate) use toml_section::Source;
pub use tools::{Function, ToolsError, functions};

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::BufRead;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::config::{Assignments, Layers};
use crate::score::definition::Definition;
use crate::score::{CommandRules, Grammar};

pub const TASK_FILE: &str = "task.toml";

/// A checked task; its prompt sets are read on demand.
#[derive(Debug, Clone)]
pub struct Task {
    /// For command lines and run folders.
    pub name: String,
    /// For people.
    pub title: String,
    /// The definition of right answers.
    pub(crate) definition: Arc<dyn Definition>,
    /// The file that says so, inside the task: the schema, or `task.toml` itself.
    pub definition_file: String,
    pub definition_text: String,
    /// Joined to a row's own system turn by a blank line.
    pub system: Option<String>,
    /// Whether a thinking model may think.
    pub thinking: bool,
    pub score: ScoreRules,
    /// Added to the tier's value.
    pub rewards: Vec<RewardPart>,
    pub prompts: PromptFiles,
    home: Home,
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
        Self::ALL.into_iter().find(|set| set.name() == current_set_name(name))
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
    pub generator: Option<String>,
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
    /// Field to normalisations (joined by `+`), only for comparing with `expected`.
    pub normalise: BTreeMap<String, String>,
}

/// The reward of each tier, ascending.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TierValues {
    pub unparsable: f64,
    pub invalid: f64,
    pub valid: f64,
}

/// `[[reward]]`: a part added to the tier's value.
#[derive(Debug, Clone)]
pub struct RewardPart {
    /// One of [`PARTS`], or the name of a part with a scorer of its own.
    pub part: String,
    /// Multiplies the part, which is in [0, 1].
    pub weight: f64,
    /// The task as that scorer sees it: with its definition and rules, and no parts.
    pub scored_by: Option<Box<Task>>,
    /// The field of a row that is `expected` of that scorer; `None` for nothing.
    pub expected: Option<String>,
}

impl Task {
    /// Finds a task by path, by name in the nearest workspace above the current folder, or among the embedded ones.
    pub fn resolve(text: &str) -> Result<Self, TaskError> {
        let here = std::env::current_dir().map_err(|source| TaskError::Read { label: ".".to_owned(), source })?;
        resolve::resolve_from(text, &here)
    }

    /// [`Task::resolve`] from another folder.
    pub fn resolve_from(text: &str, here: &Path) -> Result<Self, TaskError> {
        resolve::resolve_from(text, here)
    }

    /// The folder that [`Task::resolve_from`] reads; `None` for an embedded task and where there is none.
    pub fn folder_of(text: &str, here: &Path) -> Option<PathBuf> {
        resolve::find_folder(text, here).ok().flatten()
    }

    /// The `task.toml` of a folder as a text to edit, which need not be a valid task: [`Task::with_definition_text`]
    /// reads it. Nothing else of the returned task is known.
    pub fn unread(folder: &Path) -> Result<Self, TaskError> {
        let name = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
        parse::unread(Home::Folder(folder.to_owned()), name)
    }

    /// The `task.toml` of a task that another file defines, as by [`Task::unread`].
    pub fn toml(&self) -> Result<Self, TaskError> {
        parse::unread(self.home.clone(), self.name.clone())
    }

    pub fn load(folder: &Path) -> Result<Self, TaskError> {
        parse::read_task(Home::Folder(folder.to_owned()))
    }

    pub fn embedded(name: &str) -> Result<Self, TaskError> {
        let task = embedded::find(name)
            .ok_or_else(|| resolve::unknown(name, embedded::names().map(str::to_owned).collect(), Path::new(".")))?;
        parse::read_task(Home::Embedded(task))
    }

    /// A template for new tasks.
    pub fn template(name: &str) -> Result<Self, TaskError> {
        let names = || embedded::template_names().collect::<Vec<_>>().join(", ");
        let task = embedded::find_template(name).ok_or_else(|| TaskError::Unknown {
            text: name.to_owned(),
            advice: format!("the templates are {}", names()),
        })?;
        parse::read_task(Home::Embedded(task))
    }

    pub fn template_names() -> impl Iterator<Item = &'static str> {
        embedded::template_names()
    }

    /// The model that runs of this task start from by default.
    pub fn base_model(&self) -> String {
        let toml = self.read(TASK_FILE).map(Cow::into_owned).unwrap_or_default();
        let train = Assignments::from_task(TASK_FILE, &String::from_utf8_lossy(&toml)).ok();
        Layers { task: train, ..Layers::default() }.asked_base_model()
    }

    /// Why `model`, if it is an embedded one, is not a model for this task; `None` if it was pretrained for it.
    pub fn embedded_model_note(&self, model: &str) -> Option<String> {
        embedded::model_note(self, model)
    }

    /// Name and bytes of every file.
    pub fn embedded_files(name: &str) -> Option<&'static [(&'static str, &'static [u8])]> {
        embedded::find(name).map(|task| task.files)
    }

    /// The tasks of the nearest workspace, then the embedded ones.
    pub fn known_names(here: &Path) -> Vec<String> {
        resolve::known_names(here)
    }

    /// The same task with another text of its [`Self::definition_file`].
    ///
    /// # Errors
    /// [`TaskError`] if the text cannot be read, or names a file that the task may not read.
    pub fn with_definition_text(&self, text: &str) -> Result<Self, TaskError> {
        if self.definition_file == TASK_FILE {
            return parse::parse_task(self.home.clone(), text);
        }
        let read = self.definition.with_text(&self.home, &self.definition_file, text)?;
        let definition = read.unwrap_or_else(|| Arc::clone(&self.definition));
        Ok(Self { definition_text: text.to_owned(), definition, ..self.clone() })
    }

    /// The grammar of right answers; `None` where decoding cannot be constrained to them.
    pub fn grammar(&self) -> Option<Grammar<'_>> {
        self.definition.grammar()
    }

    /// The JSON Schema of right answers, where that defines them.
    pub fn schema(&self) -> Option<&Value> {
        if let Some(Grammar::JsonSchema(files)) = self.grammar() { Some(&files.schema) } else { None }
    }

    /// Whether answers call functions.
    pub fn calls_functions(&self) -> bool {
        matches!(self.grammar(), Some(Grammar::ToolCalls(_)))
    }

    /// The tools of every row without its own.
    pub fn tools(&self) -> Option<&Value> {
        if let Some(Grammar::ToolCalls(rules)) = self.grammar() { rules.tools.as_ref() } else { None }
    }

    /// `[score] call_format`.
    pub fn call_format(&self) -> Option<&'static str> {
        let Some(Grammar::ToolCalls(rules)) = self.grammar() else { return None };
        rules.named_call_format().map(|format| format.name)
    }

    /// `[score] kind`.
    pub fn kind(&self) -> &'static str {
        self.definition.kind().name
    }

    /// Whether the task, or a part of its reward, is scored by a program.
    pub fn runs_programs(&self) -> bool {
        self.scorers().any(|task| task.command().is_some())
    }

    /// The task, and as which its weighted parts see it that have a scorer of their own.
    pub fn scorers(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.rewards.iter().filter_map(|part| part.scored_by.as_deref()))
    }

    /// The program that scores, where one does.
    pub fn command(&self) -> Option<&CommandRules> {
        self.definition.command()
    }

    /// A schema of rows' `expected`: types what is typed or imported without quotes.
    pub fn expected_schema(&self) -> Cow<'_, Value> {
        self.definition.expected_schema()
    }

    /// The name of the [`Self::definition_file`] in messages.
    pub fn definition_name(&self) -> &'static str {
        self.definition.file_name()
    }

    /// Names the judge of an answer, with the [`Self::definition_digest`].
    pub fn judge_name(&self) -> &'static str {
        if self.schema().is_some() { "schema" } else { "scorer" }
    }

    /// SHA-256 in hex of what defines right answers.
    pub fn definition_digest(&self) -> String {
        self.definition.digest(self)
    }

    /// Names and bytes of the files that belong to a program.
    pub fn command_files(&self, rules: &CommandRules) -> Result<Vec<(String, Vec<u8>)>, TaskError> {
        rules.files.iter().map(|name| Ok((name.clone(), self.read(name)?.into_owned()))).collect()
    }

    /// `None` for an embedded task.
    pub fn folder(&self) -> Option<&Path> {
        match &self.home {
            Home::Folder(folder) => Some(folder),
            Home::Embedded(_) => None,
        }
    }

    pub fn set_file(&self, set: PromptSet) -> Option<&str> {
        match set {
            PromptSet::Train => self.prompts.train.as_deref(),
            PromptSet::Eval => self.prompts.eval.as_deref(),
            PromptSet::Test => self.prompts.test.as_deref(),
        }
    }

    /// Reads a file of the task, at most [`crate::files::MAX_WHOLE_FILE_BYTES`]; see [`Task::path`].
    pub fn read(&self, file: &str) -> Result<Cow<'static, [u8]>, TaskError> {
        self.home.read(file, crate::files::MAX_WHOLE_FILE_BYTES)
    }

    /// Opens a file of the task, of any length; see [`Task::path`].
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

    /// The files that say what the task is: `task.toml`, and those that define right answers.
    pub fn definition_files(&self) -> Vec<&str> {
        let mut names = vec![TASK_FILE, &self.definition_file];
        names.extend(self.definition.other_files());
        names.extend(self.scorers().skip(1).flat_map(Self::definition_files));
        names
    }

    /// All files of the task: those that define it, sets, samples and generator.
    pub fn file_names(&self) -> Vec<&str> {
        let prompts = &self.prompts;
        let mut names = self.definition_files();
        names.extend(
            [&prompts.train, &prompts.eval, &prompts.test, &prompts.guard, &prompts.completions, &prompts.generator]
                .into_iter()
                .filter_map(Option::as_deref),
        );
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        names
    }

    /// All files of the task, for a frozen copy.
    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>, TaskError> {
        self.file_names().into_iter().map(|name| Ok((name.to_owned(), self.read(name)?.into_owned()))).collect()
    }

    /// SHA-256 in hex over names and bytes of all files; a missing file counts as such.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for name in self.file_names() {
            let bytes = self.read(name).ok();
            hash.update(name.as_bytes());
            hash.update(bytes.as_ref().map_or(u64::MAX, |bytes| bytes.len() as u64).to_le_bytes());
            hash.update(bytes.as_deref().unwrap_or_default());
        }
        crate::format::hex(&hash.finalize())
    }
}
