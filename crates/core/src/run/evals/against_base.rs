//! An eval of the trained model compared with the base's on the same set.

use serde::{Deserialize, Serialize};

use super::eval_record::EvalRecord;
use super::summary::Comparison;
use crate::statistics::Verdict;

#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct AgainstBase {
    pub valid: Comparison,
    /// `None` if no prompt of both has an expected answer.
    pub exact: Option<Comparison>,
}

impl AgainstBase {
    /// `None` if the evals share no prompt.
    pub fn between(base: &[EvalRecord], trained: &[EvalRecord]) -> Option<Self> {
        let valid = Comparison::between(base, trained);
        (valid.pairs() > 0).then(|| Self {
            valid,
            exact: Comparison::between_exact(base, trained),
        })
    }

    pub fn is_below(&self) -> bool {
        self.valid.verdict() == Verdict::Worse || self.loses_exact()
    }

    pub fn loses_exact(&self) -> bool {
        self.exact
            .is_some_and(|exact| exact.verdict() == Verdict::Worse)
    }
}
