//! Checks prompt sets before training and evals: one pass per set in bounded memory.

mod duplicates;
mod near_duplicates;
mod report;

use std::collections::HashMap;

use serde_json::Value;

use self::duplicates::{Duplicates, MAX_ROWS, Repeat};
use self::report::Place;
pub use self::report::{Finding, FindingKind, Group, Health, Level, SetHealth};
use super::random::text_hash;
use crate::dataset::error::DatasetError;
use crate::dataset::row::{PromptRow, batches, open};
use crate::secrets;
use crate::task::{PromptSet, TaskFiles};

/// Distinct tags counted per set; bounds the memory.
const MAX_TAGS: usize = 1000;

/// Failure class and reason if a row's `expected` would not count as right.
pub type ExpectedProblem<'a> = dyn Fn(&PromptRow) -> Option<(&'static str, String)> + 'a;
/// Prompt length in tokens, template included, or why it is unknown.
pub type CountTokens<'a> = dyn Fn(&PromptRow) -> Result<usize, String> + 'a;

#[derive(Default)]
pub struct Checks<'a> {
    pub definition: &'a str,
    pub expected_problem: Option<&'a ExpectedProblem<'a>>,
    /// Whether `expected` is the right answer of its prompt, so that two contradict each other.
    pub expects_answers: bool,
    /// Whether all texts of the rows are searched for secrets.
    pub finds_secrets: bool,
    pub count_tokens: Option<&'a CountTokens<'a>>,
    /// Longest prompt, in tokens, that leaves room for an answer.
    pub most_prompt_tokens: Option<usize>,
}

impl std::fmt::Debug for Checks<'_> {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Checks")
            .field("most_prompt_tokens", &self.most_prompt_tokens)
            .finish_non_exhaustive()
    }
}

pub fn check(task: &TaskFiles, checks: &Checks<'_>) -> Result<Health, DatasetError> {
    let mut health = Health::default();
    let mut duplicates = Duplicates::new();
    for set in PromptSet::ALL {
        if task.set_file(set).is_none() {
            continue;
        }
        let (file, reader) = open(task, set)?;
        let label = task.label(&file);
        duplicates.begin(set);
        let mut pass = Pass::new(task, checks, set, label.clone());
        for row in batches(&label, reader).flatten() {
            match row {
                Ok(row) => pass.row(&row, &mut duplicates, &mut health),
                Err(DatasetError::Line { line, problem, .. }) => {
                    let place = Place {
                        file: &label,
                        set: Some(set),
                        line: Some(line),
                    };
                    health.add(FindingKind::BadLine, place, || problem)
                }
                Err(error) => return Err(error),
            }
        }
        let set_health = pass.finish(&mut health);
        health.sets.push(set_health);
    }
    if duplicates.is_full() {
        let message = || {
            format!(
                "only the first {MAX_ROWS} rows were compared with each other; check the files in parts"
            )
        };
        let place = Place {
            file: "the sets together",
            set: None,
            line: None,
        };
        health.add(FindingKind::NotCompared, place, message);
    }
    Ok(health)
}

struct Pass<'a> {
    task: &'a TaskFiles,
    checks: &'a Checks<'a>,
    set: PromptSet,
    result: SetHealth,
    /// Hash of an id -> its line; bounded like the comparison of prompts.
    ids: HashMap<u64, u32>,
    counted_rows: usize,
    total_tokens: usize,
}

impl<'a> Pass<'a> {
    fn new(task: &'a TaskFiles, checks: &'a Checks<'a>, set: PromptSet, file: String) -> Self {
        let result = SetHealth {
            set,
            file,
            rows: 0,
            tags: Default::default(),
            prompt_tokens: None,
        };
        Self {
            task,
            checks,
            set,
            result,
            ids: HashMap::new(),
            counted_rows: 0,
            total_tokens: 0,
        }
    }

    fn row(&mut self, row: &PromptRow, duplicates: &mut Duplicates, health: &mut Health) {
        self.result.rows += 1;
        for tag in &row.tags {
            if self.result.tags.len() < MAX_TAGS || self.result.tags.contains_key(tag) {
                *self.result.tags.entry(tag.clone()).or_default() += 1;
            }
        }
        self.id(row, health);
        if let Some(repeat) = duplicates.insert(row) {
            self.repeat(row, repeat, health);
        }
        if !row
            .messages
            .iter()
            .any(|turn| turn.role == "user" && !turn.content.trim().is_empty())
        {
            let message = || {
                "no user turn with text; add {\"role\": \"user\", \"content\": \"…\"} to `messages`"
                    .to_owned()
            };
            health.add(FindingKind::NoUserTurn, self.place(row.line), message);
        }
        let problem = self.checks.expected_problem.and_then(|check| check(row));
        if let Some((class, problem)) = problem {
            let definition = self.checks.definition;
            let message = || {
                format!(
                    "`expected` would not be valid: {problem}; correct the row or the {definition}"
                )
            };
            health.add_to_class(
                FindingKind::ExpectedInvalid,
                class,
                self.place(row.line),
                message,
            );
        }
        self.tokens(row, health);
        if self.checks.finds_secrets {
            for (key, value) in &row.fields.whole() {
                self.secrets(key, value, row.line, health);
            }
        }
    }

