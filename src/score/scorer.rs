//! The scorer of a task: compiled once, then asked for every completion.

use std::collections::BTreeMap;

use super::field_compare::{Normalisation, compare};
use super::json::{self, Document, Places, Syntax, SyntaxError, Value};
use super::partial_credit::Constraints;
use super::schema::{Schema, Violation};
use super::unwrap_answer::{Wrapping, answer_start, inner_values, is_wrapped, unclosed_think};
use super::{FailureClass, OrderedMap, Reason, Score, ScoreError, Tier};
use crate::dataset::PromptRow;
use crate::task::{RewardPart, Task, TierValues};

/// More reasons than this are counted, not listed.
const MAX_REASONS: usize = 1_000;
/// More duplicate keys than this are counted, not listed.
const MAX_WARNINGS: usize = 100;

/// Scores completions of one task. Shared by threads; a score is a function of completion and row.
#[derive(Debug)]
pub struct Scorer {
    schema: Schema,
    tiers: TierValues,
    strip_thinking: bool,
    normalise: BTreeMap<String, Normalisation>,
    rewards: Vec<RewardPart>,
    /// Present when invalid completions get credit for what they meet.
    graded: Option<Constraints>,
}

impl Scorer {
    /// Checks and compiles the task's schema.
    pub fn new(task: &Task) -> Result<Self, ScoreError> {
        let rules = &task.score;
        Ok(Self {
            schema: Schema::compile(task)?,
            tiers: rules.tiers,
            strip_thinking: rules.strip_thinking,
            normalise: rules
                .normalise
                .iter()
                .map(|(field, names)| (field.clone(), Normalisation::named(names)))
                .collect(),
            rewards: task.rewards.iter().filter(|part| part.weight != 0.0).cloned().collect(),
            graded: rules.graded.then(|| Constraints::new(&task.schema)),
        })
    }

    /// Names under the schema's `format` that `assert_formats` does not check, because the validator does not know
    /// them.
    pub fn unknown_formats(&self) -> impl Iterator<Item = String> {
        self.schema.unknown_formats().into_iter()
    }

    /// Scores a completion as the model wrote it. The row supplies `expected`.
    pub fn score(&self, completion: &str, row: Option<&PromptRow>) -> Score {
        let from = answer_start(completion, self.strip_thinking);
        let expected = row.and_then(|row| row.expected.as_ref());
        match json::parse(completion, from) {
            Ok(document) => self.score_value(completion, &document, expected),
            Err(error) => self.score_unparsable(completion, from, &error, expected.is_some()),
        }
    }

    fn score_value(&self, completion: &str, document: &Document<'_>, expected: Option<&serde_json::Value>) -> Score {
        let root = &document.root;
        let verdict = self.schema.is_valid(root, &mut self.schema.budget(root.end - root.start));
        let valid = verdict == Ok(true);
        let (fields, same) = match expected {
            Some(expected) => {
                let (fields, same) = compare(root, expected, &self.normalise);
                (fields, Some(same))
            }
            None => (None, None),
        };
        let exact = same.map(|same| same && valid);
        let mut score = Score {
            reward: if valid { self.tiers.valid } else { self.tiers.invalid },
            tier: if valid { Tier::Valid } else { Tier::Invalid },
            tolerant: valid,
            warnings: duplicate_keys(completion, document),
            errors: Vec::new(),
            fields,
            exact,
            failure: (exact == Some(false)).then_some(FailureClass::WrongValue),
            parts: OrderedMap::default(),
        };
        let mut credit = None;
        if !valid {
            let found = self.schema.violations(completion, root, verdict);
            // Without a full list nobody knows which constraints are met.
            credit = self
                .graded
                .as_ref()
                .map(|graded| found.as_ref().map_or(0.0, |violations| graded.share_met(root, violations)));
            let violations = found.unwrap_or_else(|exhausted| vec![exhausted]);
            // A missing key explains more than what stands beside it; otherwise the first fault in the text does.
            let class =
                violations.iter().map(|violation| violation.class).find(|class| *class == FailureClass::MissingKey);
            score.failure =
                Some(class.or(violations.first().map(|violation| violation.class)).unwrap_or(FailureClass::Other));
            score.errors = reasons(completion, violations, &mut score.warnings);
        }
        self.add_parts(&mut score, credit);
        score
    }

