//! Human labels of answers: JSON lines of prompt, completion and points by criterion.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;
use serde_json::{Map, Value};

use crate::files::{self, Access};
use crate::format::did_you_mean;
use crate::score::{Task, TaskJudge};

/// File in a task's folder.
pub const LABELS_FILE: &str = "judge-labels.jsonl";
/// Minimum for a check: below, kappa's interval says nothing.
pub const MIN_LABELS: usize = 20;
/// More cost without more information.
pub const MAX_LABELS: usize = 200;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JudgedCriterion {
    /// Prefixed with the part's name if a part of the reward is judged.
    pub name: String,
    pub text: String,
    /// 1 (yes or no) or 4.
    pub max_points: u8,
}

pub fn criteria_of(task: &Task) -> Vec<JudgedCriterion> {
    let found = task.judges().flat_map(|TaskJudge { part, rules, .. }| {
        rules.criteria.iter().map(move |criterion| JudgedCriterion {
            name: criterion_name(part, &criterion.name),
            text: criterion.text.clone(),
            max_points: criterion.scale.max_points(),
        })
    });
    found.collect()
}

pub(super) fn criterion_name(part: Option<&str>, name: &str) -> String {
    part.map_or_else(|| name.to_owned(), |part| format!("{part}-{name}"))
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Label {
    pub prompt_id: String,
    pub completion: String,
    /// Points by criterion; yes or no: 1 or 0. Criteria may be missing.
    pub labels: BTreeMap<String, u8>,
    /// 1-based line in the file; 0 if new.
    #[serde(skip)]
    pub line: usize,
}

/// A malformed line or unreadable file.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LabelError(pub String);

/// Parses a label file. `criteria`: of the task's judges.
///
/// # Errors
/// The first malformed line, with the remedy.
pub fn read_labels(
    file: &str,
    bytes: &[u8],
    criteria: &[JudgedCriterion],
) -> Result<Vec<Label>, LabelError> {
    let mut found: Vec<Label> = Vec::new();
    for (index, line) in bytes.split(|byte| *byte == b'\n').enumerate() {
        let line = line.trim_ascii();
        if line.is_empty() {
            continue;
        }
        let label = read_label(line, criteria)
            .map_err(|problem| LabelError(format!("{file} line {}: {problem}", index + 1)))?;
        // A repeated label replaces the earlier one.
        found.retain(|earlier| {
            (&earlier.prompt_id, &earlier.completion) != (&label.prompt_id, &label.completion)
        });
        found.push(Label {
            line: index + 1,
            ..label
        });
    }
    Ok(found)
}

fn read_label(line: &[u8], criteria: &[JudgedCriterion]) -> Result<Label, String> {
    let form =
        "a line is {\"prompt_id\": \"…\", \"completion\": \"…\", \"labels\": {\"CRITERION\": 3}}";
    let fields: Map<String, Value> = serde_json::from_slice(line)
        .map_err(|error| format!("column {}: not a JSON object; {form}", error.column()))?;
    let text = |name: &str| match fields.get(name) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(other) => Err(format!("`{name}` must be a string, not {other}")),
        None => Err(format!("missing `{name}`; {form}")),
    };
    let (prompt_id, completion) = (text("prompt_id")?, text("completion")?);
    let given = fields
        .get("labels")
        .and_then(Value::as_object)
        .ok_or_else(|| format!("missing `labels`; {form}"))?;
    let mut labels = BTreeMap::new();
    for (name, value) in given {
        let Some(JudgedCriterion {
            max_points: most, ..
        }) = criteria.iter().find(|known| known.name == *name)
        else {
            let names = || criteria.iter().map(|criterion| criterion.name.as_str());
            let known = names().collect::<Vec<_>>().join(", ");
            return Err(format!(
                "the judge has no criterion {name:?}: it has {known}{}",
                did_you_mean(name, names())
            ));
        };
        let points = match value {
            Value::Bool(yes) if *most == 1 => Some(u8::from(*yes)),
            Value::String(text) if *most == 1 => ["no", "yes"]
                .iter()
                .position(|word| word == text)
                .map(|at| at as u8),
            Value::Number(number) => number
                .as_u64()
                .filter(|points| *points <= u64::from(*most))
                .map(|points| points as u8),
            _ => None,
        };
        let scale = if *most == 1 {
            "\"yes\" or \"no\"".to_owned()
        } else {
            format!("a number from 0 to {most}")
        };
        labels.insert(
            name.clone(),
            points.ok_or_else(|| format!("`labels.{name}` takes {scale}, not {value}"))?,
        );
    }
    if labels.is_empty() {
        return Err(format!("`labels` is empty; {form}"));
    }
    Ok(Label {
        prompt_id,
        completion,
        labels,
        line: 0,
    })
}

