//! A scorer kind's verdict on a completion, from which the scorer makes a score.

pub(super) mod failure_class;
pub(super) mod field_compare;
pub(super) mod field_rules;
pub(super) mod leaf_counts;
pub(super) mod leaves;
pub(super) mod ordered_map;
pub(super) mod result;
pub(super) mod unwrap_answer;

pub use crate::facts::Tier;
pub use failure_class::{FailureClass, OwnClass};
pub use field_compare::standard_text;
pub use leaf_counts::{LeafCounts, Leaves};
pub(crate) use leaves::OTHER_PATHS;
pub use ordered_map::OrderedMap;
pub(crate) use result::null_is_nan;
pub use result::{
    CriterionGrade, GroundedValue, PromptPlace, QueryResult, Reason, Score, Trial, mean_reward,
};

use serde_json::Value;

use crate::dataset::{PromptRow, expected};
use crate::environment::{ChainEnd, ScoredChain};
use crate::score::answer::json::Places;
use unwrap_answer::{ThinkRules, Unreadable, Wrapping, open_think, unclosed_think};

#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) tier: Tier,
    /// Valid, or would be without a surrounding fence or prose.
    pub(crate) tolerant: bool,
    /// Equal to the row's `expected`.
    pub(crate) exact: Option<bool>,
    /// Equality by field of `expected`.
    pub(crate) fields: Option<OrderedMap<bool>>,
    /// Its leaves, where they earn credit one by one.
    pub(crate) leaves: Option<Leaves>,
    /// Always set unless the tier is valid.
    pub(crate) failure: Option<FailureClass>,
    pub(crate) errors: Vec<Reason>,
    pub(crate) warnings: Vec<String>,
    /// Share of validity that an invalid answer has, in [0, 1); `None` if not graded.
    pub(crate) credit: Option<f64>,
    /// Replaces the tier's value; in [0, 1].
    pub(crate) reward: Option<f64>,
    pub(crate) metrics: OrderedMap<f64>,
    pub(crate) criteria: Vec<CriterionGrade>,
}

impl Verdict {
    pub(crate) fn new(tier: Tier, failure: Option<FailureClass>) -> Self {
        Self {
            tier,
            tolerant: tier == Tier::Valid,
            exact: None,
            fields: None,
            leaves: None,
            failure,
            errors: Vec::new(),
            warnings: Vec::new(),
            credit: None,
            reward: None,
            metrics: OrderedMap::default(),
            criteria: Vec::new(),
        }
    }

    pub(crate) fn is_error(&self) -> bool {
        self.failure.is_some_and(FailureClass::is_unscored)
    }

    pub(crate) fn because(
        tier: Tier,
        failure: FailureClass,
        message: String,
        (completion, offset): (&str, usize),
    ) -> Self {
        let place = Places::new(completion).locate(offset);
        Self {
            errors: vec![Reason::at(message, place)],
            ..Self::new(tier, Some(failure))
        }
    }

    /// No verdict: the scorer failed, or row or task do not suit the kind.
    pub(crate) fn failed(why: String, place: (&str, usize)) -> Self {
        Self::because(Tier::Unparsable, FailureClass::ScorerError, why, place)
    }
}

/// A completion, its row, and its sampled token ids, empty if unknown.
pub type Sampled<'a> = (&'a str, Option<&'a PromptRow>, &'a [u32]);

/// A completion to judge, with its row. Its answer begins at byte `from`, after stripped reasoning.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Attempt<'a> {
    pub(crate) completion: &'a str,
    pub(crate) from: usize,
    pub(crate) thoughts: ThinkRules,
    pub(crate) row: Option<&'a PromptRow>,
    /// As sampled; empty if unknown.
    pub(crate) token_ids: &'a [u32],
}

