//! Likely values of the rows without labels, learned from those that have some: for each field a ranker over what the
//! prompt offers. Proposals train; they never judge.

mod candidates;
mod field_ranker;
mod fields;
mod known_names;
mod offered;
mod prompt_text;
mod ranker;

use rayon::prelude::*;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::dataset::PromptRow;
use crate::format::{counted, percent};
use crate::score::{Task, on_every_core};
use field_ranker::{FieldRanker, LabelledPrompt, LikelyValue};
use fields::{Field, Form, fields_of, set};
pub use offered::{OfferedField, offered_values, pays_values};
use prompt_text::{PromptText, Vocabulary};

/// Parts into which labelled rows are divided to measure accuracy: each is proposed by what the others teach.
const FOLDS: usize = 10;
/// Values of one proposal, and the probability at which no further one is added.
pub const MAX_VALUES: usize = 5;
const ENOUGH: f64 = 0.9;
/// Probability below which so many values fit no better than none.
const LEAST_LIKELY: f64 = 0.5;
/// Factors of scores that are tried, and the probability below which a right value counts no less.
const SHARPNESS: [f32; 5] = [0.5, 0.75, 1.0, 1.5, 2.0];
const LEAST_MASS: f64 = 0.002;
/// Values shown to who labels a row.
pub const MAX_OPTIONS: usize = 9;

/// Rankers of all fields of a task.
#[derive(Debug)]
pub struct Proposer {
    fields: Vec<(Field, FieldRanker)>,
    /// Fields that hold lists, which are not proposed.
    pub lists: Vec<String>,
    /// Whether the day comes first in some dates and the month in others.
    is_mixed: bool,
    vocabulary: Vocabulary,
    pub accuracy: Accuracy,
}

/// How often the likeliest values are right, cross-validated on the labelled rows.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Accuracy {
    pub rows: usize,
    pub fields: Vec<FieldAccuracy>,
    /// Rows of which every field is right.
    pub all_right: usize,
    /// Rows of which every label can be read from the prompt.
    pub readable: usize,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldAccuracy {
    pub field: String,
    pub right: usize,
    /// Rows whose label is among the candidates.
    pub readable: usize,
    /// Lines of the other rows, by set in the order given.
    #[serde(skip)]
    pub unreadable: Vec<usize>,
}

/// What is proposed for a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Proposal {
    /// `None` if a field has no likely value.
    pub expected: Option<Value>,
    /// Probability that the likeliest value of every field is right.
    pub confidence: f64,
    /// Fields with one value, and with alternatives.
    pub single: usize,
    pub doubtful: usize,
    /// Fields for which no candidate fits.
    pub without: Vec<String>,
    /// By field, the likeliest first; at most [`MAX_OPTIONS`].
    pub options: Vec<FieldOptions>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FieldOptions {
    pub field: String,
    pub values: Vec<(Value, f64)>,
}

impl Proposer {
    /// Learns from the rows that have labels of a person, and from what the prompts of `others` have in common. No row of
    /// the test set may be among them.
    ///
    /// # Errors
    /// The task's answers have no fields that can be proposed.
    pub fn new(task: &Task, labelled: &[PromptRow], others: &[PromptRow]) -> Result<Self, String> {
        let (fields, lists) = fields_of(task)?;
        let rows: Vec<(&PromptRow, &Value)> = labelled
            .iter()
            .filter_map(|row| Some((row, row.expected.as_ref()?)))
            .collect();
        let texts: Vec<PromptText> = rows.iter().map(|(row, _)| PromptText::new(row)).collect();
        let other_texts: Vec<PromptText> =
            on_every_core(|| others.par_iter().map(PromptText::new).collect());
        let all_texts = || texts.iter().chain(&other_texts);
        let is_mixed = has_mixed_dates(all_texts());
        let mut vocabulary = Vocabulary::default();
        all_texts().for_each(|text| vocabulary.add(text));
        let learned: Vec<(FieldRanker, Vec<Checked>)> = on_every_core(|| {
            fields
                .par_iter()
                .map(|field| {
                    let label = |(text, (_, expected)): (&PromptText, &(&PromptRow, &Value))| {
                        LabelledPrompt::new(field, text, &vocabulary, field.label(expected))
                    };
                    let prompts: Vec<LabelledPrompt> =
                        texts.par_iter().zip(&rows).map(label).collect();
                    learn(field, &prompts, is_mixed)
                })
                .collect()
        });
        let mut accuracy = Accuracy {
            rows: rows.len(),
            ..Accuracy::default()
        };
        for (field, (_, checked)) in fields.iter().zip(&learned) {
            let unreadable = checked
                .iter()
                .zip(&rows)
                .filter(|(checked, _)| !checked.is_readable)
                .map(|(_, (row, _))| row.line);
            accuracy.fields.push(FieldAccuracy {
                field: field.name(),
                right: checked.iter().filter(|checked| checked.is_right).count(),
                readable: checked.iter().filter(|checked| checked.is_readable).count(),
                unreadable: unreadable.collect(),
            });
        }
        let rows_where = |is: fn(&Checked) -> bool| {
            (0..rows.len())
                .filter(|row| learned.iter().all(|(_, checked)| is(&checked[*row])))
                .count()
        };
        accuracy.all_right = rows_where(|checked| checked.is_right);
        accuracy.readable = rows_where(|checked| checked.is_readable);
        let rankers = learned.into_iter().map(|(ranker, _)| ranker);
        Ok(Self {
            fields: fields.into_iter().zip(rankers).collect(),
            lists,
            is_mixed,
            vocabulary,
            accuracy,
        })
    }

