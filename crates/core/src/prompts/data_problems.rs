//! Problems of the prompt sets: rejected expected answers, leaks between sets, duplicates.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use rayon::prelude::*;

use super::checked_set::{CheckedSet, RowMark, spread};
use super::demonstration::failing_demonstrations;
use super::lazy_conversations::{MAX_ROWS, lazy_conversations};
use crate::config::TrainConfig;
use crate::dataset::health::{Checks, FindingKind, check};
use crate::dataset::{self, DatasetError, PromptRow};
use crate::format::{counted, listed, shown_lines};
use crate::propose::{OfferedField, offered_values, pays_values};
use crate::score::{
    FailureClass, LabelledField, Score, Scorer, Task, Tier, on_every_core, unread_lines,
};
use crate::task::PromptSet;

/// Expected answers scored per set, spread evenly; more take longer without new information.
const MAX_SCORED: usize = 5_000;
/// Number of answers that must be scored; if all are rejected, the rest is not scored, as a schema
/// may be slow.
const MIN_SCORED: usize = 64;
/// Degenerate answers scored per set, spread evenly over its rows: a run waits for them, and one in
/// Python takes 15 ms of CPU time.
const MAX_WRONG: usize = 1_000;
/// Rows without labels whose prompts are searched for wrong values, and fields named in one sentence.
const MAX_UNLABELLED: usize = 20;
const MAX_OPEN: usize = 8;
/// Rows named beside the first that cannot be scored, each for another reason.
const MAX_OTHER_REASONS: usize = 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DataProblemKind {
    InvalidExpected,
    /// Rows accept an answer that is wrong for every row.
    AcceptsWrong,
    /// Some rows may refuse a right answer.
    Undetermined,
    /// A value that prompts state, and some do not; a label in two spellings.
    Label,
    /// No label says which value of the prompt is right.
    Unlabelled,
    Leak,
    /// The same prompt with different expected answers.
    Conflict,
    Duplicates,
    /// It shares a device with the run.
    Judge,
    Isolation,
    /// Not a problem: names the isolation.
    Isolated,
}

#[derive(Debug, Clone, PartialEq)]
pub struct DataProblem {
    pub kind: DataProblemKind,
    /// File, count, first line and remedy.
    pub message: String,
    pub set: PromptSet,
    /// Share of the set's expected answers that the scorer rejects, or of all rows that contradict
    /// another; else 0.
    pub refused_share: f64,
}

impl DataProblem {
    pub fn is_refused(&self, config: &TrainConfig) -> bool {
        self.refused_share > config.max_invalid_expected
    }
}

/// Loads every set of the task.
///
/// # Errors
/// The first unreadable file or malformed line.
pub fn load_sets(task: &Task) -> Result<Vec<(PromptSet, Vec<PromptRow>)>, DatasetError> {
    let named = PromptSet::ALL
        .into_iter()
        .filter(|set| task.set_file(*set).is_some());
    named
        .map(|set| Ok((set, dataset::load(task, set)?)))
        .collect()
}

/// Finds problems of the sets, most severe first.
pub fn data_problems(task: &Task, scorer: &Scorer, sets: &[CheckedSet<'_>]) -> Vec<DataProblem> {
    let (mut unusable, mut refused) = (Vec::new(), Vec::new());
    for rows in sets {
        unusable.extend(unusable_rows(task, rows));
        refused.extend(refused_answers(task, scorer, rows));
        refused.extend(accepted_answers(task, scorer, rows));
        refused.extend(undetermined_answers(task, scorer, rows));
        refused.extend(failed_demonstrations(task, scorer, rows));
        if rows.set == PromptSet::Train {
            refused.extend(easy_conversation(task, scorer, rows));
        }
        refused.extend(label_problems(task, rows));
    }
    unusable.append(&mut refused);
    unusable.extend(unlabelled_values(task, scorer, sets));
    let prompts = |set: &CheckedSet<'_>| -> SetPrompts {
        let marks = set.rows().iter();
        let prompts = marks.map(|mark| (mark.line, mark.prompt_hash)).collect();
        (set.set, prompts)
    };
    unusable.append(&mut repeated(
        task,
        &sets.iter().map(prompts).collect::<Vec<_>>(),
    ));
    unusable
}

