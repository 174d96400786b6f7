//! Mutation score of a reward: each expected answer is broken in one way, and scored. A mutant that earns as much as
//! the truth is what training may learn instead.

mod edits;

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;
use serde_json::Value;

use self::edits::{Mutant, OtherValues};
use super::audit::expected_answer;
use crate::dataset::expected::{alternatives, target};
use crate::dataset::{PromptRow, mix, row_schema};
use crate::exact_json;
use crate::format::{counted, percent, shortened};
use crate::page::{Block, Cell, Level, Row, Table};
use crate::score::answer::json::parse;
use crate::score::grounded::fields::Fields;
use crate::score::scorer::Scorer;
use crate::score::task::{PartValue, Task};
use crate::score::verdict::field_compare::compare;
use crate::score::verdict::field_rules::Rules;
use crate::score::verdict::leaves::compare_leaves;
use crate::score::verdict::{Leaves, Score, Tier};
use crate::secrets::visible;
use crate::task::{LeafRules, ScoreRules};

pub use edits::Mutation;

/// Mutants scored on the side: as one edits, and for a report.
pub const QUICK_LIMIT: usize = 2_000;
/// Mutants scored unless another limit is given: where a program is asked for each, and where a judge is.
const DEFAULT_LIMIT: usize = 10_000;
const DEFAULT_PROGRAM_LIMIT: usize = 500;
const DEFAULT_JUDGE_LIMIT: usize = 40;
/// Texts scored together.
const BATCH: usize = 2_048;
const BATCH_BYTES: usize = 32 << 20;
/// Rows whose values others get.
const MAX_OTHER_ROWS: usize = 500;
/// Rewards that differ by less are equal.
const ROUNDING: f64 = 1e-9;
const MAX_SHOWN: usize = 8;
const MAX_FIELDS_SHOWN: usize = 40;
const MAX_EXAMPLE_CHARS: usize = 120;

/// Why there is nothing to break.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoMutants {
    #[error(
        "no row has an `expected`: mutants are expected answers with one fault; add `expected` to the rows"
    )]
    NoExpected,
    #[error(
        "`[score] kind = \"{0}\"` does not judge a text that `expected` gives: there is nothing to break"
    )]
    NoText(&'static str),
    #[error(
        "line {line}: the scorer does not accept the row's own `expected` ({why}), nor that of any other row tried: correct them first, see `task check`"
    )]
    NoneRight { line: usize, why: String },
}

/// How many mutants of a field, broken in one way, earn as much as the truth.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MutationCell {
    pub field: String,
    pub mutation: Mutation,
    pub mutants: usize,
    /// Those that earn as much as the truth.
    pub survivors: usize,
    /// Those that do since the task says that they are equal: aliases, normalisation, order, a tolerance for the last
    /// digit. Not among the survivors.
    pub equal_by_rule: usize,
    /// Those that the scorer failed to score.
    pub unscored: usize,
    /// The first survivor.
    pub example: Option<SurvivingMutant>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SurvivingMutant {
    pub id: String,
    pub line: usize,
    /// What the fault is: `5.5 to 6.5`.
    pub change: String,
    /// Shortened.
    pub completion: String,
    pub reward: f64,
    pub truth_reward: f64,
    /// Equal by the field's tolerance alone.
    pub is_within_tolerance: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MutationReport {
    /// Rows whose expected answers were broken.
    pub rows: usize,
    /// Rows left out: the scorer does not accept their own `expected`.
    pub left_out: usize,
    pub cells: Vec<MutationCell>,
    /// What to do about survivors.
    pub advice: Option<&'static str>,
}

impl MutationReport {
    fn sum(&self, count: impl Fn(&MutationCell) -> usize) -> usize {
        self.cells.iter().map(count).sum()
    }

    pub fn mutants(&self) -> usize {
        self.sum(|cell| cell.mutants)
    }

    pub fn survivors(&self) -> usize {
        self.sum(|cell| cell.survivors)
    }

    pub fn equal_by_rule(&self) -> usize {
        self.sum(|cell| cell.equal_by_rule)
    }

    /// Share of the mutants that earn less than the truth, of those that are not equal to it; `None` if there is none.
    pub fn score(&self) -> Option<f64> {
        let judged = self.mutants() - self.equal_by_rule() - self.sum(|cell| cell.unscored);
        (judged > 0).then(|| 1.0 - self.survivors() as f64 / judged as f64)
    }
}

/// A text to score, of a row: the truth, or a mutant of it.
struct Tried<'r> {
    row: &'r PromptRow,
    mutant: Option<Mutant>,
    text: String,
    /// Whether the text itself is expected, not a value that it states.
    is_plain: bool,
}