    fn score_unparsable(&self, completion: &str, from: usize, error: &SyntaxError, has_expected: bool) -> Score {
        let think = unclosed_think(completion, from, error);
        // An open think block hides what follows it; a value that begins before it only holds the word in one of its
        // strings.
        let open = think.filter(|_| self.strip_thinking).unwrap_or(usize::MAX);
        let mut budget = self.schema.budget(completion.len());
        let accept = |value: &Value<'_>| value.start < open && self.schema.is_valid(value, &mut budget) == Ok(true);
        let wrapping = if is_wrapped(error.reason) { inner_values(completion, from, accept) } else { None };
        let hidden = open != usize::MAX && wrapping.is_none();
        let (message, offset) = match think {
            Some(offset) if hidden => ("unclosed think block".to_owned(), offset),
            _ => (error.reason.to_string(), error.offset),
        };
        let place = Places::new(completion).of(offset);
        let mut score = Score {
            reward: self.tiers.unparsable,
            tier: Tier::Unparsable,
            tolerant: wrapping.is_some(),
            warnings: Vec::new(),
            errors: vec![Reason {
                message,
                instance_path: String::new(),
                schema_path: String::new(),
                line: place.line,
                column: place.column,
            }],
            fields: None,
            exact: has_expected.then_some(false),
            failure: Some(if hidden || (think.is_some() && !self.strip_thinking) {
                FailureClass::ThinkLeak
            } else {
                class_of(completion, error, wrapping)
            }),
            parts: OrderedMap::default(),
        };
        self.add_parts(&mut score, None);
        score
    }

    /// Graded credit stays below the next tier; weighted parts come on top.
    fn add_parts(&self, score: &mut Score, credit: Option<f64>) {
        if self.rewards.is_empty() && self.graded.is_none() {
            return;
        }
        score.parts.0.push(("tier".to_owned(), score.reward));
        if let Some(credit) = credit {
            score.reward += (self.tiers.valid - self.tiers.invalid) * credit;
            score.parts.0.push(("graded".to_owned(), credit));
        }
        for RewardPart { part, weight } in &self.rewards {
            let value = match part.as_str() {
                "fields" => score.fields.as_ref().map_or(0.0, share_equal),
                "exact" => f64::from(u8::from(score.exact == Some(true))),
                _ => f64::from(u8::from(score.tolerant)),
            };
            score.reward += weight * value;
            score.parts.0.push((part.clone(), value));
        }
    }
}

/// Of the expected fields, the share that is equal; in [0, 1].
fn share_equal(fields: &OrderedMap<bool>) -> f64 {
    let equal = fields.iter().filter(|(_, equal)| **equal).count();
    if fields.is_empty() { 0.0 } else { equal as f64 / fields.len() as f64 }
}

fn class_of(completion: &str, error: &SyntaxError, wrapping: Option<Wrapping>) -> FailureClass {
    match error.reason {
        Syntax::Fence => FailureClass::Fence,
        Syntax::TextBefore | Syntax::TextAfter => {
            let fenced = wrapping == Some(Wrapping::Fence)
                || completion.get(error.offset..).is_some_and(|rest| rest.starts_with("```"));
            if fenced { FailureClass::Fence } else { FailureClass::Prose }
        }
        Syntax::NoValue => FailureClass::Prose,
        Syntax::Truncated => FailureClass::Truncated,
        Syntax::Empty => FailureClass::Other,
        _ => FailureClass::Syntax,
    }
}

fn duplicate_keys(completion: &str, document: &Document<'_>) -> Vec<String> {
    let duplicates = &document.duplicates;
    if duplicates.is_empty() {
        return Vec::new();
    }
    let mut places = Places::new(completion);
    let mut offsets: Vec<_> = duplicates.iter().map(|duplicate| (duplicate.offset, &duplicate.key)).collect();
    offsets.sort();
    let sentence = |(offset, key): &(usize, &std::borrow::Cow<'_, str>)| {
        let place = places.of(*offset);
        let key: String = key.chars().take(80).collect();
        format!("duplicate key {key:?} at line {} column {}: the last one counts", place.line, place.column)
    };
    let mut warnings: Vec<String> = offsets.iter().take(MAX_WARNINGS).map(sentence).collect();
    if offsets.len() > MAX_WARNINGS {
        warnings.push(format!("{} duplicate keys in total", offsets.len()));
    }
    warnings
}

/// Violations as reasons with places; very many are cut off, with a warning.
fn reasons(completion: &str, violations: Vec<Violation>, warnings: &mut Vec<String>) -> Vec<Reason> {
    if violations.len() > MAX_REASONS {
        warnings.push(format!("{} violations in total; the first {MAX_REASONS} are listed", violations.len()));
    }
    let mut places = Places::new(completion);
    let reason = |violation: Violation| {
        let place = places.of(violation.offset);
        Reason {
            message: violation.message,
            instance_path: violation.instance_path,
            schema_path: violation.schema_path,
            line: place.line,
            column: place.column,
        }
    };
    violations.into_iter().take(MAX_REASONS).map(reason).collect()
}
