//! Judges a value by its schema and the expected one, with a reason for each fault.

use std::collections::BTreeSet;

use super::budget::Budget;
use super::partial_credit::Constraints;
use super::schema::{Schema, Violation};
use crate::dataset::expected::Expectation;
use crate::dataset::{PromptRow, expected};
use crate::exact_json;
use crate::score::answer::json::{self, Document, Places, SyntaxError, Value};
use crate::score::answer::stated_value::{StatedValue, state};
use crate::score::answer::transcript::AnswerText;
use crate::score::definition::{Judge, SchemaFiles};
use crate::score::error::ScoreError;
use crate::score::verdict::field_compare::compare;
use crate::score::verdict::field_rules::Rules;
use crate::score::verdict::leaves::{Leaves, compare_leaves};
use crate::score::verdict::unwrap_answer::{Unreadable, inner_values};
use crate::score::verdict::{Attempt, FailureClass, Reason, Tier, Verdict};
use crate::task::TaskFiles;

/// Further reasons are only counted.
const MAX_REASONS: usize = 1_000;
/// Further duplicate keys are only counted.
const MAX_WARNINGS: usize = 100;

#[derive(Debug)]
pub(crate) struct SchemaJudge {
    schema: Schema,
    normalise: Rules,
    /// Set if invalid completions get partial credit.
    graded: Option<Constraints>,
}

impl SchemaJudge {
    pub(crate) fn new(task: &TaskFiles, files: &SchemaFiles) -> Result<Self, ScoreError> {
        let rules = &task.score;
        Ok(Self {
            schema: Schema::compile(task, files)?,
            normalise: Rules::new(rules),
            graded: rules.graded.then(|| Constraints::new(&files.schema)),
        })
    }

    pub(crate) fn accepts(&self, value: &Value<'_>, budget: &mut Budget) -> bool {
        self.schema.is_valid(value, budget) == Ok(true)
    }

    pub(crate) fn budget(&self, completion: &str) -> Budget {
        self.schema.budget(completion.len())
    }

    pub(crate) fn judge_value(
        &self,
        text: &AnswerText<'_>,
        document: &Document<'_>,
        expected: Option<&serde_json::Value>,
    ) -> Verdict {
        let (completion, root) = (text.completion, &document.root);
        let verdict = self
            .schema
            .is_valid(root, &mut self.schema.budget(root.end - root.start));
        let valid = verdict == Ok(true);
        let compared = expected.map(|expected| compare(root, expected, &self.normalise));
        let (fields, same) = compared.unzip();
        let fields = fields.flatten();
        let leaves = self.leaves(Some(root), expected);
        let exact = same.map(|same| same && valid);
        let wrong = (exact == Some(false)).then_some(FailureClass::WrongValue);
        let warnings = duplicate_keys(completion, std::slice::from_ref(document));
        if valid {
            return Verdict {
                exact,
                fields,
                leaves,
                warnings,
                ..Verdict::new(Tier::Valid, wrong)
            };
        }
        let mut found = Verdict {
            exact,
            fields,
            leaves,
            warnings,
            ..Verdict::new(Tier::Invalid, None)
        };
        let violations = self.schema.violations(text.json(), root, verdict);
        // The share of met constraints needs the full list.
        let share = |graded: &Constraints| {
            violations
                .as_ref()
                .map_or(0.0, |list| graded.share_met(root, list))
        };
        found.credit = self.graded.as_ref().map(share);
        let mut violations = violations.unwrap_or_else(|exhausted| vec![exhausted]);
        violations
            .iter_mut()
            .for_each(|violation| violation.offset = text.locate(violation.offset));
        violations.sort_by_key(|violation| violation.offset);
        // A missing key is more informative than other faults; otherwise the first in the text.
        let mut classes = violations.iter().map(|violation| violation.class);
        let class = classes
            .clone()
            .find(|class| *class == FailureClass::MissingKey)
            .or_else(|| classes.next());
        found.failure = Some(class.unwrap_or(FailureClass::Other));
        found.errors = reasons(completion, violations, &mut found.warnings);
        found
    }

