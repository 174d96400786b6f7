//! An eval of the trained model compared with the base's on the same set. It is recorded with the eval; of runs of older
//! programs it is read from their files.

use std::path::Path;

use serde::{Deserialize, Serialize};

use super::eval_record::EvalRecord;
use super::evals::{Comparison, eval_path, read_evals};
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
        (valid.pairs() > 0).then(|| Self { valid, exact: Comparison::between_exact(base, trained) })
    }

    /// Compares the files of a run; `None` if one cannot be read.
    pub fn read(run: &Path, step: u64, set: &str, target: &str) -> Option<Self> {
        let read = |step, target| read_evals(&eval_path(run, step, set, target)).ok();
        Self::between(&read(0, "base")?, &read(step, target)?)
    }

    /// Whether valid or exact is significantly below the base's.
    pub fn is_below(&self) -> bool {
        self.valid.verdict() == Verdict::Worse || self.loses_exact()
    }

    /// Whether exact match is significantly below the base's.
    pub fn loses_exact(&self) -> bool {
        self.exact.is_some_and(|exact| exact.verdict() == Verdict::Worse)
    }
}
