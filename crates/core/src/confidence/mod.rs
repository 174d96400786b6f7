//! How sure a model is of each value of a JSON answer.

mod leaf_spans;
mod server_tokens;

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::dataset::PromptRow;
use crate::score::{Score, Task};
use crate::text::{THINK_MARKS, ThinkMarks};

pub use leaf_spans::{LeafSpan, is_number_byte, is_white_space, leaf_spans};
pub use server_tokens::confidence_of_tokens;

/// Why an answer's later values are unknown.
pub const NOT_JSON: &str = "the answer is not one JSON value";

/// What a probability was computed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Among {
    /// All values that the schema allows there.
    Values,
    /// At each token, the tokens that the schema allows there.
    #[default]
    Tokens,
    /// At each token, the whole vocabulary.
    Vocabulary,
}

/// A value of an answer that has no values inside.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LeafConfidence {
    /// JSON pointer.
    pub path: String,
    /// Probability in [0, 1]; `None`: unknown, for [`AnswerConfidence::unknown`].
    pub confidence: Option<f64>,
    pub among: Among,
    /// Share of the prompt's samples that have this value at this path; `None` with one sample.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<f64>,
    /// Whether `expected` has it; `None` if values are not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub right: Option<bool>,
    /// Whether the part `grounded` finds it in the prompt; `None` without that part.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stated: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct AnswerConfidence {
    /// In the order written; `values` in a server's answer.
    #[serde(alias = "values")]
    pub leaves: Vec<LeafConfidence>,
    /// Why leaves, or the whole answer, have no confidence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown: Option<String>,
}

/// Why answers to these rows have no confidence: those that are not single JSON values. `label`: of
/// the rows' file.
pub fn why_without<'r>(
    task: &Task,
    label: &str,
    rows: impl IntoIterator<Item = &'r PromptRow>,
) -> Option<String> {
    let mut rows = rows.into_iter();
    let why = if task.kind() != "json_schema" {
        format!("{} is of kind {}", task.name, task.kind())
    } else if task.has_partner() {
        format!("{} has tools", task.name)
    } else {
        let row = rows.find(|row| row.turn_count() > 1)?;
        format!("row {} of {label} has several turns", row.id)
    };
    Some(format!(
        "{why}: only single answers of kind json_schema have confidences"
    ))
}

impl AnswerConfidence {
    /// No value is known.
    pub fn unknown(why: impl Into<String>) -> Self {
        Self {
            leaves: Vec::new(),
            unknown: Some(why.into()),
        }
    }

    /// The least of its leaves; `None` if one of them, or the answer, is unknown.
    pub fn least(&self) -> Option<f64> {
        if self.unknown.is_some() || self.leaves.is_empty() {
            return None;
        }
        let mut leaves = self.leaves.iter();
        leaves.try_fold(1.0, |least, leaf| Some(leaf.confidence?.min(least)))
    }

    /// Each leaf with its JSON in `completion`; without the text if it is no longer there.
    pub fn written<'c>(&'c self, completion: &'c str) -> Vec<(&'c LeafConfidence, &'c str)> {
        let spans = spans_of(completion);
        let texts: HashMap<String, &str> = spans
            .into_iter()
            .filter_map(|span| Some((span.path, completion.get(span.bytes)?)))
            .collect();
        let text = |leaf: &LeafConfidence| texts.get(&leaf.path).copied().unwrap_or_default();
        self.leaves.iter().map(|leaf| (leaf, text(leaf))).collect()
    }

    /// As a server's answer has it.
    pub fn json(&self) -> Value {
        json!({"least": self.least(), "values": self.leaves, "unknown": self.unknown})
    }

    /// Marks the leaves that are right by the completion's score, and those that the prompt states.
    pub fn judge(&mut self, completion: &str, score: &Score) {
        let spans = spans_of(completion);
        let starts: HashMap<usize, &str> = spans
            .iter()
            .map(|span| (span.bytes.start, span.path.as_str()))
            .collect();
        let outcomes = score.leaves.iter().flat_map(|leaves| &leaves.outcomes);
        let right: HashMap<&str, bool> = outcomes
            .filter_map(|(start, is_right)| Some((*starts.get(start)?, *is_right)))
            .collect();
        let is_grounded = score.parts.get("grounded").is_some();
        for leaf in &mut self.leaves {
            leaf.right = right.get(leaf.path.as_str()).copied();
            let mut places = score.grounded.iter();
            leaf.stated = is_grounded.then(|| places.any(|place| place.instance_path == leaf.path));
        }
    }
}

