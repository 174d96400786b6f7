//! A task: its files with the definition of right answers.

pub(super) mod agent_option;
pub(super) mod load_task;
mod score_blocks;
pub(super) mod score_keys;
pub(super) mod trust;

use std::borrow::Cow;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::dataset::{PromptRow, tag_schemas};
use crate::environment::{Agent, StateQuery, Toolset};
use crate::sandbox::PrivateFolder;
use crate::score::definition::{Definition, Grammar};
use crate::score::needs::{CommandRules, RubricRules};
use crate::score::verdict::unwrap_answer::{ThinkRules, answer_start};
use crate::task::{TASK_FILE, TaskError, TaskFiles};
use crate::text::{ThinkMarks, Tokenizer};

#[derive(Debug, Clone)]
pub struct Task {
    pub(crate) files: TaskFiles,
    pub(crate) definition: Arc<dyn Definition>,
    /// Think marks of the model being judged; all known ones if unknown.
    pub(crate) think_marks: &'static [ThinkMarks],
    pub rewards: Vec<RewardPart>,
    pub(crate) toolset: Option<Toolset>,
    pub(crate) agent: Option<Agent>,
    pub(crate) _copy: Option<Arc<PrivateFolder>>,
}

/// A judge model of a task or of a part of its reward.
#[derive(Debug, Clone, Copy)]
pub struct TaskJudge<'a> {
    /// `None` for the task's own.
    pub part: Option<&'a str>,
    pub task: &'a Task,
    pub rules: &'a RubricRules,
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
    /// Name in metrics: built-in, or of a part with its own scorer.
    pub part: String,
    /// Multiplies the part, which is in [0, 1].
    pub weight: f64,
    pub after_valid: bool,
    pub value: PartValue,
}

#[derive(Debug, Clone)]
pub enum PartValue {
    /// Share of fields equal to `expected`.
    Fields,
    /// Whether all fields are equal, without additional ones.
    Exact,
    /// Whether the completion would be valid without a surrounding fence or prose.
    Tolerant,
    /// The worst answer of the row's turns.
    Chain,
    /// Share of values that the prompt states.
    Grounded,
    Length(LengthRule),
    Scored {
        /// The task with that scorer's definition and rules, without parts.
        task: Box<Task>,
        /// Row field used as `expected` by that scorer.
        expected: Option<String>,
    },
}

impl RewardPart {
    pub fn scored_by(&self) -> Option<&Task> {
        match &self.value {
            PartValue::Scored { task, .. } => Some(task),
            _ => None,
        }
    }

    /// Row field used as `expected` by the part's own scorer.
    pub fn expected(&self) -> Option<&str> {
        match &self.value {
            PartValue::Scored { expected, .. } => expected.as_deref(),
            _ => None,
        }
    }