    fn place(&self, line: usize) -> Place<'_> {
        Place {
            file: &self.result.file,
            set: Some(self.set),
            line: Some(line),
        }
    }

    fn id(&mut self, row: &PromptRow, health: &mut Health) {
        if self.ids.len() >= MAX_ROWS {
            return;
        }
        let line = u32::try_from(row.line).unwrap_or(u32::MAX);
        if let Some(first) = self.ids.insert(text_hash(&row.id), line) {
            let message = || {
                format!(
                    "id `{}` is already on line {first}; give every row its own id, or none",
                    row.id
                )
            };
            health.add(FindingKind::DuplicateId, self.place(row.line), message);
        }
    }

    fn repeat(&self, row: &PromptRow, repeat: Repeat, health: &mut Health) {
        let contradicts = self.checks.expects_answers && repeat.contradicts;
        let (kind, advice) = match (repeat.exact, repeat.set == self.set) {
            (true, _) if contradicts => (FindingKind::Conflict, "correct or remove one"),
            (true, true) => (FindingKind::Duplicate, "duplicate: remove one"),
            (false, true) => (
                FindingKind::NearDuplicate,
                "near-duplicate: remove one, unless they ask different things",
            ),
            (true, false) => (FindingKind::Leak, "data leak: keep it in one set"),
            (false, false) => (
                FindingKind::NearLeak,
                "near-duplicate across sets: keep such rows in one set",
            ),
        };
        let message = || {
            let place = format!(
                "{} line {}",
                self.task.set_file(repeat.set).unwrap_or_default(),
                repeat.line
            );
            if repeat.exact {
                let other = match contradicts {
                    true => ", with another expected answer",
                    false => "",
                };
                format!("same prompt as {place}{other}: {advice}")
            } else if contradicts {
                format!(
                    "about {:.0}% the same as {place}, with another expected answer: {advice}",
                    (repeat.likeness * 100.0).min(99.0)
                )
            } else {
                format!(
                    "about {:.0}% the same as {place}: {advice}",
                    (repeat.likeness * 100.0).min(99.0)
                )
            }
        };
        health.add(kind, self.place(row.line), message);
    }

    fn tokens(&mut self, row: &PromptRow, health: &mut Health) {
        let Some(count) = self.checks.count_tokens else {
            return;
        };
        match count(row) {
            Ok(tokens) => {
                let (least, _, greatest) =
                    self.result.prompt_tokens.unwrap_or((tokens, 0.0, tokens));
                self.result.prompt_tokens = Some((least.min(tokens), 0.0, greatest.max(tokens)));
                (self.total_tokens, self.counted_rows) =
                    (self.total_tokens + tokens, self.counted_rows + 1);
                if let Some(most) = self.checks.most_prompt_tokens.filter(|&most| tokens > most) {
                    let message = || {
                        format!("{tokens} tokens, limit {most}: shorten it or raise max_seq_len")
                    };
                    health.add(FindingKind::TooLong, self.place(row.line), message);
                }
            }
            Err(problem) => health.add(FindingKind::BadLine, self.place(row.line), || problem),
        }
    }

    /// Scans every text of a value (serde_json reads at most 128 levels).
    fn secrets(&self, key: &str, value: &Value, line: usize, health: &mut Health) {
        match value {
            Value::String(text) => {
                // Prefixed with its key, as in a settings file: the name tells whether a random
                // value is secret.
                for secret in secrets::scan(&format!("{key}: {text}")) {
                    let message = || {
                        format!(
                            "`{key}` contains what looks like a {}: {}; remove it",
                            secret.rule, secret.masked
                        )
                    };
                    health.add(FindingKind::Secret, self.place(line), message);
                }
            }
            Value::Array(values) => values
                .iter()
                .for_each(|value| self.secrets(key, value, line, health)),
            Value::Object(fields) => fields
                .iter()
                .for_each(|(key, value)| self.secrets(key, value, line, health)),
            _ => {}
        }
    }

    fn finish(mut self, health: &mut Health) -> SetHealth {
        if self.result.rows == 0 {
            let message = || {
                DatasetError::Empty {
                    label: String::new(),
                }
                .to_string()
                .trim_start_matches(": ")
                .to_owned()
            };
            health.add(
                FindingKind::EmptySet,
                Place {
                    line: None,
                    ..self.place(1)
                },
                message,
            );
        }
        if let Some((_, mean, _)) = &mut self.result.prompt_tokens {
            *mean = self.total_tokens as f64 / self.counted_rows.max(1) as f64;
        }
        self.result
    }
}