fn spans_of(completion: &str) -> Vec<LeafSpan> {
    let bytes = completion.as_bytes();
    leaf_spans(bytes, answer_start(bytes, &THINK_MARKS)).leaves
}

/// The byte after the last think block.
pub fn answer_start<'m>(text: &[u8], marks: impl IntoIterator<Item = &'m ThinkMarks>) -> usize {
    let ends = marks.into_iter().filter_map(|marks| {
        let end = marks.end().as_bytes();
        let found = text.windows(end.len()).rposition(|part| part == end);
        found.map(|at| at + end.len())
    });
    ends.max().unwrap_or(0)
}

/// Sets the agreement of each leaf of a prompt's samples, each a completion with its confidences.
pub fn set_agreement(samples: &mut [(&str, &mut AnswerConfidence)]) {
    if samples.len() < 2 {
        return;
    }
    let values: Vec<HashMap<String, Value>> =
        samples.iter().map(|(text, _)| leaf_values(text)).collect();
    for (own, (_, confidence)) in samples.iter_mut().enumerate() {
        for leaf in &mut confidence.leaves {
            let value = values[own].get(&leaf.path);
            let same = values
                .iter()
                .filter(|other| value.is_some() && other.get(&leaf.path) == value);
            leaf.agreement = value.map(|_| same.count() as f64 / values.len() as f64);
        }
    }
}

/// Values by path; numbers as `f64`, so that 1 equals 1.0.
fn leaf_values(completion: &str) -> HashMap<String, Value> {
    let bytes = completion.as_bytes();
    let spans = spans_of(completion);
    let value = |span: LeafSpan| {
        let value: Value = serde_json::from_slice(&bytes[span.bytes]).ok()?;
        let number = value.as_f64().map(Value::from);
        Some((span.path, number.unwrap_or(value)))
    };
    spans.into_iter().filter_map(value).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(path: &str, confidence: Option<f64>) -> LeafConfidence {
        LeafConfidence {
            path: path.to_owned(),
            confidence,
            ..LeafConfidence::default()
        }
    }

    #[test]
    fn an_answer_is_as_sure_as_its_leaves_and_unknown_is_not_zero() {
        let check = |leaves: &[Option<f64>], unknown: Option<&str>, expected: Option<f64>| {
            let answer = AnswerConfidence {
                leaves: leaves.iter().map(|value| leaf("/a", *value)).collect(),
                unknown: unknown.map(str::to_owned),
            };
            assert_eq!(answer.least(), expected, "{leaves:?}");
        };
        check(&[Some(0.5), Some(0.25)], None, Some(0.25));
        check(&[Some(0.0)], None, Some(0.0));
        check(&[Some(0.5), None], None, None);
        check(&[Some(0.5)], Some("truncated"), None);
        check(&[], None, None);
    }

    #[test]
    fn agreement_is_the_share_of_samples_with_the_same_value() {
        let texts = [
            r#"{"a": 1, "b": "x"}"#,
            r#"{"a": 1.0, "b": "y"}"#,
            r#"{"a": 2}"#,
            "no json",
        ];
        let paths: [&[&str]; 4] = [&["/a", "/b"], &["/a", "/b"], &["/a"], &[]];
        let mut answers = paths.map(|paths| AnswerConfidence {
            leaves: paths.iter().map(|path| leaf(path, Some(1.0))).collect(),
            unknown: None,
        });
        let mut samples: Vec<_> = texts.into_iter().zip(answers.iter_mut()).collect();
        set_agreement(&mut samples);
        let agreement = answers.map(|answer| {
            let leaves = answer.leaves.iter();
            leaves
                .map(|leaf| leaf.agreement.unwrap_or(f64::NAN))
                .collect::<Vec<_>>()
        });
        assert_eq!(
            agreement,
            [vec![0.5, 0.25], vec![0.5, 0.25], vec![0.25], vec![]]
        );
        let mut alone = AnswerConfidence::default();
        alone.leaves.push(leaf("/a", Some(1.0)));
        set_agreement(&mut [(texts[0], &mut alone)]);
        assert_eq!(
            alone.leaves[0].agreement, None,
            "one sample agrees with nothing"
        );
    }
}
