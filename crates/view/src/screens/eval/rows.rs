//! Filters and sorts the prompts in the background, so that large evals do not slow typing.

use std::sync::Arc;

use rayon::prelude::*;

use super::conversations;
use crate::format::unknown_last;
use crate::message::Sender;
use crate::report::{ComparedPrompt, FailureGroup, Metric, Outcome, Versus};
use crate::run::EvalRecord;
use crate::score::on_every_core;

/// The filter and order of the prompts.
#[derive(Debug)]
pub(super) struct Query {
    pub(super) versus: Arc<Versus>,
    /// Index of the compared pair.
    pub(super) pair: usize,
    pub(super) only: Option<(Metric, Outcome)>,
    pub(super) group: Option<(usize, FailureGroup)>,
    /// Lower-case.
    pub(super) words: Vec<String>,
    pub(super) sort: Sort,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sort {
    /// By reward difference, largest decrease first; for a single eval by reward.
    Worst,
    /// By reward difference, largest increase first.
    Best,
    /// The order of the prompt file.
    File,
}

impl Sort {
    pub(super) fn next(self) -> Self {
        match self {
            Self::Worst => Self::Best,
            Self::Best => Self::File,
            Self::File => Self::Worst,
        }
    }

    pub(super) fn name(self, is_alone: bool) -> &'static str {
        match self {
            Self::Worst if is_alone => "lowest reward first",
            Self::Best if is_alone => "highest reward first",
            Self::Worst => "largest regression first",
            Self::Best => "largest improvement first",
            Self::File => "file order",
        }
    }
}

impl Query {
    /// Indices of the prompts; some of them once nobody wants them any more, since a key has followed.
    pub(super) fn arranged(&self, sender: &Sender) -> Vec<usize> {
        let prompts = &self.versus.prompts;
        let all = (0..prompts.len()).into_par_iter().with_min_len(1_000);
        let fits = |index: &usize| sender.is_wanted() && self.fits(&prompts[*index]);
        let mut shown: Vec<usize> = on_every_core(|| all.filter(fits).collect());
        let change = |index: usize| match self.versus.pairs.get(self.pair) {
            Some(pair) => self.worth(index, pair.second) - self.worth(index, pair.first),
            None => self.worth(index, 0),
        };
        match self.sort {
            Sort::Worst => shown.sort_by(|a, b| unknown_last(change(*a), change(*b), false)),
            Sort::Best => shown.sort_by(|a, b| unknown_last(change(*a), change(*b), true)),
            Sort::File => {}
        }
        shown
    }

    /// The reward of an eval's answer; exactness breaks ties.
    fn worth(&self, index: usize, eval: usize) -> f64 {
        let record = self.versus.record(&self.versus.prompts[index], eval);
        record.map_or(0.0, |record| {
            record.reward + 0.01 * f64::from(u8::from(record.exact == Some(true)))
        })
    }

    fn fits(&self, prompt: &ComparedPrompt) -> bool {
        let is_only = |(metric, only)| self.outcome(metric, prompt) == Some(only);
        let is_in_group = |(eval, group): &(usize, FailureGroup)| {
            let record = prompt.records.get(*eval);
            record.is_some_and(|at| group.records.contains(at))
        };
        self.only.is_none_or(is_only)
            && self.group.as_ref().is_none_or(is_in_group)
            && self.words.iter().all(|word| self.has_word(prompt, word))
    }

    fn outcome(&self, metric: Metric, prompt: &ComparedPrompt) -> Option<Outcome> {
        match self.versus.pairs.get(self.pair) {
            Some(pair) => self.versus.outcome_on(metric, prompt, pair),
            None => self.versus.outcome_alone(prompt),
        }
    }

    /// Whether a word occurs in the prompt's id, tags, outcome, comment, answers, names of called
    /// functions, or the reason a conversation ended; `commented` matches every prompt with a
    /// comment.
    fn has_word(&self, prompt: &ComparedPrompt, word: &str) -> bool {
        let outcome = self
            .outcome(Metric::Valid, prompt)
            .map_or("", Outcome::name);
        let comment = self.versus.comment(&prompt.prompt_id).to_lowercase();
        let evals = 0..self.versus.evals.len();
        let mut records = evals.filter_map(|eval| self.versus.record(prompt, eval));
        let is_in_record = |record: &EvalRecord| {
            record.tags.iter().any(|tag| tag.to_lowercase() == word)
                || record.completion.to_lowercase().contains(word)
                || conversations::has_word(record, word)
        };
        prompt.prompt_id.to_lowercase().contains(word)
            || outcome == word
            || (!comment.is_empty() && (word == "commented" || comment.contains(word)))
            || records.any(is_in_record)
    }
}

/// The indices of the prompts that an eval fails, the lowest rewards first.
pub(super) fn failing(versus: &Versus, eval: usize) -> Vec<usize> {
    let reward = |index: &usize| {
        let record = versus.record(&versus.prompts[*index], eval)?;
        record.fails().then_some((record.reward, *index))
    };
    let mut failing: Vec<_> = (0..versus.prompts.len())
        .filter_map(|index| reward(&index))
        .collect();
    failing.sort_by(|a, b| unknown_last(a.0, b.0, false));
    failing.into_iter().map(|(_, index)| index).collect()
}
