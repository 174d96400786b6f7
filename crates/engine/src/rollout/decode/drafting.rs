//! How many tokens are drafted for a pass, and for which rows.

use super::DecodeBatch;

impl DecodeBatch<'_> {
    /// Drafts as many tokens as make the pass fastest: it takes as long as the weights are read and its rows are computed,
    /// and gives each row a token and each draft one with its probability.
    /// `others`: rows of the pass beside one for each completion.
    pub(super) fn draft(&mut self, others: usize) {
        let (rows, balanced) = (self.rows.len() + others, self.limits.balanced_rows);
        if self.capacity.draft_tokens == 0 || rows >= self.limits.drafted_rows {
            return;
        }
        // The least that a row of its own would have to give.
        let least = rows as f64 / (balanced + rows) as f64;
        for row in self
            .rows
            .iter_mut()
            .filter(|row| !row.has_uncomputed_before())
        {
            // The last token of a completion is sampled and not fed.
            let most = row.limit - row.completion.token_ids.len() - 1;
            let most = if row.needs_newest(&self.requests) {
                0
            } else {
                most
            };
            let most = most.min(
                row.thinking
                    .free_tokens(row.completion.token_ids.len())
                    .saturating_sub(1),
            );
            let most = most.min(self.requests[&row.request].sampling.draft_tokens);
            let ngrams = row
                .ngrams
                .as_ref()
                .unwrap_or(&self.prompts[&row.prompt].ngrams);
            let sources = (&self.memory.history, ngrams);
            row.draft = self
                .drafter
                .draft(sources, &row.completion.token_ids, most, least);
        }
        let mut gains: Vec<f64> = self
            .rows
            .iter()
            .flat_map(|row| &row.draft.probabilities)
            .copied()
            .collect();
        gains.sort_by(|a, b| b.total_cmp(a));
        gains.truncate(self.limits.drafted_rows.saturating_sub(rows));
        let rate = |tokens: f64, count: usize| {
            let padded = if count == 0 {
                self.limits.padded
            } else {
                self.limits.padded_drafted
            };
            tokens / (balanced + padded(rows + count)) as f64
        };
        let (mut tokens, mut best) = (rows as f64, (rate(rows as f64, 0), 0));
        for (index, gain) in gains.iter().enumerate() {
            tokens += gain;
            let with_it = rate(tokens, index + 1);
            if with_it > best.0 {
                best = (with_it, index + 1);
            }
        }
        let mut left = best.1;
        let least = left
            .checked_sub(1)
            .map_or(f64::INFINITY, |last| gains[last]);
        for row in self
            .rows
            .iter_mut()
            .filter(|row| !row.has_uncomputed_before())
        {
            let kept = row
                .draft
                .probabilities
                .iter()
                .take_while(|probability| **probability >= least)
                .count()
                .min(left);
            row.draft.truncate(kept);
            left -= kept;
        }
    }
}
