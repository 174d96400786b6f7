//! How many tokens to draft for a pass, and for which rows.

use super::{DecodeBatch, Row};

impl DecodeBatch<'_> {
    /// Drafts the number of tokens that maximises throughput: a pass takes the time of reading the
    /// weights plus that of its rows, and yields a token per row plus each draft's probability.
    /// `others`: rows besides one per completion.
    pub(super) fn draft(&mut self, others: usize) {
        let (rows, balanced) = (self.rows.len() + others, self.limits.balanced_rows);
        if self.capacity.draft_tokens == 0 || rows >= self.limits.drafted_rows {
            return;
        }
        // Minimum yield that justifies a row.
        let least = rows as f64 / (balanced + rows) as f64;
        let is_drafted = |row: &&mut Row| !row.has_uncomputed_before();
        for row in self.rows.iter_mut().filter(is_drafted) {
            let (tokens, sampling) = (&row.completion.token_ids, &row.asked.sampling);
            // A completion's last token is sampled but not fed.
            let is_undrafted = row.needs_newest() || row.asked.request.shaping.is_some();
            let left = match is_undrafted {
                true => 0,
                false => row.limit - tokens.len() - 1,
            };
            let free = row.thinking.free_tokens(tokens.len()).saturating_sub(1);
            let most = left.min(free).min(sampling.draft_tokens);
            let of_prompt = &self.prompts[&row.prompt].ngrams;
            let ngrams = row.ngrams.as_ref().unwrap_or(of_prompt);
            let sources = (&self.memory.history, ngrams);
            row.draft = self.drafter.draft(sources, tokens, most, least);
        }
        let gains = self.rows.iter().flat_map(|row| &row.draft.probabilities);
        let mut gains: Vec<f64> = gains.copied().collect();
        gains.sort_by(|a, b| b.total_cmp(a));
        gains.truncate(self.limits.drafted_rows.saturating_sub(rows));
        let rate = |tokens: f64, count: usize| {
            let padded = match count {
                0 => self.limits.padded,
                _ => self.limits.padded_drafted,
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
        let last = left.checked_sub(1);
        let least = last.map_or(f64::INFINITY, |last| gains[last]);
        for row in self.rows.iter_mut().filter(is_drafted) {
            let probabilities = row.draft.probabilities.iter();
            let kept = probabilities
                .take_while(|one| **one >= least)
                .count()
                .min(left);
            row.draft.truncate(kept);
            left -= kept;
        }
    }
}