    fn propose(&self, text: &PromptText, most: usize) -> Proposal {
        let mut answer = Map::new();
        let mut proposal = Proposal {
            expected: None,
            confidence: 1.0,
            single: 0,
            doubtful: 0,
            without: Vec::new(),
            options: Vec::new(),
        };
        for (field, ranker) in &self.fields {
            let ranked = ranker.rank(text, &self.vocabulary, self.is_mixed);
            let options = ranked
                .iter()
                .filter(|likely| !matches!(likely.form, Form::Absent))
                .take(MAX_OPTIONS);
            proposal.options.push(FieldOptions {
                field: field.name(),
                values: options
                    .map(|likely| (likely.value.clone(), likely.mass))
                    .collect(),
            });
            let first = ranked.first();
            proposal.confidence *= first.map_or(0.0, |likely| likely.mass);
            match first.map(|likely| likely.form) {
                Some(Form::Absent) => {}
                Some(_) if mass_of(&ranked) >= LEAST_LIKELY => {
                    let values = enough(&ranked, most);
                    match values.len() {
                        1 => proposal.single += 1,
                        _ => proposal.doubtful += 1,
                    }
                    set(&mut answer, &field.path, alternatives_of(values));
                }
                _ => proposal.without.push(field.name()),
            }
        }
        proposal.expected = proposal.without.is_empty().then_some(Value::Object(answer));
        proposal
    }

    /// A label of one value, or none, for each field in order. What a required field lacks is null.
    pub fn label(&self, values: Vec<Option<Value>>) -> Value {
        let mut answer = Map::new();
        for ((field, _), value) in self.fields.iter().zip(values) {
            let value = value.or(field.is_required.then_some(Value::Null));
            if let Some(value) = value {
                set(&mut answer, &field.path, value);
            }
        }
        Value::Object(answer)
    }

    /// A value that a person wrote for a field, by its index.
    ///
    /// # Errors
    /// It is not of the field's type.
    pub fn read_value(&self, index: usize, text: &str) -> Result<Value, String> {
        let Some((field, _)) = self.fields.get(index) else {
            return Err("no such field".to_owned());
        };
        field.read_value(text)
    }

    /// Proposals for rows, in order. `most`: alternatives of a field.
    pub fn propose_all(&self, rows: &[PromptRow], most: usize) -> Vec<Proposal> {
        on_every_core(|| {
            let propose = |row| self.propose(&PromptText::new(row), most);
            rows.par_iter().map(propose).collect()
        })
    }
}

/// Of the likeliest values, as many as a proposal may have.
fn mass_of(ranked: &[LikelyValue]) -> f64 {
    ranked
        .iter()
        .take(MAX_VALUES)
        .map(|likely| likely.mass)
        .sum()
}

/// The likeliest values, until they are probable enough together.
fn enough(ranked: &[LikelyValue], most: usize) -> Vec<Value> {
    let values: Vec<&LikelyValue> = ranked
        .iter()
        .filter(|likely| !matches!(likely.form, Form::Absent))
        .collect();
    let total: f64 = values.iter().map(|likely| likely.mass).sum();
    let (mut found, mut mass) = (Vec::new(), 0.0);
    for likely in values.iter().take(most.max(1)) {
        found.push(likely.value.clone());
        mass += likely.mass / total;
        if mass >= ENOUGH {
            break;
        }
    }
    found
}

