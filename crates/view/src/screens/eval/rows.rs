//! Filters and sorts the prompts in the background, so that large evals do not slow typing.

use std::sync::Arc;

use rayon::prelude::*;

use super::{Eval, Sort, conversations};
use crate::format::unknown_last;
use crate::message::{Command, Sender, Work};
use crate::report::{ComparedPrompt, FailureGroup, Metric, Outcome, Versus};
use crate::run::EvalRecord;
use crate::score::on_every_core;
use crate::widgets::list_cursor::Cursor;

/// The filter and order of the prompts.
#[derive(Debug)]
struct Query {
    versus: Arc<Versus>,
    /// Index of the compared pair.
    pair: usize,
    only: Option<(Metric, Outcome)>,
    group: Option<(usize, FailureGroup)>,
    /// Lower-case.
    words: Vec<String>,
    sort: Sort,
}

/// Filters and sorts again; the cursor stays on its prompt, or goes to the first one.
pub(super) fn arrange(eval: &mut Eval, keeps_prompt: bool) -> Vec<Command> {
    let Some(versus) = eval.versus().cloned() else {
        eval.shown.clear();
        return Vec::new();
    };
    let words = eval.filter.text().split_whitespace();
    let query = Query {
        versus: Arc::clone(&versus),
        pair: eval.pair,
        only: eval.only,
        group: eval.group.clone(),
        words: words.map(str::to_lowercase).collect(),
        sort: eval.sort,
    };
    vec![Work::latest(
        "eval.rows",
        move |sender| query.arranged(sender),
        move |eval: &mut Eval, _, shown: Vec<usize>| {
            if eval.versus().is_none_or(|now| !Arc::ptr_eq(now, &versus)) {
                return Vec::new();
            }
            let under = eval.cursor.at(eval.shown.len()).filter(|_| keeps_prompt);
            let under = under.and_then(|at| eval.shown.get(at)).copied();
            let place = under.and_then(|under| shown.iter().position(|index| *index == under));
            eval.shown = shown;
            eval.cursor.index = place.unwrap_or(0);
            if place.is_none() {
                eval.top = Cursor::default();
            }
            Vec::new()
        },
    )]
}

impl Query {
    /// Indices of the prompts; some of them once nobody wants them any more, since a key has followed.
    fn arranged(&self, sender: &Sender) -> Vec<usize> {
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