pub fn write_labels(path: &Path, labels: &[Label]) -> Result<(), LabelError> {
    let mut text = String::new();
    for label in labels {
        text += &serde_json::to_string(label).map_err(|error| LabelError(error.to_string()))?;
        text.push('\n');
    }
    files::replace_file(path, text.as_bytes(), Access::Umask).map_err(|error| {
        LabelError(format!(
            "{}: {error}: the labels are not saved",
            path.display()
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Label>, String> {
        let criteria = [("polite", 1), ("complete", 4)].map(|(name, max_points)| JudgedCriterion {
            name: name.to_owned(),
            text: String::new(),
            max_points,
        });
        read_labels("labels.jsonl", text.as_bytes(), &criteria).map_err(|error| error.to_string())
    }

    #[test]
    fn labels_are_points_by_criterion_and_the_last_counts() {
        let line = |labels: &str| {
            format!("{{\"prompt_id\":\"a\",\"completion\":\"x\",\"labels\":{labels}}}\n")
        };
        let check = |labels: &str, expected: &[(&str, u8)]| {
            let found = read(&line(labels)).map(|found| found[0].labels.clone());
            let expected = expected
                .iter()
                .map(|(name, points)| ((*name).to_owned(), *points))
                .collect();
            assert_eq!(found, Ok(expected), "{labels}");
        };
        check(
            r#"{"polite": true, "complete": 3}"#,
            &[("complete", 3), ("polite", 1)],
        );
        check(r#"{"polite": "no"}"#, &[("polite", 0)]);
        check(
            r#"{"polite": 1, "complete": 0}"#,
            &[("complete", 0), ("polite", 1)],
        );
        let both = read(&(line(r#"{"polite": 1}"#) + "\n" + &line(r#"{"polite": 0}"#)))
            .unwrap_or_default();
        assert_eq!(
            (both.len(), both[0].labels["polite"], both[0].line),
            (1, 0, 3)
        );
    }

    #[test]
    fn a_line_that_is_no_label_is_named() {
        let check = |text: &str, expected: &str| {
            let problem = read(text).err().unwrap_or_default();
            assert!(problem.starts_with(expected), "{text}: {problem}");
        };
        check("{", "labels.jsonl line 1: column 1: not a JSON object");
        check("\n[1]", "labels.jsonl line 2: column 0: not a JSON object");
        check(
            r#"{"completion": "x"}"#,
            "labels.jsonl line 1: missing `prompt_id`",
        );
        check(
            r#"{"prompt_id": 3}"#,
            "labels.jsonl line 1: `prompt_id` must be a string, not 3",
        );
        check(
            r#"{"prompt_id": "a", "completion": "x"}"#,
            "labels.jsonl line 1: missing `labels`",
        );
        let labelled = |labels: &str| {
            format!(r#"{{"prompt_id": "a", "completion": "x", "labels": {labels}}}"#)
        };
        check(&labelled("{}"), "labels.jsonl line 1: `labels` is empty");
        check(
            &labelled(r#"{"polit": 1}"#),
            "labels.jsonl line 1: the judge has no criterion \"polit\": it has polite, complete",
        );
        check(
            &labelled(r#"{"polite": 2}"#),
            "labels.jsonl line 1: `labels.polite` takes \"yes\" or \"no\", not 2",
        );
        check(
            &labelled(r#"{"complete": "yes"}"#),
            "labels.jsonl line 1: `labels.complete` takes a number from 0 to 4",
        );
        check(
            &labelled(r#"{"complete": 2.5}"#),
            "labels.jsonl line 1: `labels.complete` takes a number from 0 to 4",
        );
    }
}
