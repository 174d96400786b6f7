//! The expected answers that the schema in the editor rejects, checked in the background while it is edited.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use crate::dataset::PromptRow;
use crate::message::Sender;
use crate::schema_draft::{Expected, ExpectedAnswers};
use crate::score::{FailureClass, Scorer, Tier};
use crate::shared::OpenTask;
use crate::task::PromptSet;

/// Rows that are checked before the result so far is shown.
const BATCH: usize = 4_096;
/// Rejected rows that are listed; the others are counted.
const MAX_LISTED: usize = 2_000;

/// A turn of a row by the number of the row in all sets, and the messages of its prompt.
type TurnKey = (usize, usize);

#[derive(Clone)]
pub(super) struct CheckedTurn<'a> {
    set: PromptSet,
    /// The number of the row in all sets.
    number: usize,
    row: Cow<'a, PromptRow>,
}

/// The result, or what is known of it so far.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rejections {
    pub total: usize,
    pub checked: usize,
    pub rejected: usize,
    /// How many of them the saved schema accepts; `None` if it does not compile.
    pub new: Option<usize>,
    /// Accepted now, and rejected by the saved schema.
    pub mended: usize,
    /// The first of them, in the order of the sets and their lines.
    pub rows: Vec<RejectedRow>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedRow {
    pub set: PromptSet,
    /// In the set's file, from 1.
    pub line: usize,
    pub id: String,
    /// Place in the answer, and the reason.
    pub reason: String,
    /// JSON pointer of the keyword that rejects it.
    pub schema_path: String,
    pub answer: String,
    /// Whether the saved schema accepts it.
    pub is_new: bool,
}

impl Rejections {
    pub fn is_done(&self) -> bool {
        self.checked == self.total
    }
}

/// The rows that a saved schema rejects; stays while neither that nor the rows change.
#[derive(Debug, Clone)]
pub(super) struct Baseline {
    pub saved: String,
    pub rejected: Arc<HashSet<TurnKey>>,
}

/// All turns of rows with an expected answer that some completion gives, and their sets.
pub(super) fn answered<'a>(open: &'a OpenTask, scorer: &Scorer) -> Vec<CheckedTurn<'a>> {
    let completion =
        |value: &serde_json::Value, row: &PromptRow| scorer.expected_completion(value, Some(row));
    let turns = |row: &'a PromptRow| -> Vec<Cow<'a, PromptRow>> {
        match row.turn_count() {
            1 => vec![Cow::Borrowed(row)],
            _ => row
                .all_turns(completion)
                .into_iter()
                .map(Cow::Owned)
                .collect(),
        }
    };
    let sets = open
        .rows
        .iter()
        .filter_map(|(set, rows)| Some((*set, rows.as_ref().ok()?)));
    let rows = sets
        .flat_map(|(set, rows)| rows.iter().map(move |row| (set, row)))
        .enumerate();
    let turns = rows.flat_map(|(number, (set, row))| {
        turns(row)
            .into_iter()
            .map(move |row| CheckedTurn { set, number, row })
    });
    turns
        .filter(|turn| {
            turn.row
                .expected
                .as_ref()
                .is_some_and(|value| completion(value, &turn.row).is_some())
        })
        .collect()
}