fn unusable_rows(task: &Task, rows: &CheckedSet<'_>) -> Option<DataProblem> {
    let (set, count, problems) = (rows.set, rows.marks.len(), &rows.problems);
    let (line, why) = problems.first()?;
    let mut reasons: HashSet<&str> = HashSet::from([why.as_str()]);
    let others = problems.iter().filter(|(_, why)| reasons.insert(why));
    let others = others.take(MAX_OTHER_REASONS);
    let others: String = others
        .map(|(line, why)| format!("\nline {line}: {why}"))
        .collect();
    Some(DataProblem {
        kind: DataProblemKind::InvalidExpected,
        message: format!(
            "{}: answers to {} of {count} rows cannot be scored, first on line {line}: {why}; correct the rows{others}",
            label(task, set),
            problems.len(),
        ),
        set,
        refused_share: problems.len() as f64 / count as f64,
    })
}

fn undetermined_answers(
    task: &Task,
    scorer: &Scorer,
    rows: &CheckedSet<'_>,
) -> Option<DataProblem> {
    let rows_read = rows.read(&spread(&rows.usable(), MAX_SCORED));
    let doubt = |row: &PromptRow| Some((row.line, scorer.row_doubt(row)?));
    let doubts: Vec<_> = on_every_core(|| rows_read.par_iter().filter_map(doubt).collect());
    let (_, why) = doubts.first()?;
    let lines: Vec<usize> = doubts.iter().map(|(line, _)| *line).collect();
    Some(DataProblem {
        kind: DataProblemKind::Undetermined,
        message: format!(
            "{}: {} of {} rows ({}): {why}",
            label(task, rows.set),
            lines.len(),
            rows_read.len(),
            shown_lines(&lines),
        ),
        set: rows.set,
        refused_share: 0.0,
    })
}

fn failed_demonstrations(
    task: &Task,
    scorer: &Scorer,
    rows: &CheckedSet<'_>,
) -> Option<DataProblem> {
    let (count, first) = failing_demonstrations(task, scorer, rows)?;
    Some(DataProblem {
        kind: DataProblemKind::InvalidExpected,
        message: format!(
            "{}: {} failed with the task's tools, first on {first}; correct the rows",
            label(task, rows.set),
            counted(count, "demonstration"),
        ),
        set: rows.set,
        refused_share: count as f64 / rows.marks.len() as f64,
    })
}

/// Fields in which any value of the prompt earns what the right one does, where no row of train says which one is right. A
/// task without any label whose reward compares no values asks for form alone.
fn unlabelled_values(task: &Task, scorer: &Scorer, sets: &[CheckedSet<'_>]) -> Option<DataProblem> {
    let train = sets.iter().find(|set| set.set == PromptSet::Train)?;
    let is_labelled = |set: &CheckedSet<'_>| set.rows().iter().any(|row| row.has_expected);
    if is_labelled(train) || !(sets.iter().any(is_labelled) || pays_values(task)) {
        return None;
    }
    let rows = train.read(&spread(train.rows(), MAX_UNLABELLED));
    let open: Vec<String> = offered_values(task, scorer, &rows)
        .into_iter()
        .filter(OfferedField::is_open)
        .map(|field| field.field)
        .collect();
    if open.is_empty() {
        return None;
    }
    Some(DataProblem {
        kind: DataProblemKind::Unlabelled,
        message: format!(
            "{}: {}: any value of the prompt earns all of it. Label 10 rows: grpo-tui dataset propose {}",
            label(task, PromptSet::Train),
            listed(&open, MAX_OPEN),
            task.name
        ),
        set: PromptSet::Train,
        refused_share: 1.0,
    })
}

/// Labels that their prompt does not state, and labels in two spellings.
fn label_problems(task: &Task, rows: &CheckedSet<'_>) -> Vec<DataProblem> {
    let problem = |sentence: String| DataProblem {
        kind: DataProblemKind::Label,
        message: format!("{}: {sentence}", label(task, rows.set)),
        set: rows.set,
        refused_share: 0.0,
    };
    let (fields, labels) = rows.labelled_fields();
    let unread = unread_lines(&fields).len();
    let readable = (unread > 0).then(|| {
        format!(
            "{} of these {labels} labels can be read from their prompts",
            labels - unread
        )
    });
    let problems = fields.iter().flat_map(LabelledField::problems);
    problems.chain(readable).map(problem).collect()
}

/// A conversation that does not do what is asked and earns as much as one that tries.
fn easy_conversation(task: &Task, scorer: &Scorer, rows: &CheckedSet<'_>) -> Option<DataProblem> {
    let mut usable = rows.usable();
    usable.truncate(MAX_ROWS);
    // Tools that cannot be opened are named where they are checked.
    let tried = lazy_conversations(task, scorer, &rows.read(&usable)).ok()?;
    let weak = tried.into_iter().find(|conversation| conversation.weak)?;
    Some(DataProblem {
        kind: DataProblemKind::AcceptsWrong,
        message: format!("{}: {}", label(task, PromptSet::Train), weak.sentence),
        set: PromptSet::Train,
        refused_share: 0.0,
    })
}

/// Size of the degenerate-answer check, in which every answer must fail on every row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TriedAnswers {
    /// Scored per set.
    pub answers: usize,
    pub rows: usize,
    pub all_rows: usize,
}

