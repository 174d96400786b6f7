//! Degenerate-answer check: a model trained with a schema that accepts `{}` learns to write `{}`.

use std::collections::{HashMap, HashSet};

use serde::Serialize;
use serde_json::Value;

use crate::dataset::PromptRow;
use crate::format::{counted, shortened, shown_lines};
use crate::page::{Bar, Block, Cell, Level};
use crate::score::answer::json::parse_prefix;
use crate::score::definition::degenerate_answers::{self, FillStyle};
use crate::score::definition::lazy_answers::{
    LazyText, answer_text, most_common_expected, prompt_of,
};
use crate::score::scorer::Scorer;
use crate::score::task::{LengthUnit, PartValue, RewardPart, Task};
use crate::score::verdict::{Tier, mean_reward};
use crate::secrets::visible;
use crate::task::functions;

const MAX_ROWS: usize = 500;
/// Rows tried with a judge, which costs.
const MAX_JUDGED_ROWS: usize = 20;
/// Total bytes per answer over all rows; long answers are tried on fewer.
const MAX_BYTES: usize = 4 << 20;

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Finding {
    /// Kind of answer.
    pub name: String,
    pub completion: String,
    pub tier: Tier,
    /// Rows tried: not all for a long answer or schema.
    pub rows: usize,
    /// Mean over the rows; NaN (`null`) if the scorer failed on all.
    pub reward: f64,
    /// Whether training could be drawn to it.
    pub weak: bool,
    pub sentence: String,
}

impl Finding {
    /// Whether the scorer did not fail on every row.
    fn is_scored(&self) -> bool {
        self.reward.is_finite()
    }
}

/// Scores degenerate answers on the task's rows (once without a row, if there are none).
pub fn audit(task: &Task, scorer: &Scorer, rows: &[PromptRow]) -> Vec<Finding> {
    // Cost grows with the schema too: a short answer may miss all its keys.
    let affordable = (MAX_BYTES / task.definition_text.len().max(1)).max(1);
    let most = if scorer.asks_judge() {
        MAX_JUDGED_ROWS
    } else {
        MAX_ROWS
    };
    let rows = &rows[..rows.len().min(most).min(affordable)];
    let best = best_reward(task);
    let mut findings: Vec<Finding> = Vec::new();
    let has_schema = task.schema().is_some();
    let probe = |name: &str,
                 answer: &dyn Fn(Option<&PromptRow>) -> String,
                 advice: &str,
                 must_fail: bool| {
        let asked = (scorer, has_schema, must_fail);
        finding(asked, rows, best, name, answer, advice)
    };
    let finding = |name: &str, answer: &dyn Fn(Option<&PromptRow>) -> String, advice: &str| {
        probe(name, answer, advice, false)
    };
    let mut seen = HashSet::new();
    for lazy in task.definition.lazy_answers(task, rows) {
        let (name, advice, must_fail) = (lazy.name, lazy.advice, lazy.must_fail);
        match lazy.text {
            LazyText::Same(text) if seen.contains(&text) => {}
            LazyText::Same(text) => {
                findings.push(probe(name, &|_| text.clone(), advice, must_fail));
                seen.insert(text);
            }
            LazyText::ByRow(text) => {
                let answer = |row: Option<&PromptRow>| row.map(&text).unwrap_or_default();
                findings.push(probe(name, &answer, advice, must_fail));
            }
        }
    }
    if rows.iter().any(|row| example_in(row).is_some()) {
        let advice = "the prompt shows an answer that the model can copy; show a form, or values that no row expects";
        let example = |row: Option<&PromptRow>| row.and_then(example_in).unwrap_or_default();
        findings.push(finding("the prompt's own example", &example, advice));
    }
    if task
        .rewards
        .iter()
        .any(|part| matches!(part.value, PartValue::Grounded))
    {
        let advice = "give each field a `format`, a `pattern` or an `enum`, and `fields` a weight where rows have an `expected`";
        let copied = |row: Option<&PromptRow>| copied_answer(task, scorer, row).unwrap_or_default();
        findings.push(finding(
            "one value of the prompt in every field",
            &copied,
            advice,
        ));
    }
    let completion_of = |expected: &Value, row: Option<&PromptRow>| {
        expected_answer(task, scorer, expected, row).unwrap_or_default()
    };
    if let Some(constant) = most_common_expected(rows)
        .filter(|expected| !completion_of(expected, rows.first()).is_empty())
    {
        let advice = "the reward checks form only, so values may drift; give `[[reward]]` part \"fields\" or \"exact\" a weight, and watch exact match";
        findings.push(finding(
            "one answer for every prompt",
            &|row| completion_of(constant, row),
            advice,
        ));
    }
    findings
}