    fn leaves(
        &self,
        root: Option<&Value<'_>>,
        expected: Option<&serde_json::Value>,
    ) -> Option<Leaves> {
        let expected = expected.filter(|_| !self.normalise.whole_fields())?;
        let has_fields = expected::alternatives(expected)
            .iter()
            .any(|answer| matches!(Expectation::from_value(answer), Expectation::Plain(value) if value.is_object()));
        has_fields.then(|| compare_leaves(root, expected, &self.normalise))
    }

    fn judge_unparsable(&self, attempt: Attempt<'_>, error: &SyntaxError) -> Verdict {
        let mut budget = self.budget(attempt.completion);
        let why = Unreadable::json(attempt.completion, error);
        attempt.unparsable(why, |open| {
            // A value that begins before an open think block only has the word in a string.
            let accept = |value: &Value<'_>| value.start < open && self.accepts(value, &mut budget);
            inner_values(attempt.completion, attempt.from, accept)
        })
    }
}

impl Judge for SchemaJudge {
    fn can_read(&self, completion: &str, from: usize) -> bool {
        json::parse(completion, from).is_ok()
    }

    fn judge(&self, attempt: Attempt<'_>) -> Verdict {
        let expected = attempt.expected();
        if let Some(verdict) = attempt.unreadable_expected() {
            return verdict;
        }
        match json::parse(attempt.completion, attempt.from) {
            Ok(document) => {
                let text = AnswerText::in_place(attempt.completion);
                self.judge_value(&text, &document, expected)
            }
            Err(error) => Verdict {
                exact: expected.is_some().then_some(false),
                leaves: self.leaves(None, expected),
                ..self.judge_unparsable(attempt, &error)
            },
        }
    }

    fn stated_values(&self, attempt: Attempt<'_>) -> Vec<StatedValue> {
        let mut found = Vec::new();
        if let Ok(document) = json::parse(attempt.completion, attempt.from) {
            state(&document.root, (&[], ""), &mut |offset| offset, &mut found);
        }
        found
    }

    fn completion_of(
        &self,
        expected: &serde_json::Value,
        _row: Option<&PromptRow>,
    ) -> Option<String> {
        Some(exact_json::write(&expected::target(expected)))
    }

    fn unknown_formats(&self) -> BTreeSet<String> {
        self.schema.unknown_formats()
    }
}

pub(crate) fn duplicate_keys(completion: &str, documents: &[Document<'_>]) -> Vec<String> {
    let duplicates = documents.iter().flat_map(|document| &document.duplicates);
    let mut offsets: Vec<_> = duplicates
        .map(|duplicate| (duplicate.offset, &duplicate.key))
        .collect();
    if offsets.is_empty() {
        return Vec::new();
    }
    let mut places = Places::new(completion);
    offsets.sort();
    let sentence = |(offset, key): &(usize, &std::borrow::Cow<'_, str>)| {
        let place = places.locate(*offset);
        let key: String = key.chars().take(80).collect();
        format!(
            "duplicate key {key:?} at line {} column {}: the last one counts",
            place.line, place.column
        )
    };
    let mut warnings: Vec<String> = offsets.iter().take(MAX_WARNINGS).map(sentence).collect();
    if offsets.len() > MAX_WARNINGS {
        warnings.push(format!("{} duplicate keys in total", offsets.len()));
    }
    warnings
}

pub(crate) fn reasons(
    completion: &str,
    violations: Vec<Violation>,
    warnings: &mut Vec<String>,
) -> Vec<Reason> {
    if violations.len() > MAX_REASONS {
        warnings.push(format!(
            "{} violations in total; the first {MAX_REASONS} are listed",
            violations.len()
        ));
    }
    let mut places = Places::new(completion);
    let reason = |violation: Violation| {
        let place = places.locate(violation.offset);
        Reason {
            message: violation.message,
            instance_path: violation.instance_path,
            schema_path: violation.schema_path,
            line: place.line,
            column: place.column,
        }
    };
    violations
        .into_iter()
        .take(MAX_REASONS)
        .map(reason)
        .collect()
}
