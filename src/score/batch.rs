//! Scoring many completions on all cores: in order, with memory for one batch.

use rayon::prelude::*;

use super::{Score, Scorer, on_every_core};
use crate::dataset::PromptRow;

/// Completions scored at once; enough to keep every core busy, few enough to hold.
const BATCH: usize = 4_096;
/// So many bytes of completions are a batch as well.
const BATCH_BYTES: usize = 256 << 20;

/// So few are scored by one thread before another one is woken: a score takes some ten microseconds.
const MOST_ALONE: usize = 8;

impl Scorer {
    /// Scores of a batch, in order.
    pub fn score_all(&self, completions: &[(&str, Option<&PromptRow>)]) -> Vec<Score> {
        self.score_while(completions, || true).unwrap_or_default()
    }

    /// As [`Self::score_all`], for as long as `wanted` says so; `None` once it does not.
    pub fn score_while(&self, completions: &[(&str, Option<&PromptRow>)], wanted: impl Fn() -> bool + Sync) -> Option<Vec<Score>> {
        let score = |(completion, row): &(&str, Option<&PromptRow>)| wanted().then(|| self.score(completion, *row));
        on_every_core(|| completions.par_iter().with_min_len(MOST_ALONE).map(score).collect())
    }
}

/// Scores a stream in order, a batch at a time: `text` finds an item's completion and row, `done` takes item and score.
pub fn score_stream<T, E>(
    scorer: &Scorer,
    items: impl Iterator<Item = Result<T, E>>,
    text: impl for<'t> Fn(&'t T) -> (&'t str, Option<&'t PromptRow>),
    mut done: impl FnMut(T, Score) -> Result<(), E>,
) -> Result<(), E> {
    let mut waiting = Vec::with_capacity(BATCH);
    let mut waiting_bytes = 0;
    let mut flush = |waiting: &mut Vec<T>| {
        let scores = scorer.score_all(&waiting.iter().map(&text).collect::<Vec<_>>());
        waiting.drain(..).zip(scores).try_for_each(|(item, score)| done(item, score))
    };
    for item in items {
        match item {
            Ok(item) => {
                waiting_bytes += text(&item).0.len();
                waiting.push(item);
            }
            Err(error) => {
                flush(&mut waiting)?;
                return Err(error);
            }
        }
        if waiting.len() == BATCH || waiting_bytes > BATCH_BYTES {
            flush(&mut waiting)?;
            waiting_bytes = 0;
        }
    }
    flush(&mut waiting)
}
