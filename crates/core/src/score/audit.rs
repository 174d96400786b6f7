//! Rewards of degenerate answers: a model trained with a schema that accepts `{}` learns to write `{}`.

pub(super) mod degenerate_answers;

use std::collections::HashSet;

use serde::Serialize;
use serde_json::Value;

use super::definition::{LazyAnswer, LazyText};
use super::json::parse_prefix;
use super::{Scorer, Task, Tier, mean_reward};
use crate::dataset::PromptRow;
use crate::task::TaskFiles;

/// Rows that are asked; more would not change the answer.
const MAX_ROWS: usize = 500;
/// Bytes of one answer that are scored, over all rows; a long answer is asked of fewer.
const MAX_BYTES: usize = 4 << 20;

/// The remedy where a valid answer earns as much as a right one.
pub(super) const BY_EXPECTED: &str = "give every row an `expected`, and `[[reward]]` part \"exact\" a weight";

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
    let has_schema = task.schema().is_some();
    let finding = |name: &str, answer: &dyn Fn(Option<&PromptRow>) -> String, advice: &str| {
        finding((scorer, has_schema), rows, best, name, answer, advice)
    };
    let mut seen = HashSet::new();
    for LazyAnswer { name, text, advice } in task.definition.lazy_answers(task, rows) {
        match text {
            LazyText::Same(text) if seen.contains(&text) => {}
            LazyText::Same(text) => {
                findings.push(finding(name, &|_| text.clone(), advice));
                seen.insert(text);
            }
            LazyText::ByRow(text) => findings.push(finding(name, &|row| row.map(&text).unwrap_or_default(), advice)),
        }
    }
    if rows.iter().any(|row| example_in(row).is_some()) {
        let advice = "the prompt shows an answer that the model can copy; show a form, or values that no row expects";
        let example = |row: Option<&PromptRow>| row.and_then(example_in).unwrap_or_default();
        findings.push(finding("the prompt's own example", &example, advice));
    }
    // Only a program knows which completion gives an `expected`; its text may.
    let completion_of = |expected: &Value, row: Option<&PromptRow>| {
        let known = scorer.expected_completion(expected, row);
        known.or_else(|| (task.kind() == "command").then(|| answer_text(expected))).unwrap_or_default()
    };
    if let Some(constant) =
        most_common_expected(rows).filter(|expected| !completion_of(expected, rows.first()).is_empty())
    {
        let advice = "the reward checks form only, so values may drift; give `[[reward]]` part \"fields\" or \"exact\" a weight, and watch exact match";
        findings.push(finding("one answer for every prompt", &|row| completion_of(constant, row), advice));
    }
    findings
}

/// Where nothing says which form an answer has.
pub(super) fn plain_answers(task: &TaskFiles) -> Vec<LazyAnswer<'_>> {
    let narrow = "let `[score]` ask for more, or give every row an `expected`";
    let lazy = [("an empty answer", ""), ("a word", "x"), ("zero", "0"), ("an empty object", "{}")];
    let system = task.system.clone().map(|system| LazyAnswer::same("the system text", system, narrow));
    lazy.map(|(name, text)| LazyAnswer::same(name, text, narrow)).into_iter().chain(system).collect()
}

/// The prompt as its own answer; none without rows.
pub(super) fn prompt_itself<'a>(rows: &[PromptRow]) -> Option<LazyAnswer<'a>> {
    let advice = "an answer that repeats the prompt earns it: ask for more";
    (!rows.is_empty()).then(|| LazyAnswer::by_row("the prompt itself", advice, prompt_of))
}

/// An `expected` as an answer is written.
pub(super) fn answer_text(expected: &Value) -> String {
    expected.as_str().map_or_else(|| expected.to_string(), str::to_owned)
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
pub(super) fn other_expected<'a>(row: &PromptRow, rows: &'a [PromptRow]) -> Option<&'a Value> {
    let after = rows.iter().position(|other| std::ptr::eq(other, row)).unwrap_or(0);
    let others = rows.iter().cycle().skip(after + 1).take(rows.len());
    others.filter_map(|other| other.expected.as_ref()).find(|expected| Some(*expected) != row.expected.as_ref())
}

fn finding(
    (scorer, has_schema): (&Scorer, bool),
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
        Tier::Valid if has_schema => {
            format!("`{short}` is valid but earns only {reward:.2} of {best:.2}: the weighted parts limit it")
        }
        Tier::Invalid if has_schema => format!("`{short}` earns {reward:.2}: the schema rejects it"),
        Tier::Unparsable if has_schema => format!("`{short}` earns {reward:.2}: it cannot be read"),
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

/// The `expected` that most rows share.
pub(super) fn most_common_expected(rows: &[PromptRow]) -> Option<&Value> {
    let mut counts: Vec<(&Value, usize)> = Vec::new();
    for expected in rows.iter().filter_map(|row| row.expected.as_ref()) {
        match counts.iter_mut().find(|(value, _)| *value == expected) {
            Some((_, count)) => *count += 1,
            None => counts.push((expected, 1)),
        }
    }
    counts.iter().rev().max_by_key(|(_, count)| *count).map(|(value, _)| *value)
}
