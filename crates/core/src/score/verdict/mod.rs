//! A scorer kind's verdict on a completion, from which the scorer makes a score.

pub(super) mod failure_class;
pub(super) mod field_compare;
pub(super) mod result;
pub(super) mod unwrap_answer;

pub use crate::facts::Tier;
pub use failure_class::{FailureClass, OwnClass};
pub use field_compare::standard_text;
pub(crate) use result::null_is_nan;
pub use result::{
    CriterionGrade, GroundedValue, OrderedMap, PromptPlace, QueryResult, Reason, Score, Trial,
    mean_reward,
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

    /// Verdict on an unparsable completion. `inside` searches for a valid answer within surrounding
    /// text; it gets the offset of an open think block, which hides what follows.
    pub(crate) fn unparsable(
        completion: &str,
        from: usize,
        thoughts: ThinkRules,
        why: Unreadable,
        inside: impl FnOnce(usize) -> Option<Wrapping>,
    ) -> Self {
        let think = unclosed_think(completion, from, why.offset, thoughts.marks);
        let open = think.filter(|_| thoughts.is_stripped).unwrap_or(usize::MAX);
        let wrapping = if why.is_wrapped { inside(open) } else { None };
        let hidden = open != usize::MAX && wrapping.is_none();
        let (message, offset) = match think {
            Some(offset) if hidden => ("unclosed think block".to_owned(), offset),
            _ => (why.message, why.offset),
        };
        let class = match wrapping {
            _ if hidden || (think.is_some() && !thoughts.is_stripped) => FailureClass::ThinkLeak,
            Some(Wrapping::Fence) => FailureClass::Fence,
            _ => why.class,
        };
        let verdict = Self::because(Tier::Unparsable, class, message, (completion, offset));
        Self {
            tolerant: wrapping.is_some(),
            ..verdict
        }
    }
}

/// Judges the trimmed text from a byte offset on; unparsable if empty, or an open think block.
pub(crate) fn judge_text(
    completion: &str,
    from: usize,
    thoughts: ThinkRules,
    expected: Option<&Value>,
    judge: impl FnOnce(usize, &str) -> Verdict,
) -> Verdict {
    if let Some(verdict) = think_leak(completion, from, thoughts, expected) {
        return verdict;
    }
    let rest = completion.get(from..).unwrap_or_default();
    let offset = from + (rest.len() - rest.trim_start().len());
    match rest.trim() {
        "" => unparsable(
            FailureClass::Other,
            "the answer is empty",
            (completion, offset),
            expected,
        ),
        answer => judge(offset, answer),
    }
}

/// Verdict on a completion whose reasoning does not end.
pub(crate) fn think_leak(
    completion: &str,
    from: usize,
    thoughts: ThinkRules,
    expected: Option<&Value>,
) -> Option<Verdict> {
    let offset = open_think(completion, from, thoughts.marks).filter(|_| thoughts.is_stripped)?;
    Some(unparsable(
        FailureClass::ThinkLeak,
        "unclosed think block",
        (completion, offset),
        expected,
    ))
}

pub(crate) fn unreadable_expected(
    place: (&str, usize),
    expected: Option<&Value>,
) -> Option<Verdict> {
    let problem = expected.and_then(expected::problem)?;
    Some(Verdict::failed(
        format!("the row's `expected`: {problem}"),
        place,
    ))
}

fn unparsable(
    class: FailureClass,
    message: &str,
    (completion, offset): (&str, usize),
    expected: Option<&Value>,
) -> Verdict {
    let place = (completion, offset.min(completion.len()));
    Verdict {
        exact: expected.map(|_| false),
        ..Verdict::because(Tier::Unparsable, class, message.to_owned(), place)
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