    pub fn compares(&self) -> bool {
        matches!(self.value, PartValue::Fields | PartValue::Exact) || self.expected().is_some()
    }
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LengthRule {
    pub aim: LengthAim,
    pub unit: LengthUnit,
    /// Units over which the value falls from 1 to 0.
    pub buffer: f64,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum LengthAim {
    /// The length should be at most this.
    Max(f64),
    /// The length should be near this.
    Target(f64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LengthUnit {
    /// Tokens as sampled, with stop token; text does not show them.
    Tokens,
    /// UTF-8.
    Bytes,
}

impl LengthRule {
    /// Value in [0, 1]. With a maximum it is DAPO's overlong penalty (arXiv 2503.14476,
    /// equation 13) plus 1, which changes no advantage.
    pub(crate) fn value(&self, length: usize) -> f64 {
        let length = length as f64;
        match self.aim {
            LengthAim::Max(most) if length > most => 0.0,
            LengthAim::Max(most) if length <= most - self.buffer => 1.0,
            LengthAim::Max(most) => (most - length) / self.buffer,
            LengthAim::Target(target) => (1.0 - (length - target).abs() / self.buffer).max(0.0),
        }
    }
}

impl Task {
    pub fn grammar(&self) -> Option<Grammar<'_>> {
        self.definition.grammar()
    }

    pub fn schema(&self) -> Option<&Value> {
        self.definition.schema().map(|schema| schema.value)
    }

    /// Tags rows of an eval or test set by their own schemas, where the kind has one.
    pub fn tag_schemas(&self, rows: &mut [PromptRow]) {
        if self.schema().is_some() {
            tag_schemas(self, rows);
        }
    }

    pub fn calls_functions(&self) -> bool {
        matches!(self.grammar(), Some(Grammar::ToolCalls(_)))
    }

    /// Tools of rows without their own.
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

    /// Whether text is allowed before the first function call.
    pub fn takes_prose(&self) -> bool {
        matches!(self.grammar(), Some(Grammar::ToolCalls(rules)) if rules.takes_prose())
    }

    pub fn toolset(&self) -> Option<&Toolset> {
        self.toolset.as_ref()
    }

    pub fn agent(&self) -> Option<&Agent> {
        self.agent.as_ref()
    }

    /// Whether tools or an agent take part in conversations, so that no reference answer to a
    /// prompt is known.
    pub fn has_partner(&self) -> bool {
        self.toolset.is_some() || self.agent.is_some()
    }

    /// Whether `expected` is the right answer to its prompt: no program, judge or partner decides.
    pub fn expects_answers(&self) -> bool {
        let needs = self.definition.needs();
        !self.has_partner()
            && needs.program.is_none()
            && needs.judge.is_none()
            && needs.state.is_none()
    }

    pub fn reads_exit_code(&self) -> bool {
        self.scorers().any(|task| task.definition.needs().exit_code)
    }

    /// Questions about the tools' final state, with the keys of the answers.
    pub fn state_queries(&self) -> impl Iterator<Item = (&str, &StateQuery)> {
        self.scorers()
            .filter_map(|task| task.definition.needs().state)
    }

    pub fn has_state(&self) -> bool {
        self.state_queries().next().is_some()
    }

    /// Whether answers are calls of functions or of an HTTP API.
    pub fn has_calls(&self) -> bool {
        matches!(
            self.grammar(),
            Some(Grammar::ToolCalls(_) | Grammar::HttpMessage(_))
        )
    }

    /// `[score] kind`.
    pub fn kind(&self) -> &'static str {
        self.definition.kind().name
    }

    pub fn runs_programs(&self) -> bool {
        self.scorers().any(|task| task.command().is_some())
    }

    /// The trimmed answer of a completion, without reasoning if the task strips it.
    pub fn answer_of<'t>(&self, completion: &'t str) -> &'t str {
        let start = answer_start(completion, self.think_rules(), |_| true);
        completion.get(start..).unwrap_or_default().trim()
    }

    pub(crate) fn think_rules(&self) -> ThinkRules {
        ThinkRules {
            is_stripped: self.score.strip_thinking,
            marks: self.think_marks,
        }
    }

    /// Whether scoring or tools run programs or ask judges that the user must trust.
    pub fn needs_trust(&self) -> bool {
        if self.judges().any(|judge| judge.rules.local.is_none()) {
            return true;
        }
        self.runs_programs()
            || self.agent.is_some()
            || self.toolset.as_ref().is_some_and(Toolset::needs_trust)
    }

