//! The verdict of a kind of scorer on a completion; the scorer makes a score of it.

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
use crate::environment::ScoredChain;
use crate::score::answer::json::Places;
use unwrap_answer::{ThinkRules, Unreadable, Wrapping, open_think, unclosed_think};

/// The answer of one judge.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(crate) tier: Tier,
    /// Valid, or it would be without a fence or prose around it.
    pub(crate) tolerant: bool,
    /// Equal to the row's `expected`; `None` without one.
    pub(crate) exact: Option<bool>,
    /// By field of `expected`: equal or not.
    pub(crate) fields: Option<OrderedMap<bool>>,
    /// Always there where the tier is not valid.
    pub(crate) failure: Option<FailureClass>,
    pub(crate) errors: Vec<Reason>,
    pub(crate) warnings: Vec<String>,
    /// The share of what makes an answer valid that an invalid one has, in [0, 1); `None` where that is not counted.
    pub(crate) credit: Option<f64>,
    /// In [0, 1], in place of the tier's value.
    pub(crate) reward: Option<f64>,
    pub(crate) metrics: OrderedMap<f64>,
    /// By a judge.
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

    /// Whether there is none, since the scorer failed.
    pub(crate) fn is_error(&self) -> bool {
        self.failure.is_some_and(FailureClass::is_unscored)
    }

    /// A verdict for one reason, at a byte of the completion.
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

    /// No verdict: the scorer failed at the completion, or the row or task is not as its kind needs it.
    pub(crate) fn failed(why: String, place: (&str, usize)) -> Self {
        Self::because(Tier::Unparsable, FailureClass::ScorerError, why, place)
    }

    /// The verdict on a completion that cannot be read. `inside` looks for a valid answer within what is around it;
    /// what begins at or after the byte that it is given is hidden by an open think block.
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

/// Judges what is between white space, from a byte offset on; unparsable where that is nothing, or an open think
/// block.
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

/// The verdict on a completion whose reasoning does not end, so that there is no answer.
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

/// The verdict where an `expected` with alternatives cannot be read.
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

/// The verdict on a conversation that has no answer to be judged.
pub(crate) fn without_answer(completion: &str, row: Option<&PromptRow>) -> Option<Verdict> {
    let chain = ScoredChain::of_row(row?)?;
    if let Some(failure) = chain.failure() {
        let class = if chain.is_not_recorded() {
            FailureClass::NotRecorded
        } else {
            FailureClass::ScorerError
        };
        return Some(Verdict::because(
            Tier::Unparsable,
            class,
            failure.to_owned(),
            (completion, 0),
        ));
    }
    let end = chain.missing_answer()?;
    let message = format!("the conversation ended without an answer: {end}");
    let exact = row
        .is_some_and(|row| row.expected.is_some())
        .then_some(false);
    Some(Verdict {
        exact,
        ..Verdict::because(
            Tier::Unparsable,
            FailureClass::NoAnswer,
            message,
            (completion, 0),
        )
    })
}