impl TriedAnswers {
    /// `None` if the scorer has no degenerate answers.
    pub fn of(task: &Task, rows: usize) -> Option<Self> {
        let lazy = task.definition.lazy_answers(task, &[]);
        let kinds = lazy.iter().filter(|answer| answer.must_fail).count();
        let step = step(rows, kinds);
        (rows > 0 && kinds > 0).then(|| Self {
            answers: (rows * kinds).div_ceil(step),
            rows: rows.min((rows * kinds).div_ceil(step)),
            all_rows: rows,
        })
    }
}

/// Stride over the answers to all rows. Coprime to the number of kinds, so that every kind is
/// tried, and every row if there are enough.
fn step(rows: usize, kinds: usize) -> usize {
    let is_coprime = |step: &usize| {
        (2..=*step).all(|one| !step.is_multiple_of(one) || !kinds.is_multiple_of(one))
    };
    let least = (rows * kinds).div_ceil(MAX_WRONG).max(1);
    (least..).find(is_coprime).unwrap_or(least)
}

/// Rows that accept an answer that is wrong for every row.
fn accepted_answers(task: &Task, scorer: &Scorer, rows: &CheckedSet<'_>) -> Option<DataProblem> {
    let lazy = task.definition.lazy_answers(task, &[]);
    let lazy: Vec<_> = lazy.iter().filter(|answer| answer.must_fail).collect();
    let usable = rows.usable();
    let (marks, answers): (Vec<RowMark>, Vec<_>) = usable
        .iter()
        .flat_map(|mark| lazy.iter().map(move |answer| (*mark, *answer)))
        .step_by(step(usable.len(), lazy.len()))
        .unzip();
    let tried = rows.read(&marks);
    let asked: Vec<(&str, String, &PromptRow)> = answers
        .iter()
        .zip(&tried)
        .map(|(answer, row)| (answer.name, answer.of(row), row))
        .collect();
    let scores = scores_of(scorer, asked.iter().map(|(_, text, row)| (*row, text)));
    let accepted: Vec<_> = asked
        .iter()
        .zip(&scores)
        .filter(|(_, score)| score.tier == Tier::Valid)
        .map(|((name, _, row), _)| (*name, row.line))
        .collect();
    let (name, line) = accepted.first()?;
    let lines: BTreeSet<usize> = accepted.iter().map(|(_, line)| *line).collect();
    let tried: BTreeSet<usize> = asked.iter().map(|(_, _, row)| row.line).collect();
    let sampled = if asked.len() < usable.len() * lazy.len() {
        format!(" tried, of {},", usable.len())
    } else {
        String::new()
    };
    Some(DataProblem {
        kind: DataProblemKind::AcceptsWrong,
        message: format!(
            "{}: {} of {} rows{sampled} accept a degenerate answer: {}; on line {line}: {name}; `task audit` names all",
            label(task, rows.set),
            lines.len(),
            tried.len(),
            shown_lines(&lines.into_iter().collect::<Vec<_>>()),
        ),
        set: rows.set,
        refused_share: 0.0,
    })
}

