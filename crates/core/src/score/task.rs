//! A task: its files, with the definition of right answers that a kind of scorer has read from them.

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::command::rules::CommandRules;
use super::definition::Definition;
use super::grammar::Grammar;
use super::length::LengthRule;
use super::rubric::RubricRules;
use super::unwrap_answer::{ThinkRules, answer_start};
use crate::environment::{Agent, StateQuery, Toolset};
use crate::sandbox::PrivateFolder;
use crate::task::{TASK_FILE, TaskError, TaskFiles};
use crate::text::ThinkMarks;

/// A checked task.
#[derive(Debug, Clone)]
pub struct Task {
    pub(super) files: TaskFiles,
    pub(super) definition: Arc<dyn Definition>,
    /// Of the think blocks of the model whose answers it judges; all known ones where that is not known.
    pub(super) think_marks: &'static [ThinkMarks],
    /// Added to the tier's value.
    pub rewards: Vec<RewardPart>,
    pub(super) toolset: Option<Toolset>,
    pub(super) agent: Option<Agent>,
    /// The folder of a copy that ends with the task.
    pub(super) _copy: Option<Arc<PrivateFolder>>,
}

impl Deref for Task {
    type Target = TaskFiles;

    fn deref(&self) -> &TaskFiles {
        &self.files
    }
}

impl DerefMut for Task {
    fn deref_mut(&mut self) -> &mut TaskFiles {
        &mut self.files
    }
}

/// `[[reward]]`: a part added to the tier's value.
#[derive(Debug, Clone)]
pub struct RewardPart {
    /// `fields`, `exact`, `tolerant`, `chain`, `grounded`, `length`, or the name of a part with a scorer of its own.
    pub part: String,
    /// Multiplies the part, which is in [0, 1].
    pub weight: f64,
    /// The task as that scorer sees it: with its definition and rules, and no parts.
    pub scored_by: Option<Box<Task>>,
    /// The field of a row that is `expected` of that scorer; `None` for nothing.
    pub expected: Option<String>,
    /// Whether it is 0 for answers that are not valid.
    pub after_valid: bool,
    /// Of the part `length`.
    pub length: Option<LengthRule>,
}

