//! What makes a training less informative than it seems: expected answers that the schema rejects, and prompts that are
//! in two sets.

use std::collections::HashMap;

use super::{Scorer, Tier};
use crate::config::TrainConfig;
use crate::dataset::{self, DatasetError, PromptRow};
use crate::task::{PromptSet, Task};

/// Expected answers that are scored of a set, spread evenly; more of them take longer and say the same.
const MOST_SCORED: usize = 5_000;

/// One problem of the prompt sets.
#[derive(Debug, Clone, PartialEq)]
pub struct DataProblem {
    /// The file, the count, the first line, and what to do.
    pub message: String,
    /// The set that it is about.
    pub set: PromptSet,
    /// The share of the set's expected answers that the schema refuses; 0 where the problem is another.
    pub refused_share: f64,
}

impl DataProblem {
    /// Whether training refuses to start.
    pub fn is_refused(&self, config: &TrainConfig) -> bool {
        self.refused_share > config.max_invalid_expected
    }
}

/// The rows of every set that the task names.
///
/// # Errors
/// The first file that cannot be read, or line that is no row.
pub fn load_sets(task: &Task) -> Result<Vec<(PromptSet, Vec<PromptRow>)>, DatasetError> {
    let named = PromptSet::ALL.into_iter().filter(|set| task.set_file(*set).is_some());
    named.map(|set| Ok((set, dataset::load(task, set)?))).collect()
}

/// The problems of the sets together, worst kind first.
pub fn data_problems(task: &Task, scorer: &Scorer, sets: &[(PromptSet, Vec<PromptRow>)]) -> Vec<DataProblem> {
    let refused = sets.iter().filter_map(|(set, rows)| refused_answers(task, scorer, *set, rows));
    refused.chain(repeated_prompts(task, sets)).collect()
}

fn refused_answers(task: &Task, scorer: &Scorer, set: PromptSet, rows: &[PromptRow]) -> Option<DataProblem> {
    let answered: Vec<&PromptRow> = rows.iter().filter(|row| row.expected.is_some()).collect();
    let scored: Vec<&PromptRow> =
        answered.iter().step_by(answered.len().div_ceil(MOST_SCORED).max(1)).copied().collect();
    let answers: Vec<String> = scored.iter().filter_map(|row| row.expected.as_ref().map(ToString::to_string)).collect();
    let scores = scorer.score_all(&answers.iter().map(|answer| (answer.as_str(), None)).collect::<Vec<_>>());
    let refused: Vec<_> = scored.iter().zip(&scores).filter(|(_, score)| score.tier != Tier::Valid).collect();
    let (row, score) = refused.first()?;
    let why =
        score.errors.first().map(|reason| format!("{} {}", reason.instance_path, reason.message)).unwrap_or_default();
    let looked_at =
        if scored.len() < answered.len() { format!(" looked at, of {}", answered.len()) } else { String::new() };
    Some(DataProblem {
        message: format!(
            "{}: the schema rejects the expected answer of {} of {} rows{looked_at}, first on line {}: {}; correct the rows or the schema",
            label(task, set),
            refused.len(),
            scored.len(),
            row.line,
            why.trim()
        ),
        set,
        refused_share: refused.len() as f64 / scored.len() as f64,
    })
}

/// Prompts that an earlier set holds character by character; `dataset check` also finds what is nearly the same.
pub fn repeated_prompts(task: &Task, sets: &[(PromptSet, Vec<PromptRow>)]) -> Vec<DataProblem> {
    let mut problems = Vec::new();
    for (later, (set, rows)) in sets.iter().enumerate() {
        for (other, others) in &sets[..later] {
            let lines: HashMap<u64, usize> = others.iter().map(|row| (row.prompt_hash(), row.line)).collect();
            let repeated: Vec<(usize, usize)> =
                rows.iter().filter_map(|row| Some((row.line, *lines.get(&row.prompt_hash())?))).collect();
            let Some((line, there)) = repeated.first() else { continue };
            let effect = match set {
                PromptSet::Test => "data leak",
                _ => "the checkpoint is chosen on training prompts",
            };
            problems.push(DataProblem {
                message: format!(
                    "{}: {} of {} prompts are also in {}, first line {line} (there line {there}): {effect}; keep each prompt in one set",
                    label(task, *set),
                    repeated.len(),
                    rows.len(),
                    label(task, *other)
                ),
                set: *set,
                refused_share: 0.0,
            });
        }
    }
    problems
}

fn label(task: &Task, set: PromptSet) -> String {
    task.set_file(set).map_or_else(String::new, |file| task.label(file))
}