/// Scores that only need their tiers.
fn scores_of<'a>(
    scorer: &Scorer,
    answers: impl Iterator<Item = (&'a PromptRow, &'a String)>,
) -> Vec<Score> {
    let answers: Vec<_> = answers
        .map(|(row, answer)| (answer.as_str(), Some(row)))
        .collect();
    scorer.tiers_while(&answers, || true).unwrap_or_default()
}

fn refused_answers(task: &Task, scorer: &Scorer, rows: &CheckedSet<'_>) -> Option<DataProblem> {
    let mut answered = rows.usable();
    answered.retain(|mark| mark.has_expected);
    let asked = rows.read(&spread(&answered, MAX_SCORED));
    let answer = |row: &PromptRow| scorer.expected_completion(row.expected.as_ref()?, Some(row));
    let scored: Vec<(&PromptRow, String)> = asked
        .iter()
        .filter_map(|row| Some((row, answer(row)?)))
        .collect();
    let score = |scored: &[(&PromptRow, String)]| {
        scores_of(scorer, scored.iter().map(|(row, answer)| (*row, answer)))
    };
    let first: Vec<_> = scored
        .iter()
        .step_by(scored.len().div_ceil(MIN_SCORED).max(1))
        .cloned()
        .collect();
    let scores = score(&first);
    let is_hopeless = scores.iter().all(|score| score.tier != Tier::Valid);
    let (scores, scored) = if is_hopeless {
        (scores, first)
    } else {
        (score(&scored), scored)
    };
    let refused: Vec<_> = scored
        .iter()
        .zip(&scores)
        .filter(|(_, score)| score.tier != Tier::Valid)
        .collect();
    let ((row, _), score) = refused.first()?;
    let why = score
        .errors
        .first()
        .map(|reason| format!("{} {}", reason.instance_path, reason.message))
        .unwrap_or_default();
    let mut classes: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, score) in &refused {
        *classes
            .entry(score.failure.unwrap_or(FailureClass::Other).name())
            .or_default() += 1;
    }
    let mut classes: Vec<(&str, usize)> = classes.into_iter().collect();
    classes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let classes: Vec<String> = classes
        .into_iter()
        .map(|(class, count)| format!("{class} {count}"))
        .collect();
    let looked_at = if scored.len() < answered.len() {
        format!(" looked at, of {},", answered.len())
    } else {
        String::new()
    };
    Some(DataProblem {
        kind: DataProblemKind::InvalidExpected,
        message: format!(
            "{}: {} of {} expected answers{looked_at} are invalid: {}; first on line {}: {}; correct the rows or the {}",
            label(task, rows.set),
            refused.len(),
            scored.len(),
            classes.join(", "),
            row.line,
            why.trim(),
            task.definition_name()
        ),
        set: rows.set,
        refused_share: refused.len() as f64 / scored.len() as f64,
    })
}