impl<'a> Attempt<'a> {
    pub(crate) fn expected(&self) -> Option<&'a Value> {
        self.row.and_then(|row| row.expected.as_ref())
    }

    /// The completion from the answer's first byte on.
    pub(crate) fn answer(&self) -> &'a str {
        self.completion.get(self.from..).unwrap_or_default()
    }

    /// As [`Verdict::failed`], at the answer's first byte.
    pub(crate) fn failed(&self, why: impl Into<String>) -> Verdict {
        Verdict::failed(why.into(), (self.completion, self.from))
    }

    /// Verdict on an unparsable completion. `inside` searches for a valid answer within surrounding
    /// text; it gets the offset of an open think block, which hides what follows.
    pub(crate) fn unparsable(
        &self,
        why: Unreadable,
        inside: impl FnOnce(usize) -> Option<Wrapping>,
    ) -> Verdict {
        let think = unclosed_think(self.completion, self.from, why.offset, self.thoughts.marks);
        let open = think
            .filter(|_| self.thoughts.is_stripped)
            .unwrap_or(usize::MAX);
        let wrapping = if why.is_wrapped { inside(open) } else { None };
        let hidden = open != usize::MAX && wrapping.is_none();
        let (message, offset) = match think {
            Some(offset) if hidden => ("unclosed think block".to_owned(), offset),
            _ => (why.message, why.offset),
        };
        let class = match wrapping {
            _ if hidden || (think.is_some() && !self.thoughts.is_stripped) => {
                FailureClass::ThinkLeak
            }
            Some(Wrapping::Fence) => FailureClass::Fence,
            _ => why.class,
        };
        let verdict = Verdict::because(Tier::Unparsable, class, message, (self.completion, offset));
        Verdict {
            tolerant: wrapping.is_some(),
            ..verdict
        }
    }

    /// Judges the trimmed answer, which begins at an offset; unparsable if empty, or an open think block.
    pub(crate) fn judge_text(
        &self,
        expected: Option<&Value>,
        judge: impl FnOnce(usize, &str) -> Verdict,
    ) -> Verdict {
        if let Some(verdict) = self.think_leak(expected) {
            return verdict;
        }
        let offset = self.from + (self.answer().len() - self.answer().trim_start().len());
        match self.answer().trim() {
            "" => self.nothing(FailureClass::Other, "the answer is empty", offset, expected),
            answer => judge(offset, answer),
        }
    }

    /// Verdict on a completion whose reasoning does not end.
    pub(crate) fn think_leak(&self, expected: Option<&Value>) -> Option<Verdict> {
        let offset = open_think(self.completion, self.from, self.thoughts.marks)
            .filter(|_| self.thoughts.is_stripped)?;
        let class = FailureClass::ThinkLeak;
        Some(self.nothing(class, "unclosed think block", offset, expected))
    }

    /// Verdict if `expected` has malformed alternatives.
    pub(crate) fn unreadable_expected(&self) -> Option<Verdict> {
        let problem = self.expected().and_then(expected::problem)?;
        Some(self.failed(format!("the row's `expected`: {problem}")))
    }

    fn nothing(
        &self,
        class: FailureClass,
        message: &str,
        offset: usize,
        expected: Option<&Value>,
    ) -> Verdict {
        let place = (self.completion, offset.min(self.completion.len()));
        Verdict {
            exact: expected.map(|_| false),
            ..Verdict::because(Tier::Unparsable, class, message.to_owned(), place)
        }
    }
}

pub(crate) fn without_answer(completion: &str, row: Option<&PromptRow>) -> Option<Verdict> {
    let chain = ScoredChain::of_row(row?)?;
    let (class, message) = match chain.failure() {
        Some(failure) => {
            let class = if chain.has_end(ChainEnd::NotRecorded) {
                FailureClass::NotRecorded
            } else if chain.has_end(ChainEnd::AgentError) {
                FailureClass::AgentError
            } else {
                FailureClass::ScorerError
            };
            (class, failure.to_owned())
        }
        None => {
            let end = chain.missing_answer()?;
            let message = format!("the conversation ended without an answer: {end}");
            (FailureClass::NoAnswer, message)
        }
    };
    let has_expected = row.is_some_and(|row| row.expected.is_some());
    Some(Verdict {
        exact: (has_expected && !class.is_unscored()).then_some(false),
        ..Verdict::because(Tier::Unparsable, class, message, (completion, 0))
    })
}
