//! The verdict of a kind of scorer on a completion; the scorer makes a score of it.

use super::json::Places;
use super::unwrap_answer::{ThinkRules, Unreadable, Wrapping, unclosed_think};
use super::{CriterionGrade, FailureClass, OrderedMap, Reason, Tier};

/// The answer of one judge.
#[derive(Debug, Clone)]
pub(crate) struct Verdict {
    pub(super) tier: Tier,
    /// Valid, or it would be without a fence or prose around it.
    pub(super) tolerant: bool,
    /// Equal to the row's `expected`; `None` without one.
    pub(super) exact: Option<bool>,
    /// By field of `expected`: equal or not.
    pub(super) fields: Option<OrderedMap<bool>>,
    /// Always there where the tier is not valid.
    pub(super) failure: Option<FailureClass>,
    pub(super) errors: Vec<Reason>,
    pub(super) warnings: Vec<String>,
    /// The share of what makes an answer valid that an invalid one has, in [0, 1); `None` where that is not counted.
    pub(super) credit: Option<f64>,
    /// In [0, 1], in place of the tier's value.
    pub(super) reward: Option<f64>,
    pub(super) metrics: OrderedMap<f64>,
    /// By a judge.
    pub(super) criteria: Vec<CriterionGrade>,
}

impl Verdict {
    pub(super) fn new(tier: Tier, failure: Option<FailureClass>) -> Self {
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
    pub(super) fn is_error(&self) -> bool {
        self.failure.is_some_and(FailureClass::is_unscored)
    }

    /// A verdict for one reason, at a byte of the completion.
    pub(super) fn because(
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
    pub(super) fn failed(why: String, place: (&str, usize)) -> Self {
        Self::because(Tier::Unparsable, FailureClass::ScorerError, why, place)
    }

    /// The verdict on a completion that cannot be read. `inside` looks for a valid answer within what is around it;
    /// what begins at or after the byte that it is given is hidden by an open think block.
    pub(super) fn unparsable(
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