/// Breaks the rows' expected answers, at most `limit` times in all, in an order that only the rows decide; `None` once
/// `keep_going` returns false.
///
/// # Errors
/// [`NoMutants`].
pub fn mutation_report(
    task: &Task,
    scorer: &Scorer,
    rows: &[PromptRow],
    limit: Option<usize>,
    keep_going: &(dyn Fn() -> bool + Sync),
) -> Result<Option<MutationReport>, NoMutants> {
    let limit = limit.unwrap_or(match (scorer.asks_judge(), scorer.runs_programs()) {
        (true, _) => DEFAULT_JUDGE_LIMIT,
        (_, true) => DEFAULT_PROGRAM_LIMIT,
        _ => DEFAULT_LIMIT,
    });
    let mut answered: Vec<(&PromptRow, Value)> = rows
        .iter()
        .filter_map(|row| Some((row, target(row.expected.as_ref()?))))
        .collect();
    if answered.is_empty() {
        return Err(NoMutants::NoExpected);
    }
    answered.sort_by_key(|(row, _)| mix(row.line as u64));
    let mut breaking = Breaking {
        task,
        scorer,
        others: OtherValues::default(),
        fields: Fields::new(&*task.definition).unwrap_or_default(),
        strict: strict_rules(&task.score),
        rows: 0,
        left_out: 0,
        cells: BTreeMap::new(),
        wrong: None,
        is_written: false,
    };
    for (_, answer) in answered.iter().take(MAX_OTHER_ROWS) {
        breaking.others.add(answer);
    }
    let (mut batch, mut bytes, mut left) = (Vec::new(), 0, limit);
    for (row, answer) in answered {
        let mut tried = breaking.tried(row, answer);
        tried.truncate(left + 1);
        left -= tried.len().saturating_sub(1);
        bytes += tried.iter().map(|tried| tried.text.len()).sum::<usize>();
        batch.append(&mut tried);
        if batch.len() >= BATCH || bytes >= BATCH_BYTES || left == 0 {
            // What was not counted may be made again of other rows.
            match breaking.score(std::mem::take(&mut batch), keep_going) {
                Some(not_counted) => left += not_counted,
                None => return Ok(None),
            }
            bytes = 0;
        }
        if left == 0 {
            break;
        }
    }
    if breaking.score(batch, keep_going).is_none() {
        return Ok(None);
    }
    breaking.finish().map(Some)
}