fn alternatives_of(mut values: Vec<Value>) -> Value {
    match values.len() {
        1 => values.swap_remove(0),
        _ => json!({"$any": values}),
    }
}

/// A labelled row, proposed by what others teach.
struct Checked {
    is_right: bool,
    is_readable: bool,
}

/// A field's ranker, and how it does on rows that it has not seen. `is_mixed`: a date's two readings are equally likely.
fn learn(field: &Field, prompts: &[LabelledPrompt], is_mixed: bool) -> (FieldRanker, Vec<Checked>) {
    let all: Vec<&LabelledPrompt> = prompts.iter().collect();
    let mut ranker = FieldRanker::new(field, &all);
    let folds = FOLDS.min(prompts.len());
    let of_fold = |fold: usize| {
        let others = prompts
            .iter()
            .enumerate()
            .filter(|(index, _)| index % folds != fold);
        FieldRanker::new(field, &others.map(|(_, prompt)| prompt).collect::<Vec<_>>())
    };
    let rankers: Vec<FieldRanker> = match folds {
        0 | 1 => Vec::new(),
        _ => (0..folds).into_par_iter().map(of_fold).collect(),
    };
    // Of the right values, by how sharp the scores are.
    let mass = |index: usize, sharpness: f32| {
        let ranked = rankers
            .get(index % folds.max(1))
            .map(|ranker| ranker.rank_labelled(&prompts[index], sharpness));
        let ranked = ranked.unwrap_or_default();
        let is_first = ranked
            .first()
            .is_some_and(|likely| prompts[index].label.has_value(&likely.value, likely.form));
        let right = ranked
            .iter()
            .filter(|likely| prompts[index].label.has_value(&likely.value, likely.form));
        (right.map(|likely| likely.mass).sum::<f64>(), is_first)
    };
    let readable: Vec<usize> = (0..prompts.len())
        .filter(|index| prompts[*index].is_readable())
        .collect();
    let likelihood = |sharpness: &f32| {
        readable
            .iter()
            .map(|index| mass(*index, *sharpness).0.max(LEAST_MASS).ln())
            .sum::<f64>()
    };
    let by_likelihood = |left: &f32, right: &f32| likelihood(left).total_cmp(&likelihood(right));
    if !rankers.is_empty() {
        ranker.sharpness = SHARPNESS.into_iter().max_by(by_likelihood).unwrap_or(1.0);
    }
    let check = |(index, prompt): (usize, &LabelledPrompt)| Checked {
        is_right: mass(index, 1.0).1,
        is_readable: prompt.is_readable() && !(is_mixed && prompt.reads_two_ways()),
    };
    let checked = prompts.iter().enumerate().map(check).collect();
    (ranker, checked)
}

/// Whether numeric dates of these prompts have the day first in some and the month first in others, by days after the 12th.
fn has_mixed_dates<'t>(texts: impl IntoIterator<Item = &'t PromptText>) -> bool {
    let (mut day_first, mut month_first) = (false, false);
    for text in texts {
        for date in &text.dates {
            let parts: Vec<u32> = text.text[date.span.clone()]
                .split(|letter: char| !letter.is_ascii_digit())
                .filter_map(|part| part.parse().ok())
                .collect();
            if let [first, second, _] = parts[..] {
                day_first |= (13..=31).contains(&first) && second <= 12;
                month_first |= (13..=31).contains(&second) && first <= 12;
            }
        }
    }
    day_first && month_first
}

impl Accuracy {
    /// `company 88 %, total 82 % of 60 labelled rows; all 2 fields 71 %`.
    pub fn sentence(&self) -> String {
        if self.rows < 2 {
            return format!(
                "accuracy not measured ({})",
                counted(self.rows, "labelled row")
            );
        }
        let share = |count: usize| percent(count as f64 / self.rows as f64);
        let fields: Vec<String> = self
            .fields
            .iter()
            .map(|field| format!("{} {}", field.field, share(field.right)))
            .collect();
        let all = match fields.len() {
            1 => String::new(),
            count => format!("; all {count} fields {}", share(self.all_right)),
        };
        format!(
            "{} of {}{all}",
            fields.join(", "),
            counted(self.rows, "labelled row")
        )
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::dataset::load_from;

    fn task() -> (tempfile::TempDir, Task) {
        let folder = tempfile::tempdir().unwrap();
        let write =
            |name: &str, text: &str| std::fs::write(folder.path().join(name), text).unwrap();
        write(
            "task.toml",
            "name = \"t\"\nschema = \"s.json\"\n[prompts]\ntrain = \"t.jsonl\"\n[score]\nkind = \"json_schema\"\n",
        );
        write(
            "s.json",
            r#"{"type": "object", "properties": {"vendor": {"type": "string"}, "day": {"type": "string"}, "amount": {"type": "number"}},
                "required": ["vendor", "day", "amount"]}"#,
        );
        write("t.jsonl", "");
        let task = Task::load(folder.path()).unwrap();
        (folder, task)
    }

