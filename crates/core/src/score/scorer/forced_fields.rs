//! Fields that an answer must fill whether or not its prompt states them: where the schema leaves
//! nothing but invention.

use std::collections::HashMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::Scorer;
use crate::dataset::{PromptRow, expected_target, has_own_schema};
use crate::exact_json;
use crate::format::{shortened, shown_lines};
use crate::score::answer::json::parse;
use crate::score::answer::stated_value::{Leaf, StatedValue, state};
use crate::score::grounded::Grounded;
use crate::score::task::Task;
use crate::score::verdict::Tier;
use crate::task::unescaped;

/// Rows whose prompts are searched, spread evenly.
pub(crate) const MAX_FORCED_ROWS: usize = 500;
/// Fields that are told apart.
const MAX_FIELDS: usize = 200;
/// Values of other rows tried as a made-up one.
const MAX_TRIED: usize = 20;
/// Share of rows whose prompts state a field's value up to which it is computed or classified.
const MOSTLY_STATED: f64 = 0.5;

/// A field whose schema allows neither null nor its absence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ForcedField {
    /// Dotted names; items of lists share their list's.
    pub path: String,
    /// Rows that expect a value.
    pub rows: usize,
    /// Those whose prompt states it literally.
    pub stated: usize,
    /// Those whose prompt does not, classified values not counted.
    pub unstated: usize,
    /// The first lines of these.
    #[serde(skip)]
    lines: Vec<usize>,
    /// Texts of a class that differ in case alone, and their lines.
    #[serde(skip)]
    spellings: Option<[(String, usize); 2]>,
    #[serde(skip)]
    texts: HashMap<String, (String, usize)>,
    /// The expected value of the first of these, as JSON.
    pub example: Option<String>,
    /// A right answer with another row's value here.
    pub made_up: String,
    pub reward_of_made_up: f64,
    pub reward_of_null: f64,
}

impl ForcedField {
    /// Whether few prompts state the value literally: it is classified or computed, and nothing of it is made up.
    pub fn is_class(&self) -> bool {
        self.stated as f64 <= MOSTLY_STATED * self.rows as f64
    }

    /// Whether prompts usually state the value, but not all of them do.
    pub fn is_unstated_in_some(&self) -> bool {
        self.unstated > 0 && !self.is_class()
    }

    /// Texts of a class that differ in case alone: one label with two spellings.
    pub fn spelling_problem(&self) -> Option<String> {
        let [(one, line), (other, later)] = self.spellings.as_ref().filter(|_| self.is_class())?;
        Some(format!(
            "{}: `{}` (line {line}) and `{}` (line {later}) differ in case alone: one label with two spellings, of which an answer can match one; write one",
            self.path,
            shortened(one, 40),
            shortened(other, 40)
        ))
    }

    fn add_spelling(&mut self, text: &str, line: usize) {
        let first = self
            .texts
            .entry(text.to_lowercase())
            .or_insert_with(|| (text.to_owned(), line));
        if self.spellings.is_none() && first.0 != text {
            self.spellings = Some([first.clone(), (text.to_owned(), line)]);
        }
    }

    pub(super) fn gain(&self) -> f64 {
        self.reward_of_made_up - self.reward_of_null
    }

    pub fn sentence(&self) -> String {
        let Some(example) = self.example.as_ref().filter(|_| !self.is_class()) else {
            let kind = if self.is_class() {
                "classified or computed: "
            } else {
                ""
            };
            return format!(
                "{}: {kind}{} of {} prompts state the expected value literally",
                self.path, self.stated, self.rows
            );
        };
        format!(
            "{}: {} of {} prompts do not state the expected value, {} (`{example}`): allow null there, and let `expected` of these rows be null",
            self.path,
            self.unstated,
            self.rows,
            shown_lines(&self.lines)
        )
    }
}

/// The values of an answer, with their fields.
pub(crate) fn values_of(answer: &Value) -> Vec<StatedValue> {
    let text = exact_json::write(answer);
    let mut values = Vec::new();
    if let Ok(document) = parse(&text, 0) {
        state(&document.root, (&[], ""), &mut |at| at, &mut values);
    }
    values
}

