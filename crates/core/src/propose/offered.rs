//! What wrong values of the prompt earn: another field's value, a part of a name, a date or a number as it stands.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

use super::candidates::plain;
use super::fields::{Field, FieldKind, Label, fields_of, is_same, set};
use super::prompt_text::PromptText;
use crate::dataset::{PromptRow, expected_target};
use crate::exact_json;
use crate::format::{counted, percent};
use crate::score::{PartValue, RewardPart, Scorer, Task, Tier};

/// Rows tried, spread evenly.
const MAX_ROWS: usize = 20;
/// Of an answer with many fields fewer: rows times fields.
const MAX_FIELD_ROWS: usize = 160;
/// Values of one kind tried in a field.
const MAX_OF_KIND: usize = 2;
/// Share of a field's reward from which a wrong value earns all of it.
const ALL: f64 = 0.95;
/// In no prompt.
const NOT_STATED: &str = "zqxj";
const NOT_STATED_NUMBER: f64 = 91_827_364.55;

/// What the prompt offers for one field, and what it earns there.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OfferedField {
    pub field: String,
    pub rows: usize,
    /// Share of what a right value adds to the reward that the best wrong one adds, mean over the rows.
    pub share: f64,
    /// Mean reward of an answer with that one.
    pub reward: f64,
    /// Which one it is in most rows, and the first answer with one.
    pub what: String,
    pub example: String,
}

impl OfferedField {
    pub fn is_open(&self) -> bool {
        self.share >= ALL
    }

    pub fn sentence(&self) -> String {
        let Self {
            field,
            rows,
            share,
            what,
            ..
        } = self;
        format!(
            "{field}: {what} earns {} of what a right value does ({} tried)",
            percent(*share),
            counted(*rows, "row")
        )
    }
}

/// Whether a part of the reward pays values.
pub fn pays_values(task: &Task) -> bool {
    let pays = |part: &RewardPart| part.compares() || matches!(part.value, PartValue::Grounded);
    task.rewards
        .iter()
        .any(|part| part.weight > 0.0 && pays(part))
}

struct Tried {
    what: &'static str,
    value: Value,
}

/// Sums over the rows of a field.
#[derive(Clone, Default)]
struct Sums {
    rows: usize,
    share: f64,
    reward: f64,
    /// How often each kind of value was the best, and the first answer.
    kinds: BTreeMap<&'static str, (usize, String)>,
}

/// By field, what the best wrong value of the prompt earns. Empty for kinds of answers whose fields are not known, or whose
/// scorer is a program or a judge.
pub fn offered_values(task: &Task, scorer: &Scorer, rows: &[PromptRow]) -> Vec<OfferedField> {
    let Ok((fields, _)) = fields_of(task) else {
        return Vec::new();
    };
    if scorer.runs_programs() || scorer.asks_judge() {
        return Vec::new();
    }
    let most = (MAX_FIELD_ROWS / fields.len().max(1)).clamp(1, MAX_ROWS);
    let step = rows.len().div_ceil(most).max(1);
    let mut sums = vec![Sums::default(); fields.len()];
    for row in rows.iter().step_by(step) {
        let offered = Offered::new(row);
        let base = offered.base(&fields);
        let answer = |index: usize, value: Value| {
            let mut answer = base.clone();
            set(&mut answer, &fields[index].path, value);
            exact_json::write(&answer)
        };
        let score = |index: usize, value: Value| scorer.score(&answer(index, value), Some(row));
        let reward = |index: usize, value: Value| score(index, value).reward;
        // Where the schema rejects the right answer, no reward says anything of values.
        let right = exact_json::write(&base);
        if row.expected.is_some() && scorer.score(&right, Some(row)).tier != Tier::Valid {
            continue;
        }
        for (index, field) in fields.iter().enumerate() {
            let truth = row
                .expected
                .as_ref()
                .map(|expected| match field.label(expected) {
                    Label::Values(values) => values.into_iter().next(),
                    Label::Null | Label::Absent => None,
                });
            let tried = offered.tried(field, &base, truth.as_ref().and_then(Option::as_ref));
            let mut earned: Vec<(f64, Tried)> = tried
                .into_iter()
                .map(|tried| (reward(index, tried.value.clone()), tried))
                .collect();
            // The first of equals stays the first.
            earned.sort_by(|left, right| right.0.total_cmp(&left.0));
            let floor = reward(index, not_stated(field));
            let best = match truth {
                Some(Some(truth)) => score(index, truth),
                Some(None) => continue,
                // One of them may be right; the next one is not.
                None if earned.len() > 1 => score(index, earned.remove(0).1.value),
                None => continue,
            };
            // An invalid answer earns the same with any value.
            if best.tier != Tier::Valid {
                continue;
            }
            let best = best.reward;
            let Some((wrong, tried)) = earned.into_iter().next() else {
                continue;
            };
            let share = if best > floor {
                ((wrong - floor) / (best - floor)).clamp(0.0, 1.0)
            } else {
                1.0
            };
            let sums = &mut sums[index];
            sums.rows += 1;
            sums.share += share;
            sums.reward += wrong;
            let kind = sums
                .kinds
                .entry(tried.what)
                .or_insert_with(|| (0, answer(index, tried.value)));
            kind.0 += 1;
        }
    }
    let found = fields.iter().zip(sums).filter(|(_, sums)| sums.rows > 0);
    found
        .map(
            |(
                field,
                Sums {
                    rows,
                    share,
                    reward,
                    kinds,
                },
            )| {
                let (what, (_, example)) = kinds
                    .into_iter()
                    .max_by_key(|(_, (count, _))| *count)
                    .unwrap_or_default();
                let mean = |sum: f64| sum / rows as f64;
                OfferedField {
                    field: field.name(),
                    rows,
                    share: mean(share),
                    reward: mean(reward),
                    what: what.to_owned(),
                    example,
                }
            },
        )
        .collect()
}

