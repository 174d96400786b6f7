//! Whether the confidences of an eval come true, and what a pipeline that trusts them would keep.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::eval_record::EvalRecord;
use crate::statistics::{
    Forecast, Interval, ReliabilityBin, at_temperature, brier, calibration_error,
    fitted_temperature, reliability, threshold, wilson_by_prompt,
};
use crate::task::SetName;

/// Share of the accepted documents that is to be exact.
pub const PRECISION: f64 = 0.99;

/// An eval's confidences.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ConfidenceSummary {
    /// Each value of the answers, right if `expected` has it.
    pub values: Calibration,
    /// Each answer by the least confidence of its values, right if it is exact.
    pub documents: Calibration,
    /// Each value by the agreement of the samples; `None` with one sample per prompt.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agreement: Option<Calibration>,
    /// Answers without a confidence, by reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown: BTreeMap<String, usize>,
    /// What is fitted on another set; `None`: only one set was evaluated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out: Option<HeldOut>,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Calibration {
    /// Forecasts whose outcome is known.
    pub n: usize,
    /// Expected calibration error with its 95% interval; `None` if `n` is 0.
    pub error: Option<Interval>,
    pub brier: Option<f64>,
    pub bins: Vec<ReliabilityBin>,
}

/// What was fitted on one set, measured on the eval's own.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldOut {
    /// The set that it was fitted on.
    pub set: SetName,
    /// Answers of that set.
    pub n: usize,
    /// `None` if no temperature could be fitted.
    pub values: Option<Scaled>,
    pub documents: Option<Scaled>,
    /// `None` if no threshold reaches [`PRECISION`] there.
    pub acceptance: Option<Acceptance>,
}

/// Calibration at the temperature that was fitted.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Scaled {
    pub temperature: f64,
    pub error: Option<Interval>,
    pub brier: Option<f64>,
}

/// What accepting answers at and above a confidence keeps.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Acceptance {
    pub threshold: f64,
    pub accepted: usize,
    /// Answers, with those of unknown confidence, which are not accepted.
    pub n: usize,
    pub coverage: Interval,
    /// Share of the accepted that is exact; `None` if none is accepted.
    pub precision: Option<Interval>,
}

/// The forecasts of a prompt's samples.
#[derive(Default)]
struct Document {
    values: Vec<Forecast>,
    /// Answers of known confidence.
    answers: Vec<Forecast>,
    agreement: Vec<Forecast>,
    /// Answers, with those of unknown confidence.
    n: usize,
}

impl ConfidenceSummary {
    /// `None` if no record has confidences.
    pub fn new(records: &[EvalRecord]) -> Option<Self> {
        if records.iter().all(|record| record.confidence.is_none()) {
            return None;
        }
        let documents = documents(records);
        let mut unknown = BTreeMap::new();
        let reasons = records
            .iter()
            .filter_map(|record| record.confidence.as_ref()?.unknown.clone());
        reasons.for_each(|reason| *unknown.entry(reason).or_default() += 1);
        let agreement = calibration(&documents, |document| &document.agreement);
        Some(Self {
            values: calibration(&documents, |document| &document.values),
            documents: calibration(&documents, |document| &document.answers),
            agreement: (agreement.n > 0).then_some(agreement),
            unknown,
            held_out: None,
        })
    }
}

fn documents(records: &[EvalRecord]) -> Vec<Document> {
    let mut by_prompt: BTreeMap<&str, Document> = BTreeMap::new();
    for record in records.iter().filter(|record| !record.is_error()) {
        let document = by_prompt.entry(&record.prompt_id).or_default();
        let Some(is_exact) = record.exact else {
            continue;
        };
        document.n += 1;
        let Some(confidence) = &record.confidence else {
            continue;
        };
        document
            .answers
            .extend(confidence.least().map(|least| Forecast {
                confidence: least,
                is_right: is_exact,
            }));
        for leaf in &confidence.leaves {
            let forecast = |confidence: f64| {
                Some(Forecast {
                    confidence,
                    is_right: leaf.right?,
                })
            };
            document.values.extend(leaf.confidence.and_then(forecast));
            document.agreement.extend(leaf.agreement.and_then(forecast));
        }
    }
    by_prompt.into_values().collect()
}

type Part = fn(&Document) -> &Vec<Forecast>;

fn calibration(documents: &[Document], part: Part) -> Calibration {
    calibration_of(
        &documents
            .iter()
            .map(|document| part(document).clone())
            .collect::<Vec<_>>(),
    )
}

fn calibration_of(by_document: &[Vec<Forecast>]) -> Calibration {
    let all = by_document.concat();
    Calibration {
        n: all.len(),
        error: calibration_error(by_document),
        brier: brier(&all),
        bins: reliability(&all),
    }
}

