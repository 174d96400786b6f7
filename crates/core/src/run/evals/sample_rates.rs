//! Evals with several samples a prompt: pass@j, and the share of prompts of which all samples pass.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::eval_record::EvalRecord;
use crate::statistics::{Interval, mean_by_prompt, pass_at};

/// Rates over samples of *valid*, and of *exact* where rows have expected values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleSummary {
    pub valid: SampleRates,
    pub exact: Option<SampleRates>,
}

/// Success rates of one outcome over several samples, with 95% intervals over prompts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SampleRates {
    /// K, the most samples that a prompt has.
    pub samples: usize,
    /// For j = 1, 2, 4, ... and K.
    pub pass_at: Vec<PassAt>,
    /// The share of prompts of which all K samples pass.
    pub all: Interval,
}

/// pass@j: the probability that at least one of `j` samples passes, as a mean over prompts with so many samples.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct PassAt {
    pub j: usize,
    #[serde(flatten)]
    pub rate: Interval,
}

impl SampleSummary {
    /// `None` with one sample a prompt.
    pub(super) fn from_records(scored: &[&EvalRecord]) -> Option<Self> {
        let of = |holds| SampleRates::from_prompts(&counts(scored, holds));
        Some(Self {
            valid: of(|record| Some(record.is_valid()))?,
            exact: of(|record| record.exact),
        })
    }
}

impl SampleRates {
    fn from_prompts(prompts: &[(usize, usize)]) -> Option<Self> {
        let samples = prompts
            .iter()
            .map(|(_, all)| *all)
            .max()
            .filter(|samples| *samples > 1)?;
        let mean = |samples: usize, of: &dyn Fn(usize, usize) -> Option<f64>| {
            let values: Vec<f64> = prompts
                .iter()
                .filter_map(|(passed, all)| of(*passed, *all))
                .collect();
            mean_by_prompt(&values, samples)
        };
        let powers = std::iter::successors(Some(1), |j| Some(2 * j)).take_while(|j| *j < samples);
        let pass_at = powers
            .chain([samples])
            .map(|j| PassAt {
                j,
                rate: mean(samples, &|passed, all| pass_at(j, all, passed)),
            })
            .collect();
        let all = mean(1, &|passed, all| {
            (all == samples).then(|| f64::from(u8::from(passed == all)))
        });
        Some(Self {
            samples,
            pass_at,
            all,
        })
    }
}

/// Reads an outcome from a record; `None` if unknown.
pub(super) type Holds = fn(&EvalRecord) -> Option<bool>;

/// The records of each prompt for which it holds, and all of which it is known.
pub fn counts_by_prompt<'a>(
    records: impl IntoIterator<Item = &'a EvalRecord>,
    holds: Holds,
) -> BTreeMap<&'a str, (usize, usize)> {
    let mut prompts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for (record, holds) in records
        .into_iter()
        .filter_map(|record| Some((record, holds(record)?)))
    {
        let (found, of) = prompts.entry(&record.prompt_id).or_default();
        *found += usize::from(holds);
        *of += 1;
    }
    prompts
}

pub(super) fn counts(records: &[&EvalRecord], holds: Holds) -> Vec<(usize, usize)> {
    counts_by_prompt(records.iter().copied(), holds)
        .into_values()
        .collect()
}
