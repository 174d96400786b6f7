//! Rewards of degenerate answers: a model trained with a schema that accepts `{}` learns to write `{}`.

mod degenerate_answers;
mod shortest_match;

use std::collections::HashSet;

use serde::Serialize;
use serde_json::{Value, json};

use super::command::suppressed_answer;
use super::http_request::message_schemas;
use super::json::parse_prefix;
use super::{Scorer, Tier, mean_reward, sql};
use crate::dataset::PromptRow;
use crate::task::{CommandRules, Definition, HttpRules, MessagePart, Task, ToolRules, functions};

/// Rows that are asked; more would not change the answer.
const MAX_ROWS: usize = 500;
/// Bytes of one answer that are scored, over all rows; a long answer is asked of fewer.
const MAX_BYTES: usize = 4 << 20;

/// The remedy where a valid answer earns as much as a right one.
const BY_EXPECTED: &str = "give every row an `expected`, and `[[reward]]` part \"exact\" a weight";

/// A degenerate answer and its reward.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// The kind of answer.
    pub name: String,
    /// The answer, shortened.
    pub completion: String,
    pub tier: Tier,
    /// Rows that were asked: of a long answer or schema, not all.
    pub rows: usize,
    /// Mean reward over them.
    pub reward: f64,
    /// Whether training would be drawn to it.
    pub weak: bool,
    pub sentence: String,
}

/// Scores degenerate answers against the task's rows (against none, if there are none).
pub fn audit(task: &Task, scorer: &Scorer, rows: &[PromptRow]) -> Vec<Finding> {
    // A short answer may miss as many keys as the schema has.
    let affordable = (MAX_BYTES / task.definition_text.len().max(1)).max(1);
    let rows = &rows[..rows.len().min(MAX_ROWS).min(affordable)];
    let best = task.score.tiers.valid + task.rewards.iter().map(|part| part.weight.max(0.0)).sum::<f64>();
    let mut findings: Vec<Finding> = Vec::new();
    let is_json = task.schema().is_some();
    let finding = |name: &str, answer: &dyn Fn(Option<&PromptRow>) -> String, advice: &str| {
        finding((scorer, is_json), rows, best, name, answer, advice)
    };
    let mut seen = HashSet::new();
    for (name, completion, advice) in candidates(task) {
        if !seen.insert(completion.clone()) {
            continue;
        }
        findings.push(finding(name, &|_| completion.clone(), advice));
    }
    if let Definition::Sql(_) = &task.definition {
        let whole = |row: Option<&PromptRow>| {
            let table = sql::first_table(task, row)?;
            Some(format!("SELECT * FROM \"{}\"", table.replace('"', "\"\"")))
        };
        if rows.first().map_or_else(|| whole(None), |row| whole(Some(row))).is_some() {
            let answer = |row: Option<&PromptRow>| whole(row).unwrap_or_default();
            findings.push(finding("all of the first table", &answer, BY_EXPECTED));
        }
    }
    if matches!(task.kind(), "text" | "regex" | "command") && !rows.is_empty() {
        let prompt = |row: Option<&PromptRow>| row.map(prompt_of).unwrap_or_default();
        findings.push(finding(
            "the prompt itself",
            &prompt,
            "an answer that repeats the prompt earns it: ask for more",
        ));
    }
    if rows.iter().any(|row| example_in(row).is_some()) {
        let advice = "the prompt shows an answer that the model can copy; show a form, or values that no row expects";
        let example = |row: Option<&PromptRow>| row.and_then(example_in).unwrap_or_default();
        findings.push(finding("the prompt's own example", &example, advice));
    }
    // Only a program knows which completion gives an `expected`; its text may.
    let completion_of = |expected: &Value| {
        let text = || expected.as_str().map_or_else(|| expected.to_string(), str::to_owned);
        scorer.expected_completion(expected).or_else(|| (task.kind() == "command").then(text))
    };
    if task.kind() == "command" && most_common_expected(rows).is_some() {
        let other = |row: Option<&PromptRow>| row.and_then(|row| other_expected(row, rows)).and_then(completion_of);
        let advice = "the program takes another row's answer: let it compare with the row";
        findings.push(finding("the expected answer of another row", &|row| other(row).unwrap_or_default(), advice));
    }
    if let Some(constant) = most_common_expected(rows).and_then(completion_of) {
        let advice = "the reward checks form only, so values may drift; give `[[reward]]` part \"fields\" or \"exact\" a weight, and watch exact match";
        findings.push(finding("one answer for every prompt", &|_| constant.clone(), advice));
    }
    findings
}