    /// Judges of the task and its parts.
    pub fn judges(&self) -> impl Iterator<Item = TaskJudge<'_>> {
        let parts = self
            .rewards
            .iter()
            .filter_map(|part| Some((Some(part.part.as_str()), part.scored_by()?)));
        let all = std::iter::once((None, self)).chain(parts);
        all.filter_map(|(part, task)| {
            let rules = task.definition.needs().judge?;
            Some(TaskJudge { part, task, rules })
        })
    }

    pub fn scorers(&self) -> impl Iterator<Item = &Self> {
        std::iter::once(self).chain(self.rewards.iter().filter_map(RewardPart::scored_by))
    }

    pub fn command(&self) -> Option<&CommandRules> {
        self.definition.needs().program
    }

    /// Schema of rows' `expected`: types values entered or imported without quotes.
    pub fn expected_schema(&self) -> Cow<'_, Value> {
        self.definition.expected_schema()
    }

    pub fn definition_name(&self) -> &'static str {
        self.definition.file_name()
    }

    /// Names what judges an answer, with the [`Self::definition_digest`].
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

    /// The kind, and sorted names that answers may use.
    pub(crate) fn answer_names(&self) -> (&'static str, Vec<String>) {
        let mut names = self.definition.answer_names(self);
        names.sort_unstable();
        (self.kind(), names)
    }

    /// `task.toml` and the files that define right answers.
    pub fn definition_files(&self) -> Vec<&str> {
        let mut names = vec![TASK_FILE, &self.definition_file];
        names.extend(self.definition.other_files());
        names.extend(self.toolset.iter().flat_map(Toolset::files));
        names.extend(self.agent.iter().flat_map(Agent::files));
        names.extend(self.scorers().skip(1).flat_map(Self::definition_files));
        names
    }

    /// All task files: definition, sets, samples.
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
            ]
            .into_iter()
            .filter_map(Option::as_deref),
        );
        let mut seen = std::collections::HashSet::new();
        names.retain(|name| seen.insert(*name));
        names
    }

    /// [`Self::file_names`], and the schemas that rows name.
    fn all_file_names(&self) -> Vec<String> {
        let names = self.file_names().into_iter().map(str::to_owned);
        let mut names: Vec<String> = names.collect();
        if self.definition.schema().is_none() {
            return names;
        }
        let of_rows = crate::dataset::row_schema_files(&self.files);
        let new = of_rows.into_iter().filter(|name| !names.contains(name));
        names.extend(new.collect::<Vec<_>>());
        names
    }

    pub fn files(&self) -> Result<Vec<(String, Vec<u8>)>, TaskError> {
        let read = |name: String| Ok((name.clone(), self.read_hidden(&name)?.into_owned()));
        self.all_file_names().into_iter().map(read).collect()
    }

    /// SHA-256 in hex over names and contents of all files; a missing file counts as such.
    pub fn digest(&self) -> String {
        let mut hash = Sha256::new();
        for name in self.all_file_names() {
            let bytes = self.read_hidden(&name).ok();
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

/// Adapts the task to a model: think marks and, unless the task sets one, call format of its chat
/// template.
#[must_use]
pub fn for_model(task: &Task, tokenizer: &Tokenizer) -> Task {
    let mut found = task.clone();
    found.think_marks = std::slice::from_ref(tokenizer.think_marks());
    if task.calls_functions()
        && let Some(definition) = task.definition.with_model(
            tokenizer.call_format(),
            tokenizer.writes_prose_before_calls(),
        )
    {
        found.definition = definition;
    }
    for part in &mut found.rewards {
        if let PartValue::Scored { task, .. } = &mut part.value {
            **task = for_model(task, tokenizer);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_fall_over_the_buffer() {
        let rule = |aim, buffer| LengthRule {
            aim,
            unit: LengthUnit::Tokens,
            buffer,
        };
        for (rule, length, value) in [
            // As TRL's get_soft_overlong_punishment(100, 20), plus 1.
            (rule(LengthAim::Max(100.0), 20.0), 0, 1.0),
            (rule(LengthAim::Max(100.0), 20.0), 80, 1.0),
            (rule(LengthAim::Max(100.0), 20.0), 85, 0.75),
            (rule(LengthAim::Max(100.0), 20.0), 90, 0.5),
            (rule(LengthAim::Max(100.0), 20.0), 100, 0.0),
            (rule(LengthAim::Max(100.0), 20.0), 101, 0.0),
            // Without a buffer the limit itself is not penalised.
            (rule(LengthAim::Max(100.0), 0.0), 100, 1.0),
            (rule(LengthAim::Max(100.0), 0.0), 101, 0.0),
            (rule(LengthAim::Target(40.0), 40.0), 40, 1.0),
            (rule(LengthAim::Target(40.0), 40.0), 30, 0.75),
            (rule(LengthAim::Target(40.0), 40.0), 50, 0.75),
            (rule(LengthAim::Target(40.0), 10.0), 45, 0.5),
            (rule(LengthAim::Target(40.0), 10.0), 60, 0.0),
        ] {
            assert_eq!(rule.value(length), value, "{rule:?} {length}");
        }
    }
}