/// The completion for an expected answer. Only a program knows which one matches; its text may.
pub(super) fn expected_answer(
    task: &Task,
    scorer: &Scorer,
    expected: &Value,
    row: Option<&PromptRow>,
) -> Option<String> {
    let is_program = task.command().is_some_and(|rules| !rules.takes_code());
    let known = scorer.expected_completion(expected, row);
    known.or_else(|| is_program.then(|| answer_text(expected)))
}

/// The reward of a right answer. Lengths in tokens need a tokenizer.
fn best_reward(task: &Task) -> f64 {
    let is_earned = |part: &&RewardPart| !matches!(part.value, PartValue::Length(length) if length.unit == LengthUnit::Tokens);
    let parts = task.rewards.iter().filter(is_earned);
    task.score.tiers.valid + parts.map(|part| part.weight.max(0.0)).sum::<f64>()
}

/// Whether an answer is too easy, then the reward of each.
pub fn page(task: &Task, findings: &[Finding]) -> Vec<Block> {
    let weak = findings.iter().filter(|finding| finding.weak);
    let mut page: Vec<Block> = weak
        .map(|finding| Block::Finding(Level::Warning, finding.sentence.clone()))
        .collect();
    let best = best_reward(task);
    if findings.is_empty() {
        page.push(Block::detail(
            "nothing to try: this kind of scorer has no degenerate answers",
        ));
    } else if page.is_empty() {
        page.push(
            match findings.iter().filter(|one| one.is_scored()).count() {
                0 => {
                    let text = "no degenerate answer could be scored: the scorer fails on each";
                    Block::Finding(Level::Warning, text.to_owned())
                }
                scored => {
                    let of = if scored < findings.len() {
                        " that could be scored"
                    } else {
                        ""
                    };
                    let text = format!(
                        "no degenerate answer{of} scores as high as a correct one, {best:.2}"
                    );
                    Block::Text(Level::Good, text)
                }
            },
        );
    }
    let bar = |finding: &Finding| {
        let tier = finding.is_scored().then_some(finding.tier);
        let judged = tier.map_or("not scored", Tier::name);
        let reward = tier.map(|_| Cell::Number(finding.reward, 2));
        Bar {
            note: visible(&finding.completion).to_string().into(),
            tier,
            ..Bar::new(
                format!("{} ({judged})", finding.name),
                Cell::known(reward, "the scorer failed"),
                tier.map_or(0.0, |_| finding.reward / best),
            )
        }
    };
    page.push(Block::Bars(findings.iter().map(bar).collect()));
    page
}

/// An answer made of the prompt's most frequent word and number.
fn copied_answer(task: &Task, scorer: &Scorer, row: Option<&PromptRow>) -> Option<String> {
    let prompt = row.map(prompt_of)?;
    let most_frequent = |is_sought: fn(&str) -> bool| {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for word in prompt
            .split(|letter: char| !letter.is_alphanumeric())
            .filter(|word| is_sought(word))
        {
            *counts.entry(word).or_default() += 1;
        }
        counts
            .into_iter()
            .max_by_key(|(word, count)| (*count, std::cmp::Reverse(*word)))
            .map(|(word, _)| word)
    };
    let word = most_frequent(|word| word.starts_with(char::is_alphabetic)).unwrap_or("x");
    let number = most_frequent(|word| word.parse::<u32>().is_ok())
        .and_then(|word| word.parse().ok())
        .unwrap_or(0_u32);
    let copied = |schema: &Value| {
        let mut answer = degenerate_answers::answer(schema, FillStyle::Least);
        replace_leaves(&mut answer, word, number);
        answer
    };
    if let Some(schema) = task.schema() {
        return scorer.expected_completion(&copied(schema), row);
    }
    let function = functions(row.and_then(PromptRow::tools).or(task.tools())?)
        .ok()?
        .into_iter()
        .next()?;
    let arguments = function
        .parameters
        .map_or_else(|| serde_json::json!({}), copied);
    scorer.expected_completion(
        &serde_json::json!([{"name": function.name, "arguments": arguments}]),
        row,
    )
}