/// Answers that need no prompt: name, text, and what to do when they pass.
fn candidates(task: &Task) -> Vec<(&'static str, String, &'static str)> {
    let required = "list the keys that must be there under `required`";
    let narrow = "narrow the values: minLength, minimum, enum, pattern, or `format` with `assert_formats = true`";
    if let Definition::ToolCalls(rules) = &task.definition {
        return call_candidates(rules);
    }
    if let Definition::HttpRequest(rules) = &task.definition {
        return message_candidates(rules, task.score.assert_formats);
    }
    if let Definition::Sql(_) = &task.definition {
        let lazy = [("an empty answer", ""), ("a constant", "SELECT 1"), ("a word", "x")];
        return lazy.map(|(name, text)| (name, text.to_owned(), BY_EXPECTED)).into();
    }
    if task.kind() == "code" {
        let narrow = "a checker sees only how code is written: give every row an `expected` and `[[reward]]` part \"exact\" a weight, or score by a program that runs the code";
        let lazy = [
            ("an empty file", "\n"),
            ("a comment, #", "# nothing"),
            ("a comment, //", "// nothing"),
            ("pass", "pass"),
            ("a colon", ":"),
            ("a constant", "1"),
        ];
        let mut lazy: Vec<_> = lazy.map(|(name, text)| (name, text.to_owned(), narrow)).into();
        let file = task.command().and_then(CommandRules::code).map_or("", |code| &code.file);
        let obeyed = "the checker obeys the answer's comments: let it ignore them (ruff: --ignore-noqa, eslint: --no-inline-config)";
        lazy.extend(suppressed_answer(file).map(|text| ("a suppressed finding", text.to_owned(), obeyed)));
        return lazy;
    }
    let Some(schema) = task.schema() else { return plain_candidates(task) };
    vec![
        ("an empty object", "{}".to_owned(), required),
        ("an empty list", "[]".to_owned(), "give the schema a `type`"),
        ("null", "null".to_owned(), "give the schema a `type`"),
        ("an empty string", "\"\"".to_owned(), "give the schema a `type`"),
        ("zero", "0".to_owned(), "give the schema a `type`"),
        (
            "every value null",
            degenerate_answers::answer(schema, degenerate_answers::FillStyle::Nulls).to_string(),
            "give each property a `type` other than null",
        ),
        (
            "empty strings and zeros",
            degenerate_answers::answer(schema, degenerate_answers::FillStyle::Empty).to_string(),
            narrow,
        ),
        (
            "the minimum that the schema requires",
            degenerate_answers::answer(schema, degenerate_answers::FillStyle::Least).to_string(),
            narrow,
        ),
        (
            "the schema itself",
            schema.to_string(),
            "forbid other keys by `additionalProperties = false` and list `required` ones",
        ),
    ]
}

/// Calls that need no reading of the request.
fn call_candidates(rules: &ToolRules) -> Vec<(&'static str, String, &'static str)> {
    use degenerate_answers::{FillStyle, answer};
    let narrow = "give every row an `expected`, and `[[reward]]` part \"fields\" or \"exact\" a weight";
    let mut candidates = vec![("no call", "[]".to_owned(), narrow), ("a word", "x".to_owned(), narrow)];
    let listed = rules.tools.as_ref().and_then(|tools| functions(tools).ok()).unwrap_or_default();
    if let Some(first) = listed.first() {
        let call = |arguments: Value| json!({"name": first.name, "arguments": arguments}).to_string();
        let parameters = first.parameters.cloned().unwrap_or_else(|| json!({"type": "object"}));
        candidates.push(("the first tool without arguments", call(json!({})), narrow));
        candidates.push((
            "the first tool with the least arguments",
            call(answer(&parameters, FillStyle::Least)),
            narrow,
        ));
    }
    candidates
}

/// Messages of the first operation that need no reading of the prompt.
fn message_candidates(rules: &HttpRules, assert_formats: bool) -> Vec<(&'static str, String, &'static str)> {
    let narrow = "give every row an `expected`, and `[[reward]]` part \"fields\" or \"exact\" a weight";
    let mut candidates = vec![("a word", "x".to_owned(), narrow)];
    candidates.push(match rules.part {
        MessagePart::Request => ("the root", json!({"method": "GET", "path": "/"}).to_string(), narrow),
        MessagePart::Response => ("a status alone", json!({"status": 200}).to_string(), narrow),
    });
    if let Some(first) = message_schemas(rules, assert_formats).first() {
        let mut least = degenerate_answers::answer(&first.schema, degenerate_answers::FillStyle::Least);
        if let Some(path) = least.get("path").and_then(Value::as_str) {
            // Each variable of the path is 1.
            let pieces = path.split('{').enumerate().map(|(index, piece)| match (index, piece.split_once('}')) {
                (1.., Some((_, rest))) => format!("1{rest}"),
                _ => piece.to_owned(),
            });
            least["path"] = Value::String(pieces.collect());
        }
        candidates.push(("the least that an operation takes", least.to_string(), narrow));
    }
    candidates
}

