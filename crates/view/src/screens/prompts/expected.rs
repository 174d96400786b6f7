//! Checks every expected answer with the scorer in the editor, in the background.

use super::table_row::{Entry, row};
use super::{Expected, FirstInvalid, Prompts, rows};
use crate::message::{Command, Work};
use crate::score::{FailureClass, Tier};
use crate::shared::Shared;

/// Rows per update of the screen.
const CHUNK: usize = 20_000;

/// Checks all rows again.
pub(super) fn check(prompts: &mut Prompts, shared: &Shared) -> Vec<Command> {
    let (Some(open), Some(scorer)) = (shared.task.clone(), shared.scorer()) else { return Vec::new() };
    let entries = prompts.entries.clone();
    let total = entries.len();
    let work = Work::stream("prompts.expected", move |sender| {
        let Some(_turn) = sender.turn() else { return };
        for (number, chunk) in entries.chunks(CHUNK).enumerate() {
            let answer = |entry: &Entry| {
                let row = row(&open, *entry)?;
                Some((scorer.expected_completion(row.expected.as_ref()?)?, row))
            };
            let answers: Vec<Option<(String, _)>> = chunk.iter().map(answer).collect();
            let present: Vec<_> = answers.iter().flatten().map(|(answer, row)| (answer.as_str(), Some(*row))).collect();
            let Some(scores) = scorer.score_while(&present, || sender.is_wanted()) else { return };
            let mut scores = scores.into_iter();
            let (mut found, mut first) = (Vec::with_capacity(chunk.len()), FirstInvalid::new());
            for (place, answer) in answers.iter().enumerate() {
                let score = answer.as_ref().and_then(|_| scores.next());
                found.push(match score {
                    None => Expected::Absent,
                    Some(score) if score.tier == Tier::Valid => Expected::Valid,
                    Some(score) => {
                        let class = score.failure.unwrap_or(FailureClass::Other);
                        let reason = score.errors.first();
                        let why = || reason.map(|error| format!("{} {}", error.instance_path, error.message));
                        let index = (number * CHUNK + place) as u32;
                        first.entry(class).or_insert_with(|| (index, why().unwrap_or_default().trim().to_owned()));
                        Expected::Invalid(class)
                    }
                });
            }
            let more = sender.send(move |prompts: &mut Prompts, _| {
                if prompts.entries.len() == total {
                    prompts.expected.resize(total, Expected::Unchecked);
                    prompts.expected[number * CHUNK..][..found.len()].copy_from_slice(&found);
                    if number == 0 {
                        prompts.first_invalid.clear();
                    }
                    for (class, example) in first {
                        prompts.first_invalid.entry(class).or_insert(example);
                    }
                }
                Vec::new()
            });
            if !more {
                return;
            }
        }
        sender.send(|prompts: &mut Prompts, shared| rows::findings_changed(prompts, shared));
    });
    vec![work]
}