/// Fields that may be neither null nor missing, in the order of the answers. Rows with their own
/// schema are not read.
pub fn forced_fields<'r>(
    task: &Task,
    scorer: &Scorer,
    rows: impl IntoIterator<Item = &'r PromptRow>,
) -> Vec<ForcedField> {
    let grounded = task
        .schema()
        .and_then(|_| Grounded::new(&*task.definition, task));
    let Some(grounded) = grounded.filter(|_| !scorer.runs_programs()) else {
        return Vec::new();
    };
    let answered: Vec<(&PromptRow, Value)> = rows
        .into_iter()
        .filter(|row| !has_own_schema(row))
        .filter_map(|row| Some((row, expected_target(row.expected.as_ref()?))))
        .collect();
    let answered: Vec<_> = answered
        .iter()
        .step_by(answered.len().div_ceil(MAX_FORCED_ROWS).max(1))
        .collect();
    let mut fields: Vec<ForcedField> = Vec::new();
    // Of each path its field, if it has one.
    let mut known: HashMap<Vec<String>, Option<usize>> = HashMap::new();
    for (row, target) in &answered {
        let values = values_of(target);
        let statements = grounded.statements(&values, row);
        let mut counted: Vec<usize> = Vec::new();
        // How sure an answer is stands in no prompt.
        let counts = |value: &StatedValue| {
            let is_stated = |name: &String| task.score.leaves.stated.contains(name);
            value.leaf != Leaf::Nothing && !value.path.first().is_some_and(is_stated)
        };
        for (value, statement) in values
            .iter()
            .zip(statements)
            .filter(|(value, _)| counts(value))
        {
            if !known.contains_key(&value.path) {
                let probe = Probe {
                    scorer,
                    row,
                    target,
                };
                let Some(is_forced) = probe.is_forced(&value.pointer) else {
                    continue;
                };
                let others = answered.iter().map(|(_, other)| other);
                let field = (is_forced && fields.len() < MAX_FIELDS)
                    .then(|| probe.field(value, others))
                    .flatten();
                fields.extend(field.clone());
                let place = field.map(|_| fields.len() - 1);
                known.insert(value.path.clone(), place);
            }
            let Some(place) = known.get(&value.path).copied().flatten() else {
                continue;
            };
            let field = &mut fields[place];
            if !counted.contains(&place) {
                field.rows += 1;
                field.stated += usize::from(statement == Some(true));
                counted.push(place);
            }
            if let Leaf::Text(text) = &value.leaf {
                field.add_spelling(text, row.line);
            }
            if statement == Some(false) && field.lines.last() != Some(&row.line) {
                field.unstated += 1;
                field.lines.push(row.line);
                if field.example.is_none() {
                    let found = target.pointer(&value.pointer).map(exact_json::write);
                    field.example = found.map(|value| shortened(&value, 40));
                }
            }
        }
    }
    fields
}

/// A right answer, to be changed in one place.
struct Probe<'p> {
    scorer: &'p Scorer,
    row: &'p PromptRow,
    target: &'p Value,
}

impl Probe<'_> {
    fn score(&self, answer: &Value) -> (String, Tier, f64) {
        let text = self.scorer.expected_completion(answer, Some(self.row));
        let text = text.unwrap_or_default();
        let score = self.scorer.score(&text, Some(self.row));
        (text, score.tier, score.reward)
    }

    fn with(&self, pointer: &str, value: Value) -> Value {
        let mut answer = self.target.clone();
        if let Some(place) = answer.pointer_mut(pointer) {
            *place = value;
        }
        answer
    }

    /// Whether neither null nor an answer without the field, or without an object around it, is
    /// valid; `None` if the right answer is not either.
    fn is_forced(&self, pointer: &str) -> Option<bool> {
        let is_valid = |answer: &Value| self.score(answer).1 == Tier::Valid;
        if !is_valid(self.target) {
            return None;
        }
        let mut place = pointer;
        while !place.is_empty() {
            if is_valid(&self.with(place, Value::Null)) {
                return Some(false);
            }
            let Some((parent, key)) = place.rsplit_once('/') else {
                break;
            };
            let mut without = self.target.clone();
            let Some(members) = without.pointer_mut(parent).and_then(Value::as_object_mut) else {
                break;
            };
            members.remove(&unescaped(key));
            if is_valid(&without) {
                return Some(false);
            }
            place = parent;
        }
        Some(true)
    }

    /// `None` if only one value is valid.
    fn field<'a>(
        &self,
        value: &StatedValue,
        others: impl Iterator<Item = &'a Value>,
    ) -> Option<ForcedField> {
        let own = self.target.pointer(&value.pointer);
        let others = others
            .filter_map(|other| other.pointer(&value.pointer))
            .filter(|other| Some(*other) != own);
        let plain = [json!("x"), json!(0), json!(1), json!(false), json!(true)];
        let plain = plain.into_iter().filter(|other| Some(other) != own);
        let (text, _, reward) = others
            .take(MAX_TRIED)
            .cloned()
            .chain(plain)
            .map(|other| self.score(&self.with(&value.pointer, other)))
            .find(|(_, tier, _)| *tier == Tier::Valid)?;
        Some(ForcedField {
            path: value.path.join("."),
            rows: 0,
            stated: 0,
            unstated: 0,
            lines: Vec::new(),
            spellings: None,
            texts: HashMap::new(),
            example: None,
            made_up: shortened(&text, 60),
            reward_of_made_up: reward,
            reward_of_null: self.score(&self.with(&value.pointer, Value::Null)).2,
        })
    }
}