/// Where no schema says which form an answer has.
fn plain_candidates(task: &Task) -> Vec<(&'static str, String, &'static str)> {
    let narrow = "let `[score]` ask for more, or give every row an `expected`";
    let lazy = [("an empty answer", ""), ("a word", "x"), ("zero", "0"), ("an empty object", "{}")];
    let mut candidates: Vec<_> = lazy.map(|(name, text)| (name, text.to_owned(), narrow)).into();
    candidates.extend(task.system.clone().map(|system| ("the system text", system, narrow)));
    if let Definition::Regex { pattern } = &task.definition {
        let shortest = shortest_match::shortest_match(pattern);
        candidates.extend(shortest.map(|text| ("a shortest match", text, BY_EXPECTED)));
    }
    candidates
}

/// The last user turn of a prompt.
fn prompt_of(row: &PromptRow) -> String {
    row.messages
        .iter()
        .rfind(|message| message.role == "user")
        .map(|message| message.content.clone())
        .unwrap_or_default()
}

/// The `expected` of the next row that has another one.
fn other_expected<'a>(row: &PromptRow, rows: &'a [PromptRow]) -> Option<&'a Value> {
    let after = rows.iter().position(|other| std::ptr::eq(other, row)).unwrap_or(0);
    let others = rows.iter().cycle().skip(after + 1).take(rows.len());
    others.filter_map(|other| other.expected.as_ref()).find(|expected| Some(*expected) != row.expected.as_ref())
}

fn finding(
    (scorer, is_json): (&Scorer, bool),
    rows: &[PromptRow],
    best: f64,
    name: &str,
    answer: &dyn Fn(Option<&PromptRow>) -> String,
    advice: &str,
) -> Finding {
    let first = rows.iter().map(Some).find(|row| !answer(*row).is_empty()).unwrap_or(rows.first());
    let shown = answer(first);
    let tier = scorer.score(&shown, first).tier;
    let rows = &rows[..rows.len().min((MAX_BYTES / shown.len().max(1)).max(1))];
    let texts: Vec<(String, &PromptRow)> = rows.iter().map(|row| (answer(Some(row)), row)).collect();
    let scores = scorer.score_all(&texts.iter().map(|(text, row)| (text.as_str(), Some(*row))).collect::<Vec<_>>());
    let rewards: Vec<f64> = scores.iter().map(|score| score.reward).collect();
    let reward = if rewards.is_empty() { scorer.score(&shown, None).reward } else { mean_reward(rewards.into_iter()) };
    let short: String = crate::format::shortened(&shown, 60);
    // Nine tenths of the best reward leave nothing to learn from.
    let weak = tier == Tier::Valid && reward >= 0.9 * best;
    let sentence = match tier {
        Tier::Valid if weak => format!("`{short}` earns {reward:.2} of {best:.2}: too easy; {advice}"),
        Tier::Valid if is_json => {
            format!("`{short}` is valid but earns only {reward:.2} of {best:.2}: the weighted parts limit it")
        }
        Tier::Invalid if is_json => format!("`{short}` earns {reward:.2}, as JSON that the schema rejects"),
        Tier::Unparsable if is_json => format!("`{short}` earns {reward:.2}: it is not JSON"),
        _ => format!("`{short}` earns {reward:.2} of {best:.2}"),
    };
    Finding { name: name.to_owned(), completion: short, tier, rows: rows.len(), reward, weak, sentence }
}

/// The first JSON object or list written in the prompt.
fn example_in(row: &PromptRow) -> Option<String> {
    let first_value = |text: &String| {
        let starts = text.match_indices(['{', '[']).map(|(start, _)| start).take(16);
        starts
            .filter_map(|start| parse_prefix(text, start).ok())
            .map(|document| document.root)
            .find_map(|value| text.get(value.start..value.end).filter(|example| example.len() > 2).map(str::to_owned))
    };
    row.messages.iter().map(|message| &message.content).find_map(first_value)
}

fn most_common_expected(rows: &[PromptRow]) -> Option<&Value> {
    let mut counts: Vec<(&Value, usize)> = Vec::new();
    for expected in rows.iter().filter_map(|row| row.expected.as_ref()) {
        match counts.iter_mut().find(|(value, _)| *value == expected) {
            Some((_, count)) => *count += 1,
            None => counts.push((expected, 1)),
        }
    }
    counts.iter().rev().max_by_key(|(_, count)| *count).map(|(value, _)| *value)
}