impl Task {
    /// The grammar of right answers; `None` where decoding cannot be constrained to them.
    pub fn grammar(&self) -> Option<Grammar<'_>> {
        self.definition.grammar()
    }

    /// The JSON Schema of right answers, where that defines them.
    pub fn schema(&self) -> Option<&Value> {
        self.definition.schema()
    }

    /// Whether answers call functions.
    pub fn calls_functions(&self) -> bool {
        matches!(self.grammar(), Some(Grammar::ToolCalls(_)))
    }

    /// The tools of every row without its own.
    pub fn tools(&self) -> Option<&Value> {
        if let Some(Grammar::ToolCalls(rules)) = self.grammar() {
            rules.tools.as_ref()
        } else {
            None
        }
    }

    /// `[score] call_format`.
    pub fn call_format(&self) -> Option<&'static str> {
        let Some(Grammar::ToolCalls(rules)) = self.grammar() else {
            return None;
        };
        rules.named_call_format().map(|format| format.name)
    }

    /// Whether text may be before the first call of functions.
    pub fn takes_prose(&self) -> bool {
        matches!(self.grammar(), Some(Grammar::ToolCalls(rules)) if rules.takes_prose())
    }

    /// The tools that a model calls while it converses.
    pub fn toolset(&self) -> Option<&Toolset> {
        self.toolset.as_ref()
    }

    /// The program that holds the conversations.
    pub fn agent(&self) -> Option<&Agent> {
        self.agent.as_ref()
    }

    /// Whether tools or an agent make a conversation more than a prompt and its answers: no answer to its prompt is known.
    pub fn has_partner(&self) -> bool {
        self.toolset.is_some() || self.agent.is_some()
    }

    /// Whether the exit code of its agent is a verdict.
    pub fn reads_exit_code(&self) -> bool {
        self.scorers().any(|task| task.definition.reads_exit_code())
    }

    /// What is asked of the tools at the end of a conversation, each with the key of its answer.
    pub fn state_queries(&self) -> impl Iterator<Item = (&str, &StateQuery)> {
        self.scorers()
            .filter_map(|task| task.definition.state_query())
    }

    /// Whether answers are calls, of functions or of an HTTP API.
    pub fn has_calls(&self) -> bool {
        matches!(self.kind(), "tool_calls" | "http_request")
    }

    /// `[score] kind`.
    pub fn kind(&self) -> &'static str {
        self.definition.kind().name
    }

    /// Whether the task, or a part of its reward, is scored by a program.
    pub fn runs_programs(&self) -> bool {
        self.scorers().any(|task| task.command().is_some())
    }

    /// The answer of a completion: without its reasoning where the task strips that, and without white space around it.
    pub fn answer_of<'t>(&self, completion: &'t str) -> &'t str {
        let start = answer_start(completion, self.think_rules(), |_| true);
        completion.get(start..).unwrap_or_default().trim()
    }

    pub(super) fn think_rules(&self) -> ThinkRules {
        ThinkRules {
            is_stripped: self.score.strip_thinking,
            marks: self.think_marks,
        }
    }

    /// Whether scoring or tools run programs, or scoring asks judges, which the user must have allowed.
    pub fn needs_trust(&self) -> bool {
        if self.judges().any(|(_, _, rules)| rules.local.is_none()) {
            return true;
        }
        self.runs_programs()
            || self.agent.is_some()
            || self.toolset.as_ref().is_some_and(Toolset::needs_trust)
    }

    /// The judges that score the task or a part of its reward: the part's name, and the task as that judge sees it.
    pub fn judges(&self) -> impl Iterator<Item = (Option<&str>, &Self, &RubricRules)> {
        let parts = self
            .rewards
            .iter()
            .filter_map(|part| Some((Some(part.part.as_str()), part.scored_by.as_deref()?)));
        let all = std::iter::once((None, self)).chain(parts);
        all.filter_map(|(part, task)| Some((part, task, task.definition.rubric()?)))
    }

    /// The task, and as which its weighted parts see it that have a scorer of their own.
    pub fn scorers(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(
            self.rewards
                .iter()
                .filter_map(|part| part.scored_by.as_deref()),
        )
    }

    /// The program that scores, where one does.
    pub fn command(&self) -> Option<&CommandRules> {
        self.definition.command()
    }

    /// A schema of rows' `expected`: types what is typed or imported without quotes.
    pub fn expected_schema(&self) -> Cow<'_, Value> {
        self.definition.expected_schema()
    }

    /// The name of the [`TaskFiles::definition_file`] in messages.
    pub fn definition_name(&self) -> &'static str {
        self.definition.file_name()
    }

    /// Names the judge of an answer, with the [`Self::definition_digest`].
    pub fn judge_name(&self) -> &'static str {
        if self.schema().is_some() {
            "schema"
        } else {
            "scorer"
        }
    }

    /// SHA-256 in hex of what defines right answers.
    pub fn definition_digest(&self) -> String {
        self.definition.digest(self)
    }

    /// The kind with the names that answers may use, sorted.
    pub(super) fn answer_names(&self) -> (&'static str, Vec<String>) {
        let mut names = self.definition.answer_names(self);
        names.sort_unstable();
        (self.kind(), names)
    }

    /// The files that say what the task is: `task.toml`, and those that define right answers.
    pub fn definition_files(&self) -> Vec<&str> {
        let mut names = vec![TASK_FILE, &self.definition_file];
        names.extend(self.definition.other_files());
        names.extend(self.toolset.iter().flat_map(Toolset::files));
        names.extend(self.agent.iter().flat_map(Agent::files));
        names.extend(self.scorers().skip(1).flat_map(Self::definition_files));
        names
    }

    /// All files of the task: those that define it, sets, samples and generator.
    pub fn file_names(&self) -> Vec<&str> {
        let prompts = &self.prompts;
        let mut names = self.definition_files();
        names.extend(
            [
                &prompts.train,
                &prompts.eval,
                &prompts.test,
                &prompts.guard,
                &prompts.completions,
                &prompts.generator,
            ]
            .into_iter()
            .filter_map(Option::as_deref),
        );
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        names
    }

    /// All files of the task, for a frozen copy.
    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>, TaskError> {
        self.read_files(&self.file_names())
    }

    /// SHA-256 in hex over names and bytes of all files; a missing file counts as such.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for name in self.file_names() {
            let bytes = self.read(name).ok();
            hash.update(name.as_bytes());
            hash.update(
                bytes
                    .as_ref()
                    .map_or(u64::MAX, |bytes| bytes.len() as u64)
                    .to_le_bytes(),
            );
            hash.update(bytes.as_deref().unwrap_or_default());
        }
        crate::format::hex(&hash.finalize())
    }
}