/// A value of the field's type that no prompt states.
fn not_stated(field: &Field) -> Value {
    match &field.kind {
        FieldKind::Number => json!(NOT_STATED_NUMBER),
        FieldKind::Text | FieldKind::Listed(_) => json!(NOT_STATED),
    }
}

/// What a prompt has that an answer could repeat.
#[derive(Default)]
struct Offered {
    /// Words in a row that begin with a capital.
    names: Vec<String>,
    parts: Vec<String>,
    words: Vec<String>,
    /// As written.
    dates: Vec<String>,
    amounts: Vec<String>,
    numbers: Vec<Value>,
    expected: Option<Value>,
}

impl Offered {
    fn new(row: &PromptRow) -> Self {
        let text = PromptText::new(row);
        let mut found = Self {
            expected: row.expected.as_ref().map(expected_target),
            ..Self::default()
        };
        let mut name: Vec<&str> = Vec::new();
        let trimmed = |word: &str| {
            word.trim_matches(|letter: char| !letter.is_alphanumeric())
                .to_owned()
        };
        for word in text.words.iter().map(|word| &text.text[word.span.clone()]) {
            let is_capital = word.starts_with(char::is_uppercase);
            if is_capital {
                name.push(word);
            }
            // A name ends at punctuation, or before a word in small letters.
            if !is_capital || !word.ends_with(char::is_alphanumeric) {
                found.parts.extend(
                    name.first()
                        .filter(|_| name.len() > 1)
                        .map(|first| trimmed(first)),
                );
                found
                    .names
                    .extend((!name.is_empty()).then(|| trimmed(&name.join(" "))));
                name.clear();
            }
            if word.len() > 2 && word.chars().all(char::is_lowercase) {
                found.words.push(word.to_owned());
            }
        }
        found.dates.extend(
            text.dates
                .iter()
                .map(|date| text.text[date.span.clone()].to_owned()),
        );
        for number in &text.numbers {
            let is_in_date = text.dates.iter().any(|date| {
                date.span.start <= number.span.start && number.span.end <= date.span.end
            });
            let Some(plain) = number
                .readings
                .first()
                .and_then(|reading| plain(reading))
                .filter(|_| !is_in_date)
            else {
                continue;
            };
            found
                .amounts
                .push(text.text[number.span.clone()].to_owned());
            found.numbers.push(exact_json::number(&plain));
        }
        found
    }

    /// The expected answer, or one with another value of the prompt in each field.
    fn base(&self, fields: &[Field]) -> Map<String, Value> {
        if let Some(Value::Object(expected)) = &self.expected {
            return expected.clone();
        }
        let mut answer = Map::new();
        for (index, field) in fields.iter().enumerate() {
            let text = |all: &[String]| all.get(index % all.len().max(1)).map(|text| json!(text));
            let value = match &field.kind {
                FieldKind::Text => text(&self.names).or_else(|| text(&self.words)),
                FieldKind::Number => self.numbers.get(index % self.numbers.len().max(1)).cloned(),
                FieldKind::Listed(values) => values.first().cloned(),
            };
            set(
                &mut answer,
                &field.path,
                value.unwrap_or_else(|| not_stated(field)),
            );
        }
        answer
    }

    fn tried(&self, field: &Field, base: &Map<String, Value>, truth: Option<&Value>) -> Vec<Tried> {
        let texts = |all: &[String]| all.iter().map(|text| json!(text)).collect::<Vec<_>>();
        let other = base
            .iter()
            .filter(|(name, _)| field.path.first() != Some(*name));
        let other = other.map(|(_, value)| match value {
            Value::Number(number) => json!(number.to_string()),
            value => value.clone(),
        });
        let kinds: Vec<(&'static str, Vec<Value>)> = match &field.kind {
            FieldKind::Text => vec![
                (
                    "another field's value",
                    other.filter(Value::is_string).collect(),
                ),
                ("a name of the prompt", texts(&self.names)),
                ("a part of a name", texts(&self.parts)),
                ("a date as it stands", texts(&self.dates)),
                ("a number as text", texts(&self.amounts)),
                ("a word of the prompt", texts(&self.words)),
            ],
            FieldKind::Number => vec![("another number of the prompt", self.numbers.clone())],
            FieldKind::Listed(values) => vec![("another of its values", values.clone())],
        };
        let mut tried: Vec<Tried> = Vec::new();
        for (what, values) in kinds {
            let is_new = |value: &Value| truth.is_none_or(|truth| !is_same(truth, value));
            for value in values.into_iter().filter(is_new).take(MAX_OF_KIND) {
                if !tried.iter().any(|tried| is_same(&tried.value, &value)) {
                    tried.push(Tried { what, value });
                }
            }
        }
        tried
    }
}
