//! Rates that an eval must reach: what it misses, as text and as Markdown.

use super::eval_results::EvalResult;
use crate::format::{percent, percent_interval};
use crate::page::markdown::{line, table};

#[derive(Clone, Debug)]
pub struct Threshold {
    /// `parse`, `valid`, `exact`, `tolerant` or `invented`.
    pub metric: String,
    bound: f64,
    /// Whether the rate may not be higher, instead of lower.
    is_highest: bool,
}

impl Threshold {
    /// Parses `valid=0.9`, a rate that may not be lower.
    ///
    /// # Errors
    /// What is wrong, and how to write it.
    pub fn lowest(text: &str) -> Result<Self, String> {
        Self::parse(text, &["parse", "valid", "exact", "tolerant"], false)
    }

    /// Parses `invented=0.05`, a rate that may not be higher.
    ///
    /// # Errors
    /// As [`Self::lowest`].
    pub fn highest(text: &str) -> Result<Self, String> {
        Self::parse(text, &["invented"], true)
    }

    fn parse(text: &str, names: &[&str], is_highest: bool) -> Result<Self, String> {
        let example = if is_highest {
            "invented=0.05"
        } else {
            "valid=0.9"
        };
        let (metric, bound) = text
            .split_once('=')
            .ok_or_else(|| format!("write it as RATE=X, for example {example}"))?;
        if !names.contains(&metric) {
            return Err(format!("unknown rate `{metric}`: use {}", names.join(", ")));
        }
        match bound.parse::<f64>() {
            Ok(bound) if (0.0..=1.0).contains(&bound) => Ok(Self {
                metric: metric.to_owned(),
                bound,
                is_highest,
            }),
            Ok(percent) if percent > 1.0 && percent <= 100.0 => Err(format!(
                "a rate is a number from 0 to 1; for {percent}% write {metric}={}",
                percent / 100.0
            )),
            _ => Err(format!("`{bound}` is not a number from 0 to 1")),
        }
    }

    /// How an eval misses it. A missing rate misses every threshold.
    pub fn missed(&self, eval: &EvalResult) -> Option<String> {
        let rate = eval.summary.metric(&self.metric);
        let (over, side) = match self.is_highest {
            true => (rate - self.bound, "above the"),
            false => (self.bound - rate, "below the"),
        };
        if rate.is_nan() && self.is_highest {
            return Some(format!(
                "{}: {} is unknown, since no row expects null; add rows that do",
                eval.name, self.metric
            ));
        }
        let option = if self.is_highest {
            "--fail-over"
        } else {
            "--fail-under"
        };
        (rate.is_nan() || over > 0.0).then(|| {
            format!(
                "{}: {}, is {:.1} points {side} {} of {option}",
                eval.name,
                self.measured(eval),
                100.0 * over,
                percent(self.bound)
            )
        })
    }

    /// `valid 62.0% [48.2, 74.1], n = 50`.
    fn measured(&self, eval: &EvalResult) -> String {
        let (metric, summary) = (&self.metric, &eval.summary);
        let rate = percent_interval(summary.metric(metric), summary.interval(metric));
        format!("{metric} {rate}, n = {}", summary.rows_of(metric))
    }

    /// `valid >= 0.9`.
    fn name(&self) -> String {
        let sign = if self.is_highest { "<=" } else { ">=" };
        format!("{} {sign} {}", self.metric, self.bound)
    }
}

/// For a pull request: one row per threshold. The caller masks secrets.
pub fn thresholds_markdown(thresholds: &[Threshold], eval: &EvalResult) -> String {
    let row = |threshold: &Threshold| {
        let outcome = if threshold.missed(eval).is_some() {
            "**missed**"
        } else {
            "met"
        };
        vec![
            threshold.name(),
            line(&threshold.measured(eval)),
            outcome.to_owned(),
        ]
    };
    let rows: Vec<_> = thresholds.iter().map(row).collect();
    let titles = [
        format!("threshold for {}", line(&eval.name)),
        "measured".to_owned(),
        "outcome".to_owned(),
    ];
    if rows.is_empty() {
        String::new()
    } else {
        table(&titles, &rows, "lll")
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::facts::Tier;
    use crate::run::{EvalRecord, EvalSummary};

    #[test]
    fn a_rate_may_have_a_highest_value() {
        let record = |index: usize| EvalRecord {
            prompt_id: format!("p{index}"),
            tier: Tier::Valid,
            score: json!({"leaves": {"credit": 1.0, "counts": {"a": {"blank": 1, "filled": u32::from(index < 10)}}}}),
            ..EvalRecord::default()
        };
        let result = |records: Vec<EvalRecord>| EvalResult {
            name: "x".to_owned(),
            summary: EvalSummary::from_records(&records),
            records,
            ..EvalResult::default()
        };
        let eval = result((0..100).map(record).collect());
        let missed = |text: &str| Threshold::highest(text).unwrap().missed(&eval);
        assert_eq!(missed("invented=0.1"), None);
        assert_eq!(
            missed("invented=0.05").as_deref(),
            Some(
                "x: invented 10.0% [5.5, 17.4], n = 100, is 5.0 points above the 5.0% of --fail-over"
            )
        );
        let none = result(vec![EvalRecord::default()]);
        let unknown = Threshold::highest("invented=1").unwrap().missed(&none);
        assert!(unknown.is_some_and(|text| text.contains("no row expects null")));
        assert_eq!(
            Threshold::highest("valid=1").unwrap_err(),
            "unknown rate `valid`: use invented"
        );
        assert!(Threshold::lowest("invented=1").is_err());
    }

    #[test]
    fn a_missed_threshold_is_named() {
        let record = |index: usize| EvalRecord {
            tier: if index < 40 {
                Tier::Valid
            } else {
                Tier::Invalid
            },
            ..EvalRecord::default()
        };
        let records: Vec<EvalRecord> = (0..100).map(record).collect();
        let eval = EvalResult {
            summary: EvalSummary::from_records(&records),
            records,
            ..EvalResult::default()
        };
        let thresholds = ["parse=1", "valid=0.9"].map(|text| Threshold::lowest(text).unwrap());
        let rows = thresholds_markdown(&thresholds, &eval);
        let expected = "| parse >= 1 | parse 100.0% \\[96.3, 100.0\\], n = 100 | met |\n| valid >= 0.9 | valid 40.0% \\[30.9, 49.8\\], n = 100 | **missed** |\n";
        assert!(rows.contains(expected), "{rows}");
    }
}