/// All rows before these turns are checked.
pub(super) fn unchecked(open: &OpenTask, turns: &[CheckedTurn<'_>]) -> ExpectedAnswers {
    let mut rows = vec![Expected::Absent; open.rows.values().flatten().map(Vec::len).sum()];
    turns
        .iter()
        .for_each(|turn| rows[turn.number] = Expected::Unchecked);
    ExpectedAnswers {
        total: turns.len(),
        rows,
        ..ExpectedAnswers::default()
    }
}

fn key(turn: &CheckedTurn<'_>) -> TurnKey {
    (turn.number, turn.row.messages.len())
}

fn texts(scorer: &Scorer, rows: &[CheckedTurn<'_>]) -> Vec<String> {
    let text = |row: &PromptRow| scorer.expected_completion(row.expected.as_ref()?, Some(row));
    rows.iter()
        .map(|turn| text(&turn.row).unwrap_or_default())
        .collect()
}

pub(super) fn rejected_rows(
    scorer: &Scorer,
    rows: &[CheckedTurn<'_>],
    sender: &Sender,
) -> Option<HashSet<TurnKey>> {
    let mut rejected = HashSet::new();
    for batch in rows.chunks(BATCH) {
        let texts = texts(scorer, batch);
        let answers: Vec<_> = texts
            .iter()
            .zip(batch)
            .map(|(text, turn)| (text.as_str(), Some(&*turn.row)))
            .collect();
        let scores = scorer.tiers_while(&answers, || sender.is_wanted())?;
        let failed = batch
            .iter()
            .zip(&scores)
            .filter(|(_, score)| score.tier != Tier::Valid);
        rejected.extend(failed.map(|(asked, _)| key(asked)));
    }
    Some(rejected)
}

/// Checks all rows with a schema, which may be the saved one; `show` gets the result after each batch, and returns
/// whether the next one is wanted.
pub(super) fn check_rows(
    scorer: &Scorer,
    (rows, mut answers): (&[CheckedTurn<'_>], ExpectedAnswers),
    baseline: Option<&Baseline>,
    is_saved: bool,
    sender: &Sender,
    show: impl Fn(Rejections, ExpectedAnswers) -> bool,
) {
    let was_rejected = |asked: &CheckedTurn<'_>| {
        baseline.is_some_and(|known| known.rejected.contains(&key(asked)))
    };
    let new = baseline.map(|_| 0);
    let mut found = Rejections {
        total: rows.len(),
        new,
        ..Rejections::default()
    };
    // Without rows the result is known at once.
    let batches = rows
        .chunks(BATCH)
        .chain(rows.is_empty().then_some([].as_slice()));
    for batch in batches {
        // For the saved schema only the reason is unknown, not which rows it rejects.
        let asked = batch
            .iter()
            .filter(|row| !is_saved || baseline.is_none() || was_rejected(row));
        let asked: Vec<CheckedTurn<'_>> = asked.cloned().collect();
        let texts = texts(scorer, &asked);
        let completions: Vec<_> = texts
            .iter()
            .zip(&asked)
            .map(|(text, turn)| (text.as_str(), Some(&*turn.row)))
            .collect();
        let Some(scores) = scorer.tiers_while(&completions, || sender.is_wanted()) else {
            return;
        };
        for ((text, asked), score) in texts.iter().zip(&asked).zip(&scores) {
            let (was_rejected, CheckedTurn { set, number, row }) = (was_rejected(asked), asked);
            if score.tier == Tier::Valid {
                found.mended += usize::from(was_rejected);
                continue;
            }
            found.rejected += 1;
            if let Some(new) = found.new.as_mut().filter(|_| !was_rejected) {
                *new += 1;
            }
            let (reason, schema_path) =
                score.errors.first().map_or_else(Default::default, |error| {
                    (
                        format!("{} {}", error.instance_path, error.message),
                        error.schema_path.clone(),
                    )
                });
            let (reason, class) = (
                reason.trim().to_owned(),
                score.failure.unwrap_or(FailureClass::Other),
            );
            answers
                .reasons
                .entry(class)
                .or_insert_with(|| reason.clone());
            if !matches!(answers.rows[*number], Expected::Invalid(_)) {
                answers.rows[*number] = Expected::Invalid(class);
            }
            if found.rows.len() < MAX_LISTED {
                found.rows.push(RejectedRow {
                    set: *set,
                    line: row.line,
                    id: row.id.clone(),
                    reason,
                    schema_path,
                    answer: text.chars().take(300).collect(),
                    is_new: baseline.is_some() && !was_rejected,
                });
            }
        }
        for turn in batch {
            let state = &mut answers.rows[turn.number];
            if *state == Expected::Unchecked {
                *state = Expected::Valid;
            }
        }
        (answers.checked, answers.rejected) = (found.checked + batch.len(), found.rejected);
        found.checked += batch.len();
        if !show(found.clone(), answers.clone()) {
            return;
        }
    }
}