struct Breaking<'t, 'r> {
    task: &'t Task,
    scorer: &'t Scorer,
    others: OtherValues,
    fields: Fields,
    /// The task's rules without tolerances, if it has any.
    strict: Option<Rules>,
    rows: usize,
    left_out: usize,
    cells: BTreeMap<(String, Mutation), MutationCell>,
    /// The first row whose expected answer is not accepted, and why.
    wrong: Option<(&'r PromptRow, String)>,
    /// Whether any expected answer could be written as a text.
    is_written: bool,
}

impl<'r> Breaking<'_, 'r> {
    /// A row's truth, then its mutants.
    fn tried(&mut self, row: &'r PromptRow, answer: Value) -> Vec<Tried<'r>> {
        let write = |value: &Value| expected_answer(self.task, self.scorer, value, Some(row));
        let Some(truth) = write(&answer) else {
            return Vec::new();
        };
        self.is_written = true;
        let choice = mix(row.line as u64 ^ 0x6d75_7461);
        // The first of several right texts.
        let answer = match answer {
            Value::Array(mut items)
                if items.first().and_then(write).as_ref() == Some(&truth) && !items.is_empty() =>
            {
                items.swap_remove(0)
            }
            other => other,
        };
        let is_plain = answer.as_str() == Some(&truth);
        let mutants = match is_plain {
            true => edits::of_text(&truth, &self.others, choice),
            false => {
                let own = row_schema(self.task, row).and_then(Result::ok);
                let own = own.map(Fields::of_schema);
                let fields = own.as_ref().unwrap_or(&self.fields);
                edits::of_value(&answer, fields, &self.others, choice)
            }
        };
        let tried = |mutant: Option<Mutant>, text: String| Tried {
            row,
            mutant,
            text,
            is_plain,
        };
        let broken = mutants.into_iter().filter_map(|mutant| {
            let text = match is_plain {
                true => mutant.answer.as_str()?.to_owned(),
                false => write(&mutant.answer)?,
            };
            (text != truth).then(|| tried(Some(mutant), text))
        });
        let broken: Vec<Tried<'_>> = broken.collect();
        std::iter::once(tried(None, truth)).chain(broken).collect()
    }

    /// Counts a batch; returns how many of its mutants belong to rows that are left out.
    fn score(
        &mut self,
        batch: Vec<Tried<'r>>,
        keep_going: &(dyn Fn() -> bool + Sync),
    ) -> Option<usize> {
        let asked: Vec<_> = batch
            .iter()
            .map(|tried| (tried.text.as_str(), Some(tried.row)))
            .collect();
        let scores = self.scorer.score_while(&asked, keep_going)?;
        let (mut truth, mut not_counted) = (None, 0);
        for (tried, score) in batch.iter().zip(&scores) {
            let Some(mutant) = &tried.mutant else {
                truth = self.accepted_truth(tried, score);
                continue;
            };
            match truth {
                Some(reward) => self.count(tried, mutant, score, reward),
                None => not_counted += 1,
            }
        }
        Some(not_counted)
    }

    /// The reward of a right answer; `None` if the scorer does not take it for one.
    fn accepted_truth(&mut self, tried: &Tried<'r>, score: &Score) -> Option<f64> {
        if score.tier == Tier::Valid && score.exact != Some(false) && !score.is_error() {
            self.rows += 1;
            return Some(score.reward);
        }
        self.left_out += 1;
        let why = score.errors.first().map(|reason| reason.message.clone());
        let why = why.unwrap_or_else(|| "it is not exact".to_owned());
        self.wrong.get_or_insert((tried.row, why));
        None
    }

    fn count(&mut self, tried: &Tried<'r>, mutant: &Mutant, score: &Score, truth: f64) {
        let is_less = score.is_error() || score.reward < truth - ROUNDING;
        let equality = (!is_less)
            .then(|| self.equality(tried, mutant, score))
            .flatten();
        let key = (mutant.field.clone(), mutant.mutation);
        let cell = self.cells.entry(key).or_insert_with(|| MutationCell {
            field: mutant.field.clone(),
            mutation: mutant.mutation,
            mutants: 0,
            survivors: 0,
            equal_by_rule: 0,
            unscored: 0,
            example: None,
        });
        cell.mutants += 1;
        if is_less {
            cell.unscored += usize::from(score.is_error());
        } else if equality == Some(Equality::Declared) {
            cell.equal_by_rule += 1;
        } else {
            cell.survivors += 1;
            cell.example.get_or_insert_with(|| SurvivingMutant {
                id: tried.row.id.clone(),
                line: tried.row.line,
                change: mutant.change.clone(),
                completion: shortened(&tried.text, MAX_EXAMPLE_CHARS),
                reward: score.reward,
                truth_reward: truth,
                is_within_tolerance: equality.is_some(),
            });
        }
    }

    /// Whether the task's own rules say that a mutant is equal to the truth. What a program or a query's rows say is
    /// no such rule, nor is a tolerance within which another value lies.
    fn equality(&self, tried: &Tried<'_>, mutant: &Mutant, score: &Score) -> Option<Equality> {
        let expected = tried.row.expected.as_ref()?;
        if tried.is_plain {
            let listed = expected.as_array().into_iter().flatten();
            let mut right = alternatives(expected).into_iter().chain(listed);
            let is_right = right.any(|right| right.as_str() == Some(&tried.text));
            return is_right.then_some(Equality::Declared);
        }
        let all_right = |leaves: &Leaves| leaves.counts.iter().all(|(_, of)| of.faults().is_none());
        let is_equal = score.exact == Some(true) || score.leaves.as_ref().is_some_and(all_right);
        if self.scorer.runs_programs() || !is_equal {
            return None;
        }
        let strict = self.strict.as_ref();
        let Some(strict) = strict.filter(|_| mutant.mutation != Mutation::LastDigit) else {
            return Some(Equality::Declared);
        };
        let text = exact_json::write(&mutant.answer);
        let root = parse(&text, 0).ok()?.root;
        let is_strict = compare(&root, expected, strict).1
            || !strict.whole_fields && all_right(&compare_leaves(Some(&root), expected, strict));
        Some(match is_strict {
            true => Equality::Declared,
            false => Equality::ByTolerance,
        })
    }

    fn finish(self) -> Result<MutationReport, NoMutants> {
        if !self.is_written {
            return Err(NoMutants::NoText(self.task.kind()));
        }
        if let (Some((row, why)), 0) = (self.wrong, self.rows) {
            return Err(NoMutants::NoneRight {
                line: row.line,
                why,
            });
        }
        let compares = self.task.rewards.iter().any(|part| {
            part.weight > 0.0 && matches!(part.value, PartValue::Fields | PartValue::Exact)
        });
        let advice = match (compares, self.scorer.runs_programs()) {
            (true, _) => None,
            (false, true) => Some("let the program compare every value"),
            (false, false) => Some("give `[[reward]]` part \"fields\" or \"exact\" a weight"),
        };
        Ok(MutationReport {
            rows: self.rows,
            left_out: self.left_out,
            cells: self.cells.into_values().collect(),
            advice,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Equality {
    Declared,
    ByTolerance,
}

fn strict_rules(rules: &ScoreRules) -> Option<Rules> {
    let has_tolerance = !rules.leaves.tolerance.is_empty();
    has_tolerance.then(|| {
        Rules::new(&ScoreRules {
            leaves: LeafRules {
                tolerance: Default::default(),
                ..rules.leaves.clone()
            },
            ..rules.clone()
        })
    })
}

/// The score, what survives, then the figures of each field.
pub fn page(report: &MutationReport) -> Vec<Block> {
    let mut page = vec![headline(report)];
    let mut survived: Vec<&MutationCell> = report
        .cells
        .iter()
        .filter(|cell| cell.survivors > 0)
        .collect();
    survived.sort_by_key(|cell| std::cmp::Reverse(cell.survivors));
    let sentence = |cell: &&MutationCell| Block::Finding(Level::Warning, survival(report, cell));
    page.extend(survived.iter().take(MAX_SHOWN).map(sentence));
    if survived.len() > MAX_SHOWN {
        let more = survived.len() - MAX_SHOWN;
        page.push(Block::detail(format!("... {more} more, see the table")));
    }
    let mut fields: Vec<&str> = report.cells.iter().map(|cell| &*cell.field).collect();
    fields.dedup();
    let row = |field: &&str| {
        let of_field: Vec<&MutationCell> = report
            .cells
            .iter()
            .filter(|cell| cell.field == *field)
            .collect();
        let sum = |count: fn(&MutationCell) -> usize| {
            Cell::Count(of_field.iter().map(|cell| count(cell)).sum())
        };
        let named = |cell: &&&MutationCell| cell.survivors > 0;
        let which: Vec<String> = of_field
            .iter()
            .filter(named)
            .map(|cell| format!("{} {}", cell.mutation.name(), cell.survivors))
            .collect();
        Row::new(
            visible(field),
            [
                sum(|cell| cell.mutants),
                sum(|cell| cell.survivors),
                sum(|cell| cell.equal_by_rule),
                Cell::Text(which.join(", ")),
            ],
        )
    };
    let head = ["field", "mutants", "survive", "equal by rule", "which"];
    if fields.len() > MAX_FIELDS_SHOWN {
        let with_survivors: BTreeSet<&str> = survived.iter().map(|cell| &*cell.field).collect();
        fields.sort_by_key(|field| !with_survivors.contains(field));
    }
    let more = fields.len().saturating_sub(MAX_FIELDS_SHOWN);
    fields.truncate(MAX_FIELDS_SHOWN);
    page.push(Block::Table(Table {
        left_out: &[3],
        ..Table::new(&head, "lrrrl", fields.iter().map(row).collect())
    }));
    if more > 0 {
        page.push(Block::detail(format!(
            "... {} more",
            counted(more, "field")
        )));
    }
    page
}

fn headline(report: &MutationReport) -> Block {
    let left_out = match report.left_out {
        0 => String::new(),
        rows => format!(
            "; {} left out, whose own `expected` is not accepted",
            counted(rows, "row")
        ),
    };
    let of = format!(
        "{} of {}{left_out}",
        counted(report.mutants(), "mutant"),
        counted(report.rows, "row")
    );
    match (report.score(), report.survivors()) {
        (None, _) => Block::detail(format!("mutation score: n/a ({of})")),
        (Some(_), 0) => Block::Text(
            Level::Good,
            format!("mutation score 100%: no broken answer earns what the truth earns ({of})"),
        ),
        (Some(score), survivors) => Block::Text(
            Level::Warning,
            format!(
                "mutation score {}: {survivors} of {of} earn as much as the truth",
                percent(score)
            ),
        ),
    }
}

fn survival(report: &MutationReport, cell: &MutationCell) -> String {
    let Some(example) = &cell.example else {
        return String::new();
    };
    let advice = match (example.is_within_tolerance, report.advice) {
        (true, _) => "; narrow its tolerance".to_owned(),
        (false, Some(advice)) => format!("; {advice}"),
        (false, None) => String::new(),
    };
    format!(
        "{}, {}: {} of {} earn as much as the truth, {:.2}, such as line {}: {}{advice}",
        visible(&cell.field),
        cell.mutation.name(),
        cell.survivors,
        cell.mutants,
        example.truth_reward,
        example.line,
        visible(&example.change),
    )
}
