//! Previews the schema in the editor, compared with the saved one: tiers of the task's samples, rejected expected
//! answers, and the rewards of degenerate answers.

use std::collections::HashMap;
use std::sync::Arc;

use super::expected::{self, Baseline};
use super::{Schema, ScorePreview};
use crate::dataset::PromptRow;
use crate::message::{Change, Command, Sender, Work};
use crate::prompts::audit_task;
use crate::score::audit::audit;
use crate::score::mutants::{QUICK_LIMIT, mutation_report};
use crate::score::{Score, Scorer, Tier, mean_reward};
use crate::shared::{LastScores, OpenTask, Shared};
use crate::task::PromptSet;

pub(super) fn compute(shared: &Shared) -> Option<Command> {
    let draft = &shared.draft;
    let (open, scorer) = (
        Arc::clone(shared.task.as_ref()?),
        Arc::clone(draft.scorer.as_ref()?),
    );
    let saved = draft.saved_scorer.clone();
    Some(Work::stream("schema.effects", move |sender| {
        let Some(_turn) = sender.turn() else { return };
        let Some(effects) = effects(&open, &scorer, saved.as_deref(), sender) else {
            return;
        };
        sender.send(move |schema: &mut Schema, shared| {
            let (total, valid) = (effects.total(), effects.now[Tier::Valid as usize]);
            let exact = Some(effects.exact).filter(|(_, of)| *of > 0);
            let scores = LastScores {
                of: "task samples",
                total,
                valid,
                exact,
            };
            shared.last_scores = Some(
                shared
                    .last_scores
                    .filter(|last| last.of != scores.of)
                    .unwrap_or(scores),
            );
            schema.effects = Some(effects);
            Vec::new()
        });
    }))
}

/// Scores degenerate answers and mutants in the background; a judge is asked for them only by `grpo-tui task audit`, and
/// a program for mutants.
pub(super) fn score_degenerate(shared: &Shared) -> Option<Command> {
    let draft = &shared.draft;
    let (open, scorer) = (
        Arc::clone(shared.task.as_ref()?),
        Arc::clone(draft.scorer.as_ref()?),
    );
    if scorer.asks_judge() {
        return None;
    }
    let (task, version) = (Arc::clone(draft.task.as_ref()?), draft.version);
    Some(Work::stream("schema.degenerate", move |sender| {
        let Some(_turn) = sender.turn() else { return };
        let rows = open
            .rows
            .get(&PromptSet::Train)
            .and_then(|rows| rows.as_ref().ok());
        let rows = rows.map_or(&[][..], Vec::as_slice);
        // Tools that cannot be opened are named where they are called.
        let findings =
            audit_task(&task, &scorer, rows).unwrap_or_else(|_| audit(&task, &scorer, rows));
        // The schema may have changed while another screen was shown.
        let is_current = move |shared: &Shared| shared.draft.version == version;
        sender.send(move |schema: &mut Schema, shared| {
            if is_current(shared) {
                (schema.degenerate, schema.mutants) = (Some(findings), None);
            }
            Vec::new()
        });
        if scorer.runs_programs() {
            return;
        }
        let keep_going = || sender.is_wanted();
        let report = mutation_report(&task, &scorer, rows, Some(QUICK_LIMIT), &keep_going);
        sender.send(move |schema: &mut Schema, shared| {
            if is_current(shared) {
                schema.mutants = report.transpose();
            }
            Vec::new()
        });
    }))
}