/// Near duplicates between sets, exact and near duplicates within a set.
pub fn similar_prompts(task: &Task) -> Result<Vec<DataProblem>, DatasetError> {
    let checks = Checks {
        expects_answers: task.expects_answers(),
        ..Checks::default()
    };
    let health = check(task, &checks)?;
    let problem = |group: &dataset::health::Group| {
        let (kind, what, advice) = match group.kind {
            FindingKind::NearLeak => (
                DataProblemKind::Leak,
                [
                    "prompt is",
                    "prompts are",
                    "nearly the same as one of an earlier set",
                ],
                "keep similar prompts in one set",
            ),
            FindingKind::Conflict => (
                DataProblemKind::Conflict,
                [
                    "prompt has",
                    "prompts have",
                    "another expected answer than the same prompt before",
                ],
                "correct or remove one",
            ),
            FindingKind::Duplicate => (
                DataProblemKind::Duplicates,
                ["prompt repeats", "prompts repeat", "another of the set"],
                "remove the copies",
            ),
            FindingKind::NearDuplicate => (
                DataProblemKind::Duplicates,
                [
                    "prompt nearly repeats",
                    "prompts nearly repeat",
                    "another of the set",
                ],
                "remove them unless they ask different things",
            ),
            _ => return None,
        };
        let (set, line) = *group.rows.first()?;
        let example = group
            .example
            .split_once(": ")
            .map_or(group.example.as_str(), |(example, _)| example);
        let message = format!(
            "{} {} {}; first: {} line {line}: {example}; {advice}",
            group.count,
            what[usize::from(group.count != 1)],
            what[2],
            label(task, set)
        );
        Some(DataProblem {
            kind,
            message,
            set,
            refused_share: match kind {
                DataProblemKind::Conflict => {
                    let rows = health.sets.iter().map(|of| of.rows).sum::<usize>();
                    group.count as f64 / rows.max(1) as f64
                }
                _ => 0.0,
            },
        })
    };
    Ok(health.groups.iter().filter_map(problem).collect())
}

/// Exact duplicates of an earlier set; `dataset check` also finds near ones.
///
/// # Errors
/// The first unreadable file or malformed line.
pub fn repeated_prompts(task: &Task) -> Result<Vec<DataProblem>, DatasetError> {
    let named = PromptSet::ALL
        .into_iter()
        .filter(|set| task.set_file(*set).is_some());
    let read = |set: PromptSet| -> Result<SetPrompts, DatasetError> {
        let mut prompts = Vec::new();
        dataset::visit_batches(task, set, &mut Err, &mut |rows| {
            prompts.extend(rows.iter().map(|row| (row.line, row.prompt_hash())));
        })?;
        Ok((set, prompts))
    };
    let sets = named.map(read).collect::<Result<Vec<_>, _>>()?;
    Ok(repeated(task, &sets))
}

/// A set with lines and hashes of its prompts.
type SetPrompts = (PromptSet, Vec<(usize, u64)>);

fn repeated(task: &Task, sets: &[SetPrompts]) -> Vec<DataProblem> {
    let mut problems = Vec::new();
    for (later, (set, prompts)) in sets.iter().enumerate() {
        for (other, others) in &sets[..later] {
            let lines: HashMap<u64, usize> =
                others.iter().map(|(line, hash)| (*hash, *line)).collect();
            let repeated: Vec<(usize, usize)> = prompts
                .iter()
                .filter_map(|(line, hash)| Some((*line, *lines.get(hash)?)))
                .collect();
            let Some((line, there)) = repeated.first() else {
                continue;
            };
            let effect = match set {
                PromptSet::Test => "data leak",
                _ => "the checkpoint is chosen on training prompts",
            };
            problems.push(DataProblem {
                kind: DataProblemKind::Leak,
                message: format!(
                    "{}: {} of {} prompts are also in {}, first line {line} (there line {there}): {effect}; keep each prompt in one set",
                    label(task, *set),
                    repeated.len(),
                    prompts.len(),
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
    task.set_file(set)
        .map_or_else(String::new, |file| task.label(file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn degenerate_answers_are_spread_over_rows_and_kinds() {
        for (rows, kinds) in [
            (1, 15),
            (66, 15),
            (67, 15),
            (164, 15),
            (5_000, 15),
            (974, 3),
        ] {
            let step = step(rows, kinds);
            let tried: Vec<(usize, usize)> = (0..rows * kinds)
                .step_by(step)
                .map(|pair| (pair / kinds, pair % kinds))
                .collect();
            assert!(tried.len() <= MAX_WRONG, "{rows} {kinds}");
            let count = |of: &dyn Fn(&(usize, usize)) -> usize| {
                tried.iter().map(of).collect::<BTreeSet<_>>().len()
            };
            assert_eq!(count(&|(row, _)| *row), rows.min(tried.len()), "{rows}");
            assert_eq!(count(&|(_, kind)| *kind), kinds, "{rows} {kinds}");
        }
    }
}