impl HeldOut {
    /// Of records of the same eval: what is fitted on those of `set`, measured on the others.
    pub fn new(set: SetName, fitted_on: &[EvalRecord], measured_on: &[EvalRecord]) -> Self {
        let (fitted_on, measured_on) = (documents(fitted_on), documents(measured_on));
        let all = |documents: &[Document], part: Part| -> Vec<Forecast> {
            documents.iter().flat_map(part).copied().collect()
        };
        let scaled = |part: Part| {
            let temperature = fitted_temperature(&all(&fitted_on, part))?;
            let scale = |one: &Forecast| Forecast {
                confidence: at_temperature(one.confidence, temperature),
                ..*one
            };
            let of_document = |document: &Document| part(document).iter().map(scale).collect();
            let scaled = calibration_of(&measured_on.iter().map(of_document).collect::<Vec<_>>());
            Some(Scaled {
                temperature,
                error: scaled.error,
                brier: scaled.brier,
            })
        };
        let answers: Part = |document| &document.answers;
        let threshold = threshold(&all(&fitted_on, answers), PRECISION);
        Self {
            set,
            n: fitted_on.iter().map(|document| document.n).sum(),
            values: scaled(|document| &document.values),
            documents: scaled(answers),
            acceptance: threshold.map(|threshold| Acceptance::at(threshold, &measured_on)),
        }
    }
}

impl Acceptance {
    fn at(threshold: f64, documents: &[Document]) -> Self {
        let accepted = |document: &Document| {
            let accepted = document
                .answers
                .iter()
                .filter(|one| one.confidence >= threshold);
            accepted.fold((0, 0), |(right, all), one| {
                (right + usize::from(one.is_right), all + 1)
            })
        };
        let precision: Vec<(usize, usize)> = documents.iter().map(accepted).collect();
        let coverage: Vec<(usize, usize)> = precision
            .iter()
            .zip(documents)
            .map(|((_, accepted), document)| (*accepted, document.n))
            .collect();
        let accepted = precision.iter().map(|(_, accepted)| accepted).sum();
        let precision: Vec<_> = precision.into_iter().filter(|(_, all)| *all > 0).collect();
        Self {
            threshold,
            accepted,
            n: documents.iter().map(|document| document.n).sum(),
            coverage: rate(&coverage),
            precision: (accepted > 0).then(|| rate(&precision)),
        }
    }
}

fn rate(counts: &[(usize, usize)]) -> Interval {
    let (low, high) = wilson_by_prompt(counts);
    let (found, all) = counts
        .iter()
        .fold((0, 0), |(found, all), (one, of)| (found + one, all + of));
    Interval {
        estimate: found as f64 / all.max(1) as f64,
        low,
        high,
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::confidence::{AnswerConfidence, LeafConfidence};

    fn record(id: usize, confidence: Option<f64>, exact: bool) -> EvalRecord {
        let leaf = |confidence: Option<f64>| LeafConfidence {
            path: "/a".to_owned(),
            confidence,
            right: Some(exact),
            ..LeafConfidence::default()
        };
        EvalRecord {
            prompt_id: format!("p{id:03}"),
            exact: Some(exact),
            confidence: Some(Box::new(AnswerConfidence {
                leaves: vec![leaf(Some(1.0)), leaf(confidence)],
                unknown: confidence.is_none().then(|| "truncated".to_owned()),
            })),
            ..EvalRecord::default()
        }
    }

    #[test]
    fn the_threshold_is_chosen_on_one_set_and_stated_on_the_other() {
        // On the eval set all answers from 0.8 on are exact.
        let eval: Vec<EvalRecord> = (0..10)
            .map(|id| record(id, Some(0.5 + id as f64 / 20.0), id >= 6))
            .collect();
        // On the test set one of those is wrong, and one answer has no confidence.
        let test: Vec<EvalRecord> = (0..9)
            .map(|id| record(id, Some(0.55 + id as f64 / 20.0), id >= 6))
            .chain([record(9, None, false)])
            .collect();
        let found = ConfidenceSummary::new(&test).unwrap();
        let held_out = HeldOut::new("eval".into(), &eval, &test);
        let kept = held_out.acceptance.unwrap();
        assert!((kept.threshold - 0.8).abs() < 1e-9 && held_out.n == 10);
        assert_eq!((kept.accepted, kept.n), (4, 10));
        assert!((kept.coverage.estimate - 0.4).abs() < 1e-9);
        let precision = kept.precision.unwrap();
        assert!((precision.estimate - 0.75).abs() < 1e-9);
        assert_eq!(found.unknown, BTreeMap::from([("truncated".to_owned(), 1)]));
        assert_eq!((found.documents.n, found.values.n), (9, 19));
        assert!(held_out.documents.unwrap().error.is_some());
    }

    #[test]
    fn one_set_holds_nothing_out_and_no_record_has_no_summary() {
        assert_eq!(ConfidenceSummary::new(&[EvalRecord::default()]), None);
        assert_eq!(ConfidenceSummary::new(&[]), None);
        let one = ConfidenceSummary::new(&[record(0, Some(0.9), true)]).unwrap();
        let error = one.documents.error.unwrap();
        assert!(one.held_out.is_none() && one.documents.n == 1);
        assert!(
            (error.estimate - 0.1).abs() < 1e-9 && error.high > 0.5,
            "{error:?}"
        );
        let unknown = ConfidenceSummary::new(&[record(0, None, true)]).unwrap();
        assert_eq!((unknown.documents.n, unknown.documents.error), (0, None));
        // Nothing reaches the precision, and nothing can be fitted.
        let wrong = [record(0, Some(0.9), false)];
        let held_out = HeldOut::new("eval".into(), &wrong, &wrong);
        assert!(held_out.acceptance.is_none() && held_out.documents.is_none());
    }
}