/// Replaces leaves of minimal values, except those of an `enum`.
fn replace_leaves(value: &mut Value, word: &str, number: u32) {
    match value {
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| replace_leaves(item, word, number)),
        Value::Object(members) => members
            .values_mut()
            .for_each(|member| replace_leaves(member, word, number)),
        Value::String(text) if text.bytes().all(|letter| letter == b'x') => *text = word.to_owned(),
        Value::Number(_) => *value = number.into(),
        _ => {}
    }
}

fn finding(
    (scorer, has_schema, must_fail): (&Scorer, bool, bool),
    rows: &[PromptRow],
    best: f64,
    name: &str,
    answer: &dyn Fn(Option<&PromptRow>) -> String,
    advice: &str,
) -> Finding {
    let first = rows
        .iter()
        .map(Some)
        .find(|row| !answer(*row).is_empty())
        .unwrap_or(rows.first());
    let shown = answer(first);
    let tier = scorer.score(&shown, first).tier;
    let rows = &rows[..rows.len().min((MAX_BYTES / shown.len().max(1)).max(1))];
    let texts: Vec<(String, &PromptRow)> =
        rows.iter().map(|row| (answer(Some(row)), row)).collect();
    let scores = scorer.score_all(
        &texts
            .iter()
            .map(|(text, row)| (text.as_str(), Some(*row)))
            .collect::<Vec<_>>(),
    );
    let rewards: Vec<f64> = scores.iter().map(|score| score.reward).collect();
    let reward = if rewards.is_empty() {
        scorer.score(&shown, None).reward
    } else {
        mean_reward(rewards.into_iter())
    };
    let short: String = shortened(&shown, 60);
    let accepting: Vec<usize> = rows
        .iter()
        .zip(&scores)
        .filter(|(_, score)| must_fail && score.tier == Tier::Valid)
        .map(|(row, _)| row.line)
        .collect();
    // Nine tenths of the best reward leave nothing to learn.
    let weak = tier == Tier::Valid && reward >= 0.9 * best || !accepting.is_empty();
    let sentence = match tier {
        _ if !accepting.is_empty() => format!(
            "`{short}` is valid for {} of {}, {}: {advice}",
            accepting.len(),
            counted(rows.len(), "row"),
            shown_lines(&accepting)
        ),
        Tier::Valid if weak => {
            format!("`{short}` earns {reward:.2} of {best:.2}: too easy; {advice}")
        }
        Tier::Valid if has_schema => {
            format!(
                "`{short}` is valid but earns only {reward:.2} of {best:.2}: the weighted parts limit it"
            )
        }
        Tier::Invalid if has_schema => {
            format!("`{short}` earns {reward:.2}: the schema rejects it")
        }
        Tier::Unparsable if has_schema => format!("`{short}` earns {reward:.2}: it cannot be read"),
        _ => format!("`{short}` earns {reward:.2} of {best:.2}"),
    };
    Finding {
        name: name.to_owned(),
        completion: short,
        tier,
        rows: rows.len(),
        reward,
        weak,
        sentence,
    }
}

/// First JSON object or list in the prompt.
fn example_in(row: &PromptRow) -> Option<String> {
    let first_value = |text: &String| {
        let starts = text
            .match_indices(['{', '['])
            .map(|(start, _)| start)
            .take(16);
        starts
            .filter_map(|start| parse_prefix(text, start).ok())
            .map(|document| document.root)
            .find_map(|value| {
                text.get(value.start..value.end)
                    .filter(|example| example.len() > 2)
                    .map(str::to_owned)
            })
    };
    row.messages
        .iter()
        .map(|message| &message.content)
        .find_map(first_value)
}