    fn rows(rows: &[(&str, Option<Value>)]) -> Vec<PromptRow> {
        let line = |(text, expected): &(&str, Option<Value>)| {
            json!({"messages": [{"role": "user", "content": text}], "expected": expected})
                .to_string()
        };
        let lines: Vec<String> = rows.iter().map(line).collect();
        load_from("rows", lines.join("\n").as_bytes()).unwrap()
    }

    fn labelled() -> Vec<PromptRow> {
        let names = [
            "Acme Corp",
            "Orbit Telecom LLC",
            "Redwood Staffing",
            "Nexus Ltd",
            "Apex Print Works",
            "Ironclad Inc",
        ];
        let label = |(index, name): (usize, &&str)| {
            let (day, amount) = (13 + index, 100.25 * (index + 1) as f64);
            let text = match index % 2 {
                0 => format!(
                    "Invoice 4{index}7 from {name} dated {day}/02/2024. Tax 7.00. Amount due: {amount:.2} EUR."
                ),
                _ => format!(
                    "Please pay {amount:.2} EUR to {name}, due {day}/02/2024, order 99{index}."
                ),
            };
            (
                text,
                json!({"vendor": name, "day": format!("2024-02-{day}"), "amount": amount}),
            )
        };
        let all: Vec<(String, Value)> = names.iter().enumerate().map(label).collect();
        rows(
            &all.iter()
                .map(|(text, label)| (text.as_str(), Some(label.clone())))
                .collect::<Vec<_>>(),
        )
    }

    #[test]
    fn a_few_labels_say_which_value_is_meant_and_how_it_is_written() {
        let (_folder, task) = task();
        let others = rows(&[
            (
                "Invoice 883 from Sterling Parts & Co dated 27/11/2023. Tax 3.00. Amount due: 1,250.00 EUR.",
                None,
            ),
            (
                "Please pay 88.00 EUR to Global Logistics Ltd, due 30/04/2024, order 1204.",
                None,
            ),
            ("Invoice 12 of nobody.", None),
        ]);
        let proposer = Proposer::new(&task, &labelled(), &others).unwrap();
        assert_eq!((proposer.accuracy.rows, proposer.accuracy.readable), (6, 6));
        let proposals = proposer.propose_all(&others, 1);
        let expected = [
            Some(json!({"vendor": "Sterling Parts & Co", "day": "2023-11-27", "amount": 1250})),
            Some(json!({"vendor": "Global Logistics Ltd", "day": "2024-04-30", "amount": 88})),
            None,
        ];
        for (proposal, expected) in proposals.iter().zip(expected) {
            assert_eq!(proposal.expected, expected);
        }
        assert_eq!(proposals[2].without, ["day"]);
        // The same bytes every time.
        let again = Proposer::new(&task, &labelled(), &others).unwrap();
        assert_eq!(again.propose_all(&others, 1), proposals);
        let several = proposer.propose_all(&others, MAX_VALUES);
        assert!(
            several
                .iter()
                .zip(&proposals)
                .all(|(several, one)| several.confidence == one.confidence)
        );
    }

    #[test]
    fn a_date_that_reads_two_ways_stays_in_doubt_where_both_orders_occur() {
        let (_folder, task) = task();
        let others = rows(&[
            (
                "Invoice 5 from Zenith Corp dated 03/04/2024. Tax 1.00. Amount due: 9.00 EUR.",
                None,
            ),
            (
                "Invoice 5 from Zenith Corp dated 03/25/2024. Tax 1.00. Amount due: 9.00 EUR.",
                None,
            ),
        ]);
        let days = |others: &[PromptRow]| {
            let proposer = Proposer::new(&task, &labelled(), others).unwrap();
            let found = proposer.propose_all(others, MAX_VALUES).remove(0);
            found.expected.unwrap()["day"].clone()
        };
        assert_eq!(days(&others), json!({"$any": ["2024-04-03", "2024-03-04"]}));
    }
}