pub(super) fn check_expected(schema: &Schema, shared: &Shared) -> Option<Command> {
    let draft = &shared.draft;
    let (open, scorer) = (
        Arc::clone(shared.task.as_ref()?),
        Arc::clone(draft.scorer.as_ref()?),
    );
    let saved = draft.saved_scorer.clone();
    let known = schema
        .baseline
        .clone()
        .filter(|baseline| baseline.saved == draft.saved);
    let (saved_text, is_saved) = (
        draft.saved.clone(),
        !draft.is_changed() && draft.stale.is_none(),
    );
    Some(Work::stream("schema.expected", move |sender| {
        let Some(_turn) = sender.turn() else { return };
        let rows = expected::answered(&open, &scorer);
        let baseline = match (known, saved) {
            (Some(known), _) => Some(known),
            (None, Some(saved)) => {
                let Some(rejected) = expected::rejected_rows(&saved, &rows, sender) else {
                    return;
                };
                Some(Baseline {
                    saved: saved_text,
                    rejected: Arc::new(rejected),
                })
            }
            (None, None) => None,
        };
        let answers = expected::unchecked(&open, &rows);
        expected::check_rows(
            &scorer,
            (&rows, answers),
            baseline.as_ref(),
            is_saved,
            sender,
            |found, answers| {
                let (baseline, open) = (baseline.clone(), Arc::clone(&open));
                sender.send(move |schema: &mut Schema, shared| {
                    if shared
                        .task
                        .as_ref()
                        .is_none_or(|now| !Arc::ptr_eq(now, &open))
                    {
                        return Vec::new();
                    }
                    let is_done = found.is_done();
                    shared.draft.expected = Some(answers);
                    (schema.rejections, schema.baseline) = (Some(found), baseline);
                    is_done
                        .then_some(Command::Changed(Change::Expected))
                        .into_iter()
                        .collect()
                })
            },
        );
    }))
}

/// `None` if superseded.
fn effects(
    open: &OpenTask,
    scorer: &Scorer,
    saved: Option<&Scorer>,
    sender: &Sender,
) -> Option<ScorePreview> {
    let mut effects = ScorePreview {
        saved: saved.map(|_| [0; 3]),
        ..ScorePreview::default()
    };
    let samples = open.samples.as_deref().unwrap_or_default();
    let mut rows: HashMap<&str, &PromptRow> = HashMap::new();
    for row in open.rows.values().flatten().flatten() {
        rows.entry(&row.id).or_insert(row);
    }
    let row = |id: &Option<String>| rows.get(id.as_deref()?).copied();
    let texts: Vec<_> = samples
        .iter()
        .map(|sample| (sample.text.as_str(), row(&sample.prompt_id)))
        .collect();
    let score = |scorer: &Scorer| scorer.score_while(&texts, || sender.is_wanted());
    let scores = score(scorer)?;
    let before = match saved {
        Some(saved) => Some(score(saved)?),
        None => None,
    };
    for (place, (sample, score)) in samples.iter().zip(&scores).enumerate() {
        if score.is_error() {
            effects.errors += 1;
            continue;
        }
        effects.now[score.tier as usize] += 1;
        effects.tolerant += usize::from(score.tolerant && score.tier != Tier::Valid);
        if let Some(is_exact) = score.exact {
            effects.exact = (effects.exact.0 + usize::from(is_exact), effects.exact.1 + 1);
        }
        if let (Some(before), Some(counts)) = (
            before.as_ref().and_then(|before| before.get(place)),
            &mut effects.saved,
        ) {
            counts[before.tier as usize] += 1;
            if before.tier != score.tier {
                effects.moved.push((sample.line, before.tier, score.tier));
            }
        }
    }
    let rewards = |tier| {
        let of_tier = scores.iter().filter(move |score| score.tier == tier);
        of_tier
            .filter(|score| !score.is_error())
            .map(|score| score.reward)
    };
    let invalid = rewards(Tier::Invalid).reduce(f64::max);
    let valid = rewards(Tier::Valid).reduce(f64::min);
    effects.inversion = invalid
        .zip(valid)
        .filter(|(invalid, valid)| invalid > valid);
    effects.reward = mean(&scores);
    effects.saved_reward = before.as_deref().map(mean);
    Some(effects)
}

fn mean(scores: &[Score]) -> f64 {
    mean_reward(scores.iter().map(|score| score.reward))
}
